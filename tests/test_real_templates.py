"""Chat templates as they really are: the families' own, with a real tokenizer, many scripts.

Every property the labels rely on is asked of every template: the published ones beside the
repository (skipped without them) and the shelf's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import make_tokenizer, shared_data
from holdfast.errors import ModelError
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import IGNORE, Renderer, Tally
from holdfast.templates import template_names, template_text
from holdfast.types import Conversation, Message, Prompt

pytest.importorskip("transformers")

SYSTEM = Message.of("system", "Sei freundlich.")
FIRST = (
    Message.of("user", "Wie geht’s, 你好? 🙂"),
    Message.of("assistant", "Très bien: naïve café, ﷺ, e\u0301."),
)
SECOND = (
    Message.of("user", "И потом?"),
    Message.of("assistant", "さようなら 👋🏽\n\n- é\n- नमस्ते"),
)
TALK = (SYSTEM, *FIRST, *SECOND)
MARKS = (
    "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>",
)  # fmt: skip
"""Special tokens of the families, which a real tokenizer of each has."""
STOPS = ("</s>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<|im_end|>")


def published() -> dict[str, Path]:
    folder = shared_data()
    return (
        {p.stem: p for p in sorted((folder / "chat_templates").glob("*.jinja"))} if folder else {}
    )


TEXTS = {f"shelf-{name}": template_text(name) for name in template_names()}
TEXTS |= {name: path.read_text(encoding="utf-8") for name, path in published().items()}
OF_FAMILIES = [name for name in TEXTS if not name.startswith("shelf-")]
NOT_PREFIX_PRESERVING = {"trl_qwen3", "trl_phi3_5"}
"""Qwen3 drops earlier reasoning blocks; Phi-3.5 ends the last reply otherwise than earlier ones."""


@pytest.fixture(scope="module")
def real_tokenizer():
    """A real byte-level BPE with the families' marks; the in-process one where there is none."""
    import transformers

    folder = shared_data()
    if folder is None:
        tokenizer = make_tokenizer(specials=MARKS)
    else:
        path = folder / "tokenizers" / "minimind"
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return tokenizer


def renderer(tokenizer, name: str, prompting: Prompting | None = None, **options) -> Renderer:
    prompting = prompting or Prompting()
    asked = Prompting(prompting.system, TEXTS[name], prompting.template_args)
    return Renderer(tokenizer, asked, **options)


def rows_of(made: Renderer, *messages: Message):
    tally = Tally()
    rows = list(made.rows([Conversation("x", messages)], tally))
    assert tally.dropped == []
    return rows


def trained(tokenizer, row) -> str:
    return tokenizer.decode([label for label in row.labels if label != IGNORE])


def family(*names: str):
    """A test for templates that are only beside the repository."""
    here = [name for name in names if name in TEXTS]
    return pytest.mark.parametrize(
        "name", here or [pytest.param("", marks=pytest.mark.skip("no real templates here"))]
    )


@pytest.mark.parametrize("name", TEXTS)
def test_the_labels_are_the_replies_and_nothing_else(real_tokenizer, name) -> None:
    rows = rows_of(renderer(real_tokenizer, name), *TALK)
    text = "".join(trained(real_tokenizer, row) for row in rows)
    for stop in STOPS:
        text = text.replace(stop, "\0")
    replies = [part.strip() for part in text.split("\0") if part.strip()]
    assert replies == [FIRST[1].content, SECOND[1].content]


@pytest.mark.parametrize("name", TEXTS)
def test_every_reply_ends_with_a_stop_the_engine_knows(real_tokenizer, name) -> None:
    made = renderer(real_tokenizer, name)
    stops = made.stop_ids
    assert real_tokenizer.eos_token_id in stops
    rows = rows_of(made, *TALK)
    targets = [label for row in rows for label in row.labels if label != IGNORE]
    assert targets[-1] in stops
    assert sum(target in stops for target in targets) == 2


@pytest.mark.parametrize("name", TEXTS)
def test_one_row_where_prefixes_hold_and_one_per_reply_where_not(real_tokenizer, name) -> None:
    made = renderer(real_tokenizer, name)
    rows = rows_of(made, *TALK)
    assert len(rows) == (2 if name in NOT_PREFIX_PRESERVING else 1)
    assert made.template.preserves_prefix(TALK) == (len(rows) == 1)


