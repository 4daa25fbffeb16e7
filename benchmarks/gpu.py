"""On a GPU: training and answering at full size, beside TRL and the library's own `generate`.

    python benchmarks/gpu.py [--only Llama-3-8B] [--steps 8]
    python benchmarks/gpu.py --tiny        # the same script on small shapes, on any machine

Models are randomly initialised in the named shapes, in bf16 (all weights: 32-bit weights, bf16
products), on rows of 4,096 tokens, full as packing makes them, half of them labelled. Rates are
tokens a second after three steps that do not count. The share of the matrix rate is the arithmetic
that training needs (2 FLOP per weight and token forward, as much again for the activations'
gradients, as much again for the weights' own; the head at labelled positions; causal attention)
over what the card was just measured to do in square bf16 products. What does not fit is tried again
with activations computed twice. TRL is measured where it is installed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, TrainerCallback

from holdfast.engines import Decoding
from holdfast.engines.transformers import TransformersEngine
from holdfast.job.cost import matrix_rate
from holdfast.models import load_tokenizer, quiet_libraries, resolve_model
from holdfast.recipe import TrainSettings, TuningSettings
from holdfast.rendering.render import IGNORE
from holdfast.rendering.rendered import RenderedRows
from holdfast.stages.head import labelled_positions_only
from holdfast.stages.train import add_adapter, make_trainer
from holdfast.types import Message, Prompt, Rendered

try:
    import datasets
    import trl
except ImportError:
    datasets = trl = None

WARM_UP = 3
ANCHOR = "12,473 tokens/s (402 TFLOP/s) published for LoRA of Llama-3-8B on one H100"


@dataclass(frozen=True)
class Shape:
    """A model to be initialised, and the rows it is trained on."""

    name: str
    config: Any
    batch: int
    length: int = 4096

    def model(self, method: str) -> Any:
        """Random weights on the device, in the type that the method trains in."""
        torch.manual_seed(0)
        kind = torch.float32 if method == "full" or device() == "cpu" else torch.bfloat16
        with torch.device(device()):
            return AutoModelForCausalLM.from_config(self.config, dtype=kind)

    def flops(self, method: str, labelled: float) -> float:
        """Needed for a token in training."""
        c = self.config
        head_size = c.hidden_size // c.num_attention_heads
        width = c.hidden_size + 2 * head_size * c.num_key_value_heads
        layer = c.hidden_size * (width + c.hidden_size + 3 * c.intermediate_size)
        weights = c.num_hidden_layers * layer + labelled * c.vocab_size * c.hidden_size
        attention = 6 * c.num_hidden_layers * self.length * c.hidden_size
        return (6 if method == "full" else 4) * weights + attention


SHAPES = [
    Shape(
        "Llama-3-8B",
        LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192,
        ),
        batch=2,
    ),
    Shape(
        "Qwen-0.5B",
        Qwen2Config(
            vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
        batch=8,
    ),
]  # fmt: skip


def tiny(shape: Shape) -> Shape:
    """The same family at a size for tests."""
    config = type(shape.config)(
        vocab_size=5000, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=shape.config.tie_word_embeddings,
    )  # fmt: skip
    return replace(shape, name=f"{shape.name}, tiny", config=config, batch=2, length=64)


def device() -> str:
    """Where everything runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def rows(shape: Shape, count: int, *, derta: bool = False) -> RenderedRows:
    """Random tokens; with `derta` one row in ten has a cut answer, one in ten aims at one token."""
    dice, made = random.Random(0), []
    for number in range(count):
        ids = [dice.randrange(3, shape.config.vocab_size) for _ in range(shape.length)]
        half = shape.length // 2
        labels = [IGNORE] * half + ids[half:]
        if derta and number % 10 == 0:
            labels[half : half + half // 2] = [IGNORE] * (half // 2)
        elif derta and number % 10 == 5:
            labels[half:] = [42] * (shape.length - half)
        made.append(Rendered(str(number), "user", tuple(ids), tuple(labels)))
    return RenderedRows.of(made)


class Clock(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.at = 0.0

    def on_step_begin(self, *args: Any, **more: Any) -> None:
        """A step starts once everything before it is done."""
        wait()
        self.at = time.perf_counter()

    def on_step_end(self, *args: Any, **more: Any) -> None:
        """And ends when the device says so."""
        wait()
        self.taken.append(time.perf_counter() - self.at)


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def holdfast_trains(shape: Shape, method: str, steps: int, again: bool, derta: bool) -> Clock:
    """As `holdfast train` does."""
    clock, total = Clock(), WARM_UP + steps
    settings = TuningSettings(
        method=method, batch=shape.batch, args={"save_strategy": "no", "max_steps": total}
    )
    model = shape.model(method)
    model = model if method == "full" else add_adapter(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            model, _Padding(), rows(shape, shape.batch * total, derta=derta), settings,
            Path(folder), seed=0, progress=False, parallel=TrainSettings(recompute=again),
        )  # fmt: skip
        trainer.add_callback(clock)
        with labelled_positions_only(model):
            trainer.train()
    return clock


class _Padding:
    pad_token_id = 0


def trl_trains(shape: Shape, method: str, steps: int, again: bool, derta: bool) -> Clock:
    """TRL's trainer on the same rows, which are full: nothing is left to pack."""
    clock, total = Clock(), WARM_UP + steps
    settings = TuningSettings(method=method)
    model = shape.model(method)
    model = model if method == "full" else add_adapter(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(
                output_dir=folder, max_steps=total, per_device_train_batch_size=shape.batch,
                learning_rate=settings.lr, bf16=device() == "cuda", use_cpu=device() == "cpu",
                gradient_checkpointing=again, save_strategy="no", report_to="none",
                max_length=None, disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_list(
                list(rows(shape, shape.batch * total, derta=derta))
            ),
            processing_class=load_tokenizer(resolve_model("lab:chat")),
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock


@dataclass
class Measured:
    """One line of the table."""

    what: str
    rate: float
    share: float
    memory_gib: float
    again: bool


def measure(
    what: str, trains: Callable[..., Clock], shape: Shape, method: str, steps: int, peak: float,
    derta: bool = False,
) -> Measured | None:  # fmt: skip
    """Tokens a second; None where it does not fit even with activations computed twice."""
    for again in (False, True):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            clock = trains(shape, method, steps, again, derta)
        except torch.OutOfMemoryError:
            continue
        rate = shape.batch * shape.length / statistics.median(clock.taken[WARM_UP:])
        held = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        return Measured(what, rate, rate * shape.flops(method, 0.5) / peak, held, again)
    return None


def train_table(shapes: list[Shape], steps: int, peak: float) -> Iterator[str]:
    """Every shape and method, by every trainer."""
    yield "| model | method | trainer | tokens/s | share of matrix rate | peak GiB | twice |"
    yield "|---|---|---|---|---|---|---|"
    for shape in shapes:
        for method in ("lora", "full"):
            arms: list[tuple[str, Callable[..., Clock], bool]] = [
                ("Holdfast", holdfast_trains, False),
                ("Holdfast, DeRTa rows", holdfast_trains, True),
            ]
            if trl:
                arms.append(("TRL", trl_trains, False))
            for what, trains, derta in arms:
                found = measure(what, trains, shape, method, steps, peak, derta)
                start = f"| {shape.name} | {method} | {what} "
                if found is None:
                    yield f"{start}| does not fit | – | – | – |"
                    continue
                yield (
                    f"{start}| {found.rate:,.0f} | {100 * found.share:.0f} % "
                    f"| {found.memory_gib:.1f} | {'yes' if found.again else 'no'} |"
                )
    if not trl:
        yield "| all | all | TRL | unmeasured: not installed | – | – | – |"


def answer_table(shape: Shape, prompts: int, new_tokens: int) -> Iterator[str]:
    """Answers a second of the engine, and of `generate` in sorted batches of 64."""
    tokenizer = load_tokenizer(resolve_model("lab:chat"))
    model = shape.model("lora").eval()
    dice = random.Random(0)
    words = [" ".join(["kettle"] * dice.randint(4, 60)) for _ in range(prompts)]
    asked = [Prompt((Message.of("user", f"How do I mend the {w}?"),)) for w in words]
    engine = TransformersEngine(model, tokenizer)

    def ours() -> None:
        for start in range(0, prompts, 64):
            engine.generate(ordered[start : start + 64], Decoding(new_tokens))

    def library() -> None:
        for start in range(0, prompts, 64):
            texts = [engine.render(p) for p in ordered[start : start + 64]]
            batch = tokenizer(
                texts, return_tensors="pt", padding=True, padding_side="left",
                add_special_tokens=False,
            ).to(device())  # fmt: skip
            batch.pop("token_type_ids", None)
            model.generate(**batch, max_new_tokens=new_tokens, do_sample=False)

    ordered = sorted(asked, key=lambda p: -len(p.messages[0].content))
    yield f"| {shape.name}: {prompts:,} prompts, {new_tokens} new tokens | answers/s |"
    yield "|---|---|"
    for name, work in (("Holdfast", ours), ("`generate`, sorted batches of 64", library)):
        work()
        wait()
        started = time.perf_counter()
        work()
        wait()
        yield f"| {name} | {prompts / (time.perf_counter() - started):,.1f} |"


def page(shapes: list[Shape], steps: int, prompts: int, new_tokens: int) -> Iterator[str]:
    """Markdown."""
    peak = matrix_rate(seconds=1.0 if torch.cuda.is_available() else 0.1)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    yield "## GPU\n"
    if not torch.cuda.is_available():
        yield "A trial of the script on a CPU: these are no GPU figures.\n"
    yield (
        f"{card}, matrix rate {peak / 1e12:.1f} TFLOP/s; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {'trl ' + trl.__version__ if trl else 'no trl'}. {ANCHOR}.\n"
    )
    yield from train_table(shapes, steps, peak)
    yield ""
    yield from answer_table(shapes[-1], prompts, new_tokens)


def main(words: list[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=[s.name for s in SHAPES], action="append")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any machine")
    args = parser.parse_args(words)
    if not torch.cuda.is_available() and not args.tiny:
        sys.exit("gpu.py: no CUDA GPU is visible. Run it on a machine with one, or with --tiny.")
    quiet_libraries()
    shapes = [s for s in SHAPES if not args.only or s.name in args.only]
    shapes = [tiny(s) for s in shapes] if args.tiny else shapes
    prompts, new_tokens = (8, 4) if args.tiny else (512, 128)
    for line in page(shapes, args.steps, prompts, new_tokens):
        print(line, flush=True)


if __name__ == "__main__":
    main()
