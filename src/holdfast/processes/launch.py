"""Several processes at one job: who am I among them, who starts them, how they part.

    torchrun --nproc-per-node 8 -m holdfast train recipe.yaml

`torchrun` and `accelerate launch` start the same command several times and tell each its rank. The
process of rank 0 leads: it holds the run folder, says what happens and writes every artefact; the
others follow it from stage to stage and join in where work is shared. Read from the environment
that the launchers set; torch is not imported.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import ModelError, RecipeError

HOLDER = "HOLDFAST_HELD_BY"
"""Environment variable: the process that holds the run folder for those it has started."""


@dataclass(frozen=True, slots=True)
class Launch:
    """This process among those that were started together."""

    rank: int = 0
    world: int = 1
    """How many there are, over all machines."""
    local_rank: int = 0
    """Among those of this machine, and so which GPU is its own."""
    launched: bool = False
    """Whether a launcher started it."""

    @property
    def leads(self) -> bool:
        """Whether it writes artefacts and speaks."""
        return self.rank == 0


def current(environment: Mapping[str, str] = os.environ) -> Launch:
    """What the launcher said; without one, the only process."""
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        return Launch(launched=_from_accelerate(environment))
    return Launch(
        rank=int(environment["RANK"]),
        world=int(environment["WORLD_SIZE"]),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        launched=True,
    )


def check_count(wanted: int | None, command: Sequence[str] | None = None) -> None:
    """Refuse a launcher that started another number of processes than it was told to.

    Args:
        wanted: the recipe's `train.processes`; None: whatever the launcher was told.
        command: the launcher's command line; None: that of the parent process. `accelerate launch
            --cpu --num_processes 2` starts one process, and says nothing.

    Raises:
        ModelError: they differ.
    """
    here = current()
    if not here.launched:
        return
    asked, whose = wanted, "`train.processes` is"
    if asked is None:
        told = _parent_command() if command is None else list(command)
        asked, whose = _processes_in(told), "the launcher was told"
    if asked is not None and asked != here.world:
        raise ModelError(
            f"{whose} {asked}, but {here.world} started. On CPU use `torchrun --nproc-per-node "
            f"{asked} -m holdfast train RECIPE`; on GPUs check that {asked} are visible."
        )


def together(processes: int, command: Sequence[str], holder: int) -> None:
    """Run a `holdfast` command in several processes of this machine, by torch's own launcher.

    Args:
        processes: how many.
        command: words after `holdfast`.
        holder: id of the process that holds the run folder for them.

    Raises:
        ModelError: they ended badly; what they said stands on standard error.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, HOLDER: str(holder)}
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), "-m", "holdfast", *command,
    ]  # fmt: skip
    code = subprocess.run(words, env=environment, check=False).returncode  # noqa: S603
    if code:
        raise ModelError(
            f"`holdfast {shlex.join(command)}` on {processes} processes ended with {code}; what "
            "went wrong stands above. The same command goes on from the last checkpoint."
        )


def rows_per_process(batch: int, micro: int | None, world: int) -> tuple[int, int]:
    """Rows of a forward pass and forward passes of a step, of one process.

    Args:
        batch: rows per optimizer step, over all processes.
        micro: rows per process and forward pass; None: as many as the batch has for a process.
        world: processes.

    Raises:
        RecipeError: they do not multiply to the batch.
    """
    micro = micro or max(1, batch // world)
    if batch % (micro * world):
        over = f" over {world} processes" if world > 1 else ""
        raise RecipeError(
            f"A `tuning.micro_batch` of {micro}{over} does not divide `tuning.batch` ({batch}). "
            f"Choose a batch that is a multiple of {micro * world}."
        )
    return micro, batch // (micro * world)


def part() -> None:
    """Wait for one another, and close the connection between the processes, if there is one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    distributed.barrier()
    distributed.destroy_process_group()


def agreed(value: bool) -> bool:
    """The leader's answer to a question, in every process."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return value
    said = [value]
    distributed.broadcast_object_list(said, src=0)
    return said[0]


def _from_accelerate(environment: Mapping[str, str]) -> bool:
    return "ACCELERATE_MIXED_PRECISION" in environment or "ACCELERATE_USE_CPU" in environment


def _parent_command() -> list[str]:
    told = Path(f"/proc/{os.getppid()}/cmdline")
    return told.read_bytes().decode(errors="replace").split("\0") if told.exists() else []


def _processes_in(command: Sequence[str]) -> int | None:
    """What `accelerate launch` was told; torchrun's processes know their number themselves."""
    if not any("accelerate" in word for word in command[:3]):
        return None
    for word, after in zip(command, [*command[1:], ""], strict=True):
        name, _, value = word.partition("=")
        number = value or after
        if name in ("--num_processes", "--num-processes") and number.isdigit():
            return int(number)
    return None
