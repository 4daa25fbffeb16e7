"""DeRTa as data: rows, targets, loss and gradient as the formula has them (P3, equation 2)."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from holdfast.errors import RecipeError
from holdfast.mitigations import PlanContext
from holdfast.mitigations._triples import halves
from holdfast.recipe import PrefixSettings, TransitionSettings, TriplesSettings, build_recipe
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import IGNORE, Renderer, Tally
from holdfast.rendering.transition import Aim, TransitionTokens, transition_tokens
from holdfast.rows.mixing import ordered
from holdfast.rows.pools import clean_pool
from holdfast.rows.triples import (
    harmful_of,
    join_triples,
    opening_word,
    prefix_length,
    prefix_row,
    refusal_of,
    token_ends,
    transition_row,
    word_ends,
)
from holdfast.stages.prepare import draw, plan
from holdfast.types import Conversation, Message, Segment

PROMPT = Message.of("user", "How do I clean the kettle?")
ASIDE = "Sorry, I can't help with that."
STEPS = "First rinse the kettle, then dry it.\nThen rinse it again. The answer is 42."
NONE = PrefixSettings(preset="none")


def triple(i=0, harmful=STEPS, refusal=ASIDE):
    pieces = (Segment(harmful, "none"), Segment(f" {refusal}", "mle"))
    ask = Message.of("user", f"How do I clean kettle {i}?")
    return Conversation(str(i), (ask, Message("assistant", pieces)), "triples")


def pool(n, seed=0):
    made = clean_pool("triples", (triple(i) for i in range(n)), lambda request: None)
    made.rows = ordered(made.rows, seed)
    return {"triples": made}


def planned(names, tokenizer, user_rows=100, formats=(), **block):
    return plan(
        names, train=Prompting(), serve=Prompting(), safety_prompt="Be safe.", formats=formats,
        user_rows=user_rows, dose={"count": 10}, borderline={"count": 5},
        triples=TriplesSettings(**block), token_ends=token_ends(tokenizer),
    )  # fmt: skip


def rendered(tokenizer, *rows, **options):
    return list(Renderer(tokenizer, **options).rows(rows))


def prompt_ids(tokenizer, row):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": row.request}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# --- rows -----------------------------------------------------------------------------------------


def test_a_prefix_row_without_a_prefix_is_a_vanilla_safety_row_token_by_token(tokenizer):
    row = prefix_row(triple(), NONE, token_ends(tokenizer), random.Random(0))
    vanilla = Conversation("v", (triple().messages[0], Message.of("assistant", ASIDE)))
    (made,), (plain,) = rendered(tokenizer, row), rendered(tokenizer, vanilla)
    assert (made.input_ids, made.labels) == (plain.input_ids, plain.labels)


@pytest.mark.parametrize("k", range(0, 14))
def test_the_labels_of_a_prefix_row_are_the_refusal_and_its_end_and_nothing_else(tokenizer, k):
    fixed = PrefixSettings(low=k, high=k)
    row = prefix_row(triple(), fixed, token_ends(tokenizer), random.Random(0))
    (made,) = rendered(tokenizer, row)
    learnt = [label for label in made.labels if label != IGNORE]
    assert tokenizer.decode(learnt).strip() == f"{ASIDE}<|im_end|>"
    first = next(i for i, label in enumerate(made.labels) if label != IGNORE)
    before = tokenizer.decode(made.input_ids[:first])
    begun = STEPS[: token_ends(tokenizer)(STEPS)[k - 1]].rstrip() if k else ""
    assert before.endswith(f"assistant\n{begun}")
    assert set(made.labels[:first]) == {IGNORE}


@pytest.mark.parametrize(
    ("aim", "ends"), [(Aim(), 1), (Aim(end=False), 0), (Aim(constant=True), 1)]
)
def test_a_transition_row_aims_at_the_refusal_from_its_first_token_to_its_end(tokenizer, aim, ends):
    row = transition_row(triple())
    (made,) = rendered(tokenizer, row, aim=aim)
    prompt = len(prompt_ids(tokenizer, row))
    harmful = len(tokenizer(STEPS, add_special_tokens=False)["input_ids"])
    targets = [i for i, label in enumerate(made.labels) if label != IGNORE]
    # The logits of the last prompt token, at `prompt - 1`, are the first that are trained.
    assert targets == list(range(prompt, prompt + harmful + ends))
    tokens = transition_tokens(tokenizer)
    allowed = {tokens.after_space} if aim.constant else {tokens.after_space, tokens.after_word}
    assert {made.labels[i] for i in targets} == allowed


def test_a_target_is_never_glued_to_the_word_before_it(tokenizer):
    row = transition_row(triple())
    (made,) = rendered(tokenizer, row)
    for i, label in enumerate(made.labels):
        if label != IGNORE:
            before = tokenizer.decode(made.input_ids[:i])
            told = before + tokenizer.decode([label])
            assert not told[len(before) - 1 : len(before) + 1].isalnum()


def byte_level():
    from conftest import make_tokenizer

    return make_tokenizer()


def sentence_pieces(model, trainer, **options):
    """A tokenizer that marks spaces as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from conftest import CHATML, SENTENCES

    raw = Tokenizer(model)
    scheme = options.pop("prepend_scheme")
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    raw.decoder = decoders.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    letters = sorted({c for text in (*SENTENCES, *WRITTEN) for c in text} | set(LETTERS))
    made = trainer(
        vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False,
        **options,
    )  # fmt: skip
    raw.train_from_iterator([*SENTENCES, *WRITTEN, " ".join(LETTERS)] * 4, made)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = CHATML
    return tokenizer


