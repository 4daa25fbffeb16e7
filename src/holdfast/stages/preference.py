"""Preference training: the model as the fine-tune left it → one that prefers the chosen answers.

    rows with labels → fine-tune → the reference; pairs → DPO against it → the tuned model

On TRL's `DPOTrainer`, with our rows: prompt, chat template and what is scored are those of the
fine-tune, token for token. The model in between lies in `supervised/` until the end, so that a
killed run goes on from there.
"""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import RecipeError
from holdfast.extras import need
from holdfast.files import read_json, write_json
from holdfast.models import load_model, resolve_model
from holdfast.recipe import TrainSettings, TuningSettings
from holdfast.rendering.render import IGNORE
from holdfast.stages.batches import Collator, LengthGroupedOrder
from holdfast.stages.parallel import shards
from holdfast.stages.train import (
    last_checkpoint,
    progress_callback,
    save_tuned,
    train,
    training_arguments,
    training_log,
)

if TYPE_CHECKING:
    from holdfast.rendering.rendered import RenderedPairs, RenderedRows

PUBLISHED_RATIO = 1 / 40
"""Learning rate of P3's DPO baseline to that of its fine-tune (5e-7 to 2e-5, all weights, 8B)."""
_WATCHED = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")


def train_with_pairs(
    model: Any,
    tokenizer: Any,
    rows: RenderedRows,
    settings: TuningSettings,
    output: Path,
    *,
    pairs: RenderedPairs | None = None,
    base: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **more: Any,
) -> Any:
    """Fine-tune as `holdfast.stages.train.train` does; then on preference pairs, if there are any.

    Args:
        model: a loaded causal language model.
        tokenizer: saved beside the weights.
        rows: rendered rows; of a pair, its chosen side.
        settings: of both; `settings.preference` for the second.
        output: folder of the tuned model.
        pairs: both sides of the pairs.
        base: what an adapter's configuration calls its base model.
        seed: of both.
        progress: whether to draw a bar; None: on a terminal.
        more: of the fine-tune alone (`callbacks`, `validation`).

    Raises:
        MaterialError: pairs, and no TRL.
        RecipeError: arguments that a trainer does not know, or a model in shares.
    """
    named: dict[str, Any] = {"base": base, "seed": seed, "progress": progress}
    if pairs is None:
        return train(model, tokenizer, rows, settings, output, **named, **more)
    if shards(more.get("parallel") or TrainSettings()):
        raise RecipeError(
            "`train.strategy: fsdp` and `deepspeed` do not train preference pairs (`dpo`), whose "
            "reference is a second model. Use `ddp`, or leave the pairs out."
        )
    need("trl", extra="trl", purpose="training on preference pairs (`dpo`)")
    supervised = output / "supervised"
    if not (supervised / "training.json").is_file():
        attached = settings.model_copy(update={"output": "adapter"})
        train(model, tokenizer, rows, attached, supervised, **named, **more)
    # From the disk, whether it was just trained or before a kill: the same bytes either way.
    begun = load_model(
        resolve_model(supervised), quantise=settings.method == "qlora",
        full_precision=settings.method == "full", trainable=True,
    )  # fmt: skip
    return prefer(
        begun, tokenizer, pairs, settings, output,
        before=read_json(supervised / "training.json"), **named,
    )  # fmt: skip


def prefer(
    model: Any,
    tokenizer: Any,
    pairs: RenderedPairs,
    settings: TuningSettings,
    output: Path,
    *,
    before: dict[str, Any],
    base: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Any:
    """Train a model on preference pairs, with itself as it is now for the reference, and save it.

    Args:
        model: a causal language model, or an adapter on one, which is trained further.
        tokenizer: saved beside the weights.
        pairs: both sides of each pair.
        settings: method, batch and `preference`.
        output: folder of the tuned model; `output/supervised` is removed when it stands.
        before: the fine-tune's log, which this one's stands beside.
        base: as in `train_with_pairs`.
        seed: of order and dropout.
        progress: as in `train_with_pairs`.
    """
    from transformers import set_seed

    set_seed(seed)
    checkpoints = output / "checkpoints"
    trainer = make_preference_trainer(model, tokenizer, pairs, settings, checkpoints, seed=seed)
    if sys.stderr.isatty() if progress is None else progress:
        trainer.add_callback(progress_callback())
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    if settings.method != "full":
        tuned.delete_adapter("ref")  # the frozen copy that was the reference
        if settings.output == "merged":
            tuned = tuned.merge_and_unload()
    if trainer.is_world_process_zero():
        save_tuned(tuned, tokenizer, output, base=base)
        log = training_log(trainer, *_WATCHED)
        write_json(output / "training.json", {**before, "preference": log})
        shutil.rmtree(output / "supervised", ignore_errors=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
    return tuned.eval()


def make_preference_trainer(
    model: Any,
    tokenizer: Any,
    pairs: RenderedPairs,
    settings: TuningSettings,
    checkpoints: Path,
    *,
    seed: int,
) -> Any:
    """TRL's `DPOTrainer` with our rows in our order; loss and reference are the library's.

    Raises:
        RecipeError: `tuning.preference.args` that it does not know.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(DPOTrainer):  # type: ignore[misc, unused-ignore]
        """`DPOTrainer` on rows that are rendered already."""

        def _prepare_dataset(self, dataset: Any, *given: Any, **named: Any) -> Any:
            return dataset

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return LengthGroupedOrder(pairs.lengths, settings.batch, seed)

        def create_model_card(self, *given: Any, **named: Any) -> None:
            """None: the run's report and contract say what the model is."""

    trainer = PairTrainer(
        model=model,
        # An adapter's reference is a frozen copy of it, which the library makes.
        ref_model=copy.deepcopy(model) if settings.method == "full" else None,
        args=training_arguments(
            _settings_of(settings), checkpoints, seed=seed, kind=DPOConfig,
            beta=settings.preference.beta, max_length=None, gradient_checkpointing=False,
        ),
        # The library takes a `Dataset` and nothing else: this one holds the pairs' numbers.
        train_dataset=Dataset.from_dict({"pair": list(range(len(pairs)))}),
        data_collator=PairCollator(pairs, tokenizer.pad_token_id or 0),
        processing_class=tokenizer,
    )  # fmt: skip
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    return trainer


def _settings_of(settings: TuningSettings) -> TuningSettings:
    """The fine-tune's settings with the preference block's in their place."""
    own = settings.preference
    args = {k: v for k, v in settings.args.items() if k != "load_best_model_at_end"}
    lr = own.lr or settings.lr * PUBLISHED_RATIO
    return settings.model_copy(
        update={"lr": lr, "epochs": own.epochs, "args": {**args, **own.args}}
    )


class PairCollator:
    """Numbers of pairs → right-padded tensors as `DPOTrainer` reads them."""

    def __init__(self, pairs: RenderedPairs, pad_id: int) -> None:
        self._pairs = pairs
        self._collate = Collator(pad_id, mask=True)

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `completion_mask`: each (2 B, T), chosen sides first."""
        pairs = [self._pairs[row["pair"]] for row in rows]
        sides = [pair[side] for side in ("chosen", "rejected") for pair in pairs]
        batch = self._collate(sides)
        scored = batch.pop("labels") != IGNORE
        return {**batch, "completion_mask": scored.long()}
