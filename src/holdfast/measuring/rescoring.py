"""Re-scoring: stored answers, from here or from anywhere else → one verdict a line; resumable.

    check every row (ids, columns) → judge batch after batch → verdicts.jsonl

The file is read twice as a stream: once for what is wrong with it, so that no judge is paid for a
file that cannot be finished, and once to judge. Memory holds one batch and the ids' hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, RecipeError, did_you_mean
from holdfast.files import append_jsonl, make_folder, read_json, read_jsonl, sha256_file, write_json
from holdfast.judges import Judge, judge
from holdfast.measuring.evaluation import attempt_of
from holdfast.progress import say, track
from holdfast.rows.records import Record, read_records
from holdfast.stages.judge import FAILED, judge_batch
from holdfast.types import Attempt, Verdict

BATCH = 256
"""Answers judged and written at once: the unit of resumption."""
COLUMNS = ("id", "prompt", "response", "expects")
"""What a row of somebody else's file may have."""


def judge_file(
    file: Path, name: str, output: Path, columns: Mapping[str, str] | None = None
) -> Counter[str]:
    """Judge stored answers into JSON lines with `id`, `label`, `score`, `judge` and the reason.

    A killed run goes on behind the last batch on disk. The settings stand beside the output; where
    they have changed (another judge or version, another file), it starts over and says so.

    Args:
        file: an evaluation folder, its `attempts.jsonl`, or rows with id, prompt and response.
        name: a judge on the shelf.
        output: the verdicts, one a line, in the order of the file.
        columns: what a row calls `id`, `prompt`, `response` and `expects`.

    Returns:
        How often each label was given.

    Raises:
        DataError: a row that is no answer, an id that is missing or occurs twice, with its line.
        RecipeError: an unknown judge, or a column mapping that names nothing.
    """
    answers = Answers.of(file / "attempts.jsonl" if file.is_dir() else file, columns or {})
    if output.is_dir() or output.resolve() == answers.file.resolve():
        raise RecipeError(f"--output {output} must be a file of its own, such as verdicts.jsonl.")
    reader = judge(name)
    total = answers.check()
    job = _Job(reader, answers, output)
    done = job.resume(total)
    rest = islice(batches(answers, BATCH), done, None)
    for batch in track(rest, f"judge ({name})", total=-(-total // BATCH), done=done):
        append_jsonl(job.part, [verdict_row(v) for v in job.verdicts(batch)])
    return job.finish()


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as other tools read it."""
    return {
        "id": verdict.attempt,
        "label": verdict.label,
        "score": verdict.score,
        "harmful": verdict.harmful,
        "judge": f"{verdict.judge}@{verdict.version}",
        "refusal_start": verdict.refusal_start,
        "reason": verdict.reason,
    }


class _Job:
    """One output file on its way: the part that is written, and the settings it was made with."""

    def __init__(self, reader: Judge, answers: Answers, output: Path) -> None:
        self.reader = reader
        self.answers = answers
        self.output = output
        self.part = output.with_name(f".{output.name}.part")
        self.beside = output.with_name(f"{output.name}.settings.json")
        self.settings = {
            "judge": reader.name,
            "version": reader.version,
            "file": sha256_file(answers.file),
            "columns": dict(answers.columns),
            "batch": BATCH,
        }

    def resume(self, total: int) -> int:
        """How many batches are done; what does not belong to these settings is cleared away."""
        make_folder(self.output.parent)
        before = read_json(self.beside) if self.beside.is_file() else None
        if before != self.settings:
            other = [k for k in self.settings if (before or {}).get(k) != self.settings[k]]
            if before is not None and (self.part.exists() or self.output.exists()):
                say(f"! {self.output} was made with another {', '.join(other)}: starting over")
            self.part.unlink(missing_ok=True)
            write_json(self.beside, self.settings)
        elif self.output.exists() and not self.part.exists():
            self.output.rename(self.part)  # finished: every batch is found done
        done = whole_batches(self.part, BATCH, total)
        if done:
            say(f"· {min(done * BATCH, total):,} of {total:,} answers were judged before")
        return done

    def verdicts(self, batch: tuple[Attempt, ...]) -> list[Verdict]:
        """A batch's verdicts; what is on a side the judge cannot read is unscored."""
        able = [a for a in batch if a.expects in self.reader.sides]
        read = {v.attempt: v for v in judge_batch(self.reader, able)}
        return [read.get(a.id) or self._foreign(a) for a in batch]

    def _foreign(self, attempt: Attempt) -> Verdict:
        reason = f"{self.reader.name} does not read items to be met with {attempt.expects!r}"
        return Verdict(attempt.id, self.reader.name, self.reader.version, "unscored", reason=reason)

    def finish(self) -> Counter[str]:
        """Put the output in its place, and count the labels and the judge's failures in it."""
        counts: Counter[str] = Counter()
        failed = 0
        for row in read_jsonl(self.part):
            counts[row["label"]] += 1
            failed += row["reason"].startswith(FAILED)
        self.part.replace(self.output)
        if failed:
            say(f"! the judge failed on {failed:,} answers; they are unscored (see {self.output})")
        return counts


def whole_batches(path: Path, size: int, total: int) -> int:
    """Batches of `size` lines that are whole on disk; what follows the last one is cut off.

    The last batch of `total` lines may be shorter.
    """
    if not path.exists():
        return 0
    lines = done = kept = at = 0
    with path.open("rb+") as handle:
        for line in handle:
            if not line.endswith(b"\n"):
                break
            lines += 1
            at += len(line)
            if lines % size == 0 or lines == total:
                done, kept = done + 1, at
        handle.truncate(kept)
    return done


def batches(answers: Iterable[Attempt], size: int) -> Iterator[tuple[Attempt, ...]]:
    """Answers in groups of `size`, the last one shorter."""
    rest = iter(answers)
    while batch := tuple(islice(rest, size)):
        yield batch


# --- a file of answers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """Attempts from a file: our own, or rows with columns for id, prompt and response."""

    file: Path
    columns: Mapping[str, str]
    """What the file calls each of `COLUMNS`, where it is not the same."""
    own: bool
    """Whether the rows are attempts of an evaluation folder."""
    present: frozenset[str]
    """Which of `COLUMNS` the first row has, and so every row must have."""

    @classmethod
    def of(cls, file: Path, columns: Mapping[str, str]) -> Answers:
        """Look at the first row of a file.

        Raises:
            DataError: no rows, or a first row without the mapped columns.
            RecipeError: a mapping of something that is no column of an answer.
        """
        for key in columns:
            if key not in COLUMNS:
                raise RecipeError(f"Unknown answer column {key!r}. {did_you_mean(key, COLUMNS)}")
        record = next(iter(read_records(file)), None)
        if record is None:
            raise DataError(f"{file} has no rows. Give one answer a line: id, prompt, response.")
        where = _where(file, record)
        row = _mapping(record, where)
        if not columns and "attack" in row and isinstance(row.get("sample"), int):
            return cls(file, {}, own=True, present=frozenset())
        names = {key: columns.get(key, key) for key in COLUMNS}
        for key in ("response", *columns):
            if names[key] not in row:
                raise DataError(
                    f"{where}: no column {names[key]!r}. {did_you_mean(names[key], row)} "
                    f"Name it with --columns {key}=COLUMN."
                )
        present = frozenset(key for key, name in names.items() if name in row)
        return cls(file, dict(columns), own=False, present=present)

    def check(self) -> int:
        """Read every row once; returns how many there are.

        Raises:
            DataError: a row that is no answer, or an id that occurs twice.
        """
        if not self.own and "id" not in self.present:
            say(f"! {self.file} has no column 'id': its rows are numbered from 1")
        if not self.own and "prompt" not in self.present:
            say(f"! {self.file} has no column 'prompt': answers are judged without their request")
        seen: set[bytes] = set()
        for record, attempt in self._pairs():
            key = blake2b(attempt.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key in seen:
                where = _where(self.file, record)
                raise DataError(
                    f"{where}: the id {attempt.id!r} occurs twice. Give every answer an id of its "
                    "own, or leave the column out to have the rows numbered."
                )
            seen.add(key)
        return len(seen)

    def __iter__(self) -> Iterator[Attempt]:
        """The answers, as a stream."""
        return (attempt for _, attempt in self._pairs())

    def _pairs(self) -> Iterator[tuple[Record, Attempt]]:
        for record in read_records(self.file):
            where = _where(self.file, record)
            row = _mapping(record, where)
            yield record, (_own(row, where) if self.own else self._foreign(row, record, where))

    def _foreign(self, row: Mapping[str, Any], record: Record, where: str) -> Attempt:
        values = {key: self._value(row, key, where) for key in self.present}
        request = str(values.get("prompt") or "")
        return Attempt(
            id=_identity(values["id"], where) if "id" in values else str(record.number),
            item=str(record.number), task="file", expects=_expects(values.get("expects"), where),
            attack="direct", surface="plain/serve/chat/0", sample=0, request=request,
            prompt=request, prefill="", response=_text(values["response"], where),
            truncated=False, tokens=0,
        )  # fmt: skip

    def _value(self, row: Mapping[str, Any], key: str, where: str) -> Any:
        name = self.columns.get(key, key)
        if name not in row:
            raise DataError(f"{where}: no column {name!r}, which the first row has.")
        return row[name]


def _where(file: Path, record: Record) -> str:
    return f"{file}, {record.place}"


def _mapping(record: Record, where: str) -> Mapping[str, Any]:
    if record.problem or not isinstance(record.value, Mapping):
        raise DataError(f"{where}: {record.problem or 'not an object with named columns'}.")
    return record.value


def _own(row: Mapping[str, Any], where: str) -> Attempt:
    try:
        return attempt_of(row)
    except TypeError as error:
        told = str(error).replace("Attempt.__init__() ", "")
        raise DataError(
            f"{where}: not an attempt of an evaluation folder ({told}). For answers from elsewhere "
            "name the columns, such as --columns response=COLUMN."
        ) from error


def _identity(value: Any, where: str) -> str:
    if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    raise DataError(f"{where}: the id is {value!r}; a text or a whole number was expected.")


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise DataError(
        f"{where}: the response is {value!r}; a text was expected (an empty one is allowed)."
    )


def _expects(value: Any, where: str) -> Any:
    known = ("refuse", "comply", "answer")
    if value is None:
        return "refuse"
    if value in known:
        return value
    raise DataError(f"{where}: expects is {value!r}; known are {', '.join(known)}.")