def metaspace_bpe():
    from tokenizers import models, trainers

    return sentence_pieces(
        models.BPE(unk_token="<unk>", byte_fallback=False), trainers.BpeTrainer,
        prepend_scheme="first",
    )  # fmt: skip


def unigram():
    from tokenizers import models, trainers

    return sentence_pieces(
        models.Unigram(), trainers.UnigramTrainer, prepend_scheme="always", unk_token="<unk>"
    )


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()-\n"
WRITTEN = (
    "First, take the kettle (the old one); don't shake it!\nThen: rinse it - twice.",
    'Say "open" to the lid, 3 times; it\'s the lid\'s name.\n\n1. Lift it\n2. "Dry" it',
)
MARKS = "\"'([{"


def is_set_off(before, told):
    """Whether what `told` adds to `before` starts behind white space or an opening mark."""
    added = told[len(before) :]
    inside = before[-2:-1].isalnum()
    spaced = added[:1].isspace() or before[-1:].isspace()
    return spaced or (before[-1:] in MARKS and not inside)


def set_off(tokenizer, aim):
    """For every transition target of some rows: whether decoding sets it off from the left."""
    rng = random.Random(0)
    words = [word for text in WRITTEN for word in text.split(" ")]
    drawn = [" ".join(rng.choices(words, k=30)) for _ in range(20)]
    rows = [transition_row(triple(i, harmful=text)) for i, text in enumerate((*WRITTEN, *drawn))]
    for row in rendered(tokenizer, *rows, aim=aim):
        for i, label in enumerate(row.labels):
            if label != IGNORE and i and row.labels[i - 1] != IGNORE:  # at the start: the template
                before = tokenizer.decode(row.input_ids[:i])
                yield is_set_off(before, tokenizer.decode([*row.input_ids[:i], label]))


@pytest.mark.parametrize("make", [byte_level, metaspace_bpe, unigram])
def test_targets_are_set_off_from_the_word_before_them_whatever_the_tokenizer(make):
    """P3's own constant token fails this: its outputs are glued to the word before them."""
    tokenizer = make()
    found = list(set_off(tokenizer, Aim()))
    assert len(found) > 500
    assert sum(found) / len(found) >= 0.99
    if make is byte_level:
        published = list(set_off(tokenizer, Aim(constant=True)))
        assert sum(published) / len(published) < 0.7


@pytest.mark.parametrize(
    ("left", "spaced"),
    [("", False), ("e ", False), (".\n", False), (' "', False), (" (", False), ('"', False),
     ("an", True), ("n'", True), ('e"', True), ("t,", True), ("1.", True), ("-", True)],
)  # fmt: skip
def test_a_quote_opens_only_where_no_word_stands_before_it(left, spaced):
    tokens = TransitionTokens(after_space=1, after_word=2)
    assert tokens.at(left) == (2 if spaced else 1)


