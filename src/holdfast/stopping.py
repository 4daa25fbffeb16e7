"""Stopping early: training ends when the task is learnt well enough.

P2 compares PTST with stopping at equal helpfulness (papers §3a, claim 6): every few steps the model
answers held-out rows as it will be served, and the first step that reaches the level is the last.
Measuring is greedy and draws no random number, so the steps taken are those of the whole training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.engines import Decoding
from holdfast.errors import RecipeError
from holdfast.judges import judge
from holdfast.processes.launch import agreed
from holdfast.progress import say
from holdfast.recipe import StopAt
from holdfast.rendering.prompting import Prompting
from holdfast.types import Answer, Attempt, Item, Prompt

HELPFULNESS = "helpfulness"
"""What the training log calls the measurement."""


@dataclass(frozen=True, slots=True)
class HeldOutHelpfulness:
    """How well a model does the user's task, as it will be served.

    The share of right answers, 0 to 1; where the rows' answers have no form that can be compared,
    the mean log-probability per token of the reference replies, in nats, at most 0.
    """

    items: Sequence[Item]
    tokenizer: Any
    served: Prompting
    decoding: Decoding
    batch: int
    date: str

    @property
    def by_likelihood(self) -> bool:
        """Whether replies are scored by their log-probability."""
        return self.items[0].answer == "likelihood"

    def __call__(self, model: Any) -> float:
        """Measure a model; it is back in training mode after."""
        from holdfast.engines.transformers import TransformersEngine

        engine = TransformersEngine(model, self.tokenizer, date=self.date)
        trained = model.training
        model.eval()
        try:
            return statistics.fmean(self._scores(engine))
        finally:
            model.train(trained)

    def _scores(self, engine: Any) -> Iterator[float]:
        for start in range(0, len(self.items), self.batch):
            items = self.items[start : start + self.batch]
            prompts = [
                Prompt(
                    self.served.apply(item.messages),
                    template=self.served.template,
                    template_args=self.served.template_args,
                )
                for item in items
            ]
            if self.by_likelihood:
                yield from engine.loglikelihood(prompts, [item.reference for item in items])
            else:
                answers = engine.generate(prompts, self.decoding)
                attempts = [_attempt(*pair) for pair in zip(items, answers, strict=True)]
                verdicts = judge("match").judge(attempts)
                yield from (float(v.label == "correct") for v in verdicts)


def stop_callback(settings: StopAt, helpfulness: HeldOutHelpfulness) -> Any:
    """A trainer callback that measures every few steps and ends training at the level.

    Every measurement goes into the trainer's log, and so into checkpoints and `training.json`.

    Raises:
        RecipeError: a level that this kind of answers can never or must always reach.
    """
    from transformers import TrainerCallback

    check_level(settings, by_likelihood=helpfulness.by_likelihood)

    class StopCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Training as far as the task needs it."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            """The model that reaches the level is the one to keep."""
            if args.load_best_model_at_end:
                raise RecipeError(
                    "`tuning.stop_at` and `load_best_model_at_end` keep different models. "
                    "Drop one of them; with a preset, set `tuning.args.load_best_model_at_end` "
                    "to false."
                )

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **more: Any
        ) -> None:
            """Measure where a measurement is due."""
            if state.global_step % settings.every:
                return
            value = helpfulness(model)
            state.log_history.append({"step": state.global_step, HELPFULNESS: value})
            if agreed(value >= settings.at_least):
                say(f"  stopped at step {state.global_step}: helpfulness {value:.3f}")
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            """Say so if the level was never reached."""
            found = [entry[HELPFULNESS] for entry in state.log_history if HELPFULNESS in entry]
            if not found or found[-1] < settings.at_least:
                best = f"{max(found):.3f}" if found else "not measured"
                say(f"  note: `stop_at` {settings.at_least} was not reached (best: {best})")

    return StopCallback()


def check_level(settings: StopAt, *, by_likelihood: bool) -> None:
    """Refuse a level outside what can be measured.

    Raises:
        RecipeError: the level is not on the scale.
    """
    low, high = (-math.inf, 0.0) if by_likelihood else (0.0, 1.0)
    if low < settings.at_least <= high:
        return
    scale = (
        "the mean log-probability of the held-out replies, a number up to 0 such as -0.4"
        if by_likelihood
        else "the share of right held-out answers, a number from 0 to 1 such as 0.3"
    )
    raise RecipeError(f"`tuning.stop_at.at_least` is {settings.at_least}; it is {scale}.")


def _attempt(item: Item, answer: Answer) -> Attempt:
    return Attempt(
        id=item.id, item=item.id, task=item.task, expects=item.expects, attack="direct",
        surface="plain/serve/chat/0", sample=0, request=item.request, prompt="", prefill="",
        response=answer.text, truncated=answer.truncated, tokens=answer.tokens,
        reference=item.reference, answer=item.answer, category=item.category,
    )  # fmt: skip
