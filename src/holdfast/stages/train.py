"""Train: rendered rows → a tuned model, on `transformers.Trainer`.

The objective is token-mean cross-entropy on caller-made labels, so every mitigation is a matter of
rows, and accelerate, FSDP, DeepSpeed and resuming come with the trainer. One thing differs from a
plain `Trainer`: the order of rows, which is a function of seed and epoch alone (so that a killed
run continues exactly) and groups rows of similar length (so that padding is not computed).
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ModelError, RecipeError
from holdfast.files import read_json, write_json
from holdfast.progress import StepBar
from holdfast.recipe import TuningSettings
from holdfast.render import IGNORE

if TYPE_CHECKING:
    from holdfast.rendered import RenderedRows

MEGABATCH = 50
"""Batches whose rows are sorted by length together; the field's usual figure."""


def length_grouped_order(lengths: Sequence[int], batch: int, *, seed: int, epoch: int) -> list[int]:
    """Row order of one epoch: shuffled, then batched by similar length, batches shuffled.

    Args:
        lengths: tokens of each row, (N,).
        batch: rows per optimizer step.
        seed: of the run.
        epoch: 0-based.

    Returns:
        A permutation of range(N); every consecutive `batch` rows are of similar length.
    """
    rng = random.Random(f"{seed}/{epoch}")  # noqa: S311  (an order, not a secret)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch * MEGABATCH):
        pool = sorted(order[start : start + batch * MEGABATCH], key=lambda i: -lengths[i])
        batches.extend(pool[i : i + batch] for i in range(0, len(pool), batch))
    # The short batch stays last, so that every other step sees `batch` rows.
    short = [b for b in batches if len(b) < batch]
    full = [b for b in batches if len(b) == batch]
    rng.shuffle(full)
    return [i for b in (*full, *short) for i in b]


class LengthGroupedOrder:
    """A sampler whose order depends on seed and epoch alone."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths = lengths
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(
            length_grouped_order(self.lengths, self.batch, seed=self.seed, epoch=self.epoch)
        )


class Collator:
    """Rows → right-padded tensors."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pad `input_ids`, `labels` and make the mask: each (B, T)."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, fill: int) -> Any:
            values = [list(row[key]) + [fill] * (width - len(row[key])) for row in rows]
            return torch.tensor(values, dtype=torch.long)

        mask = [[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in rows]
        return {
            "input_ids": padded("input_ids", self.pad_id),
            "labels": padded("labels", IGNORE),
            "attention_mask": torch.tensor(mask, dtype=torch.long),
        }


def train(
    model: Any,
    tokenizer: Any,
    rows: RenderedRows,
    settings: TuningSettings,
    output: Path,
    *,
    seed: int = 0,
    base: str | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Any] = (),
    validation: RenderedRows | None = None,
) -> Any:
    """Fine-tune `model` on rendered rows and save it.

    Args:
        model: a loaded causal language model.
        tokenizer: saved beside the weights, with its chat template.
        rows: rendered rows; `input_ids` and `labels` of any trainer's convention.
        settings: method, rates, epochs.
        output: folder of the tuned model; checkpoints lie in `output/checkpoints` until the end.
        seed: of order, initialisation of adapters and dropout.
        base: what an adapter's configuration calls its base model; None: where it was loaded from.
        progress: whether to draw a bar; None: on a terminal.
        callbacks: further trainer callbacks, such as `holdfast.stopping.stop_callback`.
        validation: rows whose loss is looked at every `save_steps` steps and at the end.

    Returns:
        The tuned model, adapter merged or attached as `settings.output` says.

    Raises:
        RecipeError: `tuning.args` that the trainer does not know.
        ModelError: the launcher did something else than asked.
    """
    from transformers import set_seed

    set_seed(seed)
    progress = sys.stderr.isatty() if progress is None else progress
    if settings.method != "full":
        model = add_adapter(model, settings)
    checkpoints = output / "checkpoints"
    trainer = make_trainer(
        model, tokenizer, rows, settings, checkpoints, seed=seed, progress=progress,
        validation=validation,
    )  # fmt: skip
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    if validation is not None:
        trainer.evaluate()
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    if settings.method != "full" and settings.output == "merged":
        tuned = tuned.merge_and_unload()
    if trainer.is_world_process_zero():
        save_tuned(tuned, tokenizer, output, base=base)
        write_json(output / "training.json", training_log(trainer))
        shutil.rmtree(checkpoints, ignore_errors=True)
    return tuned.eval()


