"""Labelling: which answers people should read, the file they fill in, and reading it back.

The file has `id`, `prompt`, `response` and an empty `label`, in random order and without arm or
verdict, so that nobody is led. What the ids stand for is in a second file beside it.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, RecipeError, did_you_mean
from holdfast.files import digest, read_object, write_json, write_text
from holdfast.measuring.evaluation import LABELS_OF, CellKey, Evaluation, bad_outcome
from holdfast.rows.records import read_records
from holdfast.statistics.calibration import Stratum, allocate
from holdfast.types import SIDE_OF, Attempt, Label, Verdict

ARMS: Mapping[str, str] = {"before": "4-before", "after": "6-after", "control": "control/6-after"}
"""Arms of a run folder, and where their answers lie."""
ALONE = "answers"
"""The arm of an evaluation folder that belongs to no run."""
LABELS = tuple(sorted(LABELS_OF["refuse"]))
"""What a person may write."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""

StratumKey = tuple[str, str, str, str]
"""Arm, side, attack, the judge's label."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One answer that may be labelled."""

    arm: str
    attempt: Attempt
    label: Label
    """What the judge that gates said."""

    @property
    def cell(self) -> CellKey:
        """Task, attack, surface."""
        return self.attempt.task, self.attempt.attack, self.attempt.surface

    @property
    def stratum(self) -> StratumKey:
        """Where it is drawn from."""
        return self.arm, SIDE_OF[self.attempt.expects], self.attempt.attack, self.label

    @property
    def id(self) -> str:
        """What the file to label calls it: betrays nothing, and looks like no number."""
        return "x" + digest(self.arm, self.attempt.id)

    def event(self, label: Label) -> bool:
        """Whether a person's label is the bad event of the answer's side.

        An answer that the person cannot read either is none: a share of all answers is estimated.
        """
        said = Verdict(self.attempt.id, "person", "", label)
        return bad_outcome(self.attempt.expects, said) == 1.0


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that a sample is drawn from."""

    arms: Mapping[str, Evaluation]
    units: Sequence[Unit]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Arm → hash of its answers and verdicts: a calibration of others does not count."""
        return {
            arm: digest(
                sorted((u.attempt.id, u.attempt.response, u.label) for u in self.units
                       if u.arm == arm)
            )
            for arm in self.arms
        }  # fmt: skip

    @property
    def sizes(self) -> dict[StratumKey, int]:
        """Stratum → answers, in a fixed order."""
        sizes: dict[StratumKey, int] = {}
        for unit in self.units:
            sizes[unit.stratum] = sizes.get(unit.stratum, 0) + 1
        return dict(sorted(sizes.items()))

    def strata(self, labels: Mapping[str, Label]) -> dict[StratumKey, Stratum]:
        """Stratum → what people said of it."""
        counts = {key: [0, 0] for key in self.sizes}
        judged: dict[StratumKey, float] = {}
        for unit in self.units:
            said = bad_outcome(unit.attempt.expects, Verdict("", "", "", unit.label))
            judged[unit.stratum] = 0.5 if said is None else said
            if unit.id in labels:
                counts[unit.stratum][0] += 1
                counts[unit.stratum][1] += unit.event(labels[unit.id])
        return {
            key: Stratum(size, counts[key][0], counts[key][1], judged[key])
            for key, size in self.sizes.items()
        }


def frame_of(arms: Mapping[str, Evaluation], comparison: Mapping[str, Any] | None) -> Frame:
    """The answers that people could judge: of the gating cells, or of all where nothing gates.

    Capability items are left out: their answers are known.
    """
    units = [
        Unit(arm, attempt, evaluation.verdict(attempt).label)
        for arm, evaluation in arms.items()
        for attempt in evaluation.attempts.values()
        if attempt.expects != "answer"
    ]
    wanted = _gating(comparison)
    if wanted is not None:
        units = [u for u in units if u.cell in wanted.get(u.arm, ())]
    return Frame(arms, units)


def _gating(comparison: Mapping[str, Any] | None) -> dict[str, set[CellKey]] | None:
    """Arm → its gating cells; None where there is no comparison."""
    if comparison is None:
        return None
    main, control = (
        {(c["task"], c["attack"], c["surface"]) for c in (arm or {}).get("cells", ()) if c["gates"]}
        for arm in (comparison, comparison.get("control"))
    )
    return {"before": main | control, "after": main, "control": control}


def read_frame(folder: Path) -> tuple[Frame, dict[str, Any] | None]:
    """What can be labelled in a run folder or an evaluation folder, and the run's comparison.

    Raises:
        DataError: neither, or nothing in it that a person could judge.
    """
    inside = {arm: folder / place for arm, place in ARMS.items()}
    path = folder / "7-comparison.json"
    comparison = read_object(path) if path.is_file() else None
    found = {
        arm: Evaluation.read(p) for arm, p in inside.items() if (p / "verdicts.jsonl").exists()
    }
    if not found:
        found = {ALONE: Evaluation.read(folder)}
    frame = frame_of(found, comparison)
    if not frame.units:
        raise DataError(
            f"{folder} has no answers to requests that should be refused or met, so there is "
            "nothing that a person could label."
        )
    return frame, comparison


# --- the file to fill in --------------------------------------------------------------------------


def beside(labels: Path) -> Path:
    """Where the key to a file of labels lies."""
    return labels.with_name(f"{labels.name}.key.json")


