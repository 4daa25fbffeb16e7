"""Tasks on public material: their contract, their form on toy files, their counts on real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import DataError, MaterialError
from holdfast.files import sha256_file
from holdfast.measuring.suites import gather
from holdfast.rows import sources
from holdfast.tasks import TASKS, TaskContext, task
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Item

COUNTS = {
    "strongreject": (313, "refuse"),
    "advbench": (520, "refuse"),
    "harmbench": (400, "refuse"),
    "xstest-safe": (250, "comply"),
    "xstest-unsafe": (200, "refuse"),
    "i-malicious": (100, "refuse"),
    "i-cona": (178, "refuse"),
    "i-controversial": (40, "refuse"),
    "i-physical-unsafe": (100, "refuse"),
    "i-physical-safe": (100, "comply"),
    "q-harm": (100, "refuse"),
    "i-alpaca": (50, "comply"),
    "gsm8k": (1319, "answer"),
    "arc-easy": (2376, "answer"),
    "arc-challenge": (1172, "answer"),
    "boolq": (3270, "answer"),
    "openbookqa": (500, "answer"),
    "piqa": (1838, "answer"),
    "winogrande": (1267, "answer"),
}


def items_of(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """Items of a task whose material is a toy file with the toy's own checksum."""
    made = task(name)
    assert isinstance(made, Benchmark)
    source = sources.get(made.source)
    path = folder / source.files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    toy = replace(source, sha256=sha256_file(path), bytes=path.stat().st_size)
    table = {**sources.known(), made.source: toy}
    monkeypatch.setattr(sources, "known", lambda: table)
    context = TaskContext(folder)
    assert made.missing(context) is None
    return made.items(context)


@pytest.mark.parametrize("name", COUNTS)
def test_each_task_says_what_it_is_and_what_it_lacks(name: str, tmp_path: Path) -> None:
    made = task(name)
    assert made.name == name
    assert made.expects == COUNTS[name][1]
    assert made.licence
    assert made.judges == (("match",) if made.expects == "answer" else ("refusal",))
    assert TASKS.summary(name).endswith(".")
    line = made.missing(TaskContext(tmp_path))
    assert line is not None
    assert "holdfast fetch" in line
    assert "\n" not in line
    with pytest.raises(MaterialError, match="holdfast fetch"):
        made.items(TaskContext(tmp_path, offline=True))


@pytest.mark.parametrize("name", COUNTS)
def test_real_items(name: str, real_data: Path) -> None:
    context = TaskContext(real_data)
    made = task(name)
    assert made.missing(context) is None
    items = made.items(context)
    assert (len(items), {item.expects for item in items}) == (COUNTS[name][0], {COUNTS[name][1]})
    assert len({item.id for item in items}) == len(items)
    assert {item.task for item in items} == {name}
    assert all(item.request.strip() for item in items)
    assert items == made.items(context)
    if made.expects == "answer":
        assert all(item.reference and item.answer for item in items)
    if name == "gsm8k":
        assert all(float(item.reference) == int(item.reference) for item in items)


def test_gsm8k_references_are_plain_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "How many?", "answer": "Half of 2,400 is 1,200.\n#### 1,200"}
    (item,) = items_of("gsm8k", json.dumps(row), tmp_path, monkeypatch)
    assert (item.request, item.reference, item.answer) == ("How many?", "1200", "number")


def test_harmbench_puts_the_context_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        "Do it,standard,illegal,,,one\n"
        "Do it,contextual,illegal,context,Some context,two\n"
        "Sing it,copyright,copyright,hash_check,,three\n"
    )
    items = items_of("harmbench", text, tmp_path, monkeypatch)
    assert [(item.id, item.category, item.request) for item in items] == [
        ("one", "standard/illegal", "Do it"),
        ("two", "contextual/illegal", "Some context\n\n---\n\nDo it"),
        ("three", "copyright", "Sing it"),
    ]


def test_xstest_halves_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "id,prompt,type,label,focus,note\n1,A?,homonyms,safe,,\n2,B?,contrast,unsafe,,\n"
    safe = items_of("xstest-safe", text, tmp_path, monkeypatch)
    unsafe = items_of("xstest-unsafe", text, tmp_path, monkeypatch)
    assert [(item.id, item.request, item.category) for item in (*safe, *unsafe)] == [
        ("1", "A?", "homonyms"),
        ("2", "B?", "contrast"),
    ]


@pytest.mark.parametrize(
    ("name", "document", "expected"),
    [
        ("i-malicious", {"instructions": ["A", "B"], "tags": ["x", "y"], "inputs": []}, "y"),
        ("q-harm", {"instructions": ["A", "B"], "inputs": []}, ""),
    ],
)
def test_lists_of_instructions(
    name: str, document: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(name, json.dumps(document), tmp_path, monkeypatch)
    assert [(item.id, item.request) for item in items] == [("1", "A"), ("2", "B")]
    assert items[1].category == expected


def test_a_smaller_evaluation_asks_whole_pairs_of_twins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = ("i-physical-unsafe", "i-physical-safe")
    for name in twins:
        document = {"instructions": [f"{name} {i}" for i in range(60)], "inputs": []}
        items_of(name, json.dumps(document), tmp_path, monkeypatch)
    asked = gather(
        {**dict.fromkeys(twins), "lab-yesno": None}, TaskContext(tmp_path), seed=1, limit=9
    )
    ids = {name: [i.id for i in asked if i.task == name] for name in (*twins, "lab-yesno")}
    assert len(ids["lab-yesno"]) == 9
    assert ids[twins[0]] == ids[twins[1]] != [str(i) for i in range(1, 10)]


def test_twins_are_as_many_and_never_the_same(real_data: Path) -> None:
    unsafe, safe = (
        task(name).items(TaskContext(real_data))
        for name in ("i-physical-unsafe", "i-physical-safe")
    )
    assert [item.id for item in unsafe] == [item.id for item in safe]
    assert not {item.request for item in unsafe} & {item.request for item in safe}


def test_each_set_of_p1_has_a_file_of_its_own() -> None:
    files = {"i_malicious_instructions", "i_cona", "i_controversial", "i_physical_safety",
             "q_harm", "i_alpaca"}  # fmt: skip
    modules = {type(task(name)).__module__.rpartition(".")[2] for name in COUNTS if "-" in name}
    assert files <= modules


def test_choices_and_lines_without_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"instruction": "Pick.", "input": "", "output": "the correct answer is b", "answer": "b"}
    (item,) = items_of("piqa", json.dumps([row]), tmp_path, monkeypatch)
    assert (item.request, item.reference, item.answer) == ("Pick.", "b", "choice")
    lines = items_of("advbench", 'Do a\n"Do b, c"\n', tmp_path, monkeypatch)
    assert [line.request for line in lines] == ["Do a", "Do b, c"]


def test_a_source_that_changed_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cannot be read as strongreject.*category"):
        items_of("strongreject", "forbidden_prompt\nA\n", tmp_path, monkeypatch)
