"""The local engine: the library's own answers, computed once, in batches that fit."""

from __future__ import annotations

import math

import pytest

from holdfast.engines import Decoding
from holdfast.errors import ModelError
from holdfast.types import Message, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from holdfast.engines import _cache, _greedy  # noqa: E402
from holdfast.engines._greedy import decodes_plainly, greedy, shared_opening  # noqa: E402
from holdfast.engines._room import Room, is_out_of_memory  # noqa: E402
from holdfast.engines.transformers import TransformersEngine  # noqa: E402

GIB = 2.0**30
VOCABULARY = 250
"""Fewer than the tokenizer of the tests has."""


def library(model, prompts, stops, limit, pad=0):
    """The library's `generate`, one prompt at a time, cut after its first stop token."""
    from transformers import GenerationConfig

    found = []
    for prompt in prompts:
        config = GenerationConfig(
            max_new_tokens=limit, eos_token_id=list(stops), pad_token_id=pad, do_sample=False
        )
        out = model.generate(torch.tensor([prompt]), generation_config=config)
        found.append(out[0, len(prompt) :].tolist())
    return found


def up_to_stop(row, stops):
    end = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
    return row[:end]


def prompts_of(lengths, opening=(), seed=0, vocabulary=VOCABULARY):
    made = torch.Generator().manual_seed(seed)
    draw = [torch.randint(5, vocabulary, (n,), generator=made).tolist() for n in lengths]
    return [[*opening, *ids] for ids in draw]