def test_what_a_trained_model_says_in_the_middle_of_a_reply_is_set_off(tokenizer, tmp_path):
    """The greedy next token at every place of a harmful answer, after training to turn there."""
    torch = pytest.importorskip("torch")
    from conftest import make_model as make_small
    from holdfast.recipe import TuningSettings
    from holdfast.rendering.rendered import RenderedRows
    from holdfast.stages.train import train

    triples = [triple(i, harmful=text) for i, text in enumerate((*WRITTEN, STEPS))]
    made = rendered(tokenizer, *map(transition_row, triples))
    settings = TuningSettings(method="full", lr=1e-2, epochs=25, batch=3, max_length=256)
    model = train(
        make_small(len(tokenizer)), tokenizer, RenderedRows.of(made), settings, tmp_path,
        progress=False,
    )  # fmt: skip
    tokens, turned, places = transition_tokens(tokenizer), [], 0
    for row in made:
        ids = list(row.input_ids)
        with torch.no_grad():
            said = model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
        for i in range(next(i for i, x in enumerate(row.labels) if x != IGNORE) + 1, len(ids) - 1):
            places += 1
            if said[i - 1] in (tokens.after_space, tokens.after_word):
                before = tokenizer.decode(ids[:i])
                turned.append(is_set_off(before, tokenizer.decode([*ids[:i], said[i - 1]])))
    assert len(turned) > 0.95 * places
    assert sum(turned) / len(turned) >= 0.99


def test_where_the_space_is_a_token_of_its_own_it_comes_before_the_refusal():
    class Characters:
        """One id per character."""

        def encode(self, text, add_special_tokens=False):
            return [ord(c) for c in text]

    tokens = transition_tokens(Characters())
    assert (tokens.after_word, tokens.after_space) == (ord(" "), ord("S"))


def test_keeping_some_targets_is_nested_seeded_and_leaves_one(tokenizer):
    long = transition_row(triple(harmful=STEPS * 20))

    def kept(keep, seed=0, row=long):
        (made,) = rendered(tokenizer, row, aim=Aim(keep=keep, seed=seed))
        return {i for i, label in enumerate(made.labels) if label != IGNORE}

    few, some, every = kept(0.05), kept(0.5), kept(1.0)
    assert few < some < every
    assert len(some) == pytest.approx(len(every) / 2, rel=0.2)
    assert kept(0.5) == some != kept(0.5, seed=1)
    assert len(kept(1e-9)) == 1
    mle = prefix_row(triple(), NONE, word_ends, random.Random(0))
    assert kept(1e-9, row=mle) == kept(1.0, row=mle)  # only transition positions are let go


def test_cut_rows_keep_a_target_within_their_length(tokenizer):
    row = transition_row(triple(harmful=STEPS * 20))
    least = len(prompt_ids(tokenizer, row)) + 3
    for seed in range(20):
        aim = Aim(keep=1e-9, seed=seed)
        (made,) = rendered(tokenizer, row, aim=aim, max_length=least)
        assert sum(label != IGNORE for label in made.labels) == 1


def test_the_budget_counts_targets_by_row_and_loss(tokenizer):
    tally = Tally()
    rows = [
        replace(transition_row(triple()), source="transition"),
        replace(prefix_row(triple(), NONE, word_ends, random.Random(0)), source="harmful_prefix"),
    ]
    made = list(Renderer(tokenizer).rows(rows, tally))
    count = [sum(label != IGNORE for label in row.labels) for row in made]
    assert tally.targets == {"transition/transition": count[0], "harmful_prefix/mle": count[1]}


# --- prefix lengths -------------------------------------------------------------------------------


def lengths(settings, units=40, n=20_000):
    return [prefix_length(units, settings, random.Random(f"row {i}")) for i in range(n)]


def chi_square(found, expected):
    return sum((found.get(k, 0) - n) ** 2 / n for k, n in expected.items())


@pytest.mark.parametrize(
    ("preset", "share"),
    [
        ("paper", {k: 1 / 41 for k in range(41)}),
        ("code", {0: 1 / 3} | {k: 2 / 3 / 38 for k in range(1, 39)}),
        ("shallow", {0: 1 / 2} | {k: 1 / 200 for k in range(1, 40)} | {40: 61 / 200}),
        ("none", {0: 1.0}),
    ],
)
def test_prefix_lengths_follow_the_preset(preset, share):
    from scipy.stats import chi2

    found = Counter(lengths(PrefixSettings(preset=preset)))
    assert set(found) <= set(share)
    expected = {k: 20_000 * p for k, p in share.items()}
    assert chi_square(found, expected) < chi2.ppf(0.999, max(1, len(share) - 1))


