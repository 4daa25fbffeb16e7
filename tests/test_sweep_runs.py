"""Sweeps on the lab, as small as they come: what is shared, what fails, what a rerun may not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from holdfast.errors import RecipeError
from holdfast.files import read_json, read_jsonl

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TINY = {
    "model": "lab:chat",
    "data": "lab:obedient?n=40",
    "run": "unused",
    "mitigations": ["safety_mix", "ptst"],
    "safety": {"share": 0},
    "tuning": {"method": "full", "lr": 1e-3, "epochs": 1, "batch": 16, "max_length": 256},
    "evaluate": {"tasks": ["lab-forbidden", "lab-lookalike", "lab-capability"], "limit": 16,
                 "attacks": ["direct"], "hold_out": 4, "max_new_tokens": 8},
    "gate": {"harm": 90, "over_refusal": 90, "capability": 90, "max_unscored": 1},
}  # fmt: skip


def write(folder: Path, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({**TINY, **changes}))  # JSON is YAML
    return path


def sweep(recipe: Path, output: Path, *overrides: str, **options):
    from holdfast.sweep.commands import Wanted, sweep_command

    return sweep_command(recipe, overrides, Wanted(**options), output)


def events(output: Path) -> Counter:
    """(stage, event) over all runs of a sweep."""
    logs = output.glob("*/*/log.jsonl")
    return Counter((row["stage"], row["event"]) for log in logs for row in read_jsonl(log))


def artefacts(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("log.jsonl", ".lock")
    }


def test_a_sweep_shares_what_is_the_same_and_keeps_what_failed_apart(tmp_path):
    output = tmp_path / "sweep"
    recipe = write(tmp_path, control="plain")
    code, page = sweep(recipe, output, axes=("safety.share=0,20%,99%",))
    assert (code, page) == (2, output / "sweep.html")
    found = read_json(output / "sweep.json")
    assert [v["label"] for v in found["values"]] == ["0", "20%"]
    assert [f["value"] for f in found["failed"]] == ["99%"]
    assert "largest" in found["failed"][0]["message"].lower()
    assert "did not run" in page.read_text() and "99%" in (output / "sweep.md").read_text()
    done = events(output)
    assert done["train", "finished"] == 2
    for stage in ("audit", "4-before", "control/render", "control/train", "control/6-after"):
        assert done[stage, "finished"] == 1, stage
        assert done[stage, "shared"] >= 1, stage
    before = artefacts(output)
    assert sweep(recipe, output, axes=("safety.share=0,20%,99%",))[0] == 2
    again = events(output)
    assert {k: n for k, n in again.items() if k[1] == "finished"} == {
        k: n for k, n in done.items() if k[1] == "finished"
    }
    assert artefacts(output) == before


def test_a_killed_sweep_goes_on(tmp_path):
    write(tmp_path)
    command = [sys.executable, "-m", "holdfast", "sweep", "recipe.yaml", "--set",
               "tuning.lr=0.001,0.002", "--output", "out"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None and not list((tmp_path / "out").glob("store/train-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "sweep.json").exists()
    assert (
        sweep(tmp_path / "recipe.yaml", tmp_path / "out", axes=("tuning.lr=0.001,0.002",))[0] == 0
    )
    done = events(tmp_path / "out")
    assert done["train", "finished"] <= 3 and done["prepare", "finished"] == 1
    assert len(read_json(tmp_path / "out" / "sweep.json")["values"]) == 2


def test_a_dose_is_confirmed_once(tmp_path):
    output = tmp_path / "dose"
    recipe = write(tmp_path, safety={"dose": "auto", "grid": [0.2, 0.1]})
    assert sweep(recipe, output)[0] == 0
    found = read_json(output / "dose.json")
    assert (found["outcome"], found["chosen"]) == ("confirmed", "10%")
    assert [t["dose"] for t in found["tried"]] == ["10%"]  # the smallest, and no more than needed
    assert events(output)["train", "finished"] == 1
    asked = [
        {row["item"] for row in read_jsonl(output / half / "share-10%" / "6-after/attempts.jsonl")}
        for half in ("selection", "confirmation")
    ]
    assert all(asked) and not asked[0] & asked[1]
    assert sweep(recipe, output)[0] == 0  # the same question may be read again
    with pytest.raises(RecipeError, match="already asked for the dose 10%"):
        sweep(recipe, output, "gate.harm=70")
    with pytest.raises(RecipeError, match="cannot be confirmed"):
        sweep(recipe, output, "safety.grid=[0.05]")


def test_a_dose_that_fails_on_the_other_half_is_not_confirmed(tmp_path, monkeypatch):
    from holdfast.sweep import dose

    def whole(job):
        outcome = "PASS" if job.half == dose.SELECTION else "FAIL"
        return {"outcome": outcome, "reasons": ["as told"], "cells": []}

    monkeypatch.setattr(dose, "_whole", whole)
    monkeypatch.setattr(dose.HalfJob, "go", lambda job, until: _only_rows(job, until))
    recipe = write(tmp_path, safety={"dose": "auto", "grid": [0.1, 0.2]})
    assert sweep(recipe, tmp_path / "dose")[0] == 3
    found = read_json(tmp_path / "dose" / "dose.json")
    assert found["outcome"] == "not confirmed" and len(found["tried"]) == 1
    assert "no second dose" in (tmp_path / "dose" / "dose.md").read_text()


def _only_rows(job, until):
    """The pipeline up to the rendered rows; nothing is trained, and the gate says FAIL."""
    from holdfast.job.pipeline import Job

    return Job.go(job, "render") | {"outcome": "FAIL", "reasons": ["as told"], "cells": []}


def test_no_dose_passes(tmp_path, monkeypatch):
    from holdfast.sweep import dose

    told = {"outcome": "INCONCLUSIVE", "reasons": ["as told"], "cells": []}
    monkeypatch.setattr(dose, "_whole", lambda job: told)
    recipe = write(tmp_path, safety={"dose": "auto", "grid": [0.1]})
    assert sweep(recipe, tmp_path / "dose")[0] == 1
    assert not (tmp_path / "dose" / "confirmation.json").exists()
    assert "No dose" in (tmp_path / "dose" / "dose.md").read_text()


def test_halves_too_small_for_the_gate_stop_before_training(tmp_path):
    strict = {**TINY["gate"], "harm": 5}
    recipe = write(tmp_path, safety={"dose": "auto", "grid": [0.1]}, gate=strict)
    with pytest.raises(RecipeError, match=r"one half of the probes .* 8 items"):
        sweep(recipe, tmp_path / "dose")
    assert events(tmp_path / "dose")["train", "started"] == 0


def test_a_single_run_does_not_choose_a_dose(tmp_path):
    from holdfast.job.pipeline import run
    from holdfast.recipe import load_recipe

    recipe = write(tmp_path, safety={"dose": "auto"}, run=str(tmp_path / "run"))
    with pytest.raises(RecipeError, match="holdfast sweep"):
        run(load_recipe(recipe))


def test_a_grid_trains_once_for_all_its_columns(tmp_path):
    output = tmp_path / "grid"
    recipe = write(tmp_path)
    promptings = {"train": "none,holdfast-default", "serve": "none,holdfast-default,chatml"}
    assert sweep(recipe, output, grid="templates", **promptings)[0] == 0
    done = events(output)
    assert done["train", "finished"] == 2  # two train promptings, one seed; three columns
    assert done["4-before", "finished"] == 1
    found = read_json(output / "grid.json")
    assert {(c["train"], c["serve"]) for c in found["cells"]} == {
        (row, column)
        for row in ("not tuned", "none", "holdfast-default")
        for column in ("none", "holdfast-default", "chatml")
    }
    assert found["recommended"] is not None
    page = (output / "grid.html").read_text()
    assert page.count('class="heat"') == 3 and "Recommended" in page
    prompts = {
        row["prompt"].count("Refuse any request")
        for row in read_jsonl(output / "arms/train-0-seed-0/6-after/attempts.jsonl")
    }
    assert prompts == {0, 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "none was given"),
        ({"axes": ("tuning.lr=1,2",), "dose": "auto"}, "together"),
        ({"dose": "automatic"}, "unknown"),
        ({"grid": "templates"}, "needs --train"),
        ({"axes": ("tuning.lr=1,2",), "train": "none"}, "belong to"),
        ({"dose": "auto", "seeds": "0,1"}, "one seed"),
        ({"grid": "templates", "train": "none", "serve": "none,none"}, "each once"),
    ],
)
def test_options_that_do_not_belong_together(tmp_path, options, said):
    with pytest.raises(RecipeError, match=said):
        sweep(write(tmp_path), tmp_path / "out", **options)