@pytest.fixture(scope="module")
def lively(tokenizer):
    """A random model whose answers do not run into one token at once."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        initializer_range=0.6, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("opening", [(), (7, 8, 9, 10, 11, 12)])
def test_answers_are_those_of_the_library(lively, opening):
    prompts = prompts_of([3, 19, 8, 1, 8, 30, 2, 5], opening)
    stops = {int(t) for t in torch.randint(5, VOCABULARY, (40,), generator=torch.manual_seed(1))}
    expected = library(lively, prompts, stops, 24)
    found = [up_to_stop(row, stops) for row in greedy(lively, prompts, stops, 24, pad=0)]
    assert found == expected
    assert len({len(row) for row in expected}) > 2  # rows end at different steps


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_all_lengths_decode_together(lively, monkeypatch, attention):
    """More steps than a block of the cache has columns; groups come to their ends in between."""
    monkeypatch.setitem(_greedy.PREFILLED, "cpu", 64)
    monkeypatch.setattr(_greedy, "LEAST", 3)
    monkeypatch.setattr(_cache, "BLOCK", 4)
    prompts = prompts_of([40, 2, 33, 5, 9, 4, 17, 12, 39, 3, 8, 25], (7, 8, 9))
    stops = {int(t) for t in torch.randint(5, VOCABULARY, (25,), generator=torch.manual_seed(1))}
    expected = library(lively, prompts, stops, 24)
    steps = []
    forward = lively.forward

    def counted(*args, **kwargs):
        steps.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(lively, "forward", counted)
    lively.set_attn_implementation(attention)
    try:
        found = [up_to_stop(row, stops) for row in greedy(lively, prompts, stops, 24, pad=0)]
        assert lively.config._attn_implementation == attention
    finally:
        lively.set_attn_implementation("sdpa")
    assert found == expected
    opening, *prefill = [shape for shape in steps if shape[1] > 1]
    assert opening == (1, 3)
    assert max(rows * columns for rows, columns in prefill) <= 64
    decoding = [rows for rows, columns in steps if columns == 1]
    unfinished = [sum(len(row) > n for row in expected) for n in range(1, 24)]
    assert decoding == [rows for rows in unfinished if rows]


def test_an_error_on_the_way_leaves_the_model_as_it_was(lively, monkeypatch):
    def broken(*args):
        raise RuntimeError("torn")

    monkeypatch.setattr(_greedy._Batch, "step", broken)
    with pytest.raises(RuntimeError, match="torn"):
        greedy(lively, prompts_of([3, 4]), {1}, 8, pad=0)
    assert lively.config._attn_implementation == "sdpa"


def test_rows_that_leave_are_overwritten_by_the_last_of_their_group():
    def layer(first, rows, columns):
        rows = torch.arange(first, first + rows).float()
        return rows[:, None, None, None].expand(-1, 2, columns, 3).clone()

    groups = _cache.Groups([[(layer(0, 4, 5),) * 2], [(layer(4, 3, 2),) * 2]])
    assert groups.sizes == [4, 3]
    assert groups.keep([1, 3, 4, 5, 6]) == [3, 1, 4, 5, 6]
    new = torch.zeros(5, 2, 1, 3)
    keys, values = groups.update(new, new, 0)
    assert [k[:, 0, 0, 0].tolist() for k in keys] == [[3, 1], [4, 5, 6]]
    assert [v.shape[2] for v in values] == [6, 3]
    assert groups.get_seq_length() == 6
    assert groups.keep([3]) == [3]
    assert groups.sizes == [1]  # the first group is gone


def test_one_prompt_and_one_token(lively):
    prompts = prompts_of([4])
    assert greedy(lively, prompts, {1}, 1, pad=0) == library(lively, prompts, {1}, 1)
    same = prompts * 3  # nothing but an opening, but for the last token
    assert greedy(lively, same, {1}, 4, pad=0) == library(lively, prompts, {1}, 4) * 3


def test_the_shared_opening():
    assert shared_opening([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]]) == 2
    assert shared_opening([[1, 2], [1, 2], [1, 2, 3]]) == 1  # each keeps a token of its own
    assert shared_opening([[1, 2, 3]]) == shared_opening([[1], [2]]) == 0


def test_finished_rows_are_computed_no_more(lively, monkeypatch):
    prompts = prompts_of([6] * 8)
    free = library(lively, prompts, {1}, 12)
    stops = {row[1] for row in free[:6]} - {token for row in free[6:] for token in row}
    widths = []
    forward = lively.forward

    def counted(*args, **kwargs):
        widths.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(lively, "forward", counted)
    greedy(lively, prompts, stops, 12, pad=0)
    assert widths[0] == 8 and widths[-1] <= 4


def test_models_that_take_more_than_a_loop_are_left_to_the_library(lively, monkeypatch):
    from transformers import MistralConfig, MistralForCausalLM

    assert decodes_plainly(lively)
    monkeypatch.setattr(lively.generation_config, "repetition_penalty", 1.3)
    assert not decodes_plainly(lively)
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    windowed = MistralForCausalLM(config)
    assert not decodes_plainly(windowed)


def test_an_adapter_is_decoded_as_the_library_does(lively):
    peft = pytest.importorskip("peft")
    import copy

    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(lively), config).eval()
    assert decodes_plainly(adapted)
    prompts = prompts_of([5, 9, 2])
    assert greedy(adapted, prompts, {1}, 8, pad=0) == library(adapted, prompts, {1}, 8)


def asked(tokenizer, model, count=5):
    engine = TransformersEngine(model, tokenizer)
    return engine, [Prompt((Message.of("user", "Kettle " * (1 + i)),)) for i in range(count)]


def test_the_engine_gives_the_librarys_answers_either_way(tokenizer, lively, monkeypatch):
    engine, prompts = asked(tokenizer, lively)
    ours = engine.generate(prompts, Decoding(max_new_tokens=8))
    monkeypatch.setattr(lively.generation_config, "repetition_penalty", 1.0 + 1e-12)
    other, _ = asked(tokenizer, lively)
    assert other.generate(prompts, Decoding(max_new_tokens=8)) == ours


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("too many"), MemoryError(),
              RuntimeError("DefaultCPUAllocator: not enough memory")],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(tokenizer, lively, monkeypatch, error):
    engine, prompts = asked(tokenizer, lively, 12)
    expected = engine.generate(prompts, Decoding(max_new_tokens=4))
    original, tried = engine._greedy, []

    def tight(rows, decoding):
        tried.append(len(rows))
        if len(rows) > 3:
            raise error
        return original(rows, decoding)

    monkeypatch.setattr(engine, "_greedy", tight)
    assert engine.generate(prompts, Decoding(max_new_tokens=4)) == expected
    assert sum(n > 3 for n in tried) <= 3
    del tried[:]
    assert engine.generate(prompts, Decoding(max_new_tokens=4)) == expected
    assert max(tried) <= 3  # what did not fit is not tried again


def test_a_single_prompt_that_does_not_fit_is_an_error_with_a_cure(tokenizer, lively, monkeypatch):
    engine, prompts = asked(tokenizer, lively)

    def full(rows, decoding):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(engine, "_greedy", full)
    with pytest.raises(ModelError, match="max_new_tokens"):
        engine.generate(prompts, Decoding(max_new_tokens=4))


def test_other_errors_are_not_taken_for_a_lack_of_memory(lively):
    def broken(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Room(lively).work([1, 2], lambda row: 1.0, broken)
    assert not is_out_of_memory(RuntimeError("out of range"))


def test_batches_are_as_large_as_free_memory_allows(lively):
    sizes = []

    def do(rows):
        sizes.append(len(rows))
        return list(rows)

    room = Room(lively, free=lambda: GIB)
    rows = list(range(50))
    assert room.work(rows, lambda row: 0.06 * GIB, do) == rows
    assert sizes == [10] * 5
    assert Room(lively, free=lambda: math.inf).work(rows, lambda row: GIB, do) == rows
    assert sizes[-1] == 50


def test_the_estimate_of_a_row_is_of_the_right_order():
    """Llama-3-8B in 16 bits: 128 KiB of keys and values per token, by arithmetic."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip

    class Shape:
        def __init__(self):
            self.config = config

        def parameters(self):
            return iter([torch.zeros(1, dtype=torch.bfloat16)])

    room = Room(Shape())
    cached = 128 * 1024
    assert cached < room.token_bytes < 3 * cached
    assert room.logit_bytes < 2e6