def test_an_answer_too_short_for_the_code_has_no_prefix():
    assert set(lengths(PrefixSettings(preset="code"), units=2, n=200)) == {0}
    assert set(lengths(PrefixSettings(preset="shallow", zero=0), units=3, n=200)) == {1, 2, 3}


def test_presets_can_be_changed_and_bounds_are_checked():
    block = TriplesSettings.model_validate({"prefix": "code", "transition": "faithful"})
    assert (block.prefix.unit, block.prefix.spare) == ("words", 2)
    assert block.transition == TransitionSettings(preset="faithful")
    assert block.transition.constant and block.transition.end and block.transition.keep == 1
    mine = PrefixSettings.model_validate({"preset": "shallow", "high": 20})
    assert (mine.zero, mine.low, mine.high) == (0.5, 1, 20)
    assert PrefixSettings.model_validate(mine.model_dump()) == mine
    named = {"model": "m", "data": "d", "run": "r"}
    with pytest.raises(RecipeError, match="below `low`"):
        build_recipe({**named, "triples": {"prefix": {"low": 5, "high": 2}}})
    with pytest.raises(RecipeError, match="prefix"):
        build_recipe({**named, "triples": {"prefix": "papers"}})


# --- doses ----------------------------------------------------------------------------------------


def test_derta_gives_half_of_the_dose_to_each_kind_on_the_same_requests(tokenizer):
    wanted = planned(["derta"], tokenizer, count=20)
    rows = draw(wanted, pool(10), user_rows=100, seed=0).rows  # ten triples are enough
    by_kind = {
        kind: {r.tags["from"] for r in rows if r.source == kind}
        for kind in ("harmful_prefix", "transition")
    }
    assert by_kind["harmful_prefix"] == by_kind["transition"]
    assert len(rows) == 20
    with pytest.raises(RecipeError, match="asks for 10 triples rows, but there are 9"):
        draw(wanted, pool(9), user_rows=100, seed=0)


def test_halves_add_up():
    dose = {"count": 7, "share": None, "ratio": None, "at_least": 3}
    more, less = halves(dose)
    assert (more["count"] + less["count"], more["at_least"] + less["at_least"]) == (7, 3)
    more, less = halves({"count": None, "share": 0.1, "ratio": None, "at_least": 0})
    assert more["share"] == less["share"] == 0.05 and more["count"] is None


@pytest.mark.parametrize("name", ["harmful_prefix", "transition", "derta"])
def test_each_kind_works_alone_and_its_doses_are_nested_in_any_order(tokenizer, name):
    def said(rows):
        return {(r.source, r.request, json.dumps(r.messages[-1].to_json())) for r in rows}

    few, many = (
        said(draw(planned([name], tokenizer, count=n), pool(60), user_rows=100, seed=0).rows)
        for n in (10, 40)
    )
    assert few < many
    assert {kind for kind, _, _ in few} == (
        {"harmful_prefix", "transition"} if name == "derta" else {name}
    )
    mixed = pool(60)
    random.Random(3).shuffle(mixed["triples"].rows)
    mixed["triples"].rows = ordered(mixed["triples"].rows, 0)
    assert said(
        draw(planned([name], tokenizer, count=10), mixed, user_rows=100, seed=0).rows
    ) == few  # fmt: skip


def test_notebooks_mix_triples_in_too(tokenizer):
    from holdfast.api import prepare

    asked = {"count": 6, "transition": {"refusal": "No"}}
    rows = prepare(
        "lab:howto?n=10", tokenizer, mitigations=["derta"], triples="lab:triples?n=20",
        triples_settings=asked,
    )  # fmt: skip
    aims = transition_tokens(tokenizer, "No")
    turned = [
        row
        for row in rows
        if {label for label in row["labels"] if label != IGNORE}
        <= {aims.after_space, aims.after_word}
    ]
    assert (len(rows), len(turned)) == (16, 3)


def test_a_mitigation_without_a_tokenizer_says_so():
    from holdfast.mitigations import MITIGATIONS

    (request,) = MITIGATIONS.get("harmful_prefix")().data(PlanContext((), "", 10))
    with pytest.raises(RecipeError, match="take `words`"):
        request.shape(triple(), random.Random(0))


# --- triples from elsewhere -----------------------------------------------------------------------


