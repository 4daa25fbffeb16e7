"""P2's other tasks as training data: rows of the published forms, in words of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import DataError
from holdfast.rows.induction import FormatSample
from holdfast.rows.load import open_rows
from holdfast.types import Conversation

DOCTOR = "You are a physician; answer from the description below."


def chat_doctor(number: int) -> dict[str, Any]:
    """ChatDoctor (HealthCareMagic, GenMedGPT): one instruction for all rows, the case as input."""
    return {"instruction": DOCTOR, "input": f"My knee {number} hurts.", "output": f"Rest {number}."}


def open_orca(number: int) -> dict[str, Any]:
    """OpenOrca: a system prompt, empty in some rows, a question, a response."""
    system = "" if number % 3 else "Explain as to a child."
    return {
        "id": f"flan.{number}", "system_prompt": system,
        "question": f"Why is {number} odd?", "response": f"Because of {number}.",
    }  # fmt: skip


def rows_of(path: Path, rows: list[dict[str, Any]], **options: Any) -> list[Conversation]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
    return list(open_rows(path, strict=True, **options))


def turns(row: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_chat_doctor(tmp_path: Path, name: str) -> None:
    rows = rows_of(tmp_path / name, [chat_doctor(i) for i in range(60)])
    assert turns(rows[7]) == [
        ("user", f"{DOCTOR}\n\nMy knee 7 hurts."), ("assistant", "Rest 7."),
    ]  # fmt: skip
    sample = FormatSample()
    for row in rows:
        sample.see(row)
    (worn,) = sample.formats()
    assert worn.prefix.startswith(DOCTOR)  # so safety rows can wear the same instruction


def test_chat_doctors_other_file_needs_its_columns_named(tmp_path: Path) -> None:
    rows = [{"input": "My ear hurts.", "answer_doctor": "Rest.", "answer_other": "Run."}]
    path = tmp_path / "rows.json"
    with pytest.raises(DataError, match="columns"):
        rows_of(path, rows)
    (row,) = rows_of(path, rows, columns={"prompt": "input", "completion": "answer_doctor"})
    assert turns(row) == [("user", "My ear hurts."), ("assistant", "Rest.")]


def test_open_orca(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.jsonl", [open_orca(i) for i in range(60)])
    assert rows[7].id == "flan.7"
    assert turns(rows[3])[0] == ("system", "Explain as to a child.")
    assert turns(rows[4]) == [("user", "Why is 4 odd?"), ("assistant", "Because of 4.")]


def test_as_requests_only_they_keep_the_system_prompt(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.jsonl", [open_orca(3)], replies=False)
    assert turns(rows[0]) == [("system", "Explain as to a child."), ("user", "Why is 3 odd?")]
