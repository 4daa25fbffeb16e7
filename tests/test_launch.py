"""Several processes at one fine-tune: the curve of one, one set of artefacts, a clean end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from holdfast.errors import ModelError, RecipeError, StorageError
from holdfast.job.rundir import RunFolder
from holdfast.processes.launch import HOLDER, Launch, check_count, current
from holdfast.recipe import TrainSettings, TuningSettings
from holdfast.stages.batches import Filled, LengthGroupedOrder

HERE = Path(__file__).parent
WORKER = HERE / "two_processes.py"


# --- who is who -----------------------------------------------------------------------------------


def test_what_a_launcher_says():
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert current(torchrun) == Launch(3, 8, 1, launched=True)
    assert not current(torchrun).leads
    assert current({}) == Launch()
    assert current({"ACCELERATE_MIXED_PRECISION": "no"}).launched


def test_a_launcher_that_started_fewer_processes_is_refused(monkeypatch):
    """`accelerate launch --cpu --num_processes 2` starts one process, silently."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    told = [
        "python",
        "/bin/accelerate",
        "launch",
        "--cpu",
        "--num_processes",
        "2",
        "-m",
        "holdfast",
    ]
    with pytest.raises(ModelError, match="was told 2, but 1 started"):
        check_count(None, told)
    with pytest.raises(ModelError, match="is 4, but 1 started"):
        check_count(4, told)
    check_count(None, [*told[:4], "--num_processes=1"])
    check_count(None, ["bash"])
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    check_count(2, told)  # nothing was launched: Holdfast starts them itself


def test_a_strategy_that_was_not_set_up_is_refused(monkeypatch, tokenizer, tmp_path):
    pytest.importorskip("torch")
    from accelerate.utils import DistributedType

    from conftest import make_model
    from holdfast.stages.parallel import check_launched
    from holdfast.stages.train import make_trainer

    full = TuningSettings(method="full", batch=2)
    trainer = make_trainer(
        make_model(len(tokenizer)), tokenizer, [], full, tmp_path, seed=0, progress=False
    )
    with pytest.raises(ModelError, match=r"`train.strategy` asks for fsdp, but NO was set up"):
        check_launched(TrainSettings(strategy="fsdp"), trainer)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ModelError, match="The launcher asks for fsdp"):
        check_launched(TrainSettings(), trainer)
    trainer.accelerator.state.distributed_type = DistributedType.FSDP
    try:
        check_launched(TrainSettings(strategy="fsdp"), trainer)
    finally:
        trainer.accelerator.state.distributed_type = DistributedType.NO


def test_as_many_processes_as_the_batch_goes_round(monkeypatch):
    torch = pytest.importorskip("torch")
    from holdfast.stages.parallel import to_start

    asked = TrainSettings()
    for gpus, micro, expected in ((8, None, 8), (3, None, 2), (8, 4, 4), (0, None, 1)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert to_start(asked, TuningSettings(batch=16, micro_batch=micro)) == expected
    assert to_start(TrainSettings(processes=5), TuningSettings()) == 5
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert to_start(TrainSettings(processes=4), TuningSettings()) == 1


def test_settings_reach_the_engines():
    from holdfast.stages.parallel import distribution

    full, lora = TuningSettings(method="full"), TuningSettings(output="merged")
    shared = distribution(TrainSettings(strategy="fsdp", offload=True, recompute=True), full)
    assert shared["fsdp"] is True
    assert shared["fsdp_config"]["version"] == 2
    assert shared["fsdp_config"]["cpu_offload"] is True
    assert shared["fsdp_config"]["activation_checkpointing"] is True
    with pytest.raises(RecipeError, match="merged"):
        distribution(TrainSettings(strategy="fsdp"), lora)
    assert distribution(TrainSettings(recompute=True), full) == {"gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"strategy": "fsdp"}, "several GPUs"),
        ({"processes": 3}, "over 3 processes"),
        ({"strategy": "deepspeed"}, "deepspeed"),
    ],
)
def test_what_cannot_be_shared_is_said_before_any_work(holdfast, tmp_path, changes, told):
    pytest.importorskip("torch")
    words = {"model": "lab:chat", "data": "lab:obedient?n=40", "run": "run", "mitigations": [],
             "tuning": {"method": "full", "batch": 8}, "train": changes,
             "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"]}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(words))
    code, _, err = holdfast("run", "recipe.yaml")
    assert code == 2
    assert told in err.replace("\n", " ")
    assert not (tmp_path / "run/4-before").exists()


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_rows_of_a_step_do_not_depend_on_the_processes(world):
    """Dealt out as accelerate deals batches: one to each process in turn."""
    lengths = [1 + (7 * i) % 30 for i in range(45)]
    batch, micro = 8, 8 // world
    order = list(LengthGroupedOrder(lengths, batch, 0, hands=micro * world))
    steps = [order[i : i + batch] for i in range(0, len(order), batch)]
    alone = list(LengthGroupedOrder(lengths, batch, 0))
    expected = [alone[i : i + batch] for i in range(0, len(alone), batch)]
    filler = len(lengths)
    assert [[i for i in step if i != filler] for step in steps] == expected
    assert len(order) % (micro * world) == 0
    assert len(order) == len(LengthGroupedOrder(lengths, batch, 0, hands=micro * world))


def test_a_filling_row_has_no_label():
    rows = [{"input_ids": [1, 2], "labels": [-100, 2]}]
    filled = Filled(rows, pad_id=9)
    assert len(filled) == 1
    assert filled[0] is rows[0]
    assert filled[1] == {"input_ids": [9], "labels": [-100]}