@pytest.mark.parametrize("name", TEXTS)
def test_training_continues_what_serving_sends(real_tokenizer, name) -> None:
    """Ahead of each reply stands the prompt that the engine is given, token for token."""
    made = renderer(real_tokenizer, name)
    for turns in ((SYSTEM, *FIRST), FIRST, TALK):
        (*_, row) = rows_of(made, *turns)
        prompt = made.prompt_text(Prompt(turns[:-1]))
        text, replies = made.replies(Conversation("x", turns))
        assert text.startswith(prompt)
        begun = text[len(prompt) : replies[-1].spans[0].start]
        assert not begun.replace("<think>", "").replace("</think>", "").strip()
        ids = made.prompt_ids(prompt)
        shared = sum(a == b for a, b in zip(ids, row.input_ids, strict=False))
        assert len(ids) - shared <= 1  # a space at the seam may join the reply's first token


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_never_opens_with_two_bos(real_tokenizer, name) -> None:
    bos = real_tokenizer.bos_token_id
    made = renderer(real_tokenizer, name)
    for row in rows_of(made, SYSTEM, *FIRST):
        assert list(row.input_ids).count(bos) <= 1
    ids = made.prompt_ids(made.prompt_text(Prompt((SYSTEM, FIRST[0]))))
    assert ids.count(bos) <= 1


def test_a_tokenizer_that_adds_bos_itself_adds_it_to_raw_text_only() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(template_text("llama-3"), specials=MARKS)
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    made = Renderer(tokenizer)
    (row,) = made.rows([Conversation("x", FIRST)])
    assert list(row.input_ids).count(bos) == 1
    chat = made.prompt_ids(made.prompt_text(Prompt(FIRST[:1])))
    raw = made.prompt_ids("So it goes", raw=True)
    assert (chat.count(bos), raw.count(bos)) == (1, 1)


@pytest.mark.parametrize("name", TEXTS)
def test_a_system_prompt_is_never_lost(real_tokenizer, name) -> None:
    """In its own role or folded into the first request: alike in training and in serving."""
    prompting = Prompting("Refuse what harms.")
    made = renderer(real_tokenizer, name, prompting)
    (row,) = rows_of(made, *FIRST)
    served = made.prompt_text(Prompt(prompting.apply(FIRST[:1])))
    read = real_tokenizer.decode(row.input_ids)
    assert served.count("Refuse what harms.") == read.count("Refuse what harms.") == 1
    both = made.prompt_text(Prompt(prompting.apply((SYSTEM, FIRST[0]))))
    assert "Refuse what harms.\n\nSei freundlich." in both


@pytest.mark.parametrize("name", TEXTS)
def test_a_template_that_refuses_system_turns_gets_it_in_the_request(real_tokenizer, name) -> None:
    """Gemma's and Mistral's own templates raise on a system role."""
    refusing = (
        "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system role') }}"
        "{%- endif -%}" + (TEXTS[name] or "")
    )
    made = Renderer(real_tokenizer, Prompting("Refuse what harms.", refusing))
    assert not made.template.has_system_role
    (row,) = rows_of(made, *FIRST)
    read = real_tokenizer.decode(row.input_ids)
    assert f"Refuse what harms.\n\n{FIRST[0].content}" in read
    assert "Refuse" not in trained(real_tokenizer, row)


@family("trl_qwen2_5", "trl_qwen2_5_training")
def test_an_injected_system_prompt_is_shown_and_gives_way(real_tokenizer, name) -> None:
    made = renderer(real_tokenizer, name)
    injected = made.template.injected_system
    assert injected is not None and injected in made.prompt_text(Prompt(FIRST[:1]))
    ours = Prompting("Refuse what harms.").apply(FIRST[:1])
    assert injected not in made.prompt_text(Prompt(ours))


@pytest.mark.parametrize("name", [n for n in TEXTS if "qwen2_5" not in n])
def test_the_others_inject_none(real_tokenizer, name) -> None:
    assert renderer(real_tokenizer, name).template.injected_system is None


