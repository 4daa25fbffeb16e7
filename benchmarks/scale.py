"""What a large run needs, by arithmetic: the tables of `docs/scale.md`.

    python benchmarks/scale.py --audit-rate 2288 --audit-bytes 839

Nothing is measured here. Rates are given: rows a second that one core audits (`docs/audit.md`) and
bytes of such a row; what a GPU computes in training is the published figure for LoRA of Llama-3-8B
on one H100 unless `--tflops` names another. Weights, gradients and the optimizer's states take the
bytes that `holdfast.job.cost` counts with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.job.cost import BYTES_PER_PARAMETER

PUBLISHED_TFLOPS = 402.0
"""A GPU's rate in LoRA of Llama-3-8B, rows of 4,096 tokens packed, one H100."""
SHARED = 0.75
"""Of that rate, what is left when weights are gathered from other GPUs: assumed."""
RANK = 16
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """A Llama's shape."""

    name: str
    layers: int
    hidden: int
    inner: int
    keys: int
    """Width of keys, and of values."""
    vocabulary: int = 128_256

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        h = self.hidden
        return h * (2 * h + 2 * self.keys) + 3 * h * self.inner

    @property
    def weights(self) -> int:
        """All weights."""
        return self.layers * self.layer + 2 * self.vocabulary * self.hidden

    @property
    def adapter(self) -> int:
        """Weights of a LoRA adapter of rank 16 on all linear layers."""
        h, k, inner = self.hidden, self.keys, self.inner
        return RANK * self.layers * (2 * (h + h) + 2 * (h + k) + 3 * (h + inner))

    def held(self, method: str, gpus: int, tokens: int) -> dict[str, float]:
        """GiB of each GPU, weights shared out and activations computed twice.

        Args:
            method: `lora` or `full`.
            gpus: that share.
            tokens: of a forward pass on one GPU.
        """
        states = BYTES_PER_PARAMETER[method] * self.weights
        if method == "lora":
            states += BYTES_PER_PARAMETER["full"] * self.adapter
        kept = 2 * tokens * self.hidden * self.layers  # one 16-bit input a layer
        inside = 2 * tokens * (8 * self.hidden + 3 * self.inner)  # of the layer at work
        gathered = 2 * 2 * self.layer + 2 * self.vocabulary * self.hidden  # two layers, the head
        return {
            "weights and states": states / gpus / GIB,
            "activations": (kept + inside) / GIB,
            "gathered": gathered / GIB,
            "a slice of logits": 3 * 2**27 * 4 / GIB,
        }

    def hours(self, method: str, gpus: int, tokens: float, tflops: float) -> float:
        """Of training on so many tokens, activations computed twice."""
        flops = (6 if method == "lora" else 8) * self.weights * tokens
        return flops / (gpus * tflops * 1e12) / 3600


LLAMA_70B = Model("Llama-3-70B", 80, 8192, 28_672, 1024)


def training(model: Model, tokens: float, tflops: float) -> Iterator[str]:
    """Memory and time, by method and number of GPUs."""
    rate = SHARED * tflops
    yield (
        f"{model.name}: {model.weights / 1e9:.1f} × 10⁹ weights, adapter {model.adapter / 1e6:.0f} "
        f"× 10⁶. GiB on each GPU at 4,096 tokens a forward pass; hours for {tokens / 1e6:.0f} "
        f"million tokens at {rate:.0f} TFLOP/s a GPU.\n"
    )
    parts = list(model.held("lora", 8, 4096))
    yield f"| method | GPUs | {' | '.join(parts)} | together | hours |"
    yield "|" + "---|" * (len(parts) + 4)
    for method, gpus in (("lora", 4), ("lora", 8), ("full", 8), ("full", 16), ("full", 32)):
        held = model.held(method, gpus, 4096)
        cells = " | ".join(f"{value:.1f}" for value in held.values())
        yield (
            f"| {method} | {gpus} | {cells} | {sum(held.values()):.0f} "
            f"| {model.hours(method, gpus, tokens, rate):.1f} |"
        )


def auditing(rows: float, rate: float, size: float) -> Iterator[str]:
    """Time of an audit, by cores."""
    yield (
        f"{rows:.0e} rows of {size:.0f} bytes: {rows * size / 1e12:.2f} TB; at {rate:,.0f} rows a "
        f"second and core {rows / rate / 3600:,.0f} core-hours.\n"
    )
    yield "| cores | hours | read, MB/s |"
    yield "|---|---|---|"
    for cores in (1, 16, 64, 256):
        yield (
            f"| {cores} | {rows / rate / cores / 3600:,.1f} | {cores * rate * size / 1e6:,.1f} |"
        )


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--audit-rate", type=float, required=True, help="rows a second and core")
    parser.add_argument("--audit-bytes", type=float, required=True, help="of a row")
    parser.add_argument("--tflops", type=float, default=PUBLISHED_TFLOPS, help="of one GPU")
    args = parser.parse_args()
    rows, mean, epochs = 10_000, 500, 2
    print("\n".join(training(LLAMA_70B, rows * mean * epochs, args.tflops)), end="\n\n")
    print("\n".join(auditing(1e9, args.audit_rate, args.audit_bytes)))


if __name__ == "__main__":
    main()
