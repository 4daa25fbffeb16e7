"""Prepare: the user's rows, with the mitigations' rows mixed in at an exact dose.

    hold out → split off validation → plan (formats, prompting) → solve the doses → draw
    → interleave → write

User rows are streamed, never dropped or repeated by mixing; every row that is set aside is kept
with its reason.
"""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, TypeVar

import numpy as np

from holdfast.errors import DataError, RecipeError
from holdfast.files import atomic_writer, dumps, make_folder
from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.progress import track
from holdfast.recipe import MimicSettings, TriplesSettings
from holdfast.rendering.prompting import Prompting
from holdfast.rows.induction import Format
from holdfast.rows.load import RowStream
from holdfast.rows.mimicry import LikenessCheck, sample_key
from holdfast.rows.mixing import (
    Dosed,
    check_supply,
    deal_requests,
    rank,
    rows_wanted,
    solve,
    with_validation,
)
from holdfast.rows.near import Match
from holdfast.rows.pools import Pool, row_hash
from holdfast.rows.style import Donor
from holdfast.rows.triples import TokenEnds
from holdfast.text import normalise
from holdfast.types import Conversation, Dropped

T = TypeVar("T")

HOLD_OUT_MOST = 200
HOLD_OUT_SHARE = 0.05
_AT_ONCE = 4096
"""Keys that are Python numbers at one time."""
FEW_SAFETY_ROWS = 100
"""Below this many, P1 saw no reliable effect."""

MIXTURE = "2-mixture.jsonl"
VALIDATION = "2-validation.jsonl"
HELD_OUT = "2-held-out.jsonl"
DROPPED = "2-dropped.jsonl"
ROWS = "2-rows.jsonl"
"""Id, source, hash and split of every row that is trained, validated on or held out."""
OVERLAP = "2-overlap.jsonl"
"""User rows that repeat an evaluation item: reported, never dropped."""
ARTEFACTS = (MIXTURE, VALIDATION, HELD_OUT, DROPPED, ROWS, OVERLAP)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the mitigations decided together."""

    train: Prompting
    serve: Prompting
    plain: Prompting
    """Serving as the recipe had it, before any mitigation."""
    requests: tuple[Request, ...]
    dosed: tuple[Dosed, ...]
    notes: tuple[str, ...] = ()

    def with_validation(self, rows: Sequence[int]) -> Plan:
        """The plan, drawing that many rows a request for the validation split as well."""
        return replace(self, dosed=tuple(with_validation(self.dosed, rows)))

    def to_json(self) -> dict[str, Any]:
        """Promptings and doses, for the manifest."""
        return {
            "train_system": self.train.system,
            "serve_system": self.serve.system,
            "plain_system": self.plain.system,
            "rows": [d.to_json() for d in self.dosed],
            "notes": list(self.notes),
        }


@dataclass(slots=True)
class Mixture:
    """Counts of a written mixture."""

    by_source: dict[str, int] = field(default_factory=dict)
    """Rows to train on."""
    validation: dict[str, int] = field(default_factory=dict)
    """Rows to validate on, by source."""
    held_out: int = 0
    dropped: int = 0
    overlap: dict[str, int] = field(default_factory=dict)
    """User rows in training that repeat an evaluation item, by how they do."""

    @property
    def user_rows(self) -> int:
        """The user's rows among those to train on."""
        return self.by_source.get("user", 0)

    @property
    def total(self) -> int:
        """Rows to train on."""
        return sum(self.by_source.values())

    def to_json(self) -> dict[str, Any]:
        """As stored in the manifest."""
        return {
            "by_source": dict(sorted(self.by_source.items())),
            "validation": dict(sorted(self.validation.items())),
            "held_out": self.held_out,
            "dropped": self.dropped,
            "overlap_with_evaluation": dict(sorted(self.overlap.items())),
        }


# --- hold out and validation ----------------------------------------------------------------------


