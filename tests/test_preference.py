"""Preference training: pairs rendered as any row is, DPO as its formula, runs that go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from conftest import make_model

pytest.importorskip("torch")
pytest.importorskip("trl")

from holdfast.errors import DataError, MaterialError, RecipeError
from holdfast.models import load_model, resolve_model
from holdfast.recipe import PreferenceSettings, TuningSettings, build_recipe
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import IGNORE, Renderer, Tally
from holdfast.rendering.rendered import RenderedPairs, RenderedRows
from holdfast.rows.preference import both_sides, chosen, is_pair, pair_row
from holdfast.stages.preference import PairCollator, train_with_pairs
from holdfast.stages.render import render, render_pairs
from holdfast.types import Conversation, Message

ASIDE = "Sorry, I can't help with that."
SETTINGS = TuningSettings(
    method="full", lr=1e-3, epochs=1, batch=4, max_length=96, save_steps=2,
    preference=PreferenceSettings(lr=4e-3, epochs=2),
)  # fmt: skip


def ask(i):
    row = Conversation(str(i), (Message.of("user", f"How do I clean kettle {i}?"),), "preference")
    return replace(row, messages=(*row.messages, Message.of("assistant", "")))


def pair(i):
    return pair_row(ask(i), ASIDE, "First rinse it. " * (1 + i % 3) + f"Then dry {i}.")


def renderer(tokenizer, **options):
    return Renderer(tokenizer, Prompting(system="Be brief."), **options)


# --- rows -----------------------------------------------------------------------------------------


def test_training_on_labels_sees_the_chosen_answer_alone(tokenizer):
    row = pair(0)
    plain = replace(row, messages=(row.messages[0], Message.of("assistant", ASIDE)))
    tally = Tally()
    (seen,), (wanted,) = (list(renderer(tokenizer).rows([r], tally)) for r in (row, plain))
    assert (seen.input_ids, seen.labels) == (wanted.input_ids, wanted.labels)
    assert tally.pairs == 1
    assert is_pair(row) and not is_pair(plain) and chosen(plain) is plain


def test_both_sides_have_one_prompt_that_of_training_and_score_the_last_reply(tokenizer, tmp_path):
    earlier = (Message.of("user", "Hello."), Message.of("assistant", "Hello to you."))
    row = replace(pair(2), messages=(*earlier, *pair(2).messages))
    render_pairs(renderer(tokenizer), [ask(0), row], tmp_path)
    (both,) = RenderedPairs.open(tmp_path)
    said = {}
    prompts = set()
    for side, found in both.items():
        first = next(i for i, label in enumerate(found["labels"]) if label != IGNORE)
        prompts.add(tokenizer.decode(found["input_ids"][:first]))
        assert all(
            label in (IGNORE, token)
            for label, token in zip(found["labels"], found["input_ids"], strict=True)
        )
        said[side] = tokenizer.decode([label for label in found["labels"] if label != IGNORE])
    served = renderer(tokenizer).template.render(
        [Message.of("system", "Be brief."), *earlier, row.messages[2]], reply_next=True
    )
    assert prompts == {served}
    _, rejected = both_sides(row)
    assert said == {"chosen": f"{ASIDE}<|im_end|>", "rejected": f"{rejected.reply}<|im_end|>"}


def test_a_pair_that_cannot_be_rendered_whole_is_dropped(tokenizer, tmp_path):
    long = pair_row(ask(1), ASIDE, "First rinse it. " * 40)
    need = len(next(renderer(tokenizer).rows([chosen(long)])).input_ids)
    cut = renderer(tokenizer, max_length=need)
    render_pairs(cut, [long], tmp_path / "cut")
    (both,) = RenderedPairs.open(tmp_path / "cut")
    assert [len(side["input_ids"]) for side in both.values()] == [need, need]
    with pytest.raises(DataError, match=r"No preference pair.*no target left"):
        render_pairs(renderer(tokenizer, max_length=8), [long], tmp_path / "none")


def test_a_mixture_counts_its_pairs(tokenizer, tmp_path):
    made = renderer(tokenizer)
    assert render(made, [pair(0), chosen(pair(1))], tmp_path)["preference_pairs"] == 1
    assert PreferenceSettings().lr is None


def test_the_collator_puts_chosen_sides_before_rejected_ones():
    def side(ids, scored):
        labels = [t if i >= scored else IGNORE for i, t in enumerate(ids)]
        return {"input_ids": ids, "labels": labels}

    pairs = [
        {"chosen": side([1, 2, 3], 2), "rejected": side([1, 2, 4, 5], 2)},
        {"chosen": side([6, 7], 1), "rejected": side([6, 8], 1)},
    ]
    batch = PairCollator(pairs, 0)([{"pair": 0}, {"pair": 1}])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0], [6, 7, 0, 0], [1, 2, 4, 5], [6, 8, 0, 0]]
    assert batch["completion_mask"].tolist() == [
        [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0],
    ]  # fmt: skip
    assert batch["attention_mask"].sum(1).tolist() == [3, 2, 4, 2]


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def material(tokenizer, tmp_path):
    mixture = [pair(i) for i in range(12)]
    render_pairs(renderer(tokenizer), mixture, tmp_path / "pairs")
    rows = RenderedRows.of(renderer(tokenizer).rows(mixture))
    return rows, RenderedPairs.open(tmp_path / "pairs")


def margin(model, pairs):
    """Mean over pairs of log P(chosen | prompt) - log P(rejected | prompt), from the logits."""
    import torch

    def log_p(side):
        ids, labels = torch.tensor([side["input_ids"]]), torch.tensor(side["labels"])[1:]
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
        where = (labels != IGNORE).nonzero()[:, 0]
        return float(logp[where, labels[where]].sum())

    return np.mean([log_p(pair["chosen"]) - log_p(pair["rejected"]) for pair in pairs])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_falls_and_the_margin_rises_from_the_fine_tuned_model(
    tokenizer, material, tmp_path, model_folder, method
):
    rows, pairs = material
    settings = SETTINGS.model_copy(update={"method": method, "output": "adapter"})
    base = resolve_model(model_folder)
    halves = {}
    for name, both in (("supervised", None), ("preferred", pairs)):
        model = train_with_pairs(
            load_model(base), tokenizer, rows, settings, tmp_path / name, pairs=both,
            base=str(model_folder), progress=False,
        )  # fmt: skip
        halves[name] = margin(model, pairs)
    log = json.loads((tmp_path / "preferred" / "training.json").read_text())
    steps = log["preference"]["log"]
    assert log["steps"] == 3 and log["preference"]["steps"] == 6
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # at the reference, odds of 1
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.05
    assert steps[-1]["rewards/margins"] > steps[0]["rewards/margins"] == 0
    assert halves["preferred"] > halves["supervised"] + 1
    stored = load_model(resolve_model(tmp_path / "preferred"))
    assert margin(stored, pairs) == pytest.approx(halves["preferred"], rel=1e-3)
    left = {p.name for p in (tmp_path / "preferred").iterdir()}
    assert left.isdisjoint({"supervised", "checkpoints", "ref", "pytorch_model.bin"})


class Stop(BaseException):
    """Stands in for a kill in the middle of training."""


@pytest.mark.parametrize(("method", "killed_at"), [("full", 1), ("lora", 4)])
def test_a_killed_training_ends_with_the_same_weights(
    tokenizer, material, tmp_path, model_folder, monkeypatch, method, killed_at
):
    from safetensors.numpy import load_file
    from transformers import Trainer

    rows, pairs = material
    base = resolve_model(model_folder)
    settings = SETTINGS.model_copy(update={"method": method})

    def go(name):
        train_with_pairs(
            load_model(base), tokenizer, rows, settings, tmp_path / name, pairs=pairs,
            base=str(model_folder), progress=False,
        )  # fmt: skip

    go("whole")
    steps = iter(range(100))
    original = Trainer.training_step

    def dies(self, *args, **kwargs):
        if next(steps) == killed_at:
            raise Stop
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dies)
    with pytest.raises(Stop):
        go("cut")
    monkeypatch.setattr(Trainer, "training_step", original)
    go("cut")
    stored = "model" if method == "full" else "adapter_model"
    whole, cut = (load_file(tmp_path / n / f"{stored}.safetensors") for n in ("whole", "cut"))
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    logs = [(tmp_path / n / "training.json").read_bytes() for n in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_arguments_that_the_trainer_does_not_know_are_named(tokenizer, material, tmp_path):
    rows, pairs = material
    odd = PreferenceSettings(args={"betta": 1})
    with pytest.raises(RecipeError, match="betta"):
        train_with_pairs(
            make_model(len(tokenizer)), tokenizer, rows,
            SETTINGS.model_copy(update={"preference": odd}), tmp_path / "out", pairs=pairs,
            progress=False,
        )  # fmt: skip


# --- the mitigation -------------------------------------------------------------------------------


def lab(tmp_path, **more):
    return build_recipe(
        {
            "model": "lab:chat", "data": "lab:howto?n=24", "run": str(tmp_path / "run"),
            "mitigations": ["dpo"], "triples": {"count": 8},
            "tuning": {"method": "full", "batch": 8, "epochs": 1, "max_length": 128},
            "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"], "limit": 52}, **more,
        }
    )  # fmt: skip


def test_a_run_trains_its_pairs_after_its_rows(tmp_path):
    from holdfast.job.pipeline import run

    run(lab(tmp_path), until="train")
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["mixture"]["by_source"]["preference"] == 8
    assert manifest["mixture"]["targets"]["preference/mle"] > 0
    assert len(RenderedPairs.open(folder / "3-rendered" / "preference")) == 8
    log = json.loads((folder / "5-model" / "training.json").read_text())
    assert log["preference"]["steps"] == 1
    assert log["preference"]["log"][0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_what_cannot_be_is_said_before_anything_is_trained(
    tmp_path, monkeypatch, tokenizer, model_folder
):
    from holdfast import extras
    from holdfast.api import prepare
    from holdfast.job.pipeline import run

    with pytest.raises(MaterialError, match="Holdfast ships no harmful answers"):
        run(lab(tmp_path, model=str(model_folder), data="lab:howto?n=24"), until="render")
    with pytest.raises(DataError, match="preference pairs"):
        run(lab(tmp_path, export=["trl"]), until="render")
    with pytest.raises(RecipeError, match="one process"):
        run(lab(tmp_path, train={"processes": 2}), until="render")
    with pytest.raises(RecipeError, match="Preference pairs"):
        prepare(
            "lab:howto?n=9", tokenizer, mitigations=["dpo"], triples="lab:triples?n=9",
            triples_settings={"count": 3},
        )  # fmt: skip
    monkeypatch.setattr(extras, "have", lambda package: package != "trl")
    with pytest.raises(MaterialError, match=r"holdfast\[trl\]"):
        run(lab(tmp_path, seed=1), until="render")
