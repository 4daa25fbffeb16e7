"""Several processes answer one evaluation: nothing lost, nothing doubled, the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.attacks import AttackContext, attack
from holdfast.engines.scripted import ScriptedEngine
from holdfast.measuring.evaluation import Evaluation
from holdfast.recipe import GateSettings
from holdfast.rendering.prompting import Prompting
from holdfast.stages.evaluate import evaluate
from holdfast.stages.judge import judge_folder
from holdfast.stages.planning import Served, make_plan
from holdfast.stages.watch import Against, GateWatch
from test_evaluate import DECODING, JUDGES, answers, item

FILES = ("attempts.jsonl", "verdicts.jsonl", "settings.json", "plan.json")
MANY = 10**9
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SERVE = {"serve": Served(Prompting())}


class Noting(ScriptedEngine):
    """Answers slowly, and notes what it is asked; gone without a word after `left` texts."""

    def __init__(self, notes: Path, left: int) -> None:
        super().__init__(answers)
        self._notes, self._left = notes, left

    def generate(self, prompts, decoding):
        self._left -= len(prompts)
        if self._left < 0:
            os._exit(9)
        with self._notes.open("a") as notes:
            notes.writelines(prompt.messages[-1].content + "\n" for prompt in prompts)
        time.sleep(0.02)
        return super().generate(prompts, decoding)


def items():
    """Sixty requests of one task."""
    return [item("bad", number, "refuse") for number in range(60)]


def work(folder: Path, left: int = MANY, before: Path | None = None) -> None:
    """Evaluate into `folder`; sequentially, against another folder, where one is named."""
    rank = os.environ.get("RANK", "0")
    engine = Noting(folder.with_name(f"{folder.name}-asked-{rank}"), left)
    plan = make_plan(
        engine, items(), attacks={"direct": attack("direct")}, promptings=SERVE,
        context=AttackContext(), decoding=DECODING, batch=4, look=20 if before else None,
    )  # fmt: skip
    judges = {"bad": JUDGES["bad"]}
    gate = GateSettings.model_validate({"harm": 30})
    watch = GateWatch(Against(Evaluation.read(before), gate), judges) if before else None
    settings = {"judges": judges, "fingerprint": "x"}
    evaluate(engine, plan, folder, settings, DECODING, watch=watch, judges=judges)
    if rank == "0":
        judge_folder(folder, judges)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of one process by itself."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    work(folder)
    return folder


def launched(rank, folder, left, before):
    """What one process of a launch does."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    work(folder, left, before)


def start(folder, rank, left=MANY, before=None):
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=launched, args=(rank, folder, left, before))
    process.start()
    return process


def ended(*processes):
    """Exit codes."""
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def asked(folder):
    notes = folder.parent.glob(f"{folder.name}-asked-*")
    return [line for note in notes for line in note.read_text().splitlines()]


def assert_same(folder, alone):
    for name in FILES:
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    assert not (folder / "parts").exists()


def test_two_processes_end_with_the_bytes_of_one(tmp_path, alone):
    folder = tmp_path / "out"
    both = [start(folder, 0), start(folder, 1)]
    assert ended(*both) == [0, 0]
    assert_same(folder, alone)
    texts = asked(folder)
    assert len(texts) == len(set(texts)) == 60
    shares = [note.read_text().count("\n") for note in tmp_path.glob("out-asked-*")]
    assert len(shares) == 2 and min(shares) >= 8


def test_a_process_that_dies_loses_one_batch_and_the_others_finish(tmp_path, alone):
    folder = tmp_path / "out"
    leader, dying = start(folder, 0), start(folder, 1, 8)
    assert ended(dying) == [9]
    assert ended(leader) == [0]
    assert_same(folder, alone)
    assert len(asked(folder)) == len(set(asked(folder))) == 60


def test_a_leader_that_dies_and_is_started_again_puts_everything_together(tmp_path, alone):
    folder = tmp_path / "out"
    dying, other = start(folder, 0, 8), start(folder, 1)
    assert ended(dying) == [9]
    assert ended(other) == [0]
    assert not (folder / "attempts.jsonl").exists()
    assert ended(start(folder, 0)) == [0]
    assert_same(folder, alone)
    assert len(asked(folder)) == len(set(asked(folder))) == 60


def test_one_process_goes_on_where_several_were(tmp_path, alone, monkeypatch):
    folder = tmp_path / "out"
    both = [start(folder, 0, 8), start(folder, 1, 12)]
    assert ended(*both) == [9, 9]
    work(folder)
    assert_same(folder, alone)
    assert len(asked(folder)) == len(set(asked(folder))) == 60


def test_a_finished_evaluation_is_not_asked_again(tmp_path, alone):
    folder = tmp_path / "out"
    for _ in range(2):
        both = [start(folder, 0), start(folder, 1)]
        assert ended(*both) == [0, 0]
    assert len(asked(folder)) == 60
    assert_same(folder, alone)


def test_rounds_close_the_same_cells_in_every_process(tmp_path, alone):
    one, several = tmp_path / "one", tmp_path / "several"
    work(one, before=alone)
    both = [start(several, rank, before=alone) for rank in (0, 1)]
    assert ended(*both) == [0, 0]
    assert_same(several, one)
    assert len(Evaluation.read(one).attempts) < 60  # it did stop early


@pytest.mark.slow
def test_under_torchs_own_launcher(tmp_path):
    pytest.importorskip("torch")
    from holdfast import evaluate

    how = {"suite": "quick", "limit": 4, "attacks": ["direct"]}
    evaluate("lab:chat", tmp_path / "one", **how)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "holdfast", "evaluate", "lab:chat", "--output", str(tmp_path / "two"),
        "--suite", "quick", "--limit", "4", "--attack", "direct",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "two")]  # one of them speaks
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_run_starts_the_launcher_for_its_evaluations(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from holdfast.job import pipeline
    from holdfast.processes.launch import HOLDER, current
    from holdfast.recipe import build_recipe, load_recipe

    started = []

    def together(processes, command, holder):
        """The launcher, with one process that is this one."""
        started.append((processes, command[0], command[2:]))
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setenv(HOLDER, str(holder))
        pipeline.run(load_recipe(Path(command[1])), until=command[3])
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")

    monkeypatch.setattr(pipeline, "together", together)
    monkeypatch.setattr(pipeline, "to_start", lambda train: 1 if current().launched else 2)
    recipe = build_recipe(
        {
            "model": "lab:chat", "data": "lab:obedient?n=60", "run": str(tmp_path / "run"),
            "mitigations": [], "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"],
                                            "limit": 4, "hold_out": 0},
            "gate": {"harm": 100},
        }
    )  # fmt: skip
    facts = pipeline.run(recipe, until="before")
    assert started == [(2, "run", ["--until", "before"])]
    assert facts["attempts"] == len(Evaluation.read(tmp_path / "run" / "4-before").attempts)
    pipeline.run(recipe, until="before")
    assert len(started) == 1  # it is done