def hold_out_size(rows: int, asked: int | None) -> int:
    """Rows to set aside: what was asked, else min(200, 5 %).

    Raises:
        RecipeError: more than the data has.
    """
    if asked is None:
        return min(HOLD_OUT_MOST, int(HOLD_OUT_SHARE * rows))
    if asked >= rows:
        raise RecipeError(
            f"`evaluate.hold_out` is {asked}, but the data has {rows:,} rows; "
            "leave some to train on."
        )
    return asked


def request_key(request: str, seed: int) -> int:
    """A seeded hash of a request: the same for duplicates, wherever they stand."""
    text = f"{seed}\0{normalise(request)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


class HoldOut:
    """Chooses which requests to set aside while rows stream by, independent of their order.

    Holds 8 bytes a row.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys = array("Q")

    @property
    def rows(self) -> int:
        """Rows seen."""
        return len(self._keys)

    def see(self, row: Conversation) -> None:
        """Consider one row."""
        self._keys.append(request_key(row.request, self.seed))

    def fresh(self) -> HoldOut:
        """Another one of the same seed that has seen nothing."""
        return HoldOut(self.seed)

    def take(self, other: HoldOut) -> None:
        """Add the rows that another one saw."""
        self._keys += other._keys

    def choose(self, size: int) -> dict[int, int]:
        """Keys of the `size` requests to hold out, with how many rows carry each."""
        keys, times = self._counted()
        return dict(zip(keys[:size].tolist(), times[:size].tolist(), strict=True))

    def choose_rows(self, rows: int, beyond: Collection[int]) -> dict[int, int]:
        """Further keys that carry exactly `rows` rows, or as many below as whole requests allow.

        Args:
            rows: how many.
            beyond: keys that are set aside already.
        """
        chosen: dict[int, int] = {}
        left = rows
        counted = self._counted()
        for start in range(0, len(counted[0]), _AT_ONCE):
            some = (column[start : start + _AT_ONCE].tolist() for column in counted)
            for key, times in zip(*some, strict=True):
                if not left:
                    return chosen
                if times <= left and key not in beyond:
                    chosen[key] = times
                    left -= times
        return chosen

    def _counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct keys, smallest first, and how often each was seen."""
        keys = np.sort(np.frombuffer(self._keys, dtype=np.uint64))
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        return keys[first], np.diff(first, append=len(keys))


def split_held_out(
    entries: Iterable[Entry], *, hold: Callable[[Entry], None], drop: Callable[[Dropped], None]
) -> Iterator[Entry]:
    """Rows that are not held out; of those that are, the first of each request goes to `hold`."""
    held: set[int] = set()
    for entry in entries:
        if entry.split != "held-out":
            yield entry
        elif entry.key in held:
            drop(Dropped(entry.id, entry.source, "same request as a held-out row"))
        else:
            held.add(entry.key)
            hold(entry)


def split_validated(entries: Iterable[Entry], validate: Callable[[Entry], None]) -> Iterator[Entry]:
    """Rows to train on; all rows of the validation requests go to `validate`."""
    for entry in entries:
        if entry.split == "validation":
            validate(entry)
        else:
            yield entry


# --- plan -----------------------------------------------------------------------------------------


def plan(
    names: Sequence[str],
    *,
    train: Prompting,
    serve: Prompting,
    safety_prompt: str,
    formats: Sequence[Format],
    user_rows: int,
    dose: Mapping[str, Any],
    borderline: Mapping[str, Any],
    defences: Prompting | None = None,
    triples: TriplesSettings | None = None,
    token_ends: TokenEnds | None = None,
    mimic: MimicSettings | None = None,
    donors: Sequence[Sequence[Donor]] = (),
) -> Plan:
    """What the mitigations, in order, ask of rows and prompting."""
    context = PlanContext(
        formats, safety_prompt, user_rows, dose, borderline, defences or Prompting(),
        triples or TriplesSettings(), token_ends, mimic or MimicSettings(), donors,
    )  # fmt: skip
    requests: list[Request] = []
    notes: list[str] = []
    plain = serve
    for name in names:
        mitigation: Mitigation = MITIGATIONS.get(name)()
        asked = mitigation.data(context)
        requests.extend(asked)
        train, serve = mitigation.train(train, context), mitigation.serve(serve, context)
        if name == "mimic" and not formats:
            how = "take the style of what they ask" if any(donors) else "are mixed in as they are"
            notes.append(f"the rows share no format; safety rows {how}")
    dosed = solve(user_rows, requests)
    notes += dose_notes(requests, dosed)
    return Plan(train, serve, plain, tuple(requests), tuple(dosed), tuple(notes))


