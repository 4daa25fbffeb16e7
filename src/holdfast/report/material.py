"""Reading a run folder: whatever is there, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import DataError
from holdfast.files import read_object
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.labelling import frame_of

FILES: Mapping[str, str] = {
    "recipe.yaml": "the resolved recipe",
    "manifest.json": "versions, hashes, seeds and licences",
    "1-audit.json": "the audit of the data",
    "1-audit-evidence.jsonl": "the rows behind the audit's findings",
    "2-mixture.jsonl": "the training rows",
    "2-held-out.jsonl": "rows kept from training",
    "2-dropped.jsonl": "rows set aside, with their reasons",
    "3-rendered": "token ids and labels",
    "3-export": "the training rows as chat messages, for another trainer",
    "4-before": "answers and verdicts of the untouched model",
    "4-noise": "the untouched model asked again: what moves when nothing is tuned",
    "waiting.json": "what has to be done elsewhere before the run goes on",
    "5-model": "the tuned model",
    "5-job": "ids of the server's fine-tuning job",
    "6-after": "answers and verdicts of the tuned model",
    "6-contract.json": "what could be verified of how the tuned model is served",
    "control": "the plain arm: the same tuning without mitigations",
    "7-comparison.json": "the paired comparison",
    "calibration.json": "the judge measured against people",
}
"""What a run folder holds, in the order of the story."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a report is made of; every part may be missing."""

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    tally: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    waiting: Mapping[str, Any] = field(default_factory=dict)
    """What another trainer has to do before the run goes on."""
    comparison: Mapping[str, Any] | None = None
    before: Evaluation | None = None
    after: Evaluation | None = None
    control: Evaluation | None = None
    """The plain arm after tuning."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """The judge against people, for these very answers and verdicts."""
    calibration_is_stale: bool = False
    """Whether there is a calibration, but of other answers or verdicts."""
    tokenizer: Path | None = None
    """The tuned model's tokenizer, to count positions in tokens."""
    files: tuple[str, ...] = ()
    """Which of `FILES` are there."""

    @property
    def control_comparison(self) -> Mapping[str, Any] | None:
        """The plain arm's comparison, if there is one."""
        found: Mapping[str, Any] | None = (self.comparison or {}).get("control")
        return found

    @property
    def control_before(self) -> Evaluation | None:
        """What the plain arm is compared with: the same untouched model."""
        return self.before


def read_run(run: Path) -> Material:
    """Read a run folder.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
    """
    present = tuple(name for name in FILES if (run / name).exists())
    if not present:
        raise DataError(
            f"{run} is not a run folder: it has none of {', '.join(list(FILES)[:3])}, …. "
            "Give the folder that `run:` of the recipe names."
        )
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8") if recipe.is_file() else ""
    comparison = _read(run / "7-comparison.json") or None
    arms = {
        "before": read_evaluation(run / "4-before"),
        "after": read_evaluation(run / "6-after"),
        "control": read_evaluation(run / "control" / "6-after"),
    }
    calibration = _read(run / "calibration.json")
    stale = bool(calibration) and not _is_of(calibration, arms, comparison)
    return Material(
        name=run.resolve().name,
        recipe=_mapping(yaml.safe_load(text)) if text else {},
        recipe_text=text,
        manifest=_read(run / "manifest.json"),
        audit=_read(run / "1-audit.json"),
        tally=_read(run / "3-rendered" / "tally.json"),
        training=_read(run / "5-model" / "training.json"),
        waiting=_read(run / "waiting.json"),
        comparison=comparison,
        **arms,
        calibration={} if stale else calibration,
        calibration_is_stale=stale,
        tokenizer=run / "5-model" / "tokenizer.json",
        files=present,
    )


def _is_of(
    calibration: Mapping[str, Any],
    arms: Mapping[str, Evaluation | None],
    comparison: Mapping[str, Any] | None,
) -> bool:
    """Whether a calibration was made of these answers and verdicts."""
    found = {arm: evaluation for arm, evaluation in arms.items() if evaluation is not None}
    return calibration.get("fingerprints") == frame_of(found, comparison).fingerprints


def read_evaluation(folder: Path) -> Evaluation | None:
    """An evaluation folder, or None where it is missing or not finished."""
    needed = ("settings.json", "attempts.jsonl", "verdicts.jsonl")
    if not all((folder / name).is_file() for name in needed):
        return None
    return Evaluation.read(folder)


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