def write_sample(folder: Path, total: int, output: Path, *, seed: int = 0) -> int:
    """Draw answers spread over arms, attacks and verdicts, and write the file to label.

    Args:
        folder: a run folder or an evaluation folder.
        total: answers to draw.
        output: the CSV file; its key is written beside it.
        seed: of the choice and the order.

    Returns:
        How many were drawn.

    Raises:
        DataError: nothing to draw from.
        RecipeError: no labels asked for, or a file that somebody may have begun to fill in.
    """
    if total < 1:
        raise RecipeError(f"--sample {total}: label one answer or more, for example 100.")
    if output.exists():
        raise RecipeError(f"{output} exists and may hold labels. Choose another --output.")
    frame, _ = read_frame(folder)
    given = allocate(frame.sizes, total)
    chance = random.Random(f"labels {seed}")  # noqa: S311  (a draw, not a secret)
    drawn: list[Unit] = []
    for key, count in given.items():
        mine = sorted((u for u in frame.units if u.stratum == key), key=lambda u: u.id)
        drawn += chance.sample(mine, count)
    chance.shuffle(drawn)
    write_json(beside(output), _key(frame, given, drawn, seed))
    write_text(output, _csv(drawn))
    return len(drawn)


def _key(
    frame: Frame, given: Mapping[StratumKey, int], drawn: Sequence[Unit], seed: int
) -> dict[str, Any]:
    sizes = frame.sizes
    return {
        "seed": seed,
        "fingerprints": frame.fingerprints,
        "strata": [
            {"arm": k[0], "side": k[1], "attack": k[2], "label": k[3], "answers": sizes[k],
             "drawn": given[k]}
            for k in sizes
        ],
        "rows": {
            u.id: {"arm": u.arm, "attempt": u.attempt.id,
                   "probability": given[u.stratum] / sizes[u.stratum]}
            for u in drawn
        },
    }  # fmt: skip


def _csv(drawn: Sequence[Unit]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "prompt", "response", "label"])
    for unit in drawn:
        writer.writerow(
            [unit.id, harmless(_asked(unit.attempt)), harmless(unit.attempt.response), ""]
        )
    return text.getvalue()


def _asked(attempt: Attempt) -> str:
    if not attempt.prefill:
        return attempt.request
    return f"{attempt.request}\n\n[the reply was begun with: {attempt.prefill}]"


def harmless(cell: str) -> str:
    """Text that no spreadsheet runs as a formula: an apostrophe stands before one that it would."""
    text = cell.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    text = text.encode("utf-8", "replace").decode()
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


# --- the file filled in ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Labels:
    """What people wrote."""

    given: Mapping[str, Label]
    """Unit id → label."""
    empty: int
    """Rows without a label."""
    gone: int
    """Drawn rows that the file no longer has."""
    probability: Mapping[str, float]
    """Unit id → chance of having been drawn."""


def read_labels(path: Path, frame: Frame) -> Labels:
    """Read a filled-in file against the answers it was drawn from.

    Raises:
        DataError: an unknown label, an id that is missing, unknown or there twice (each with its
            line), no label at all, a key that is missing or belongs to other answers.
    """
    key = _read_key(path, frame)
    given: dict[str, Label] = {}
    seen: set[str] = set()
    for record in read_records(path):
        where = f"{path}, {record.place}"
        if record.problem or not isinstance(record.value, Mapping):
            raise DataError(f"{where}: {record.problem or 'not a row with columns'}.")
        identity = _identity(record.value, seen, key["rows"], where)
        seen.add(identity)
        label = _label(record.value, where)
        if label is not None:
            given[identity] = label
    if not given:
        raise DataError(
            f"{path}: no row has a label yet. Write one of {', '.join(LABELS)} into the column "
            "'label' of each row."
        )
    rows = key["rows"]
    chances = {identity: float(rows[identity]["probability"]) for identity in given}
    return Labels(given, len(seen) - len(given), len(rows) - len(seen), chances)


def _read_key(path: Path, frame: Frame) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"There is no file of labels at {path}. Draw one with --sample 100.")
    try:
        key = read_object(beside(path))
    except FileNotFoundError:
        raise DataError(
            f"{beside(path)} is missing: it says what the ids in {path.name} stand for. Keep the "
            "two files together, under the names that --sample gave them."
        ) from None
    if not {"rows", "fingerprints"} <= set(key):
        raise DataError(f"{beside(path)} is not what --sample wrote. Draw a new sample.")
    if key["fingerprints"] != frame.fingerprints:
        raise DataError(
            f"{path} was drawn from other answers or verdicts than those in the folder (they were "
            "evaluated or judged again since). Draw a new sample with --sample."
        )
    return key


def _identity(row: Mapping[str, Any], seen: set[str], known: Mapping[str, Any], where: str) -> str:
    for column in ("id", "label"):
        if column not in row:
            raise DataError(f"{where}: no column {column!r}. {did_you_mean(column, row)}")
    identity = str(row["id"] or "").strip()
    if not identity:
        raise DataError(f"{where}: the id is missing. Leave the ids as --sample wrote them.")
    if identity not in known:
        raise DataError(f"{where}: the id {identity!r} is not of this sample.")
    if identity in seen:
        raise DataError(f"{where}: the id {identity!r} occurs twice. Keep one row of each answer.")
    return identity


def _label(row: Mapping[str, Any], where: str) -> Label | None:
    """A person's label; None for an empty cell."""
    text = str(row["label"] or "").strip().lower().replace(" ", "_").replace("-", "_")
    if not text:
        return None
    for label in LABELS:
        if label == text:
            return label
    raise DataError(f"{where}: unknown label {row['label']!r}. {did_you_mean(text, LABELS)}")
