"""What a large run needs, by arithmetic: the tables of `docs/scale.md`.

    python benchmarks/scale.py $RATES

`RATES` are the options that `benchmarks/audit_throughput.py` prints, with and without `--block`,
and `--memory-bytes`, the largest bytes a row of an audit in `docs/benchmarks.md`. Nothing is
measured here. What a GPU computes in training is the published figure for LoRA of Llama-3-8B on one
H100 unless `--tflops` names another. Weights, gradients and the optimizer's states take the bytes
that `holdfast.job.cost` counts with.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

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


@dataclass(frozen=True)
class Auditing:
    """An audit of many rows; rates are rows a second of one core."""

    rows: float
    row_bytes: float
    shared_rate: float
    """Of what is shared out over processes: a batch of rows through all detectors."""
    alone_rate: float
    """Of what the first process does meanwhile: reading, handing out, adding up."""
    after_rate: float
    """Of what it does alone after the last row: duplicates and near duplicates."""
    block_rate: float
    """Under Ray Data: of reading a block and four detectors over it."""
    driver_rate: float
    """Under Ray Data: of adding up what the blocks came to, in one process."""
    memory_bytes: float
    """Of the first process, a row."""
    disk_bytes: float
    """In temporary files, a row."""

    @property
    def held(self) -> str:
        """Memory and disk: a sentence."""
        memory, disk = (self.rows * each / 1e9 for each in (self.memory_bytes, self.disk_bytes))
        return (
            f"{self.rows:.0e} rows of {self.row_bytes:.0f} bytes: "
            f"{self.rows * self.row_bytes / 1e12:.2f} TB to read. "
            f"On one machine the first process holds up to {memory:.0f} GB "
            f"({self.memory_bytes:.0f} bytes a row) and {disk:.0f} GB lie in temporary files "
            f"({self.disk_bytes:.0f} bytes a row)."
        )

    def hours(self, rate: float, cores: int = 1) -> float:
        """Of all rows at a rate of one core."""
        return self.rows / rate / cores / 3600

    def one_machine(self) -> Iterator[str]:
        """Time by processes: what is shared runs beside what one process does alone."""
        heads = ("shared part, h", "alone meanwhile, h", "alone after the last row, h")
        yield f"| processes | {' | '.join(heads)} | together, h | reading is bound by |"
        yield "|---|---|---|---|---|---|"
        alone, after = self.hours(self.alone_rate), self.hours(self.after_rate)
        for processes in (1, 4, 16, 64):
            shared = self.hours(self.shared_rate, processes)
            reading = shared + alone if processes == 1 else max(shared, alone)
            bound = "detectors" if shared > alone else "one process"
            yield (
                f"| {processes} | {shared:,.1f} | {alone:,.1f} | {after:,.1f} "
                f"| {reading + after:,.1f} | {bound} |"
            )
        enough = math.ceil(self.alone_rate / self.shared_rate)
        yield f"\nFrom {enough} processes on, all wait for the one that reads."

    def many_machines(self) -> Iterator[str]:
        """Time under Ray Data by cores, with detectors that compare no rows."""
        yield "| cores | blocks, h | adding up in one process, h | together, h | read, MB/s |"
        yield "|---|---|---|---|---|"
        adding = self.hours(self.driver_rate)
        for cores in (16, 64, 256, 1024):
            blocks = self.hours(self.block_rate, cores)
            together = max(blocks, adding)
            read = self.rows * self.row_bytes / together / 3600 / 1e6
            yield f"| {cores} | {blocks:,.2f} | {adding:,.2f} | {together:,.2f} | {read:,.0f} |"


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [field.name for field in fields(Auditing) if field.name != "rows"]
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, required=True)
    parser.add_argument("--tflops", type=float, default=PUBLISHED_TFLOPS, help="of one GPU")
    args = parser.parse_args()
    rows, mean, epochs = 10_000, 500, 2
    audit = Auditing(1e9, **{name: getattr(args, name) for name in names})
    print("\n".join(training(LLAMA_70B, rows * mean * epochs, args.tflops)), end="\n\n")
    print(audit.held, end="\n\n")
    print("\n".join(audit.one_machine()), end="\n\n")
    print("\n".join(audit.many_machines()))


if __name__ == "__main__":
    main()
