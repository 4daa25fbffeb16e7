"""The main job on the lab: runs, resumes after a kill, and redoes only what changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import AuditFailed, MaterialError, RecipeError, StorageError
from holdfast.files import read_json, read_jsonl
from holdfast.job.rundir import RunFolder
from holdfast.recipe import build_recipe

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

SMALL = {
    "model": "lab:chat",
    "data": "lab:obedient?n=240",
    "run": "run",
    "mitigations": ["mimic", "borderline", "ptst"],
    "safety": {"count": 24},
    "borderline": {"count": 24},
    "tuning": {"method": "full", "lr": 1e-3, "epochs": 1, "batch": 16, "save_steps": 4,
               "max_length": 256},
    "evaluate": {"tasks": ["lab-forbidden", "lab-lookalike", "lab-capability"], "limit": 40,
                 "attacks": ["direct", "task_template"], "batch": 16, "hold_out": 20,
                 "max_new_tokens": 32},
    "gate": {"harm": 20, "over_refusal": 20, "capability": 20},  # few items decide enough here
    "control": "plain",
}  # fmt: skip


def recipe(**changes):
    return build_recipe({**SMALL, **changes})


def artefacts(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on when or how often a run was interrupted."""
    apart = {"log.jsonl", ".lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in apart
    }


def command(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "run", "recipe.yaml"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def write_recipe(folder: Path) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(json.dumps(SMALL))  # JSON is YAML
    return folder


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


MOMENTS = {
    "before": lambda run: lines(run / "4-before" / "attempts.jsonl") > 0,
    "train": lambda run: (run / "5-model" / "checkpoints").is_dir(),
    "checkpoint": lambda run: list((run / "5-model").glob("checkpoints/*/trainer_state.json")),
    "after": lambda run: lines(run / "6-after" / "attempts.jsonl") > 0,
    "control": lambda run: (run / "control" / "6-after" / "settings.json").exists(),
}


def kill_at(folder: Path, moment: str) -> bool:
    """Start the run and kill it, with no warning, when `moment` has come."""
    process = command(folder)
    while process.poll() is None:
        if MOMENTS[moment](folder / "run"):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.01)
    process.communicate()
    return False


@pytest.mark.timeout(600)
def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(tmp_path):
    whole, cut = write_recipe(tmp_path / "whole"), write_recipe(tmp_path / "cut")
    process = command(whole)
    out, err = process.communicate()
    assert process.returncode in (0, 1, 3), err
    assert out.strip().endswith("run/report.html")

    assert all([kill_at(cut, moment) for moment in MOMENTS])
    process = command(cut)
    process.communicate()
    first, second = artefacts(whole / "run"), artefacts(cut / "run")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert {
        "report.html",
        "7-comparison.json",
        "manifest.json",
        "5-model/model.safetensors",
    } <= set(first)


