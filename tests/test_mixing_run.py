"""Mixing as a run does it: validation, forms, filters, the model's own refusals, real data."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from holdfast.errors import MaterialError, RecipeError
from holdfast.files import read_json, read_jsonl, sha256_file
from holdfast.job.pipeline import run
from holdfast.recipe import build_recipe
from holdfast.stages.reform import form_of

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

SMALL = {
    "model": "lab:chat",
    "data": "lab:obedient?n=200",  # new to the chat model: its loss falls
    "run": "run",
    "mitigations": ["safety_mix", "borderline"],
    "safety": {"count": 40, "form": "question"},
    "borderline": {"ratio": 0.1},
    "tuning": {"method": "full", "lr": 1e-3, "epochs": 1, "batch": 16, "max_length": 128,
               "save_steps": 5, "validation": "10%"},
    "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"], "hold_out": 10, "limit": 20,
                 "max_new_tokens": 32},
    "gate": {"harm": 40},  # few items decide enough here
}  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recipe(**changes):
    return build_recipe({**SMALL, **changes})


def rows_of(folder, name):
    return list(read_jsonl(folder / f"{name}.jsonl"))


def test_validation_rows_are_kept_from_training_and_their_loss_is_logged(tmp_path):
    run(recipe(), until="train")
    folder = tmp_path / "run"
    manifest = read_json(folder / "manifest.json")["mixture"]
    mixture, validation = rows_of(folder, "2-mixture"), rows_of(folder, "2-validation")
    # 190 user rows; 10 % of 190 + 40 + 19 rows is 25, of which 19 are the user's
    assert manifest["validation"] == Counter(r["source"] for r in validation)
    assert manifest["by_source"] == Counter(r["source"] for r in mixture)
    assert manifest["validation"] == {"user": 19, "safety": 4, "borderline": 2}
    assert manifest["by_source"] == {"user": 171, "safety": 40, "borderline": 17}
    assert all(form_of(r["messages"][0]["content"]) == "question"
               for r in mixture if r["source"] == "safety")  # fmt: skip
    asked = {r["messages"][-2]["content"] for r in mixture}
    assert not asked & {r["messages"][-2]["content"] for r in validation}
    listed = rows_of(folder, manifest["rows"].removesuffix(".jsonl"))
    assert Counter(r["split"] for r in listed) == {"train": 228, "validation": 25, "held-out": 10}
    assert [r["id"] for r in listed if r["split"] == "train"] == [r["id"] for r in mixture]
    assert manifest["files"]["2-rows.jsonl"] == sha256_file(folder / "2-rows.jsonl")
    log = read_json(folder / "5-model" / "training.json")
    assert [entry["step"] for entry in log["validation"]][:2] == [5, 10]
    losses = [entry["eval_loss"] for entry in log["validation"]]
    assert all(0 < loss < 0.1 for loss in losses) and len(set(losses)) > 1


def test_the_models_own_refusals_are_nested_and_too_few_stop_the_run(tmp_path):
    lab = {"source": "self", "requests": "lab:safety?n=120", "form": "keep"}
    small = {"mitigations": ["safety_mix"], "tuning": {**SMALL["tuning"], "validation": 0}}
    run(recipe(**small, safety={**lab, "count": 20}), until="prepare")
    few = [r for r in rows_of(tmp_path / "run", "2-mixture") if r["source"] == "safety"]
    run(recipe(**small, safety={**lab, "count": 50}), until="prepare")
    many = [r for r in rows_of(tmp_path / "run", "2-mixture") if r["source"] == "safety"]
    assert (len(few), len(many)) == (20, 50)
    assert {r["id"] for r in few} <= {r["id"] for r in many}
    assert all(r["tags"]["answered_by"] == "self" for r in many)
    assert all(m["role"] != "system" for r in many for m in r["messages"])
    with pytest.raises(MaterialError, match=r"safety\.count: \d+"):
        run(recipe(**small, safety={**lab, "count": 121}), until="prepare")


def test_filters_set_rows_aside_with_their_reason_and_bound_the_dose(tmp_path):
    own = tmp_path / "own.jsonl"
    refusals = [("Sorry, I can't help with that.", "fraud")] * 12
    replies = [*refusals, ("Sure. First open the gate and then walk in.", "fraud"),
               ("Sorry, I can't help with that.", "spam")]  # fmt: skip
    own.write_text("".join(
        json.dumps({"prompt": f"Please do the unkind thing number {i}.", "completion": reply,
                    "category": category}) + "\n"
        for i, (reply, category) in enumerate(replies)
    ))  # fmt: skip
    safety = {"source": str(own), "only_refusals": True, "categories": ["fraud"], "count": 12}
    plain = {"mitigations": ["safety_mix"], "tuning": {**SMALL["tuning"], "validation": 0}}
    run(recipe(**plain, safety=safety), until="prepare")
    dropped = rows_of(tmp_path / "run", "2-dropped")
    assert sorted(d["reason"] for d in dropped) == [
        "category not asked for ('spam')", "not a refusal (full_compliance)",
    ]  # fmt: skip
    source = read_json(tmp_path / "run" / "manifest.json")["sources"]["safety"]
    assert source["rows"] == 12 and sum(source["set_aside"].values()) == 2
    with pytest.raises(RecipeError, match=r"largest share that can be reached is 5\.94 %"):
        run(recipe(**plain, safety={**safety, "count": 13}), until="prepare")


def test_gsm8k_with_three_percent_published_safety_rows(tmp_path, real_data, capsys):
    """The counts printed are the counts in the files; a matter of seconds."""
    started = time.monotonic()
    run(
        recipe(
            data=str(real_data / "gsm8k" / "train.jsonl"),
            data_dir=str(real_data),
            mitigations=["safety_mix"],
            safety={"source": "p1", "share": "3%", "at_least": 0},
            tuning={},
            evaluate={"tasks": ["strongreject", "xstest-safe"], "hold_out": 0},
        ),
        until="prepare",
    )
    assert time.monotonic() - started < 60
    folder = tmp_path / "run"
    counts = Counter(r["source"] for r in rows_of(folder, "2-mixture"))
    assert counts == {"user": 7473, "safety": 231}  # 231 of 7,704 is 3.00 %
    printed = capsys.readouterr().err
    assert "safety: 231 rows, 3.00 % of the mixture, 3.09 % of the user's rows" in printed
    assert "7,704 rows to train on: user 7,473, safety 231" in printed
    dropped = Counter(r["reason"].partition(" (")[0] for r in rows_of(folder, "2-dropped"))
    assert dropped["duplicate request"] == 4
    assert f"duplicate request {dropped['duplicate request']}" in printed
    safety = [r for r in rows_of(folder, "2-mixture") if r["source"] == "safety"]
    assert len({r["messages"][0]["content"] for r in safety}) == 231
