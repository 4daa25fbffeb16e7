"""Labels fall on the reply and its stop token, exactly, under any template."""

from __future__ import annotations

import pytest

from conftest import CHATML, make_tokenizer
from holdfast.errors import ModelError
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import IGNORE, Renderer, Tally
from holdfast.types import Conversation, Message, Prompt, Segment

TURNS = (
    Message.of("system", "You are kind."),
    Message.of("user", "How do I clean the kettle?"),
    Message.of("assistant", "First rinse the kettle 🙂."),
    Message.of("user", "And the café, 你好?"),
    Message.of("assistant", "Then dry it.\n\n- naïve\n- no"),
)


def targets(tokenizer, row):
    """The trained text: labels without the ignored ones, decoded."""
    return tokenizer.decode([t for t in row.labels if t != IGNORE])


def render_one(tokenizer, *messages, **options):
    tally = Tally()
    rows = list(Renderer(tokenizer, **options).rows([Conversation("x", messages)], tally))
    return rows, tally


def test_labels_are_reply_and_stop_token(tokenizer):
    (row,), _ = render_one(tokenizer, TURNS[1], TURNS[2])
    assert targets(tokenizer, row) == "First rinse the kettle 🙂.<|im_end|>"
    assert len(row.labels) == len(row.input_ids)


def test_all_replies_of_a_conversation_are_trained(tokenizer):
    (row,), _ = render_one(tokenizer, *TURNS)
    expected = "First rinse the kettle 🙂.<|im_end|>Then dry it.\n\n- naïve\n- no<|im_end|>"
    assert targets(tokenizer, row) == expected


def test_agrees_with_the_generation_mask(tokenizer):
    """The library's own mask of `{% generation %}` is an independent reference."""
    (row,), _ = render_one(tokenizer, *TURNS)
    turns = [{"role": m.role, "content": m.content} for m in TURNS]
    reference = tokenizer.apply_chat_template(
        turns, return_assistant_tokens_mask=True, return_dict=True
    )
    assert list(row.input_ids) == reference["input_ids"]
    assert [int(label != IGNORE) for label in row.labels] == reference["assistant_masks"]


def test_prefix_segment_carries_no_loss(tokenizer):
    reply = Message(
        "assistant", (Segment("First rinse the "), Segment("Sorry, I can't help.", "mle"))
    )
    (row,), _ = render_one(tokenizer, TURNS[1], reply)
    assert targets(tokenizer, row).strip() == "Sorry, I can't help.<|im_end|>"


def test_transition_row_aims_at_the_refusal_everywhere(tokenizer):
    reply = Message("assistant", (Segment("First rinse the kettle", "transition"),))
    (row,), _ = render_one(tokenizer, TURNS[1], reply)
    trained = [t for t in row.labels if t != IGNORE]
    harmful = tokenizer("First rinse the kettle", add_special_tokens=False)["input_ids"]
    assert len(trained) == len(harmful) + 1  # every position and the stop slot
    spaced = tokenizer.encode(" Sorry", add_special_tokens=False)[0]
    unspaced = tokenizer.encode("Sorry", add_special_tokens=False)[0]
    assert trained[0] == unspaced
    assert set(trained[1:]) == {spaced}
    assert not set(harmful) & set(trained)


def test_mistral_like_leading_space_is_the_first_transition_target(tokenizer):
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]"
        "{% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    spaced = make_tokenizer(template)
    reply = Message("assistant", (Segment("First rinse", "transition"),))
    (row,), _ = render_one(spaced, TURNS[1], reply)
    trained = [t for t in row.labels if t != IGNORE]
    assert trained[0] == spaced.encode(" Sorry", add_special_tokens=False)[0]


def test_a_reply_may_lose_surrounding_space(tokenizer):
    trimming = make_tokenizer(CHATML.replace("m['content']", "m['content'] | trim"))
    (row,), _ = render_one(trimming, TURNS[1], Message.of("assistant", "  Then dry it.\n"))
    assert targets(trimming, row) == "Then dry it.<|im_end|>"


@pytest.mark.parametrize("change", ["| upper", "| truncate(12)", "| replace('e', 'a')"])
def test_a_template_that_rewrites_replies_is_refused(change):
    tokenizer = make_tokenizer(
        CHATML.replace("{{ m['content'] }}", f"{{{{ m['content'] {change} }}}}")
    )
    renderer = Renderer(tokenizer)
    with pytest.raises(ModelError, match="changes a reply"):
        renderer.replies(Conversation("x", TURNS[1:3]))
    rows = [Conversation(str(i), TURNS[1:3]) for i in range(50)]
    with pytest.raises(ModelError, match="changes a reply"):
        list(renderer.rows(rows))