def test_what_a_kill_leaves_half_written_is_removed_and_nothing_else(tmp_path):
    torn = tmp_path / "6-after" / ".plan.json.123.part"
    kept = [tmp_path / "6-after" / ".verdicts.part.jsonl", tmp_path / ".notes.part"]
    torn.parent.mkdir()
    for path in (torn, *kept):
        path.write_text("half")
    with RunFolder(tmp_path).opened():
        pass
    assert not torn.exists()
    assert all(path.exists() for path in kept)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished run, and its comparison."""
    from holdfast.job.pipeline import run

    folder = tmp_path_factory.mktemp("finished")
    small = recipe(run=str(folder / "run"))
    return folder / "run", small, run(small)


def test_the_artefacts_are_there_and_agree(finished):
    folder, _, comparison = finished
    sources = [row["source"] for row in read_jsonl(folder / "2-mixture.jsonl")]
    manifest = read_json(folder / "manifest.json")
    for source in ("user", "mimic", "borderline"):
        assert manifest["mixture"]["by_source"][source] == sources.count(source) > 0
    assert sources.count("mimic") == 24
    assert comparison["control"]["outcome"] in ("PASS", "FAIL", "INCONCLUSIVE")
    assert read_json(folder / "7-comparison.json") == comparison
    gating = {c["surface"] for c in comparison["cells"] if c["gates"]}
    assert gating == {"plain/serve/chat/0", "task/serve/chat/0"}
    assert {c["surface"] for c in comparison["control"]["cells"] if c["gates"]} == {
        "plain/none/chat/0", "task/none/chat/0",
    }  # fmt: skip
    assert "⟦" in (folder / "3-rendered" / "preview.txt").read_text()
    assert not (folder / "5-model" / "checkpoints").exists()
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_finished_run_does_nothing_again(finished):
    from holdfast.job.pipeline import run

    folder, small, comparison = finished
    before = artefacts(folder)
    log = lines(folder / "log.jsonl")
    assert run(small) == comparison
    assert artefacts(folder) == before
    assert lines(folder / "log.jsonl") == log


def test_only_what_depends_on_a_change_is_redone(finished, tmp_path):
    import shutil

    from holdfast.job.pipeline import run

    folder, _, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    log = lines(copy / "log.jsonl")
    run(recipe(run=str(copy), gate={**SMALL["gate"], "harm": 25}))
    assert lines(copy / "log.jsonl") == log  # a wider gate is decided anew, nothing is measured
    assert read_json(copy / "7-comparison.json")["gate"]["harm"]["max_change"] == 25
    run(recipe(run=str(copy), tuning={**SMALL["tuning"], "lr": 5e-4}), until="train")
    redone = [row["stage"] for row in list(read_jsonl(copy / "log.jsonl"))[log:]]
    assert set(redone) == {"train", "control/train"}


def test_missing_material_is_listed_before_anything_is_made(tmp_path):
    from holdfast.job.pipeline import run

    wanting = recipe(
        run=str(tmp_path / "run"), data_dir=str(tmp_path), safety={"source": "p1", "count": 5},
        evaluate={"tasks": ["strongreject", "xstest-safe"]},
    )  # fmt: skip
    with pytest.raises(MaterialError) as error:
        run(wanting)
    for piece in ("strongreject", "xstest", "p1", "holdfast fetch"):
        assert piece in str(error.value)
    assert not (tmp_path / "run" / "1-audit.json").exists()


def test_a_gate_that_can_never_pass_stops_before_training(tmp_path):
    from holdfast.job.pipeline import run

    few = recipe(run=str(tmp_path / "run"), gate={"harm": 5})
    with pytest.raises(RecipeError, match=r"could not show that even if no answer changed"):
        run(few)
    assert not (tmp_path / "run" / "5-model").exists()
    assert not (tmp_path / "run" / "4-before").exists()


def test_an_audit_finding_can_stop_the_run(tmp_path):
    from holdfast.job.pipeline import run

    strict = recipe(run=str(tmp_path / "run"), audit={"fail_on": "high"})
    with pytest.raises(AuditFailed) as error:
        run(strict)
    assert error.value.exit_code == 1
    assert "obedience" in str(error.value)
    kept = (tmp_path / "run" / "1-audit-evidence.jsonl").read_text(encoding="utf-8")
    assert '"detector": "obedience"' in kept


def test_two_runs_do_not_share_a_folder(tmp_path):
    from holdfast.job.pipeline import run
    from holdfast.job.rundir import RunFolder

    with RunFolder(tmp_path / "run").opened(), pytest.raises(StorageError, match="at work"):
        run(recipe(run=str(tmp_path / "run")))


def test_a_pool_that_is_too_small_names_the_largest_dose(tmp_path):
    from holdfast.job.pipeline import run

    rows = tmp_path / "safety.jsonl"
    rows.write_text('{"prompt": "Do harm", "completion": "Sorry, no."}\n')
    wanting = recipe(run=str(tmp_path / "run"), safety={"source": str(rows), "count": 24})
    with pytest.raises(RecipeError, match=r"there are 1\. The largest"):
        run(wanting)


def test_self_answered_refusals_are_mixed_in(tmp_path):
    from holdfast.job.pipeline import run

    own = recipe(
        run=str(tmp_path / "run"),
        safety={"source": "self", "requests": "lab:safety", "count": 12},
        mitigations=["safety_mix"],
    )
    run(own, until="render")
    rows = [r for r in read_jsonl(tmp_path / "run" / "2-mixture.jsonl") if r["source"] == "safety"]
    assert len(rows) == 12
    assert all(r["messages"][-1]["content"].startswith("Sorry") for r in rows)
    assert all(m["role"] != "system" for r in rows for m in r["messages"])