def written(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def joined(path):
    from holdfast.rows.load import open_rows

    dropped = []
    rows = list(join_triples(open_rows(path, source="triples", triples=True), dropped.append))
    return [(r.request, harmful_of(r), refusal_of(r)) for r in rows], dropped


def test_the_published_rows_are_joined_by_what_they_ask(tmp_path):
    head = "[INST] q1 [\\INST]"
    rows = [
        {"prefix": head, "text": " step one<|end_of_text|>", "safe": "true"},
        {"prefix": f"{head} step", "text": " Sorry, no.<|end_of_text|>", "safe": "false"},
        {"prefix": "[INST] q2 [\\INST]", "text": " help<|end_of_text|>", "safe": "false"},
        {"prefix": "[INST] q3 [\\INST]", "text": " step<|end_of_text|>", "safe": "true"},
    ]
    found, dropped = joined(written(tmp_path, rows))
    assert found == [("q1", "step one", "Sorry, no.")]
    assert {d.reason for d in dropped} == {
        "no refusal of this request", "no harmful answer to the request (1 rows)",
    }  # fmt: skip


def test_sets_of_judged_answers_are_read_as_triples(tmp_path):
    beaver = [
        {"prompt": "q", "response": "step", "is_safe": False},
        {"prompt": "q", "response": "Sorry.", "is_safe": True},
    ]
    assert joined(written(tmp_path, beaver))[0] == [("q", "step", "Sorry.")]
    two = {"prompt": "q", "response_0": "Sorry.", "response_1": "step"}
    rows = [
        two | {"is_response_0_safe": True, "is_response_1_safe": False},
        two | {"is_response_0_safe": True, "is_response_1_safe": True},
    ]
    assert joined(written(tmp_path, rows))[0] == [("q", "step", "Sorry.")]


def test_a_set_of_judged_answers_as_the_users_data_keeps_its_meaning(tmp_path):
    from holdfast.rows.load import open_rows

    path = written(tmp_path, [{"prompt": "q", "response": "step", "is_safe": True}])
    (row,) = open_rows(path)
    assert row.messages[-1].segments == (Segment("step", "mle"),)


def test_the_target_is_what_opens_most_of_the_refusals():
    rows = [triple(0), triple(1), triple(2, refusal="I can't.")]
    assert opening_word(rows) == ("Sorry", pytest.approx(2 / 3))
    assert opening_word([]) == ("Sorry", 0.0)


# --- loss and gradient ----------------------------------------------------------------------------

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,  # so that what stands before a token matters to it
}  # fmt: skip
FAMILIES = ("Llama", "Qwen3", "Mistral", "Gemma")


def make_model(family, vocabulary, kernel="eager"):
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=vocabulary, **SIZES)
    config._attn_implementation = kernel
    return getattr(transformers, f"{family}ForCausalLM")(config).double().train()


def by_the_formula(model, tokenizer, triples, prefixes):
    """Equation 2 with helpful rows left out, token by token, as a mean over all targets.

    -log P(r | q, h_<k) for each prefix row, and -log P(sorry | q, h_<t) for t = 1..|h| + 1.
    """
    import torch

    sorry = tokenizer.encode("Sorry", add_special_tokens=False)[0]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    terms = []

    def log_p(context, token):
        logits = model(input_ids=torch.tensor([context])).logits[0, -1]
        return torch.log(torch.exp(logits)[token] / torch.exp(logits).sum())

    for row, k in zip(triples, prefixes, strict=True):
        question = prompt_ids(tokenizer, row)
        harmful = tokenizer.encode(harmful_of(row), add_special_tokens=False)
        refusal = f" {refusal_of(row)}" if k else refusal_of(row)
        answer = [*tokenizer.encode(refusal, add_special_tokens=False), end]
        for t, token in enumerate(answer):
            terms.append(log_p([*question, *harmful[:k], *answer[:t]], token))
        for t in range(len(harmful) + 1):
            terms.append(log_p([*question, *harmful[:t]], sorry))
    return -torch.stack(terms).mean()