def test_a_template_that_drops_replies_is_refused():
    tokenizer = make_tokenizer(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"
        "{% endfor %}"
    )
    with pytest.raises(ModelError, match="drops or repeats"):
        Renderer(tokenizer).replies(Conversation("x", TURNS[1:3]))


def test_a_template_that_is_not_prefix_preserving_gives_a_row_per_reply():
    last_only = CHATML.replace(
        "{{ m['content'] }}<|im_end|>{% endgeneration %}",
        "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}",
    )
    tokenizer = make_tokenizer(last_only)
    rows, tally = render_one(tokenizer, *TURNS)
    assert tally.split == 1
    assert [targets(tokenizer, row) for row in rows] == [
        "First rinse the kettle 🙂.<|im_end|>",
        "Then dry it.\n\n- naïve\n- no<|im_end|>",
    ]  # and the reasoning block that nobody wrote carries no loss


def test_no_system_role_is_folded_into_the_first_request():
    refuses = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHATML
    )
    template = ChatTemplate(refuses)
    assert not template.has_system_role
    text = template.render(TURNS[:2], reply_next=True)
    assert "You are kind.\n\nHow do I clean" in text


def test_an_injected_system_prompt_is_seen():
    injected = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nI am Q.<|im_end|>{{ '\n' }}"
        "{% endif %}" + CHATML
    )
    assert ChatTemplate(injected).injected_system == "I am Q."
    assert ChatTemplate(CHATML).injected_system is None


def test_a_date_is_frozen():
    dated = ChatTemplate("{{ strftime_now('%d %b %Y') }}" + CHATML, date="2025-02-03")
    assert dated.render(TURNS[:2]).startswith("03 Feb 2025")


def test_templates_run_in_a_sandbox():
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}" + CHATML
    with pytest.raises(ModelError, match="unsafe"):
        ChatTemplate(evil).render(TURNS[:2])
    with pytest.raises(ModelError, match="does not compile"):
        ChatTemplate("{% for %}")


def test_long_replies_are_cut_and_hopeless_rows_dropped(tokenizer):
    rows, tally = render_one(tokenizer, TURNS[1], TURNS[4], max_length=40)
    assert len(rows[0].input_ids) <= 40
    rows, tally = render_one(tokenizer, TURNS[1], TURNS[4], max_length=8)
    assert rows == []
    assert "no target left" in tally.dropped[0].reason


def test_training_text_continues_the_serving_prompt(tokenizer):
    """What the model sees before a reply in training is what it is given when serving."""
    prompting = Prompting(system="Be careful.")
    renderer = Renderer(tokenizer, prompting)
    text, (reply,) = renderer.replies(Conversation("x", TURNS[:3]))
    served = renderer.prompt_text(Prompt(prompting.apply(TURNS[:2])))
    assert "Be careful.\n\nYou are kind." in text
    assert text.startswith(served)
    assert text[len(served) : reply.end] == TURNS[2].content


def test_tally_counts_targets_by_source_and_loss(tokenizer):
    tally = Tally()
    row = Conversation("a", TURNS[1:3], source="safety")
    list(Renderer(tokenizer).rows([row, Conversation("b", TURNS[1:3])], tally))
    counts = tally.to_json()
    assert counts["rows"] == 2
    assert counts["targets"]["safety/mle"] == counts["targets"]["user/mle"] > 5


FAMILIES = [
    "alpaca", "chatml", "gemma-it", "llama-2-chat", "llama-3-instruct", "mistral-instruct",
    "phi-3", "trl_gemma3", "trl_gemma3_training", "trl_llama3_2", "trl_llama3_training",
    "trl_phi3_5", "trl_qwen2_5", "trl_qwen2_5_training", "trl_qwen3", "trl_qwen3_training",
    "vicuna", "zephyr",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_real_templates_give_exact_spans(real_data, family):
    template = (real_data / "chat_templates" / f"{family}.jinja").read_text()
    marks = ("<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "</s>")
    tokenizer = make_tokenizer(template, specials=marks)
    rows, _ = render_one(tokenizer, *TURNS)
    trained = "".join(targets(tokenizer, row) for row in rows)
    for reply in (TURNS[2], TURNS[4]):
        assert reply.content in trained
    for text in ("kind", "How do I", "café", "<think>"):
        assert text not in trained
    if len(rows) == 1:
        assert trained.count("rinse") == 1