def dose_notes(requests: Sequence[Request], dosed: Sequence[Dosed]) -> list[str]:
    """What a person should know of the doses before training on them."""
    notes = [
        f"`at_least` holds for {d.source}: {d.rows:,} rows make {100 * d.share:.2f} % of the "
        "mixture, more than was asked for"
        for r, d in zip(requests, dosed, strict=True)
        if r.at_least and d.rows == r.at_least and r.count is None
    ]
    notes += [
        f"`{d.source}` adds no row (asked: {d.asked}): give a larger dose with `{d.pool}.count`"
        for r, d in zip(requests, dosed, strict=True)
        if not d.rows and 0 not in (r.count, r.share, r.ratio)
    ]
    safety = sum(d.rows for d in dosed if d.pool == "safety")
    if 0 < safety < FEW_SAFETY_ROWS:
        notes.append(f"{safety} safety rows: the published effect needed a few hundred (P1)")
    return notes


def even_out(planned: Plan, pools: Mapping[str, Pool], *, user_rows: int, seed: int) -> Plan:
    """The plan, with row counts in place of doses that are meant in another shape's words.

    Raises:
        RecipeError: a pool with fewer words than that.
    """
    dosed = []
    for request, found in zip(planned.requests, planned.dosed, strict=True):
        if request.as_much_as is not None and found.rows and found.pool in pools:
            rows = _rows_for_words(request, pools[found.pool].rows, found.rows, seed)
            ratio = rows / user_rows if user_rows else 0.0
            asked = f"{found.asked}, as many words as in the users' formats"
            found = replace(found, rows=rows, ratio=ratio, asked=asked)
        dosed.append(found)
    total = user_rows + sum(d.rows for d in dosed)
    shared = [replace(d, share=d.rows / total if total else 0.0) for d in dosed]
    return replace(planned, dosed=tuple(shared))


def _rows_for_words(request: Request, rows: Sequence[Conversation], count: int, seed: int) -> int:
    """How many rows, as they are, come to the words of `count` rows in another shape."""
    assert request.as_much_as is not None
    like = [
        request.as_much_as(row, random.Random(f"mimic/{rank(row, seed)}"))  # noqa: S311
        for row in rows[:count]
    ]
    words, wanted = 0, sum(map(_words, like))
    for number, row in enumerate(rows, start=1):
        words += _words(row)
        if words >= wanted:
            return number
    raise RecipeError(
        f"The safety pool's {len(rows):,} rows have {words:,} words, fewer than the {wanted:,} "
        f"that {count:,} mimicking rows have. Ask for a smaller dose, or give more rows with "
        "`safety.source: FILE`."
    )


