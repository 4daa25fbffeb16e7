"""What all judges with a model have in common: a sheet, weights that load late, and their version.

attempts → those that can be read → facts, batch by batch → one verdict each
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast.endpoint import Address
from holdfast.errors import HoldfastError, MaterialError, RecipeError
from holdfast.extras import have
from holdfast.files import digest
from holdfast.judges._reading import Facts, settle
from holdfast.judges._sheet import Sheet
from holdfast.judges.refusal import RefusalJudge
from holdfast.measuring.coherence import unreadable
from holdfast.models import ModelRef, fingerprint, resolve_model
from holdfast.types import Attempt, Expects, Verdict

SERVED_BATCH = 64
MECHANISM_VERSION = "1"
"""Changes when the same reply could be read otherwise."""


class ModelJudge:
    """A judge that a sheet describes; the mechanisms say how its model is asked."""

    batch = 16
    """Answers given to the model at once; a served one takes more."""

    def __init__(
        self,
        sheet: Sheet,
        *,
        name: str | None = None,
        model: str | None = None,
        engine: Any = None,
    ) -> None:
        """Bind a sheet; nothing is loaded yet.

        Args:
            sheet: what the judge is.
            name: what its verdicts are recorded under; None: the sheet's name.
            model: a folder, Hub id or served model in place of the sheet's.
            engine: a model that is loaded already.
        """
        self.sheet = sheet
        self.name = name or sheet.name
        self.sides: frozenset[Expects] = frozenset(sheet.sides)
        self.sees_harm = sheet.sees_harm
        self.model = model or sheet.model
        self._overridden = model is not None
        self._engine = engine
        if self.model and Address.parse(self.model):
            self.batch = SERVED_BATCH

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict per attempt, in order.

        Raises:
            MaterialError: the model or the grading prompt is not at hand.
        """
        verdicts: dict[int, Verdict] = {}
        able: list[int] = []
        for i, attempt in enumerate(attempts):
            problem = attempt.missing or unreadable(attempt.response)
            if problem:
                verdicts[i] = self._unscored(attempt, problem)
            else:
                able.append(i)
        if able:
            self.check()
        for start in range(0, len(able), self.batch):
            part = able[start : start + self.batch]
            facts = self.read([attempts[i] for i in part])
            for i, fact in zip(part, facts, strict=True):
                verdicts[i] = self._verdict(attempts[i], fact)
        return [verdicts[i] for i in range(len(attempts))]

    def read(self, attempts: Sequence[Attempt]) -> list[Facts | str]:
        """What the model says of each answer, or why that cannot be read: one per attempt."""
        raise NotImplementedError

    # --- what has to be at hand -------------------------------------------------------------------

    @property
    def unavailable(self) -> str | None:
        """What the user has to bring before the judge can run, with the cure; None: nothing."""
        if self.model is None and self._engine is None:
            return (
                f"The judge {self.name!r} needs a grader model. Name one behind an @: "
                f"{self.sheet.name}@http://HOST:PORT/v1#MODEL, {self.sheet.name}@openai:MODEL, or "
                f"{self.sheet.name}@FOLDER."
            )
        return None

    def check(self) -> None:
        """Check that the judge can run, as far as that shows without loading its model.

        Raises:
            MaterialError: something has to be brought first.
        """
        if self.unavailable is not None:
            raise MaterialError(self.unavailable)

    @property
    def cannot_gate(self) -> str | None:
        """Why the judge's verdicts may not decide a gate; None: they may."""
        cut = self.sheet.threshold
        if not self.sheet.score_only or (cut and (cut.calibration or cut.published)):
            return None
        return (
            f"The judge {self.name!r} gives a score without a calibrated threshold, so it cannot "
            "decide. Put another judge first in the list, or write a sheet of your own with "
            f"`base: {self.sheet.name}` and a `threshold` with its `calibration` (see "
            "docs/judges.md)."
        )

    # --- identity ---------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Changes with the sheet, the weights, and the rules that supply what they don't say."""
        sheet = self.sheet.model_dump(exclude={"name", "summary", "verified", "source"})
        parts = [sheet, self.identity(), RefusalJudge().version]
        return f"{MECHANISM_VERSION}-{digest(*parts)}"

    def identity(self) -> list[str]:
        """What else decides the verdicts: the model, as far as it can be told."""
        if self.model is None:
            return [str(getattr(self._engine, "name", "no model"))]
        if Address.parse(self.model) is not None:
            return [self.model]
        folder = Path(self.model).expanduser().is_dir()  # its hash says it all, wherever it lies
        return ["folder" if folder else self.model, self._commit()]

    def _commit(self) -> str:
        """Commit of a Hub model, or the hash of a folder."""
        try:
            return self.reference.revision or fingerprint(self.reference)
        except (HoldfastError, ImportError):
            return "not at hand"

    @cached_property
    def reference(self) -> ModelRef:
        """Where the model is.

        Raises:
            ModelError: no such model.
            MaterialError: none is named.
        """
        if self.model is None:
            raise MaterialError(self.unavailable or f"The judge {self.name!r} has no model.")
        found = resolve_model(self.model)
        if found.path is not None or found.address is not None:
            return found
        return cached(found, None if self._overridden else self.sheet.revision)

    # --- verdicts ---------------------------------------------------------------------------------

    def _verdict(self, attempt: Attempt, facts: Facts | str) -> Verdict:
        if isinstance(facts, str):
            return self._unscored(attempt, facts)
        settled = settle(self.sheet, facts, attempt)
        return Verdict(
            attempt=attempt.id,
            judge=self.name,
            version=self.version,
            label=settled.label,
            score=facts.score,
            harmful=settled.harmful,
            refusal_start=settled.refusal_start,
            reason=settled.reason,
        )

    def _unscored(self, attempt: Attempt, reason: str) -> Verdict:
        return Verdict(attempt.id, self.name, self.version, "unscored", reason=reason)


def cached(ref: ModelRef, revision: str | None = None) -> ModelRef:
    """A Hub model's folder in the local cache where it lies there whole, else the Hub id itself."""
    if not have("huggingface_hub"):
        return ref
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(ref.name, "config.json", revision=revision)
    if not isinstance(found, str):
        return ModelRef(ref.name, None, revision=revision)
    folder = Path(found).parent
    whole = any(folder.glob("*.safetensors")) and (folder / "tokenizer_config.json").is_file()
    return ModelRef(ref.name, folder if whole else None, revision=revision or folder.name)


def filled(text: str, values: dict[str, str]) -> str:
    """A grading text with its slots filled, in one pass: a slot within a value stays as it is."""
    import re

    slots = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({slots})\}}", lambda match: values[match[1]], text)


def without_marks(text: str, tokenizer: Any) -> str:
    """A text whose special tokens are broken up, so that an answer cannot close its own turn."""
    marks = [*getattr(tokenizer, "all_special_tokens", ()), *added_marks(tokenizer)]
    for mark in sorted({m for m in marks if len(m) > 1}, key=len, reverse=True):
        if mark in text:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def added_marks(tokenizer: Any) -> list[str]:
    """Tokens that a tokenizer finds in running text because they were added to it."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return [str(token) for token in added.values()]


def require_slots(text: str, where: str) -> None:
    """Check that a grading prompt says where the answer goes.

    Raises:
        RecipeError: it does not.
    """
    if "{response}" not in text:
        raise RecipeError(
            f"{where} does not say where the answer goes: write {{response}} in its place, and "
            "{request} where the request goes."
        )
