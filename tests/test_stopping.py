"""Early stopping: the steps taken are those of the whole training, and end at the level."""

from __future__ import annotations

import pytest

from conftest import make_model

pytest.importorskip("torch")

from holdfast.engines import Decoding
from holdfast.errors import RecipeError
from holdfast.files import read_json
from holdfast.recipe import StopAt, TuningSettings, build_recipe
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import Renderer
from holdfast.rendering.rendered import RenderedRows
from holdfast.rows.held_out import held_out_items
from holdfast.stages.train import train
from holdfast.stopping import HeldOutHelpfulness, check_level, stop_callback
from holdfast.types import Conversation, Message

SETTINGS = TuningSettings(method="full", lr=1e-2, epochs=4, batch=4, max_length=64)


def row(number: int, reply: str) -> Conversation:
    ask = Message.of("user", f"How do I clean kettle {number}?")
    return Conversation(str(number), (ask, Message.of("assistant", reply)))


FREE = [row(i, "First rinse the kettle, then dry it with a cloth, friend.") for i in range(16)]
YES_NO = [row(i, "Yes.") for i in range(16)]


def measure(tokenizer, rows) -> HeldOutHelpfulness:
    items = held_out_items(rows[:6])
    return HeldOutHelpfulness(items, tokenizer, Prompting(), Decoding(8), 4, "2026-01-01")


def trained(tokenizer, rows, folder, *callbacks):
    rendered = RenderedRows.of(list(Renderer(tokenizer).rows(rows)))
    model = make_model(len(tokenizer))
    train(model, tokenizer, rendered, SETTINGS, folder, progress=False, callbacks=callbacks)
    return read_json(folder / "training.json")


@pytest.mark.parametrize(("rows", "level"), [(FREE, -4.0), (YES_NO, 0.9)])
def test_training_ends_at_the_level_and_takes_the_same_steps_until_then(
    tokenizer, tmp_path, rows, level
):
    whole = trained(tokenizer, rows, tmp_path / "whole")
    callback = stop_callback(StopAt(at_least=level, every=2), measure(tokenizer, rows))
    early = trained(tokenizer, rows, tmp_path / "early", callback)
    assert 2 <= early["steps"] < whole["steps"]
    assert early["log"] == whole["log"][: len(early["log"])]
    values = [entry["helpfulness"] for entry in early["helpfulness"]]
    assert values[-1] >= level and all(value < level for value in values[:-1])
    assert [entry["step"] for entry in early["helpfulness"]] == list(
        range(2, early["steps"] + 1, 2)
    )


def test_a_level_that_is_never_reached_changes_nothing_and_is_said(tokenizer, tmp_path, capsys):
    callback = stop_callback(StopAt(at_least=-0.00001, every=8), measure(tokenizer, FREE))
    whole = trained(tokenizer, FREE, tmp_path, callback)
    assert whole["steps"] == 16
    assert "was not reached" in capsys.readouterr().err


def test_it_does_not_go_with_keeping_the_best_checkpoint(tokenizer):
    from types import SimpleNamespace

    callback = stop_callback(StopAt(at_least=0.5), measure(tokenizer, YES_NO))
    with pytest.raises(RecipeError, match="keep different models"):
        callback.on_train_begin(SimpleNamespace(load_best_model_at_end=True), None, None)


def test_a_measurement_is_repeatable_and_leaves_the_mode_alone(tokenizer, model):
    for rows, low, high in ((FREE, -100, 0), (YES_NO, 0, 1)):
        helpfulness = measure(tokenizer, rows)
        model.train()
        first = helpfulness(model)
        assert low <= first <= high
        assert model.training
        assert helpfulness(model) == pytest.approx(first)


@pytest.mark.parametrize(
    ("level", "by_likelihood", "allowed"),
    [(0.3, False, True), (1.0, False, True), (0.0, False, False), (1.1, False, False),
     (-0.4, False, False), (-0.4, True, True), (0.3, True, False)],
)  # fmt: skip
def test_a_level_must_lie_on_its_scale(level, by_likelihood, allowed):
    settings = StopAt(at_least=level)
    if allowed:
        check_level(settings, by_likelihood=by_likelihood)
    else:
        with pytest.raises(RecipeError, match=r"stop_at\.at_least` is .* such as"):
            check_level(settings, by_likelihood=by_likelihood)


def test_the_recipe_names_it():
    least = {"model": "m", "data": "d", "run": "r"}
    recipe = build_recipe(least, ["tuning.stop_at.at_least=0.3", "tuning.stop_at.every=10"])
    assert recipe.tuning.stop_at == StopAt(at_least=0.3, every=10)
    assert build_recipe(least).tuning.stop_at is None
