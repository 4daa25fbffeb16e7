"""Files of every kind, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import json
import os
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import DataError, HoldfastError, MaterialError
from holdfast.rows.jsonstream import array_elements
from holdfast.rows.load import SAMPLE, open_rows
from holdfast.types import Conversation

GOOD = {"prompt": "How?", "completion": "So."}
USER_REPLY = [("user", "How?"), ("assistant", "So.")]


def turns(row: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


# --- files -------------------------------------------------------------------------------------


def texts() -> dict[str, str]:
    rows = [GOOD, {"prompt": "Né?", "completion": "Ja,\n„so“."}]
    return {
        "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "b.json": json.dumps(rows),
        "c.json": json.dumps(rows, indent=2, ensure_ascii=False),
        "d.json": "\n".join(json.dumps(row) for row in rows) + "\n\n",
        "e.json": json.dumps({"prompts": ["How?", "Né?"], "completions": ["So.", "Ja,\n„so“."]}),
        "f.json": json.dumps({"version": 1, "data": rows}, indent=1),
        "g.csv": 'prompt,completion\nHow?,So.\n\nNé?,"Ja,\n„so“."\n',
        "h.tsv": 'prompt\tcompletion\nHow?\tSo.\nNé?\t"Ja,\n„so“."\n',
        "i.csv": 'prompt;completion\r\nHow?;So.\r\nNé?;"Ja,\n„so“."\r\n',
    }


@pytest.mark.parametrize("name", texts())
@pytest.mark.parametrize("how", ["plain", "bom", "gzip"])
def test_each_kind_of_file(tmp_path: Path, name: str, how: str) -> None:
    data = (b"\xef\xbb\xbf" if how == "bom" else b"") + texts()[name].encode()
    path = tmp_path / (name + ".gz" if how == "gzip" else name)
    path.write_bytes(gzip.compress(data) if how == "gzip" else data)
    found = list(open_rows(path, strict=True))
    assert [turns(row) for row in found] == [
        USER_REPLY,
        [("user", "Né?"), ("assistant", "Ja,\n„so“.")],
    ]


def test_parquet_and_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    chat = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat}, {"messages": None}]), path)
    rows = open_rows(path)
    assert [turns(row) for row in rows] == [USER_REPLY]
    assert (rows.rejects[0].line, rows.rejects[0].reason) == (
        2,
        "messages is not a list of turns but NoneType",
    )
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_rows(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MaterialError, match=r"pip install 'holdfast\[parquet\]'"):
        open_rows(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_come_before_the_file_was_read_to_its_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    filler = json.dumps({"prompt": "x" * 5000, "completion": "y"}).encode()
    join, ends = (b"\n", (b"", b"\n\xff")) if name == "rows.jsonl" else (b",", (b"[", b",\xff]"))
    path.write_bytes(ends[0] + join.join([filler] * (3 * SAMPLE)) + ends[1])
    stream = iter(open_rows(path))
    for _ in range(2 * SAMPLE):
        next(stream)
    with pytest.raises(DataError, match="is not UTF-8"):
        list(stream)


def test_an_array_of_any_length_is_read_in_little_memory() -> None:
    def chunks() -> Iterable[str]:
        yield "["
        for number in range(4000):
            yield json.dumps({"number": number, "text": "z" * 2000}) + ", "
        yield "0]"

    tracemalloc.start()
    count = sum(1 for _ in array_elements(chunks(), lambda line, reason: AssertionError(reason)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4001
    assert peak < 1_500_000  # of 8 MB


@settings(max_examples=50)
@given(st.data())
def test_arrays_cut_anywhere_decode_like_json(data: st.DataObject) -> None:
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
    rows = data.draw(st.lists(value))
    text = json.dumps(
        rows, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.none() | st.just(1))
    )
    size = data.draw(st.integers(1, 7))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    found = list(array_elements(chunks, lambda line, reason: AssertionError(f"{line}: {reason}")))
    assert [row for _, row in found] == rows
    lines = [line for line, _ in found]
    assert lines == sorted(lines)
    assert all(line <= text.count("\n") + 1 for line in lines)


def test_bad_csv_rows_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nonly one\na,b,c\n"x"y,z\n"two\nlines",b\n')
    rows = open_rows(path)
    assert len(list(rows)) == 2
    assert [(drop.line, drop.reason[:8]) for drop in rows.rejects] == [
        (3, "1 fields"),
        (4, "3 fields"),
        (5, "broken C"),
    ]


# --- files that cannot be read -----------------------------------------------------------------

BAD_FILES: list[tuple[str, bytes, list[str]]] = [
    ("a.jsonl", b"", ["empty"]),
    ("b.jsonl", b" \n\n", ["empty"]),
    ("c.jsonl", b"{nope\n" * 30, ["line 1:", "first 20 lines are all broken", "own"]),
    ("d.jsonl", b'\n{"a": \n', ["line 2:", "only line"]),
    ("e.json", b'[{"a": 1},\n{"a": 2},\n{"a" 3}]', ["line 3:", "one row per line"]),
    ("f.json", b'[{"a": 1},\n{"a": 2}', ["line 2:", "the file ends"]),
    ("g.json", b'[{"a": 1}]\n\n[', ["line 3:", "after the array's end"]),
    ("h.json", b'{"a": 1,\n "b": }', ["line 2:"]),
    ("i.json", b"17", ["line 1", "array of objects"]),
    ("j.json", b'{"a": [1, 2], "b": [1]}', ["differ in length"]),
    ("k.jsonl", b'{"prompt": "a",\n "completion": "b"}\n', ["line 1:"]),
    ("l.jsonl", b'{"prompt": "a"}\n{"p": "caf\xe9"}', ["line 2: byte 26", "0xE9", "iconv -f"]),
    ("m.json", b'[{"prompt": "a"},\n"caf\xe9"]', ["line 2: byte 22", "0xE9", "iconv -f"]),
    ("n.json", b'[{"prompt": "caf\xc3', ["line 1: byte 16", "UTF-8"]),
    ("o.csv", "prompt\né\n".encode("latin-1"), ["line 2: byte 7", "iconv"]),
    ("p.jsonl", json.dumps(GOOD).encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
    ("q.jsonl", json.dumps(GOOD).encode("utf-16-le"), ["UTF-16", "iconv -f UTF-16"]),
    ("r.txt", b"hello", [".txt", ".jsonl", "Rename or convert"]),
    ("s.csv", b'prompt,completion\na,"b\nc\n', ["line 2:", "never closed"]),
    ("t.csv", b"a,a\n1,2\n", ["line 1:", "'a' twice"]),
    ("u.csv", b"a,\n1,2\n", ["line 1:", "without a name"]),
    ("v.csv", b"prompt,completion\n", ["no row"]),
    ("w.json", b"[]", ["no row"]),
    ("x.jsonl.gz", b"not gzip", ["not a whole gzip file"]),
    ("y.jsonl.gz", gzip.compress(os.urandom(9000))[:-900], ["not a whole gzip file"]),
    ("z.jsonl", b'{"text": "only"}\n', ["columns text", "Known: messages", "columns: {prompt:"]),
    ("1.jsonl", b'"a"\n"b"\n', ["no objects with named columns"]),
    ("2.jsonl", b'{"prompt": "", "completion": "b"}\n' * 2, ["none of its 2 rows", "line 1"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "words"), BAD_FILES, ids=[case[0] for case in BAD_FILES])
def test_a_bad_file_is_one_clear_error(
    tmp_path: Path, name: str, data: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(open_rows(path))
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "support_rows.jsonl").write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match=r"Did you mean 'support_rows.jsonl'\?"):
        open_rows(tmp_path / "suport_rows.jsonl")
    with pytest.raises(DataError, match="does not exist either"):
        open_rows(str(tmp_path / "nowhere" / "rows.jsonl"))
    with pytest.raises(DataError, match=r"is a folder.*support_rows.jsonl"):
        open_rows(tmp_path)
    with pytest.raises(DataError, match=r"mydata does not exist"):
        open_rows("mydata")
    for longest in ("x" * 5000, "x/" + "y" * 5000):
        with pytest.raises(DataError, match=r"cannot be read \(File name too long\)"):
            open_rows(longest + ".jsonl")
    with pytest.raises(DataError):
        open_rows("rows\x00.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"]))
def test_whatever_lies_in_a_file_only_our_errors_escape(
    tmp_path: Path, data: bytes, suffix: str
) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    try:
        list(open_rows(path))
    except HoldfastError as error:
        assert "any" in str(error)