def make_trainer(
    model: Any,
    tokenizer: Any,
    rows: Any,
    settings: TuningSettings,
    checkpoints: Path,
    *,
    seed: int,
    progress: bool,
    validation: Any = None,
) -> Any:
    """The `transformers.Trainer` with our row order; everything else is the library's."""
    from transformers import PrinterCallback, ProgressCallback, Trainer

    class OrderedTrainer(Trainer):  # type: ignore[misc, unused-ignore]
        """`Trainer`, with rows in `length_grouped_order`."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            dataset = self.train_dataset if train_dataset is None else train_dataset
            return LengthGroupedOrder(dataset.lengths, settings.batch, seed)

    trainer = OrderedTrainer(
        model=model,
        args=training_arguments(settings, checkpoints, seed=seed, validate=validation is not None),
        train_dataset=rows,
        eval_dataset=validation,
        data_collator=Collator(tokenizer.pad_token_id or 0),
        processing_class=None,
    )
    _check_launched(trainer, settings)
    for noisy in (PrinterCallback, ProgressCallback):  # they write every logged step
        trainer.remove_callback(noisy)
    if progress:
        trainer.add_callback(progress_callback())
    return trainer


def progress_callback() -> Any:
    """A trainer callback that draws our bar: steps, rate, remaining time, loss."""
    from transformers import TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Steps as they are taken."""

        def __init__(self) -> None:
            self.bar = StepBar("train")

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            """Open the bar where a resumed run stands."""
            self.bar.start(state.max_steps, state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any
        ) -> None:
            """Move on, with the last loss."""
            loss = (logs or {}).get("loss")
            self.bar.move(state.global_step, f"loss {float(loss):.3f}" if loss else "")

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            """Take the bar away."""
            self.bar.stop()

    return Bar()


def training_arguments(
    settings: TuningSettings, output: Path, *, seed: int, validate: bool = False
) -> Any:
    """`TrainingArguments` from the recipe's settings; `settings.args` has the last word.

    Raises:
        RecipeError: an argument the installed transformers does not know, or a bad value.
    """
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    micro, accumulate = split_batch(settings)
    arguments: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "learning_rate": settings.lr,
        "num_train_epochs": settings.epochs,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 1,
        "seed": seed,
        "data_seed": seed,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "use_cpu": not on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
        **(_validation_arguments(settings, micro) if validate else {}),
        **settings.args,
    }
    try:
        return TrainingArguments(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"`tuning.args`: {error}") from None


def _validation_arguments(settings: TuningSettings, micro: int) -> dict[str, Any]:
    """A look at the validation loss with every checkpoint, so that the best one can be kept."""
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.save_steps,
        "per_device_eval_batch_size": micro,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def split_batch(settings: TuningSettings) -> tuple[int, int]:
    """Micro-batch and accumulation steps whose product is the batch.

    Raises:
        RecipeError: a micro-batch that does not divide the batch.
    """
    micro = settings.micro_batch or settings.batch
    if settings.batch % micro:
        raise RecipeError(
            f"`tuning.micro_batch` is {micro}, which does not divide `tuning.batch` "
            f"({settings.batch})."
        )
    return micro, settings.batch // micro


def add_adapter(model: Any, settings: TuningSettings) -> Any:
    """A LoRA adapter on the model (Hu et al. 2021, arXiv 2106.09685).

    Raises:
        RecipeError: target modules that the model does not have.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.method == "qlora":
        model = prepare_model_for_kbit_training(model)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"`tuning.targets`: {error}") from None


def save_tuned(model: Any, tokenizer: Any, output: Path, *, base: str | None = None) -> None:
    """Weights as safetensors, tokenizer and chat template beside them."""
    model.save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)
    adapter = output / "adapter_config.json"
    if base is not None and adapter.exists():
        # As the user wrote it: a Hub id or a folder, not where this machine keeps it.
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": base})


def training_log(trainer: Any) -> dict[str, Any]:
    """Loss, learning rate and gradient norm per step; no times, so that runs can be compared."""
    kept = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    steps = [
        {key: entry[key] for key in kept if key in entry}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    losses = [
        {key: entry[key] for key in ("step", "epoch", "eval_loss")}
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    ]
    measured = [entry for entry in trainer.state.log_history if "helpfulness" in entry]
    probed = [
        {key: value for key, value in entry.items() if key != "epoch"}
        for entry in trainer.state.log_history
        if any(key.startswith("refusal_margin") for key in entry)
    ]
    log: dict[str, Any] = {"steps": trainer.state.global_step, "log": steps}
    if probed:
        log["probe"] = probed
    if losses:
        log["validation"] = losses
    return {**log, "helpfulness": measured} if measured else log


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint, or None; an unfinished one is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    while found:
        if (found[-1] / "trainer_state.json").is_file():
            return str(found[-1])
        shutil.rmtree(found.pop())
    return None


def _check_launched(trainer: Any, settings: TuningSettings) -> None:
    """Refuse a launcher that silently did something else (FSDP on CPU becomes plain DDP)."""
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    if settings.args.get("fsdp") and "FSDP" not in kind:
        raise ModelError(
            f"`tuning.args.fsdp` was asked for, but the launcher set up {kind}. Start with "
            "`accelerate launch` on GPUs, or leave it out."
        )
