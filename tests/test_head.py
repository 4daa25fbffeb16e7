"""Losses and gradients at labelled positions alone are those of the model's own loss."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from conftest import make_model
from holdfast.recipe import TuningSettings
from holdfast.rendering.render import IGNORE
from holdfast.stages import head
from holdfast.stages.batches import Collator
from holdfast.stages.head import labelled_positions_only
from holdfast.stages.train import add_adapter

SHAPE = {
    "vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaConfig, "sliced"),
    "qwen3": (Qwen3Config, "sliced"),
    "mistral": (MistralConfig, "sliced"),
    "gemma": (GemmaConfig, "sliced"),
    "gemma2": (Gemma2Config, "selected"),  # caps its logits
    "cohere": (CohereConfig, "selected"),  # scales its logits
    "experts": (Qwen3MoeConfig, "sliced"),
}


def build(family, seed=0):
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(FAMILIES[family][0](**SHAPE))
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.3)  # large logits, so that a cap or a scale would show
    return made.train()


def rows():
    """Three lengths; a row whose every reply position aims at one token, as transitions do."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for length, start in ((20, 9), (13, 1), (7, 4)):
        ids = torch.randint(3, 97, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [IGNORE] * start + ids[start:]})
    made[1]["labels"] = [IGNORE] * 5 + [42] * 8
    return made


def losses_and_gradients(model, batch, **more):
    model.zero_grad()
    loss = model(**batch, **more).loss
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_same(model, kind, **more):
    plain_batch, batch = Collator(0, mask=True)(rows()), Collator(0)(rows())
    loss, gradients = losses_and_gradients(model, plain_batch, **more)
    with labelled_positions_only(model) as found:
        ours, our_gradients = losses_and_gradients(model, batch, **more)
    assert found == kind
    assert ours == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-3, atol=1e-5)
    assert losses_and_gradients(model, batch, **more)[0] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights(family, monkeypatch):
    monkeypatch.setitem(head.SLICE, "cpu", 97 * 5)  # five positions at a time
    assert_same(build(family), FAMILIES[family][1])


@pytest.mark.parametrize(
    ("family", "targets"),
    [(f, "all-linear") for f in ("llama", "qwen3", "mistral", "gemma", "gemma2")]
    + [("llama", ["q_proj", "lm_head"])],
)
def test_an_adapter(family, targets):
    settings = TuningSettings(method="lora", rank=2, targets=targets)
    model = add_adapter(build(family), settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    kind = "selected" if "lm_head" in targets else FAMILIES[family][1]
    assert_same(model, kind)


def test_the_steps_own_count_of_labels_divides():
    assert_same(build("llama"), "sliced", num_items_in_batch=torch.tensor(31))


def test_a_head_with_a_bias(monkeypatch):
    monkeypatch.setitem(head.SLICE, "cpu", 97 * 4)
    model = build("llama")
    model.lm_head.bias = torch.nn.Parameter(torch.randn(97))
    assert_same(model, "sliced")


def test_in_16_bits_as_near_as_16_bits_are():
    model = build("llama")
    batch = Collator(0)(rows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = losses_and_gradients(model, batch)
        with labelled_positions_only(model):
            ours, our_gradients = losses_and_gradients(model, batch)
    assert ours == pytest.approx(loss, rel=1e-2)
    for name, gradient in gradients.items():
        distance = (our_gradients[name] - gradient).norm() / gradient.norm()
        assert distance < 0.03, name


def test_no_label_no_gradient():
    """A batch that only fills up takes part in the step, and changes nothing."""
    model = build("llama")
    batch = Collator(0)([{"input_ids": [5, 6], "labels": [IGNORE, IGNORE]}])
    with labelled_positions_only(model):
        loss, gradients = losses_and_gradients(model, batch, num_items_in_batch=torch.tensor(7))
    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


def test_calls_without_labels_are_as_ever():
    model = build("qwen3").eval()
    ids = torch.tensor([[5, 6, 7]])
    logits = model(ids).logits
    with labelled_positions_only(model):
        assert torch.equal(model(ids).logits, logits)
        model(input_ids=ids, labels=ids)
        assert torch.equal(model(ids).logits, logits)
        told = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False), told)
    assert "forward" not in model.lm_head.__dict__
    assert not hasattr(model, "_loss_function")


def test_a_model_built_otherwise_is_left_alone():
    shape = {"vocab_size": 97, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    model = AutoModelForCausalLM.from_config(GPT2Config(**shape, bos_token_id=1, eos_token_id=2))
    model.eval()
    batch = Collator(0)(rows())
    loss = model(**batch).loss
    with labelled_positions_only(model) as kind:
        assert torch.equal(model(**batch).loss, loss)
    assert kind == "plain"


def test_prompts_and_padding_cost_no_logits(monkeypatch):
    """The head sees as many positions as there are labels."""
    model = make_model(97)
    seen = []
    original = torch.nn.functional.linear

    def watched(states, weight, bias=None):
        if weight.shape[0] == 97:
            seen.append(states.shape[0])
        return original(states, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    with labelled_positions_only(model):
        model(**Collator(0)(rows()))
    labels = sum(label != IGNORE for row in rows() for label in row["labels"])
    assert sum(seen) == labels


def test_a_wide_vocabulary_costs_less_than_the_plain_loss():
    """Guards against regressions: a ratio to the plain loss measured beside it, in one of five."""
    import time

    model = make_model(40_000)
    ids = torch.arange(4 * 64).reshape(4, 64)
    batch = {"input_ids": ids, "labels": ids.where(torch.arange(64) >= 32, IGNORE)}

    def seconds():
        started = time.process_time()
        losses_and_gradients(model, batch)
        return time.process_time() - started

    def ratio():
        plain = seconds()
        with labelled_positions_only(model):
            return plain / seconds()

    assert any(ratio() > 1.3 for _ in range(5))