def _words(row: Conversation) -> int:
    return sum(len(turn.content.split()) for turn in row.messages)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows that the mitigations add."""

    rows: list[Conversation]
    """To train on, shuffled."""
    validation: list[Conversation]


def draw(
    planned: Plan,
    pools: Mapping[str, Pool],
    *,
    user_rows: int,
    seed: int,
    repeat: Collection[str] = (),
) -> Drawn:
    """The rows that the mitigations add: the heads of the pools, shaped; validation is the tail.

    Args:
        planned: counts and shapes.
        pools: what to draw from, by name, in drawing order (`mixing.ordered`).
        user_rows: for the message when a pool is too small.
        seed: of the shapes, and of the order of the result.
        repeat: pools whose rows may be repeated.

    Raises:
        RecipeError: a pool that is too small.
    """
    supply = {name: len(pool.rows) for name, pool in pools.items()}
    check_supply(user_rows, planned.requests, planned.dosed, supply, repeat=repeat)
    drawn = Drawn([], [])
    for name in dict.fromkeys(d.pool for d in planned.dosed):
        here = [(r, d) for r, d in zip(planned.requests, planned.dosed, strict=True)
                if d.pool == name]  # fmt: skip
        rows = pools[name].rows if name in pools else []
        for prefer in [r.prefer for r, _ in here if r.prefer]:
            rows = list(prefer(rows))
        asked = [r for r, _ in here]
        cut = len(rows) - rows_wanted(asked, [d.validation for _, d in here])
        train = deal_requests(rows[:cut], asked, [d.rows for _, d in here])
        validation = deal_requests(rows[cut:][::-1], asked, [d.validation for _, d in here])
        for (request, _), trained, validated in zip(here, train, validation, strict=True):
            fit = replace(request, shape=request.suit(rows)) if request.suit else request
            drawn.rows.extend(_shaped(fit, trained, request.source, seed))
            drawn.validation.extend(_shaped(fit, validated, f"{request.source}-validation", seed))
    random.Random(f"{seed}/order").shuffle(drawn.rows)  # noqa: S311
    return drawn


def _shaped(
    request: Request, rows: Sequence[Conversation], name: str, seed: int
) -> Iterator[Conversation]:
    for number, row in enumerate(rows):
        content = rank(row, seed)
        shaped = request.shape(row, random.Random(f"{request.source}/{content}"))  # noqa: S311
        yield Conversation(
            id=f"{name}-{number}-{content[:8]}",
            messages=shaped.messages,
            source=request.source,
            tags={**shaped.tags, "from": row.id},
            tools=shaped.tools,
        )


# --- write ----------------------------------------------------------------------------------------


def interleave(user: Iterable[T], added: Sequence[T], user_rows: int) -> Iterator[T]:
    """Added rows spread evenly among the user's, for trainers that do not shuffle."""
    placed = 0
    for number, row in enumerate(user, start=1):
        yield row
        due = len(added) * number // max(1, user_rows)
        while placed < due:
            yield added[placed]
            placed += 1
    yield from added[placed:]


Split = Literal["train", "validation", "held-out"]


class Entry(NamedTuple):
    """A row on its way to the files: what is written of it, in place of its conversation."""

    id: str
    source: str
    split: Split
    line: str
    """The row, as JSON."""
    listed: str
    """Its line of `ROWS`."""
    key: int = 0
    """Of its request (`request_key`), where requests are set aside at all."""
    sample: int = 0
    """`mimicry.sample_key`."""
    match: Match | None = None
    """The evaluation item that it repeats."""

    @classmethod
    def of(
        cls, row: Conversation, split: Split, *, key: int = 0, match: Match | None = None
    ) -> Entry:
        """The entry of a row."""
        about = {"id": row.id, "source": row.source, "hash": row_hash(row), "split": split}
        line, listed = (f"{dumps(value)}\n" for value in (row, about))
        return cls(row.id, row.source, split, line, listed, key, sample_key(row), match)

    def row(self) -> Conversation:
        """The conversation."""
        return Conversation.from_json(json.loads(self.line))


