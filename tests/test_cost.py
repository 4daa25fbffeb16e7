"""The estimate is arithmetic on sizes that are read, not guessed."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from holdfast.job.cost import count_parameters, estimate, matrix_rate
from holdfast.models import ModelRef, load_model, resolve_model


def test_parameters_are_those_of_the_model(model_folder):
    ref = resolve_model(model_folder)
    model = load_model(ref)
    assert count_parameters(ref) == sum(p.numel() for p in model.parameters())
    assert count_parameters(ModelRef("owner/name", None)) is None


def test_the_estimate_grows_with_the_work(model_folder):
    ref = resolve_model(model_folder)

    def hours(method, tokens, answers):
        cost = estimate(
            ref, method, train_tokens=tokens, answers=answers, max_new_tokens=100, flops=1e9
        )
        assert cost is not None
        return cost.hours

    assert hours("full", 1000, 0) == pytest.approx(1.5 * hours("lora", 1000, 0))
    assert hours("lora", 2000, 10) == pytest.approx(2 * hours("lora", 1000, 5))
    parameters = count_parameters(ref)
    expected = 2 * parameters * 10 * 100 / (1e9 * 0.35) / 3600
    assert hours("lora", 0, 10) == pytest.approx(expected)


def test_the_matrix_rate_is_a_rate():
    assert 1e8 < matrix_rate(seconds=0.02) < 1e16
