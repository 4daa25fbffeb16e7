"""How several processes share one fine-tune: settings of the library's engines, and what to check.

    ddp        every process holds the whole model and takes a share of each step's rows
    fsdp       weights, gradients and optimizer states are shared out too (FSDP2)
    deepspeed  the same by DeepSpeed's ZeRO, stage 3

A launcher that quietly did something else than asked is an error: `accelerate` runs plain DDP where
FSDP was asked for on CPU.
"""

from __future__ import annotations

import os
from typing import Any

from holdfast.errors import ModelError, RecipeError
from holdfast.extras import need
from holdfast.processes.launch import check_count, current, rows_per_process
from holdfast.recipe import TrainSettings, TuningSettings

KINDS = {"fsdp": ("FSDP",), "deepspeed": ("DEEPSPEED",)}
"""What accelerate calls a strategy once it is set up."""


def shards(parallel: TrainSettings) -> bool:
    """Whether a process holds only a share of the weights."""
    return parallel.strategy != "ddp"


def to_start(parallel: TrainSettings, tuning: TuningSettings | None = None) -> int:
    """Processes to start for a stage; 1 where this one is enough, or is one of them.

    Of this machine's GPUs all; for a fine-tune as many as the rows of a step can be dealt to.
    """
    import torch

    if current().launched:
        return 1
    if parallel.processes is not None:
        return parallel.processes
    gpus = max(1, torch.cuda.device_count())
    if tuning is None:
        return gpus
    parts = tuning.batch // (tuning.micro_batch or 1)
    return max(n for n in range(1, gpus + 1) if n == 1 or parts % n == 0)


def check_asked(parallel: TrainSettings, tuning: TuningSettings) -> None:
    """Find out before any work what cannot be shared out as asked.

    Raises:
        ModelError: the launcher started another number of processes than it was told.
        RecipeError: a strategy that this machine or another setting rules out; a batch that does
            not go round.
        MaterialError: DeepSpeed, and it is not installed.
    """
    import torch

    check_count(parallel.processes)
    count = max(current().world, to_start(parallel, tuning))
    rows_per_process(tuning.batch, tuning.micro_batch, count)
    distribution(parallel, tuning)
    if shards(parallel) and not (count > 1 and torch.cuda.is_available()):
        raise RecipeError(
            f"`train.strategy: {parallel.strategy}` shares weights out over several GPUs; here are "
            f"{torch.cuda.device_count()} GPUs and {count} processes. Use `ddp`, or start with "
            "`torchrun --nproc-per-node N -m holdfast train RECIPE` where the GPUs are."
        )


def prepare_process(parallel: TrainSettings) -> str | None:
    """Take this process's own GPU; its name, or None on a machine without one.

    Weights that are shared out are set up for before they are loaded, or every process would load
    all of them.
    """
    import torch

    if not torch.cuda.is_available() or current().world == 1:
        return None
    torch.cuda.set_device(current().local_rank)
    if parallel.strategy == "fsdp":
        from accelerate import PartialState

        os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
        PartialState()  # connects the processes: only then does one read for all
    return f"cuda:{current().local_rank}"


def distribution(parallel: TrainSettings, tuning: TuningSettings) -> dict[str, Any]:
    """`TrainingArguments` of a strategy.

    Raises:
        RecipeError: a combination that cannot work.
        MaterialError: DeepSpeed, and it is not installed.
    """
    if shards(parallel) and tuning.method != "full" and tuning.output == "merged":
        raise RecipeError(
            f"`tuning.output: merged` needs whole weights, and `train.strategy: "
            f"{parallel.strategy}` shares them out. Save the adapter (`output: adapter`); every "
            "evaluation and server reads it."
        )
    if parallel.strategy == "ddp":
        again = {"gradient_checkpointing": True} if parallel.recompute else {}
        return {**again, **({"ddp_find_unused_parameters": False} if current().world > 1 else {})}
    if parallel.strategy == "deepspeed":
        need("deepspeed", extra="deepspeed", purpose="`train.strategy: deepspeed`")
        again = {"gradient_checkpointing": True} if parallel.recompute else {}
        return {"deepspeed": _zero(parallel), **again}
    return {"fsdp": True, "fsdp_config": _fsdp(parallel)}


def _fsdp(parallel: TrainSettings) -> dict[str, Any]:
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "cpu_offload": parallel.offload,
        "cpu_ram_efficient_loading": True,
        "activation_checkpointing": parallel.recompute,
        "state_dict_type": "SHARDED_STATE_DICT",  # read back by any number of processes
    }


def _zero(parallel: TrainSettings) -> dict[str, Any]:
    place = {"device": "cpu", "pin_memory": True} if parallel.offload else {"device": "none"}
    return {
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": place,
            "offload_param": place,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def check_launched(parallel: TrainSettings, trainer: Any = None) -> None:
    """Refuse a launch that is not what was asked for.

    Args:
        parallel: what the recipe asks for.
        trainer: once it is made, what came of it; None: only the number of processes.

    Raises:
        ModelError: another number of processes, or another strategy.
    """
    check_count(parallel.processes)
    if trainer is None:
        return
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    for asked, whose in _asked(parallel, trainer.args):
        if asked in KINDS and not any(name in kind for name in KINDS[asked]):
            raise ModelError(
                f"{whose} asks for {asked}, but {kind} was set up. Start several processes on "
                "GPUs (`torchrun --nproc-per-node N -m holdfast train RECIPE`), or leave it out."
            )
    if trainer.args.world_size != current().world:
        raise ModelError(
            f"{current().world} processes were launched, but the trainer sees "
            f"{trainer.args.world_size}. Start with torchrun, and leave `tuning.args.use_cpu` and "
            "`tuning.args.local_rank` alone."
        )


def _asked(parallel: TrainSettings, arguments: Any) -> list[tuple[str, str]]:
    """Every place that can ask for a strategy, and what it asks for."""
    found: list[tuple[str, str]] = [(parallel.strategy, "`train.strategy`")]
    found += [(k, f"`tuning.args.{k}`") for k in KINDS if getattr(arguments, k, None)]
    for kind in KINDS:
        if os.environ.get(f"ACCELERATE_USE_{kind.upper()}", "false").lower() in ("true", "1"):
            found.append((kind, "The launcher"))
    return found


def whole_weights(trainer: Any, parallel: TrainSettings) -> Any:
    """The tuned weights gathered by all processes together; None where each has them all."""
    if not shards(parallel):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)
