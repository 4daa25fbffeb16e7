"""Cost: memory, time and answers of a run, estimated from its sizes and one short measurement.

Arithmetic, not a promise: 2 FLOP per parameter and token forward, twice that backward (for an
adapter the weights' own gradients are not needed), at a share of the matrix rate this machine was
just measured at (Kaplan et al. 2020, arXiv 2001.08361, §2.1).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from holdfast.models import ModelRef, resolve_model

UTILISATION = 0.35
"""Share of the matrix rate that training reaches; 30-50 % is usual."""

BYTES_PER_PARAMETER: Mapping[str, float] = {
    # weights, gradients and two Adam moments in 32 bits; frozen 16-bit weights; frozen 4-bit ones
    "full": 16.0,
    "lora": 2.0,
    "qlora": 0.6,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run will take, roughly."""

    parameters: int
    train_tokens: int
    """Tokens seen in training, epochs included, for all arms."""
    answers: int
    """Texts generated, over all evaluations."""
    memory_gb: float
    """Of weights, gradients and optimiser; activations come on top."""
    hours: float
    """Of training and answering together, if every answer reaches its limit."""

    @property
    def line(self) -> str:
        """For the terminal."""
        took = f"{self.hours:.1f} h" if self.hours >= 1 else f"{max(1, 60 * self.hours):.0f} min"
        return (
            f"{self.parameters / 1e6:,.1f} M parameters, about {self.memory_gb:.1f} GB before "
            f"activations; {self.train_tokens:,} tokens to train on, {self.answers:,} answers: "
            f"at most about {took} here"
        )


def estimate(
    ref: ModelRef,
    method: Literal["full", "lora", "qlora"],
    *,
    train_tokens: int,
    answers: int,
    max_new_tokens: int,
    flops: float,
) -> Cost | None:
    """The cost of a run; None where the weights are not on this disk yet.

    Args:
        ref: the model.
        method: of the fine-tune.
        train_tokens: tokens seen in training, epochs included.
        answers: texts to generate.
        max_new_tokens: longest answer.
        flops: matrix rate of this machine, FLOP/s.
    """
    parameters = count_parameters(ref)
    if parameters is None:
        return None
    backward = 4.0 if method == "full" else 2.0
    training = (2.0 + backward) * parameters * train_tokens
    answering = 2.0 * parameters * answers * max_new_tokens
    return Cost(
        parameters=parameters,
        train_tokens=train_tokens,
        answers=answers,
        memory_gb=BYTES_PER_PARAMETER[method] * parameters / 1e9,
        hours=(training + answering) / (flops * UTILISATION) / 3600,
    )


def count_parameters(ref: ModelRef) -> int | None:
    """Parameters of a local model, from the headers of its weight files."""
    if ref.base is not None:
        return count_parameters(resolve_model(ref.base))
    if ref.path is None:
        return None
    return sum(_in_file(path) for path in sorted(Path(ref.path).glob("*.safetensors")))


def _in_file(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def matrix_rate(size: int = 512, seconds: float = 0.1) -> float:
    """FLOP/s of square matrix products on the device that will be used, measured now."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    side = size if device == "cpu" else 8 * size
    a: Any = torch.ones(side, side, device=device, dtype=kind)
    a @ a  # the first product pays for set-up
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        (a @ a)[0, 0].item()
        products += 1
    return float(products * 2 * side**3 / (time.perf_counter() - started))
