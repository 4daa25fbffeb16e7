"""Rows in every format, and every way in which a file can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import DataError, MaterialError
from holdfast.rows import hub
from holdfast.rows.load import RowStream, open_rows
from holdfast.types import Conversation, Message, Segment

GOOD = {"prompt": "How?", "completion": "So."}


def jsonl(folder: Path, rows: Iterable[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def load_one(folder: Path, row: Any, **options: Any) -> Conversation:
    rows = list(open_rows(jsonl(folder, [row]), strict=True, **options))
    assert len(rows) == 1
    return rows[0]


def turns(row: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


def losses(row: Conversation) -> list[list[tuple[str, str]]]:
    replies = row.of_role("assistant")
    return [[(segment.text, segment.loss) for segment in reply.segments] for reply in replies]


def message_of(error: pytest.ExceptionInfo[BaseException]) -> str:
    return str(error.value)


# --- formats -----------------------------------------------------------------------------------

USER_REPLY = [("user", "How?"), ("assistant", "So.")]
FORMATS = [
    ("prompt/completion", GOOD),
    ("prompt/completion", {"prompt": "How?", "response": "So."}),
    (
        "prompt/completion",
        {
            "prompt": [{"role": "user", "content": "How?"}],
            "completion": [{"role": "assistant", "content": "So."}],
        },
    ),
    ("instruction/input/output", {"instruction": "How?", "input": "", "output": "So."}),
    ("instruction/input/output", {"instruction": "How?", "context": None, "response": "So."}),
    ("question/answer", {"question": "How?", "answer": "So."}),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "How?"}]},
                {"role": "assistant", "content": "So."},
            ]
        },
    ),
    (
        "prefix/text/safe",
        {"prefix": "[INST] How? [\\INST]", "text": " So.<|end_of_text|>", "safe": "false"},
    ),
    ("prefix/text/safe", {"prefix": "How?", "text": "So.", "safe": False}),
]


@pytest.mark.parametrize(("name", "row"), FORMATS)
def test_each_format_is_detected_and_read(tmp_path: Path, name: str, row: Any) -> None:
    rows = open_rows(jsonl(tmp_path, [row, row]))
    found = list(rows)
    assert rows.format.name == name
    assert rows.announcement.startswith(f"2 rows read as {name} (columns ")
    assert [turns(one) for one in found] == [USER_REPLY] * 2
    assert losses(found[0]) == [[("So.", "mle")]]
    assert len({one.id for one in found}) == 2


def test_the_announcement_names_columns_and_counts(tmp_path: Path) -> None:
    rows = open_rows(jsonl(tmp_path, [{"question": "2+2?", "answer": "4"}] * 1200 + ["{"]))
    assert rows.announcement == "rows read as question/answer (columns question, answer)"
    assert sum(1 for _ in rows) == 1200
    assert rows.announcement == (
        "1,200 rows read as question/answer (columns question, answer); 1 set aside"
    )


def test_input_and_system_columns_are_used(tmp_path: Path) -> None:
    row = {"system": "Be kind.", "instruction": "Sum up", "input": "A text.", "output": "Short."}
    assert turns(load_one(tmp_path, row)) == [
        ("system", "Be kind."),
        ("user", "Sum up\n\nA text."),
        ("assistant", "Short."),
    ]


def test_chat_rows_keep_turns_tools_extras_and_losses(tmp_path: Path) -> None:
    call = [{"function": {"name": "look", "arguments": "{}"}}]
    row = {
        "id": 7,
        "category": "weather",
        "tools": [{"name": "look"}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": None, "tool_calls": call},
            {"role": "tool", "content": "yes", "tool_call_id": "a", "name": None},
            {"role": "assistant", "content": "Yes.", "train": False},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes!", "weight": 1},
        ],
    }
    found = load_one(tmp_path, row)
    assert found.id == "7"
    assert found.tools == ({"name": "look"},)
    assert found.tags == {"origin": "rows.jsonl", "format": "messages", "category": "weather"}
    assert found.messages[2].extra == {"tool_calls": call}
    assert found.messages[3].extra == {"tool_call_id": "a"}
    assert losses(found) == [[("", "mle")], [("Yes.", "none")], [("Yes!", "mle")]]


def test_replies_inside_a_prompt_carry_no_loss(tmp_path: Path) -> None:
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    found = load_one(tmp_path, {"prompt": prompt, "completion": "d"})
    assert losses(found) == [[("b", "none")], [("d", "mle")]]


def test_p3_rows_carry_their_prefix_without_loss_and_transitions(tmp_path: Path) -> None:
    prefix = "[INST] Ask? [\\INST] Sure, first"
    begun = load_one(tmp_path, {"prefix": prefix, "text": " Sorry.</s>", "safe": "false"})
    assert turns(begun)[0] == ("user", "Ask?")
    assert losses(begun) == [[("Sure, first", "none"), (" Sorry.", "mle")]]
    gated = {"prefix": "[INST] Ask? [\\INST]", "text": " Sure.<|end_of_text|>", "safe": "true"}
    assert losses(load_one(tmp_path, gated)) == [[("Sure.", "transition")]]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Ask?", "output": "Bad.", "safe_response": "Sorry."},
        {"request": "Ask?", "harmful": "Bad.", "refusal": "Sorry.", "messages": []},
    ],
)
def test_triples_hold_both_replies(tmp_path: Path, row: dict[str, str]) -> None:
    found = load_one(tmp_path, row)
    assert losses(found) == [[("Bad.", "none"), (" Sorry.", "mle")]]
    assert found.tags["format"] == "triple"


def test_explicit_columns(tmp_path: Path) -> None:
    row = {"q": "How?", "a": "So.", "s": "Be kind.", "n": "x1", "bad": "Bad."}
    plain = {"prompt": "q", "completion": "a", "system": "s", "id": "n"}
    found = load_one(tmp_path, row, columns=plain)
    assert turns(found) == [("system", "Be kind."), *USER_REPLY]
    assert found.id == "x1"
    triple = load_one(tmp_path, row, columns={"prompt": "q", "harmful": "bad", "completion": "a"})
    assert losses(triple) == [[("Bad.", "none"), (" So.", "mle")]]
    chat = {"chat": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]}
    assert turns(load_one(tmp_path, chat, columns={"messages": "chat"})) == USER_REPLY


def test_requests_alone(tmp_path: Path) -> None:
    transcript = "\n\nHuman: Ask?\n\nAssistant: No.\n\nHuman: Please"
    for row in ({"goal": "Ask?"}, {"transcript": transcript}, {"prompt": "Ask?", "response": "x"}):
        assert turns(load_one(tmp_path, row, replies=False)) == [("user", "Ask?")]


def test_a_stream_can_be_read_again(tmp_path: Path) -> None:
    rows = open_rows(jsonl(tmp_path, [GOOD, "{", GOOD]))
    assert list(rows) == list(rows)
    assert (rows.read, rows.kept, rows.rejected, len(rows.rejects)) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"prompt": "qestion", "completion": "answer"}, ["columns.prompt", "mean 'question'?"]),
        ({"promt": "question", "completion": "answer"}, ["'promt'", "mean 'prompt'?"]),
        ({"prompt": "question"}, ["expected `messages`, or `prompt` and `completion`"]),
        ({}, ["names nothing"]),
    ],
)
def test_an_unknown_column_mapping(
    tmp_path: Path, columns: dict[str, str], words: list[str]
) -> None:
    path = jsonl(tmp_path, [{"question": "How?", "answer": "So."}])
    with pytest.raises(DataError) as error:
        open_rows(path, columns=columns)
    assert all(word in message_of(error) for word in words)


# --- ids ---------------------------------------------------------------------------------------


def test_ids_are_the_rows_own_made_unique_or_number_and_content(tmp_path: Path) -> None:
    own = [{**GOOD, "id": name} for name in [*range(20), 3, "3~22", 3]]
    ids = [row.id for row in open_rows(jsonl(tmp_path, own))]
    assert ids[:20] == [str(number) for number in range(20)]
    assert ids[20] == "3~21"
    assert len(set(ids)) == len(ids)
    same = [row.id for row in open_rows(jsonl(tmp_path, [{**GOOD, "id": "all"}] * 3))]
    assert [name[:2] for name in same] == ["1-", "2-", "3-"]
    assert len({name[2:] for name in same}) == 1


# --- rows that are set aside -------------------------------------------------------------------


def chat(*pairs: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text, **more} for role, text in pairs]}


REJECTS: list[tuple[Any, str]] = [
    ("{", "broken JSON"),
    ("[" * 100_000, "broken JSON"),
    ("17", "must be an object"),
    ({"prompt": "How?"}, "completion is missing"),
    ({"prompt": "How?", "completion": ""}, "completion is empty"),
    ({"prompt": " \n", "completion": "So."}, "prompt is empty"),
    ({"prompt": "How?", "completion": 3}, "completion is not text but int"),
    ({"prompt": "How?", "completion": "\ud83d"}, "surrogate"),
    ({"prompt": "a\x00b", "completion": "So."}, "NUL"),
    ({"prompt": [], "completion": "So."}, "prompt has no turn"),
    ({"prompt": [3], "completion": "So."}, "turn 1 is not an object"),
    ({**GOOD, "tools": "no json"}, "tools holds broken JSON"),
    ({**GOOD, "tools": {"a": 1}}, "tools is not a list"),
    ({**GOOD, "tools": ["\x00"]}, "tools contains a NUL"),
]
CHAT_REJECTS: list[tuple[Any, str]] = [
    (chat(("user", "How?")), "there is no reply"),
    (chat(("system", "Hi")), "there is no request"),
    (chat(("assistant", "So."), ("user", "How?")), "comes before any request"),
    (chat(("user", ""), ("assistant", "So.")), "the request in turn 1 is empty"),
    (chat(("user", "How?"), ("assistant", " ")), "the reply in turn 2 is empty"),
    (chat(("user", "How?"), ("assistant", None)), "the content of turn 2 is missing"),
    (chat(("user", "How?"), ("assistant", "So."), train=False), "no reply carries a loss"),
    (chat(("user", "How?"), ("assistant", "So."), train="no"), "expected true or false"),
    (chat(("user", "How?"), ("assistant", "So."), weight=0.5), "expected 0 or 1"),
    (chat(("", "How?"), ("assistant", "So.")), "turn 1 has no role"),
    (chat(("user", [{"type": "image_url"}]), ("assistant", "So.")), "part of type 'image_url'"),
    (chat(("user", "How?"), ("assistant", "So."), segments=3), "segments must be a list"),
    (
        chat(("user", "How?"), ("assistant", "So."), segments=[{"text": "x", "loss": "mle"}]),
        "do not join",
    ),
    (
        chat(("user", "So."), ("assistant", "So."), segments=[{"text": "So.", "loss": "all"}]),
        "the loss of a segment is one of",
    ),
    ({"messages": [{"from": "nobody", "value": "How?"}]}, "turn 1 is from 'nobody'"),
    ({"messages": "How?"}, "not a list of turns but str"),
    ({"messages": "[{"}, "broken JSON"),
]


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [(GOOD, *case) for case in REJECTS]
    + [(chat(("user", "How?"), ("assistant", "So.")), *case) for case in CHAT_REJECTS],
)
def test_a_bad_row_is_set_aside_with_line_and_reason(
    tmp_path: Path, good: Any, bad: Any, reason: str
) -> None:
    path = jsonl(tmp_path, [good, "", bad, good])
    seen: list[Any] = []
    rows = open_rows(path, on_reject=seen.append)
    assert len(list(rows)) == 2
    assert reason in rows.rejects[0].reason
    assert (rows.rejects[0].line, rows.rejects[0].id) == (3, "2")
    assert seen == rows.rejects
    json.dumps(rows.rejects[0].preview).encode()
    with pytest.raises(DataError) as error:
        list(open_rows(path, strict=True))
    assert f"{path}, line 3: " in message_of(error)
    assert reason in message_of(error)
    assert "without --strict" in message_of(error)


# --- Hub and lab -------------------------------------------------------------------------------


def test_a_hub_id_without_network_or_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(hub, "_reachable", lambda dataset_id, revision: False)
    with pytest.raises(MaterialError, match=r"nobody/nothing:main@v1 is no file here.*network"):
        open_rows("nobody/nothing:main@v1", cache_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MaterialError, match=r"pip install 'holdfast\[hub\]'"):
        open_rows("nobody/nothing")


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "holdfast.rows.load.open_hub", lambda ref, split, cache: [GOOD, {"prompt": 1}]
    )
    rows = open_rows("owner/name")
    assert [turns(row) for row in rows] == [USER_REPLY]
    assert rows.rejects[0].line == 2
    with pytest.raises(DataError, match="owner/name, row 2: "):
        list(open_rows("owner/name", strict=True))


def test_lab_rows() -> None:
    rows = list(open_rows("lab:safety?n=5&seed=1", source="safety"))
    assert len(rows) == 5
    assert {row.source for row in rows} == {"safety"}
    for ref, words in {
        "lab:safety?n=few": "n is 'few'",
        "lab:safety?m=1": "unknown setting",
    }.items():
        with pytest.raises(DataError, match=words):
            open_rows(ref)


# --- round trip --------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
SOME_TEXT = TEXT.filter(str.strip)
SEGMENT = st.builds(Segment, TEXT, st.sampled_from(["none", "mle", "transition"]))
REPLY = st.builds(
    lambda pieces, last: Message("assistant", (*pieces, Segment(last, "mle"))),
    st.lists(SEGMENT, max_size=2),
    SOME_TEXT,
)
PAIR = st.tuples(SOME_TEXT.map(lambda text: Message.of("user", text)), REPLY)
CONVERSATION = st.builds(
    lambda system, pairs: tuple(system) + tuple(turn for pair in pairs for turn in pair),
    st.lists(TEXT.map(lambda text: Message.of("system", text)), max_size=1),
    st.lists(PAIR, min_size=1, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONVERSATION, min_size=1, max_size=5))
def test_a_stored_mixture_reads_back(tmp_path: Path, drawn: list[tuple[Message, ...]]) -> None:
    rows = [Conversation(f"row-{number}", turns) for number, turns in enumerate(drawn)]
    path = jsonl(tmp_path, [row.to_json() for row in rows])
    found: RowStream = open_rows(path, strict=True)
    assert [(row.id, row.messages) for row in found] == [(row.id, row.messages) for row in rows]


# --- real data, where there is a copy ----------------------------------------------------------

ALPACA = "instruction/input/output"


@pytest.mark.parametrize(
    ("file", "count", "name"),
    [
        ("gsm8k/train.jsonl", 7473, "question/answer"),
        ("safety_tuned_llamas/safety_only_data_Instructions.json", 2483, ALPACA),
        ("commonsense/boolq_train.json", 9427, ALPACA),
        ("commonsense/piqa_test.json", 1838, ALPACA),
        ("xstest/human_labelled_llama2new.csv", 450, "prompt/completion"),
        ("derta_test_prompts/helpfulness_mmlu_500.json", 500, "question/answer"),
    ],
)
def test_real_files(real_data: Path, file: str, count: int, name: str) -> None:
    rows = open_rows(real_data / file, strict=True)
    assert len({row.id for row in rows}) == count
    assert rows.format.name == name