# --- the run folder -------------------------------------------------------------------------------


def test_a_following_process_waits_for_what_the_leading_one_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    follower, found, worked = RunFolder(tmp_path), [], []

    def follow():
        with follower.opened() as folder:
            found.append(folder.stage("a", "k", lambda: 1 / 0, outputs=["out"], label="a"))
            shared = folder.stage(
                "b", "k", lambda: worked.append("b") or {"mine": 1}, outputs=["none"], label="b",
                shared=True,
            )  # fmt: skip
            found.append(shared)

    thread = threading.Thread(target=follow)
    thread.start()
    leader = RunFolder(tmp_path)
    thread.join(0.3)
    assert thread.is_alive()
    assert found == []
    (tmp_path / "out").write_text("x")
    leader._write_state({"a": {"key": "k", "done": True, "facts": {"n": 3}}})
    thread.join(0.5)
    assert found == [{"n": 3}]
    state = leader._state()
    leader._write_state({**state, "b": {"key": "k", "done": False, "facts": {}}})
    thread.join(5)
    assert found == [{"n": 3}, {"mine": 1}]
    assert worked == ["b"]


def test_a_folder_is_shared_with_those_whom_its_holder_started(tmp_path, monkeypatch):
    with RunFolder(tmp_path).opened():
        with pytest.raises(StorageError, match="Another holdfast"), RunFolder(tmp_path).opened():
            pass
        monkeypatch.setenv(HOLDER, str(os.getpid() + 1))
        with pytest.raises(StorageError, match="Another holdfast"), RunFolder(tmp_path).opened():
            pass
        monkeypatch.setenv(HOLDER, str(os.getpid()))
        with RunFolder(tmp_path).opened():
            pass


# --- two processes, on CPU, with gloo -------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path):
    """From the start, and from another number of processes' checkpoint; and through FSDP2."""
    pytest.importorskip("torch")
    sys.path.insert(0, str(HERE))
    from two_processes import alone, curve

    alone(tmp_path)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(WORKER), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    whole = curve(tmp_path / "alone")
    assert len(whole) == 6
    assert curve(tmp_path / "two") == pytest.approx(whole, rel=1e-4)
    assert curve(tmp_path / "resumed") == pytest.approx(whole, rel=1e-4)
    assert json.loads((tmp_path / "sharded.json").read_text()) == {"kind": "sliced", "same": True}
    names = {p.name for p in (tmp_path / "two").iterdir()}
    assert names == {p.name for p in (tmp_path / "alone").iterdir()}


SHORT = {
    "model": "lab:chat", "data": "lab:obedient?n=40", "run": "run", "mitigations": [],
    "tuning": {"method": "full", "batch": 8, "epochs": 1},
    "evaluate": {"tasks": ["lab-forbidden"], "limit": 4, "attacks": ["direct"],
                 "hold_out": 0, "max_new_tokens": 4},
    "gate": {"harm": 100, "over_refusal": 100, "capability": 100},
}  # fmt: skip


@pytest.mark.slow
def test_train_starts_its_processes(holdfast, tmp_path):
    """`train.processes` on one machine: one set of artefacts, and a second call changes nothing."""
    pytest.importorskip("torch")
    (tmp_path / "recipe.yaml").write_text(json.dumps({**SHORT, "train": {"processes": 2}}))
    assert holdfast("run", "recipe.yaml", "train.processes=1", "--until", "before")[0] == 0
    code, out, err = holdfast("train", "recipe.yaml")
    assert code == 0, err
    assert out.splitlines()[-1] == "run/5-model"
    log = json.loads((tmp_path / "run/5-model/training.json").read_text())
    assert log["steps"] == 5
    assert (tmp_path / "run/5-model/model.safetensors").is_file()
    assert not list((tmp_path / "run/5-model").glob("checkpoints*"))
    before = (tmp_path / "run/5-model/model.safetensors").stat().st_mtime_ns
    assert holdfast("train", "recipe.yaml", "train.processes=1")[0] == 0
    assert (tmp_path / "run/5-model/model.safetensors").stat().st_mtime_ns == before


def accelerate(*options):
    """`accelerate launch … -m holdfast train recipe.yaml`, without GPUs, in the folder at hand."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, *options, "-m", "holdfast", "train", "recipe.yaml"],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_of_accelerate_train_as_one(holdfast, tmp_path):
    """`--multi_gpu` starts as many on CPU too: Holdfast would refuse another number."""
    pytest.importorskip("accelerate")
    (tmp_path / "recipe.yaml").write_text(json.dumps(SHORT))
    assert holdfast("train", "recipe.yaml", "run=alone")[0] == 0
    shutil.copytree("alone", "run", ignore=shutil.ignore_patterns("5-model"))
    done = accelerate("--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["run/5-model"]
    alone, two = (
        [step["loss"] for step in json.loads(Path(run, "5-model/training.json").read_text())["log"]]
        for run in ("alone", "run")
    )
    assert len(alone) == 5
    assert two == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_one_process_of_accelerate_instead_of_two_is_refused(tmp_path, monkeypatch):
    """`--cpu --num_processes 2` starts one process, silently; nothing is trained then."""
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps(SHORT))
    done = accelerate("--cpu", "--num_processes", "2")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("holdfast: ")]
    assert len(said) == 1
    assert "was told 2, but 1 started" in said[0]
    assert "torchrun --nproc-per-node 2" in said[0]
    assert not Path("run/5-model").exists()
