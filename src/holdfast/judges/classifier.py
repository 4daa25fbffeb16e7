"""Judges that are sequence classifiers: one forward pass, one score or class for each answer.

    {request}, {response} → the sheet's text → logits → a class's meaning, a score, or both

The harmfulness reward model of P1 (papers P1.5) and moderation scorers give a score alone: such a
judge reports, and gates only with a threshold that was calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.errors import ModelError
from holdfast.judges import hold
from holdfast.judges._model_judge import ModelJudge, filled, without_marks
from holdfast.judges._reading import Facts, facts_of
from holdfast.judges._sheet import Meaning
from holdfast.models import load_classifier, load_tokenizer
from holdfast.types import Attempt

DEFAULT_TOKENS = 512
"""What such models read where a sheet does not say."""


class ClassifierJudge(ModelJudge):
    """A judge whose model gives one logit per class."""

    batch = 32

    def read(self, attempts: Sequence[Attempt]) -> list[Facts | str]:
        """What the classifier says of each answer."""
        model, tokenizer = self._loaded()
        rows = self._logits(model, tokenizer, attempts)
        classes = self._classes(model.config)
        return [self._facts(row, classes) for row in rows]

    def _loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer, checked to have the classes of the sheet."""
        model, tokenizer = self._engine or self._held()
        self._check_classes(self._classes(model.config))
        return model, tokenizer

    def _held(self) -> tuple[Any, Any]:
        ref = self.reference
        key = ("classifier", ref.location, str(ref.revision))
        return hold(key, lambda: (load_classifier(ref), load_tokenizer(ref)))

    def _logits(self, model: Any, tokenizer: Any, attempts: Sequence[Attempt]) -> list[list[float]]:
        """(N, L) logits."""
        import torch

        encoded = tokenizer(
            [self.text(attempt, tokenizer) for attempt in attempts],
            truncation=True,
            max_length=self.sheet.max_tokens or DEFAULT_TOKENS,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            logits = model(**encoded).logits.float()  # (N, L)
        rows: list[list[float]] = logits.tolist()
        return rows

    def text(self, attempt: Attempt, tokenizer: Any) -> str:
        """What the classifier reads of an answer."""
        values = {
            "request": without_marks(attempt.request, tokenizer),
            "response": without_marks(attempt.prefill + attempt.response, tokenizer),
        }
        return filled(self.sheet.input or "", values)

    # --- classes ----------------------------------------------------------------------------------

    def _classes(self, config: Any) -> list[str]:
        """(L,) names of the classes, lower case."""
        names: Mapping[Any, str] = {int(k): v for k, v in config.id2label.items()}
        return [str(names[i]).lower() for i in sorted(names)]

    def _check_classes(self, classes: Sequence[str]) -> None:
        """Check that the model has the classes that the sheet speaks of.

        Raises:
            ModelError: it has others.
        """
        score = self.sheet.score
        wanted = {*self.sheet.means, *([score.label.lower()] if score and score.label else [])}
        if not wanted <= set(classes):
            raise ModelError(
                f"The judge {self.name!r} speaks of the classes {', '.join(sorted(wanted))}, but "
                f"{self.model} has {', '.join(classes)}. Correct `means` or `score` in its sheet."
            )

    def _facts(self, row: Sequence[float], classes: Sequence[str]) -> Facts | str:
        if not all(map(math.isfinite, row)):
            return "the classifier gave no finite number"
        best = classes[max(range(len(row)), key=row.__getitem__)]
        if self.sheet.means and best not in self.sheet.means:
            return f"the class {best!r} has no meaning in the judge's sheet"
        meaning = self.sheet.means.get(best, Meaning())
        return facts_of(self.sheet, meaning, self._score(row, classes))

    def _score(self, row: Sequence[float], classes: Sequence[str]) -> float | None:
        score = self.sheet.score
        if score is None:
            return None
        at = classes.index(score.label.lower()) if score.label else 0
        return _APPLY[score.apply](row, at)


def _sigmoid(row: Sequence[float], at: int) -> float:
    value = max(-700.0, min(700.0, row[at]))
    return 1 / (1 + math.exp(-value))


def _softmax(row: Sequence[float], at: int) -> float:
    top = max(row)
    return math.exp(row[at] - top) / sum(math.exp(value - top) for value in row)


_APPLY = {"none": lambda row, at: float(row[at]), "sigmoid": _sigmoid, "softmax": _softmax}