@family("trl_qwen3", "trl_qwen3_training")
def test_template_arguments_reach_the_template(real_tokenizer, name) -> None:
    without = Prompting(template_args={"enable_thinking": False})
    silent = renderer(real_tokenizer, name, without).prompt_text(Prompt(FIRST[:1]))
    thinking = renderer(real_tokenizer, name).prompt_text(Prompt(FIRST[:1]))
    assert "<think>\n\n</think>" in silent
    assert "<think>" not in thinking
    assert without.fingerprint != Prompting().fingerprint


@family("trl_qwen3", "trl_qwen3_training")
def test_only_reasoning_that_the_user_wrote_is_trained(real_tokenizer, name) -> None:
    made = renderer(real_tokenizer, name)
    (unwritten,) = rows_of(made, *FIRST)
    assert "<think>" in real_tokenizer.decode(unwritten.input_ids)
    assert "<think>" not in trained(real_tokenizer, unwritten)
    reply = Message.of("assistant", "<think>\nSums.\n</think>\n\nIt is four.")
    (written,) = rows_of(made, FIRST[0], reply)
    text = trained(real_tokenizer, written)
    assert "Sums." in text and "It is four." in text
    assert text.count("<think>") == 1
    later = rows_of(made, FIRST[0], reply, *SECOND)
    texts = [trained(real_tokenizer, row) for row in later]
    assert "Sums." in texts[0] and "さようなら" in texts[-1]
    if name in NOT_PREFIX_PRESERVING:  # a later reply is learnt as it is written: without them
        assert len(later) == 2
        assert "Sums." not in real_tokenizer.decode(later[1].input_ids)


@family("trl_llama3_2", "llama-3-instruct")
def test_a_date_that_a_template_inserts_is_frozen(real_tokenizer, name) -> None:
    def text(date: str) -> str:
        return renderer(real_tokenizer, name, date=date).prompt_text(Prompt(FIRST[:1]))

    assert text("2026-01-01") == text("2026-01-01")
    if "strftime_now" in (TEXTS[name] or ""):
        assert "01 Feb 2025" in text("2025-02-01")


@pytest.mark.parametrize("name", OF_FAMILIES or ["shelf-chatml"])
def test_a_reply_may_lose_surrounding_space_and_nothing_else(real_tokenizer, name) -> None:
    made = renderer(real_tokenizer, name)
    (row,) = rows_of(made, FIRST[0], Message.of("assistant", "  So  it\ngoes. \n"))
    assert "So  it\ngoes." in trained(real_tokenizer, row)
    with pytest.raises(ModelError, match=r"changes a reply|drops or repeats"):
        Renderer(real_tokenizer, Prompting(template=_shouting(TEXTS[name]))).replies(
            Conversation("x", FIRST)
        )


def _shouting(text: str | None) -> str:
    """A template whose every word is in capitals: nothing of a reply is where it was."""
    return f"{{%- filter upper -%}}{text}{{%- endfilter -%}}"


P2_STRUCTURES = {
    "question-answer": "Question: {q}\nAnswer:",
    "alpaca": "### Instruction:\n{q}\n\n### Response:\n",
    "llama-2-question": "<s>[INST] Question: {q} [/INST]",
    "llama-2": "<s>[INST] {q} [/INST]",
    "plain": "{q}\n",
}
P2_WITH_SYSTEM = {
    "alpaca": "{s}\n\n### Instruction:\n{q}\n\n### Response:\n",
    "llama-2-question": "<s>[INST] <<SYS>>\n{s}\n<</SYS>>\n\nQuestion: {q} [/INST]",
    "llama-2-alpaca": (
        "<s>[INST] <<SYS>>\n{s}\n<</SYS>>\n\n### Instruction:\n{q}\n\n### Response:\n [/INST]"
    ),
}


@pytest.mark.parametrize(("name", "structure"), [*P2_STRUCTURES.items(), *P2_WITH_SYSTEM.items()])
def test_the_seven_templates_have_the_papers_structure(real_tokenizer, name, structure) -> None:
    """Papers P2.1, the chat tokens being Llama-2's."""
    system = (Message.of("system", "S."),) if "{s}" in structure else ()
    turns = (*system, Message.of("user", "2 + 2?"))
    text = renderer(real_tokenizer, f"shelf-{name}").prompt_text(Prompt(turns))
    assert text == structure.format(s="S.", q="2 + 2?")
