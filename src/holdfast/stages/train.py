"""Train: rendered rows → a tuned model, on `transformers.Trainer`.

The objective is token-mean cross-entropy on caller-made labels, so every mitigation is a matter of
rows, and accelerate, FSDP, DeepSpeed and resuming come with the trainer. Two things differ from a
plain `Trainer`: the order of rows (`batches`), and that the head of the model is computed where a
label is and nowhere else (`head`). Under a launcher all processes call `train`, and the leading one
writes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import RecipeError
from holdfast.files import read_json, write_json
from holdfast.processes.launch import current, rows_per_process
from holdfast.progress import StepBar
from holdfast.recipe import TrainSettings, TuningSettings
from holdfast.stages.batches import Collator, Filled, LengthGroupedOrder
from holdfast.stages.parallel import check_launched, distribution, shards, whole_weights

if TYPE_CHECKING:
    from holdfast.rendering.rendered import RenderedRows


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
    parallel: TrainSettings | None = None,
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
        parallel: how several processes share the work; None: each holds the whole model.

    Returns:
        The tuned model, adapter merged or attached as `settings.output` says.

    Raises:
        RecipeError: `tuning.args` that the trainer does not know, a batch that cannot be shared.
        ModelError: the launcher did something else than asked.
    """
    from transformers import set_seed

    from holdfast.stages.head import labelled_positions_only

    set_seed(seed)
    progress = sys.stderr.isatty() if progress is None else progress
    if settings.method != "full":
        model = add_adapter(model, settings)
    parallel = parallel or TrainSettings()
    checkpoints = output / f"checkpoints{'-' + parallel.strategy if shards(parallel) else ''}"
    trainer = make_trainer(
        model, tokenizer, rows, settings, checkpoints, seed=seed,
        progress=progress and current().leads, validation=validation, parallel=parallel,
    )  # fmt: skip
    for callback in callbacks:
        trainer.add_callback(callback)
    with labelled_positions_only(model):
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        if validation is not None:
            trainer.evaluate()
    weights = whole_weights(trainer, parallel)
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    if settings.method != "full" and settings.output == "merged":
        tuned = tuned.merge_and_unload()
    if trainer.is_world_process_zero():
        save_tuned(tuned, tokenizer, output, base=base, weights=weights)
        write_json(output / "training.json", training_log(trainer))
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()  # whoever reads the folder next finds it whole
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
    parallel: TrainSettings | None = None,
) -> Any:
    """The `transformers.Trainer` with our row order; everything else is the library's."""
    from transformers import PrinterCallback, ProgressCallback, Trainer

    parallel = parallel or TrainSettings()
    check_launched(parallel)
    pad_id = tokenizer.pad_token_id or 0
    several = current().world > 1

    class OrderedTrainer(Trainer):  # type: ignore[misc, unused-ignore]
        """`Trainer`, with rows in `length_grouped_order`."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            together = self.args.per_device_train_batch_size * self.args.world_size
            hands = together if several else 1  # one process takes a short batch as it is
            return LengthGroupedOrder(rows.lengths, settings.batch, seed, hands=hands)

        def floating_point_ops(self, inputs: Any) -> int:
            """Not counted: it walks over all weights in every step, and nobody reads it."""
            return 0

    arguments = training_arguments(
        settings, checkpoints, seed=seed, validate=validation is not None,
        **distribution(parallel, settings),
    )  # fmt: skip
    trainer = OrderedTrainer(
        model=model,
        args=arguments,
        train_dataset=Filled(rows, pad_id) if several else rows,
        eval_dataset=validation,
        data_collator=Collator(pad_id, mask=getattr(model.config, "output_router_logits", False)),
        processing_class=None,
    )
    check_launched(parallel, trainer)
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
    settings: TuningSettings,
    output: Path,
    *,
    seed: int,
    validate: bool = False,
    kind: Any = None,
    **more: Any,
) -> Any:
    """`TrainingArguments` from the recipe's settings; `settings.args` has the last word.

    Args:
        settings: of the fine-tune.
        output: folder of checkpoints.
        seed: of the run.
        validate: whether there are rows to look at the validation loss on.
        kind: another trainer's subclass of `TrainingArguments`.
        more: what that one knows beyond.

    Raises:
        RecipeError: an argument the installed library does not know, or a bad value.
    """
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    micro, accumulate = rows_per_process(settings.batch, settings.micro_batch, current().world)
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
        **more,
        **settings.args,
    }
    try:
        made = (kind or TrainingArguments)(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"`tuning.args`: {error}") from None
    if made.n_gpu > 1:  # one process that sees several GPUs would copy the model to all of them
        made._n_gpu = 1
    return made


def _validation_arguments(settings: TuningSettings, micro: int) -> dict[str, Any]:
    """A look at the validation loss with every checkpoint, so that the best one can be kept."""
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.save_steps,
        "per_device_eval_batch_size": micro,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


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


def save_tuned(
    model: Any, tokenizer: Any, output: Path, *, base: str | None = None, weights: Any = None
) -> None:
    """Weights as safetensors, tokenizer and chat template beside them.

    Args:
        model: with an adapter or without.
        tokenizer: with its chat template.
        output: folder.
        base: as in `train`.
        weights: name → tensor, where the model holds only a share of them; None: its own.
    """
    model.save_pretrained(output, safe_serialization=True, state_dict=weights)
    tokenizer.save_pretrained(output)
    adapter = output / "adapter_config.json"
    if base is not None and adapter.exists():
        # As the user wrote it: a Hub id or a folder, not where this machine keeps it.
        write_json(adapter, {**read_json(adapter), "base_model_name_or_path": base})


def training_log(trainer: Any, *also: str) -> dict[str, Any]:
    """Loss, learning rate, gradient norm and what is named besides, per step.

    No times, so that runs can be compared.
    """
    kept = ("step", "epoch", "loss", "learning_rate", "grad_norm", *also)
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
    """The newest complete checkpoint, or None; the leading process removes an unfinished one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    while found:
        newest = found.pop()
        if (newest / "trainer_state.json").is_file():
            return str(newest)
        if current().leads:
            shutil.rmtree(newest)
    return None
