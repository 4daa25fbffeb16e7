"""Re-scoring stored answers: a stream, resumable, strict about ids and columns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from holdfast.errors import DataError, RecipeError
from holdfast.files import read_jsonl, write_json, write_jsonl
from holdfast.judges import JUDGES
from holdfast.measuring import rescoring
from holdfast.measuring.rescoring import BATCH, judge_file
from holdfast.types import Attempt, Verdict

NO = "Sorry, I can't help with that."


class Counting:
    """A judge that counts what it is asked; stops when told to."""

    name, version = "counting", "1"
    sides = frozenset({"refuse", "comply"})
    sees_harm = False
    asked = 0
    stop_at: int | None = None

    def judge(self, attempts):
        for _ in attempts:
            if type(self).asked == self.stop_at:
                raise KeyboardInterrupt
            type(self).asked += 1
        return [Verdict(a.id, self.name, self.version, "full_refusal", 0.5) for a in attempts]


@pytest.fixture
def counting(monkeypatch):
    """A fresh counting judge on the shelf."""
    made = type("Judge", (Counting,), {})
    JUDGES.names()
    monkeypatch.setitem(JUDGES._things, "counting", made)
    return made


def answers(path: Path, n: int, **more) -> Path:
    rows = ({"id": f"a{i}", "prompt": "Bad?", "response": NO, **more} for i in range(n))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_verdict_a_line_in_the_order_of_the_file(tmp_path):
    file = answers(tmp_path / "a.jsonl", 600)
    counts = judge_file(file, "refusal", tmp_path / "v.jsonl")
    rows = list(read_jsonl(tmp_path / "v.jsonl"))
    assert [row["id"] for row in rows] == [f"a{i}" for i in range(600)]
    assert counts == {"full_refusal": 600}
    assert {"id", "label", "score", "judge", "reason"} <= set(rows[0])
    assert rows[0]["judge"].startswith("refusal@")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.jsonl", "v.jsonl", "v.jsonl.settings.json",
    ]  # fmt: skip


def test_an_interrupted_run_goes_on_at_the_last_whole_batch(tmp_path, counting, capsys):
    file, output = answers(tmp_path / "a.jsonl", 4 * BATCH + 7), tmp_path / "v.jsonl"
    counting.stop_at = 2 * BATCH + 9
    with pytest.raises(KeyboardInterrupt):
        judge_file(file, "counting", output)
    part = tmp_path / ".v.jsonl.part"
    assert not output.exists()
    assert len(part.read_text().splitlines()) == 2 * BATCH
    with part.open("a") as handle:  # killed while it wrote the next batch
        handle.write('{"id": "torn"}\n{"id": "to')
    counting.stop_at, counting.asked = None, 0
    counts = judge_file(file, "counting", output)
    assert counting.asked == 2 * BATCH + 7  # no answer was judged twice
    assert counts["full_refusal"] == 4 * BATCH + 7 == len(list(read_jsonl(output)))
    assert "were judged before" in capsys.readouterr().err

    counting.asked = 0
    assert judge_file(file, "counting", output) == counts
    assert counting.asked == 0  # finished: nothing is judged again


def test_another_judge_version_or_file_starts_over(tmp_path, counting, capsys):
    file, output = answers(tmp_path / "a.jsonl", 3), tmp_path / "v.jsonl"
    judge_file(file, "counting", output)
    counting.version = "2"
    judge_file(file, "counting", output)
    assert "another version: starting over" in capsys.readouterr().err
    assert next(read_jsonl(output))["judge"] == "counting@2"
    answers(file, 5)
    assert judge_file(file, "counting", output).total() == 5
    assert "another file: starting over" in capsys.readouterr().err


def test_a_killed_process_goes_on(tmp_path):
    file, output = answers(tmp_path / "a.jsonl", 60 * BATCH), tmp_path / "v.jsonl"
    command = [sys.executable, "-m", "holdfast", "judge", str(file), "--output", str(output)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / ".v.jsonl.part"
    for _ in range(1000):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    if output.exists():
        pytest.skip("it had finished before it could be killed")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "were judged before" in done.stderr
    assert [row["id"] for row in read_jsonl(output)] == [f"a{i}" for i in range(60 * BATCH)]


def test_memory_does_not_grow_with_the_file(tmp_path, counting):
    file = answers(tmp_path / "a.jsonl", 20 * BATCH, note="x" * 2000)
    assert file.stat().st_size > 10e6
    tracemalloc.start()
    judge_file(file, "counting", tmp_path / "v.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"id": "a", "response": "x"}, {"id": "a", "response": "y"}], {}, "line 2: the id 'a' oc"),
        ([{"id": "a", "response": "x"}, {"response": "y"}], {}, "line 2: no column 'id'"),
        ([{"id": None, "response": "x"}], {}, "line 1: the id is None"),
        ([{"id": True, "response": "x"}], {}, "line 1: the id is True"),
        ([{"id": "a", "answer": "x"}], {}, "line 1: no column 'response'"),
        ([{"id": "a", "answer": "x"}], {"response": "anwser"}, "Did you mean 'answer'"),
        ([{"id": "a", "response": "x"}], {"prompt": "q"}, "no column 'q'.*--columns prompt="),
        ([{"id": "a", "response": "x"}, {"id": "b", "response": 3}], {}, "line 2: the response is"),
        ([{"id": "a", "response": "x", "expects": "odd"}], {}, "expects is 'odd'"),
        ([{"id": "a", "response": "x"}, [1]], {}, "line 2: not an object"),
    ],
)
def test_bad_rows_are_named_by_their_line_before_anything_is_judged(
    tmp_path, counting, rows, columns, message
):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        judge_file(file, "counting", tmp_path / "v.jsonl", columns)
    assert counting.asked == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_mapping_of_nothing_and_an_output_that_is_the_input(tmp_path):
    file = answers(tmp_path / "a.jsonl", 2)
    with pytest.raises(RecipeError, match=r"Unknown answer column 'respons'.*'response'"):
        judge_file(file, "refusal", tmp_path / "v.jsonl", {"respons": "x"})
    for output in (file, tmp_path):
        with pytest.raises(RecipeError, match="a file of its own"):
            judge_file(file, "refusal", output)


def test_rows_without_ids_are_numbered_and_it_is_said(tmp_path, capsys):
    file = tmp_path / "a.csv"
    file.write_text(f'answer\n"{NO}"\n"Sure, first do this."\n')
    judge_file(file, "refusal", tmp_path / "v.jsonl", {"response": "answer"})
    assert [row["id"] for row in read_jsonl(tmp_path / "v.jsonl")] == ["1", "2"]
    said = capsys.readouterr().err
    assert "numbered from 1" in said and "judged without their request" in said


def test_an_evaluation_folder_and_what_the_judge_cannot_read(tmp_path):
    made = [
        Attempt(f"t/{i}|direct|plain/serve/chat/0|0", str(i), "t", expects, "direct",
                "plain/serve/chat/0", 0, "Q", "Q", "", NO, False, 1)
        for i, expects in enumerate(["refuse", "answer"])
    ]  # fmt: skip
    write_jsonl(tmp_path / "attempts.jsonl", made)
    counts = judge_file(tmp_path, "refusal", tmp_path / "v.jsonl")
    assert counts == {"full_refusal": 1, "unscored": 1}
    assert "does not read items" in list(read_jsonl(tmp_path / "v.jsonl"))[1]["reason"]
    rows = list(read_jsonl(tmp_path / "attempts.jsonl"))
    for broken, told in (
        ({**rows[1], "nope": 1}, "nope"),
        ({k: v for k, v in rows[1].items() if k != "response"}, "response"),
        ({**rows[1], "response": None}, "response"),
        ({**rows[1], "expects": "odd"}, "expects"),
    ):
        write_jsonl(tmp_path / "attempts.jsonl", [rows[0], broken])
        with pytest.raises(DataError, match=f"line 2: not an attempt .*{told}"):
            judge_file(tmp_path / "attempts.jsonl", "refusal", tmp_path / "w.jsonl")


def test_settings_of_an_older_kind_start_over(tmp_path):
    file = answers(tmp_path / "a.jsonl", 2)
    write_json(tmp_path / "v.jsonl.settings.json", {"judge": "refusal"})
    (tmp_path / "v.jsonl").write_text("old\n")
    assert judge_file(file, "refusal", tmp_path / "v.jsonl").total() == 2
    assert rescoring.whole_batches(tmp_path / "none", 2, 4) == 0
