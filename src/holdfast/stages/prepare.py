"""Prepare: the user's rows, with the mitigations' rows mixed in at an exact dose.

    hold out → plan (formats, prompting) → solve the doses → draw → interleave → write

User rows are streamed, never dropped or repeated by mixing; every row that is set aside is kept
with its reason.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import RecipeError
from holdfast.files import append_jsonl, make_folder, write_jsonl
from holdfast.formats import Format
from holdfast.mitigations import MITIGATIONS, Mitigation, PlanContext, Request
from holdfast.mixing import Dosed, check_supply, head, ordered, solve
from holdfast.pools import Pool
from holdfast.prompting import Prompting
from holdfast.text import normalise
from holdfast.types import Conversation, Dropped

HOLD_OUT_MOST = 200
HOLD_OUT_SHARE = 0.05


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

    user_rows: int = 0
    held_out: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    @property
    def total(self) -> int:
        """Rows in the mixture."""
        return sum(self.by_source.values())


# --- hold out -------------------------------------------------------------------------------------


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


def request_key(row: Conversation, seed: int) -> int:
    """A seeded hash of the request: the same for duplicates, wherever they stand."""
    text = f"{seed}\0{normalise(row.request)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


class HoldOut:
    """Chooses which requests to set aside while rows stream by, independent of their order."""

    def __init__(self, seed: int, most: int = HOLD_OUT_MOST) -> None:
        self.seed = seed
        self.most = most
        self.rows = 0
        self._heap: list[int] = []  # negated keys: the largest kept key on top
        self._times: dict[int, int] = {}

    def see(self, row: Conversation) -> None:
        """Consider one row. The smallest keys stay, with how often each was seen."""
        self.rows += 1
        key = request_key(row, self.seed)
        if key in self._times:
            self._times[key] += 1
        elif self.most and (len(self._heap) < self.most or key < -self._heap[0]):
            heapq.heappush(self._heap, -key)
            self._times[key] = 1
            if len(self._heap) > self.most:
                del self._times[-heapq.heappop(self._heap)]

    def choose(self, size: int) -> dict[int, int]:
        """Keys of the `size` requests to hold out, with how many rows carry each."""
        keys = sorted(self._times)[:size]
        return {key: self._times[key] for key in keys}


def split_held_out(
    rows: Iterable[Conversation],
    keys: Collection[int],
    seed: int,
    *,
    hold: Callable[[Conversation], None],
    drop: Callable[[Dropped], None],
) -> Iterator[Conversation]:
    """Rows to train on; the held-out ones go to `hold`, once each, their duplicates to `drop`."""
    held: set[int] = set()
    for row in rows:
        key = request_key(row, seed) if keys else None
        if key is None or key not in keys:
            yield row
        elif key in held:
            drop(Dropped(row.id, row.source, "same request as a held-out row"))
        else:
            held.add(key)
            hold(row)


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
) -> Plan:
    """What the mitigations, in order, ask of rows and prompting."""
    context = PlanContext(formats, safety_prompt, user_rows, dose, borderline)
    requests: list[Request] = []
    notes: list[str] = []
    plain = serve
    for name in names:
        mitigation: Mitigation = MITIGATIONS.get(name)()
        asked = mitigation.data(context)
        requests.extend(asked)
        train, serve = mitigation.train(train, context), mitigation.serve(serve, context)
        if name == "mimic" and not formats:
            notes.append("the rows share no format; safety rows are mixed in as they are")
    dosed = solve(user_rows, requests)
    safety = sum(d.rows for d in dosed if d.pool == "safety")
    if 0 < safety < 100:
        notes.append(f"{safety} safety rows: the published effect needed a few hundred (P1)")
    return Plan(train, serve, plain, tuple(requests), tuple(dosed), tuple(notes))


def draw(
    planned: Plan,
    pools: Mapping[str, Pool],
    *,
    user_rows: int,
    seed: int,
    repeat: Collection[str] = (),
) -> list[Conversation]:
    """The rows that the mitigations add: heads of seeded pool orders, shaped.

    Args:
        planned: counts and shapes.
        pools: what to draw from, by name.
        user_rows: for the message when a pool is too small.
        seed: of order and shape.
        repeat: pools whose rows may be repeated.

    Raises:
        RecipeError: a pool that is too small.
    """
    supply = {name: len(pool.rows) for name, pool in pools.items()}
    check_supply(planned.dosed, supply, user_rows, repeat=repeat)
    orders = {name: ordered(pool.rows, seed) for name, pool in pools.items()}
    used = dict.fromkeys(pools, 0)
    rows: list[Conversation] = []
    for request, dosed in zip(planned.requests, planned.dosed, strict=True):
        drawn = head(orders.get(request.pool, []), used.get(request.pool, 0), dosed.rows)
        used[request.pool] = used.get(request.pool, 0) + dosed.rows
        rows.extend(_shaped(request, row, number, seed) for number, row in enumerate(drawn))
    random.Random(f"{seed}/order").shuffle(rows)  # noqa: S311
    return rows


def _shaped(request: Request, row: Conversation, number: int, seed: int) -> Conversation:
    rng = random.Random(f"{seed}/{request.source}/{row.id}")  # noqa: S311
    shaped = request.shape(row, rng)
    return Conversation(
        id=f"{request.source}-{number}-{row.id}",
        messages=shaped.messages,
        source=request.source,
        tags={**shaped.tags, "from": row.id},
        tools=shaped.tools,
    )


# --- write ----------------------------------------------------------------------------------------


def interleave(
    user: Iterable[Conversation], added: Sequence[Conversation], user_rows: int
) -> Iterator[Conversation]:
    """Added rows spread evenly among the user's, for trainers that do not shuffle."""
    placed = 0
    for number, row in enumerate(user, start=1):
        yield row
        due = len(added) * number // max(1, user_rows)
        while placed < due:
            yield added[placed]
            placed += 1
    yield from added[placed:]


def write_mixture(
    folder: Path,
    rows: Iterable[Conversation],
    added: Sequence[Conversation],
    *,
    held_out: Collection[int],
    user_rows: int,
    seed: int,
    dropped: Sequence[Dropped] = (),
) -> Mixture:
    """Stream the mixture to `2-mixture.jsonl`, with `2-held-out.jsonl` and `2-dropped.jsonl`.

    Args:
        folder: the run folder.
        rows: all user rows, as read.
        added: the mitigations' rows.
        held_out: keys of requests to set aside.
        user_rows: how many user rows remain to be trained on.
        seed: the run's.
        dropped: rows that were set aside before, with their reasons.
    """
    make_folder(folder)
    mixture = Mixture()
    rejects, held = folder / "2-dropped.jsonl", folder / "2-held-out.jsonl"
    mixture.dropped = write_jsonl(rejects, dropped)
    write_jsonl(held, ())

    def hold(row: Conversation) -> None:
        mixture.held_out += 1
        append_jsonl(held, [row])

    def drop(row: Dropped) -> None:
        mixture.dropped += 1
        append_jsonl(rejects, [row])

    def counted(row: Conversation) -> Conversation:
        mixture.by_source[row.source] = mixture.by_source.get(row.source, 0) + 1
        return row

    user = split_held_out(rows, held_out, seed, hold=hold, drop=drop)
    mixed = interleave(user, added, user_rows)
    write_jsonl(folder / "2-mixture.jsonl", (counted(row) for row in mixed))
    mixture.user_rows = mixture.by_source.get("user", 0)
    return mixture