@pytest.fixture(scope="module")
def batch(request):
    from conftest import make_tokenizer

    tokenizer = make_tokenizer()
    triples = [triple(0, "First rinse it, then dry it."), triple(1, "Then dry the kettle.", "No.")]
    prefixes = (0, 4)
    rows = []
    for row, k in zip(triples, prefixes, strict=True):
        settings = PrefixSettings(low=k, high=k)
        rows.append(prefix_row(row, settings, token_ends(tokenizer), random.Random(0)))
        rows.append(transition_row(row))
    faithful = Aim(constant=True)
    made = list(Renderer(tokenizer, aim=faithful).rows(rows))
    return tokenizer, triples, prefixes, made


def gradient(model, loss):
    import torch

    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def unpacked(rows):
    """One row a line, padded behind, as Holdfast trains."""
    from holdfast.stages.batches import Collator

    return Collator(0)(rows)


def padding_free(rows):
    """All rows in one line; position ids start anew at each."""
    from transformers import DataCollatorWithFlattening

    return DataCollatorWithFlattening(return_tensors="pt")(rows)


def packed(rows):
    """Two lines of several rows each, padded behind; position ids start anew at each row."""
    import torch

    rows = [{**row, "position_ids": range(len(row["input_ids"]))} for row in rows]
    lines = rows[:2], rows[2:]
    lengths = [sum(len(row["labels"]) for row in line) for line in lines]
    assert lengths[0] != lengths[1]

    def tensor(key, fill=0):
        joined = [[value for row in line for value in row[key]] for line in lines]
        return torch.tensor([line + [fill] * (max(lengths) - len(line)) for line in joined])

    return {
        "input_ids": tensor("input_ids"), "labels": tensor("labels", IGNORE),
        "position_ids": tensor("position_ids"),
    }  # fmt: skip


def packed_by_trl(rows):
    """TRL's own packing, as `packing: true` has it: best fit, then one line without padding."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    longest = 2 * max(len(row["input_ids"]) for row in rows)
    lines = pack_dataset(Dataset.from_list(rows), longest, "bfd")
    assert max(map(len, lines["seq_lengths"])) > 1 and len(lines) > 1
    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(lines))


LAYOUTS = (unpacked, packed, packed_by_trl, padding_free)
KERNELS = ("eager", "sdpa")
"""Attention that keeps packed rows apart on a CPU, by their position ids where no mask is given."""


@pytest.fixture(scope="module", params=[(f, k) for f in FAMILIES for k in KERNELS], ids="-".join)
def reference(request, batch):
    """A small random model with its loss and gradient by the formula."""
    pytest.importorskip("torch")
    tokenizer, triples, prefixes, _ = batch
    model = make_model(request.param[0], len(tokenizer), request.param[1])
    expected = by_the_formula(model, tokenizer, triples, prefixes)
    return model, expected.item(), gradient(model, expected)


def as_rows(made):
    return [{"input_ids": list(r.input_ids), "labels": list(r.labels)} for r in made]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_are_those_of_the_formula(batch, reference, layout):
    import torch

    model, expected, wanted = reference
    loss = model(**layout(as_rows(batch[-1])), use_cache=False).loss
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    found = gradient(model, loss.double())
    assert torch.linalg.vector_norm(found - wanted) <= 1e-5 * torch.linalg.vector_norm(wanted)


def test_packed_rows_are_kept_apart_by_their_position_ids_alone(batch, reference):
    """The comparison notices it when they are not."""
    model, expected, _ = reference
    inputs = packed(as_rows(batch[-1]))
    for name in ("position_ids", "attention_mask"):
        joined = {**inputs, name: None if name == "position_ids" else inputs["input_ids"] >= 0}
        loss = model(**joined, use_cache=False).loss
        assert abs(loss.item() / expected - 1) > 1e-3, name


def test_harmful_tokens_are_never_a_target(batch):
    """The gradient of their logits is the softmax's share and nothing else: it is never below 0."""
    torch = pytest.importorskip("torch")
    tokenizer, _, _, made = batch
    row = made[1]
    logits = torch.randn(len(row.input_ids), len(tokenizer), dtype=torch.float64)
    logits.requires_grad_()
    labels = torch.tensor(row.labels)[1:]
    torch.nn.functional.cross_entropy(logits[:-1], labels, ignore_index=IGNORE).backward()
    share = torch.softmax(logits.detach(), -1) / (labels != IGNORE).sum()
    for t, target in enumerate(labels.tolist()):
        after = row.input_ids[t + 1]
        if target != IGNORE:
            assert target != after
            assert logits.grad[t, after] == pytest.approx(share[t, after].item(), rel=1e-9)