@dataclass(frozen=True, slots=True)
class Sorting:
    """Says of user rows where they go, whatever rows came before them. Can be pickled."""

    seed: int
    held_out: frozenset[int] = frozenset()
    """Keys of requests to set aside for measuring."""
    validated: frozenset[int] = frozenset()
    """Keys of requests to set aside for validation."""
    overlap: Callable[[str], Match | None] | None = None
    """The evaluation item that a request repeats."""

    def __call__(self, rows: Iterable[Conversation]) -> list[Entry]:
        """The rows as entries, in order."""
        return list(map(self._sorted, rows))

    def _sorted(self, row: Conversation) -> Entry:
        key = request_key(row.request, self.seed) if self.held_out or self.validated else 0
        if key in self.held_out:
            return Entry.of(row, "held-out", key=key)
        if key in self.validated:
            return Entry.of(row, "validation", key=key)
        match = self.overlap(row.request) if self.overlap else None
        return Entry.of(row, "train", key=key, match=match)


class MixtureFiles:
    """The files of a mixture while they are written; whole or absent."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.mixture = Mixture()
        self._files: dict[str, TextIO] = {
            name: stack.enter_context(atomic_writer(folder / name)) for name in ARTEFACTS
        }

    def train(self, entry: Entry) -> None:
        """A row to train on."""
        _count(self.mixture.by_source, entry.source)
        self._put(MIXTURE, entry)
        if entry.match is not None:
            self._overlap(entry.id, entry.match)

    def validate(self, entry: Entry) -> None:
        """A row to watch the loss on."""
        _count(self.mixture.validation, entry.source)
        self._put(VALIDATION, entry)

    def hold(self, entry: Entry) -> None:
        """A row to measure the tuned model with."""
        self.mixture.held_out += 1
        self._put(HELD_OUT, entry)

    def drop(self, row: Dropped) -> None:
        """A row set aside."""
        self.mixture.dropped += 1
        self._files[DROPPED].write(dumps(row) + "\n")

    def _overlap(self, row: str, match: Match) -> None:
        """A user row in training that repeats an evaluation item."""
        _count(self.mixture.overlap, match.kind)
        about = {"id": row, "item": match.name, "kind": match.kind,
                 "likeness": round(match.likeness, 4)}  # fmt: skip
        self._files[OVERLAP].write(dumps(about) + "\n")

    def _put(self, name: str, entry: Entry) -> None:
        self._files[name].write(entry.line)
        self._files[ROWS].write(entry.listed)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def write_mixture(
    folder: Path,
    rows: Iterable[Conversation],
    drawn: Drawn,
    sorting: Sorting,
    *,
    user_rows: int,
    dropped: Sequence[Dropped] = (),
    watch: LikenessCheck | None = None,
    count: int | None = None,
) -> Mixture:
    """Stream the mixture and what was kept from it into the run folder (`ARTEFACTS`).

    Args:
        folder: the run folder.
        rows: all user rows, as read; those of a source are sorted in several processes.
        drawn: the mitigations' rows.
        sorting: where each of the user's rows goes.
        user_rows: how many user rows remain to be trained on.
        dropped: rows that were set aside before, with their reasons.
        watch: sees the rows to train on.
        count: processes, where there are many rows; None: as many as there are cores.

    Raises:
        DataError: the data is not what the doses were computed for.
    """
    make_folder(folder)
    batches = rows.mapped(sorting, count) if isinstance(rows, RowStream) else [sorting(rows)]
    entries = track(chain.from_iterable(batches), "prepare", total=user_rows)
    with ExitStack() as stack:
        files = MixtureFiles(folder, stack)
        for reject in dropped:
            files.drop(reject)
        left = split_held_out(entries, hold=files.hold, drop=files.drop)
        user = split_validated(left, files.validate)
        added = [Entry.of(row, "train") for row in drawn.rows]
        for entry in interleave(user, added, user_rows):
            files.train(entry)
            if watch is not None:
                watch.consider(entry.source, entry.sample, entry.row)
        for row in drawn.validation:
            files.validate(Entry.of(row, "validation"))
        found = files.mixture.user_rows
        if found != user_rows:
            raise DataError(
                f"The data changed while it was read: {found:,} rows to train on, where the audit "
                f"counted {user_rows:,}. Leave the file alone during a run, and run again."
            )
    return files.mixture
