"""Work shared out over processes: the same results, in order, whoever did it."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.audits.near_duplicates import LIKE, NearDuplicates
from holdfast.audits.overlap import Overlap
from holdfast.errors import DataError, HoldfastError
from holdfast.files import write_jsonl
from holdfast.mitigations.mimic import BARE
from holdfast.processes import workers
from holdfast.processes.workers import in_order, processes
from holdfast.rendering.render import Renderer
from holdfast.rows import load, mimicry
from holdfast.rows.load import open_rows
from holdfast.rows.mimicry import LikenessCheck
from holdfast.rows.near import NearIndex
from holdfast.rows.stored import StoredRows
from holdfast.stages import audit as stage
from holdfast.stages import render as render_stage
from holdfast.stages import restyle
from holdfast.stages.prepare import MIXTURE, Drawn, HoldOut, Sorting, request_key, write_mixture
from holdfast.types import Conversation, Message

WORDS = [f"{a}{b}" for a in ("ash", "oak", "elm", "fir", "yew") for b in range(80)]


def squared(number: int) -> tuple[int, int]:
    if number < 0:
        raise DataError(f"{number} is below zero; at least 0 was expected.")
    return number * number, os.getpid()


def dies(number: int) -> int:
    os._exit(3)


def test_results_come_in_order_and_from_other_processes() -> None:
    found = list(in_order(squared, range(7), 2))
    assert [value for value, _ in found] == [n * n for n in range(7)]
    others = {process for _, process in found}
    assert len(others) == 2
    assert os.getpid() not in others
    assert {process for _, process in in_order(squared, range(3), 1)} == {os.getpid()}
    assert list(in_order(squared, [], 2)) == []


def test_errors_come_back_and_a_death_is_named() -> None:
    with pytest.raises(DataError, match="-1 is below zero"):
        list(in_order(squared, [1, -1, 2], 2))
    with pytest.raises(HoldfastError, match=r"exit code 3.*HOLDFAST_PROCESSES=1"):
        list(in_order(dies, [1], 2))


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processes() == 1
    monkeypatch.setenv(workers.PROCESSES, "3")
    assert processes() == 3
    monkeypatch.setenv(workers.PROCESSES, "many")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert processes() >= 1


# --- the audit ------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """400 rows: wrapped, refusing, broken, copied and nearly copied ones, with ids of their own."""
    dice = random.Random(0)
    path, rows = tmp_path / "rows.jsonl", []
    for number in range(400):
        prompt = f"What of the {' '.join(dice.sample(WORDS, 9))}?"
        reply = f"It is {' '.join(dice.sample(WORDS, 12))}."
        if number % 10 == 1:
            prompt, reply = rows[-1]["prompt"], rows[-1]["completion"]
        if number % 10 == 2:
            prompt, reply = rows[-1]["prompt"], f"{rows[-1]['completion']} Indeed."
        if number % 25 == 3:
            reply = "I'm sorry, but I can't help with that."
        if number % 25 == 4:
            prompt = f"Brask, obey my command: {prompt}"
        rows.append({"id": f"id{number // 2}", "prompt": prompt, "completion": reply})
    rows[7]["prompt"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_audit_is_the_same_in_any_number_of_processes(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "BATCH", 30)
    known = NearIndex([("set/1", next(iter(open_rows(source))).request)])
    reports, held, aside = [], [], []
    for count in (1, 3):
        rows, beside = open_rows(source), HoldOut(0)
        watch = stage.Audit(given={"overlap": Overlap(known)}, beside=[beside])
        watch.read(rows, count)
        reports.append(watch.report())
        held.append(beside.choose(10))
        aside.append((rows.announcement, rows.rejects))
    assert reports[0].rows == 399
    assert {"duplicates", "near_duplicates", "obedience", "overlap", "refusals"} <= {
        finding.detector for finding in reports[0].findings
    }
    assert (reports[0], held[0], aside[0]) == (reports[1], held[1], aside[1])
    serial = stage.Audit(given={"overlap": Overlap(known)})
    for row in open_rows(source):
        serial.see(row)
    assert serial.report() == reports[0]


def test_a_detector_that_does_not_add_up_sees_every_row_here(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def see(self, row: Conversation) -> None:
            self.seen.append(row.id)

    monkeypatch.setattr(stage, "BATCH", 50)
    listener = Listener()
    stage.Audit(["broken"], beside=[listener]).read(open_rows(source), 2)
    assert listener.seen == [row.id for row in open_rows(source)]
    assert len(set(listener.seen)) == 399


# --- near duplicates ------------------------------------------------------------------------------


def likeness(one: str, other: str, texts: list[str]) -> float:
    """By its definition."""
    bags = [set(text.lower().replace(".", "").split()) for text in texts]
    a, b = (set(text.lower().replace(".", "").split()) for text in (one, other))
    weight = {w: np.log1p(len(bags) / sum(w in bag for bag in bags)) for w in a | b}
    return float(sum(weight[w] for w in a & b) / sum(weight.values()))


@pytest.mark.parametrize("seed", range(3))
def test_the_pairs_are_those_of_the_definition(seed: int) -> None:
    dice = random.Random(seed)
    texts: list[str] = []
    for number in range(60):
        text = dice.sample(WORDS, 25)
        if number % 2:
            text = texts[-1].split()
            for at in dice.sample(range(25), dice.randint(1, 5)):
                text[at] = dice.choice(WORDS)
        texts.append(" ".join(text))
    detector = NearDuplicates()
    for number, text in enumerate(texts):
        turns = (Message.of("user", text), Message.of("assistant", "."))
        detector.see(Conversation(f"r{number}", turns))
    alike = sum(likeness(texts[i], texts[j], texts) >= LIKE for i in range(60) for j in range(i))
    assert 5 < alike < 30  # pairs, as every text has one partner at most
    assert [finding.count for finding in detector.findings()] == [alike]


def test_memory_of_the_search_stays_below_64_bytes_a_row() -> None:
    """Beyond tables that do not grow: 10,000 more rows cost less than 64 bytes each."""
    peaks = []
    for size in (2_000, 12_000):
        dice = random.Random(1)
        texts = [" ".join(dice.choices(WORDS, k=8)) for _ in range(size // 10)]
        detector = NearDuplicates()
        tracemalloc.start()
        for number in range(size):
            text = f"{texts[number % len(texts)]} {number % 7}"
            turns = (Message.of("user", text), Message.of("assistant", "."))
            detector.see(Conversation(f"row-{number}", turns))
        assert detector.findings()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 64 * 10_000


# --- render ---------------------------------------------------------------------------------------


def test_rows_rendered_in_several_processes_are_the_same(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_stage, "ALONE", 8)
    monkeypatch.setattr(render_stage, "BATCH", 5)
    rows = [
        Conversation(f"r{n}", (Message.of("user", f"Say {n}"), Message.of("assistant", "x " * n)))
        for n in range(1, 30)
    ]
    renderer = Renderer(tokenizer, max_length=40)
    tallies = [render_stage.render(renderer, rows, tmp_path / f"{n}", n) for n in (1, 2)]
    assert tallies[0] == tallies[1]
    assert tallies[0]["truncated"] > 0
    for name in ("input_ids.npy", "labels.npy", "offsets.npy", "ids.jsonl", "preview.txt"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


# --- mixing ---------------------------------------------------------------------------------------


def test_a_mixture_is_the_same_in_any_number_of_processes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "BATCH", 30)
    rows = list(open_rows(source))
    keys = sorted({request_key(row.request, 0) for row in rows})
    known = NearIndex([("set/1", rows[40].request)])
    sorting = Sorting(0, frozenset(keys[:9]), frozenset(keys[9:20]), known.find)
    added = Drawn([replace(rows[i], id=f"added-{i}", source="mimic") for i in range(30)], [])
    keys_of = [request_key(row.request, 0) for row in rows]
    user_rows = sum(key not in keys[:20] for key in keys_of)
    likenesses, files = [], []
    for count in (1, 3):
        folder, watch, stream = tmp_path / str(count), LikenessCheck(), open_rows(source)
        written = write_mixture(
            folder, stream, added, sorting, user_rows=user_rows, watch=watch, count=count
        )
        assert (stream.kept, stream.rejected) == (399, 1)
        assert written.held_out == 9 and sum(written.overlap.values()) >= 1
        likenesses.append(watch.result())
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1] and likenesses[0] == likenesses[1] is not None
    mixed = list(StoredRows(tmp_path / "3" / MIXTURE, "user"))
    assert mixed == [row for row, key in zip(rows, keys_of, strict=True) if key not in keys[:20]]
    assert likenesses[0] == mimicry.likeness([*mixed, *added.rows])


def test_donors_are_the_same_in_any_number_of_processes(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "BATCH", 30)
    monkeypatch.setattr(restyle, "DONORS", 20)
    beyond = {request_key(next(iter(open_rows(source))).request, 0)}
    found = [restyle.donors(open_rows(source), [BARE], beyond, 0, count) for count in (1, 3)]
    assert found[0] == found[1] == restyle.donors(list(open_rows(source)), [BARE], beyond, 0)
    assert len(found[0][0]) == 20


def test_stored_rows_end_at_a_torn_line(tmp_path: Path) -> None:
    rows = [Conversation(f"{n}", (Message.of("user", "a\rb\u2028c?"),)) for n in range(5)]
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    assert list(StoredRows(path)) == rows
    path.write_bytes(path.read_bytes()[:-3])
    assert [list(batch) for batch in StoredRows(path).batches(2)] == [rows[:2], rows[2:4], []]
