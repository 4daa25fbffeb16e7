"""Evaluation side by side: Holdfast's engine, and the loops it stands in for, at equal answers.

    python benchmarks/evaluation.py [--rounds 3] [--quick]

Same model, same prompts, greedy, one thread. The arms take turns round by round, so that what else
the machine does meets all of them; rates count answers over processor seconds, ratios are taken
round by round and given as median (lowest to highest). Every arm must give the same answers, or
the script fails. The slow loops are timed on a seeded sample of the prompts.

Two models: the lab's chat model on its own questions, with and without the safety prompt; and a
random one of 7 M parameters on prompts of 8 to 110 tokens whose answers end early or late.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; two threads clash with whatever else runs
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import holdfast
from holdfast.attacks import AttackContext
from holdfast.engines import Decoding
from holdfast.engines._greedy import shared_opening
from holdfast.engines.transformers import TransformersEngine
from holdfast.measuring.asking import what_to_ask
from holdfast.measuring.evaluation import read_attempts
from holdfast.measuring.suites import gather
from holdfast.models import load_model, load_tokenizer, quiet_libraries, resolve_model
from holdfast.recipe import EvaluateSettings
from holdfast.rendering.prompting import SAFETY_PROMPTS, Prompting
from holdfast.stages.planning import Served, make_plan
from holdfast.tasks import TaskContext
from holdfast.types import Answer, Message, Prompt

SAMPLE = 32
"""Prompts that the slow loops are timed on."""
SIZES = (64, 256)
OURS = EvaluateSettings().batch
ONE, FIXED, SORTED = "one prompt at a time", "batches of 8 in file order", "sorted batches of 64"
BOUND = "linear maps and attention alone"
TRIES, MANY = 5, 1024
"""How often the bound's parts are timed, and on how many prompt tokens at a time."""
GOAL_LOOP, GOAL_BEST = 10.0, 0.8

Ask = Callable[[Sequence[Prompt]], list[Answer]]


@dataclass
class Bench:
    """A model, its prompts, and what every arm is to answer."""

    name: str
    engine: TransformersEngine
    prompts: list[Prompt]
    decoding: Decoding

    def generate(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """By the library's `generate`, left-padded, all prompts in one batch."""
        rows = [self.engine.row(prompt) for prompt in prompts]
        new = self.engine.by_library(rows, self.decoding)
        return [self.engine.read(ids, row) for ids, row in zip(new, rows, strict=True)]

    def ours(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """By Holdfast's engine."""
        return self.engine.generate(prompts, self.decoding)

    def arms(self) -> dict[str, tuple[Ask, int, list[int]]]:
        """Name → how a batch is asked, batch size, which prompts in which order."""
        everything = list(range(len(self.prompts)))
        sample = random.Random(0).sample(everything, min(SAMPLE, len(everything)))
        grouped = sorted(everything, key=self.planned)
        length = sorted(everything, key=lambda i: -self.engine.length(self.prompts[i]))
        loops: dict[str, tuple[Ask, int, list[int]]] = {
            ONE: (self.generate, 1, sample),
            FIXED: (self.generate, 8, sorted(sample)),
            SORTED: (self.generate, 64, length),
        }
        return loops | {ours(size): (self.ours, size, grouped) for size in sizes()}

    def planned(self, i: int) -> tuple[str, int]:
        """As `make_plan` sorts: one opening after the other, long prompts first."""
        first = self.prompts[i].messages[0]
        opening = first.content if first.role == "system" else ""
        return opening, -self.engine.length(self.prompts[i])


def sizes() -> list[int]:
    """Batch sizes tried, Holdfast's own among them."""
    return sorted({*SIZES, OURS})


def ours(size: int) -> str:
    """The name of Holdfast's arm with a batch size."""
    return f"Holdfast, batches of {size}"


def arithmetic(bench: Bench, known: Mapping[int, Answer]) -> float:
    """Answers per processor second if nothing but linear maps and attention took time.

    Every prompt token is computed beside many others, openings that several share once for all of
    them; every new token beside those of a whole batch. Attention over prompts, norms, activations,
    copies and Python are left out: no loop over this model and these texts is faster.
    """
    model = bench.engine.model
    head = model.get_output_embeddings()
    body = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    groups: dict[str, list[list[int]]] = {}
    for i, prompt in enumerate(bench.prompts):
        groups.setdefault(bench.planned(i)[0], []).append(bench.engine.row(prompt).ids)
    prompts = sum(
        sum(map(len, rows)) - (len(rows) - 1) * shared_opening(rows) for rows in groups.values()
    )
    new = sum(answer.tokens for answer in known.values())
    looked_at = sum(
        answer.tokens * (bench.engine.length(bench.prompts[i]) + answer.tokens // 2)
        for i, answer in known.items()
    )
    attention = model.config.num_hidden_layers * attending(model.config, looked_at // new)
    seconds = prompts * mapping(body, MANY) + new * (mapping([*body, head], OURS) + attention)
    return len(bench.prompts) / seconds


def mapping(maps: Sequence[Any], rows: int) -> float:
    """Processor seconds that linear maps take per token, `rows` tokens at a time."""
    given = {m.in_features: torch.randn(rows, m.in_features) for m in maps}
    return best_of_tries(lambda: [m(given[m.in_features]) for m in maps]) / rows


def attending(config: Any, columns: int) -> float:
    """Processor seconds that one layer's attention takes per new token over so many columns."""
    heads, held = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads
    query = torch.randn(OURS, held, heads // held, size)
    keys, values = (torch.randn(OURS, held, columns, size) for _ in "kv")
    attend = torch.nn.functional.scaled_dot_product_attention
    return best_of_tries(lambda: attend(query, keys, values)) / OURS


def best_of_tries(do: Callable[[], Any]) -> float:
    """Processor seconds of the fastest of a few calls."""
    tries = []
    with torch.inference_mode():
        for _ in range(TRIES):
            started = time.process_time()
            do()
            tries.append(time.process_time() - started)
    return min(tries)


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Arm → answers per processor second, round by round, and the bound by arithmetic.

    Raises:
        SystemExit: two arms gave different answers.
    """
    known: dict[int, Answer] = {}
    rates: dict[str, list[float]] = {}
    bench.ours(bench.prompts[:8])  # what is loaded on first use
    for _ in range(rounds):
        for name, (ask, size, order) in bench.arms().items():
            started = time.process_time()
            answers = [
                answer
                for at in range(0, len(order), size)
                for answer in ask([bench.prompts[i] for i in order[at : at + size]])
            ]
            rates.setdefault(name, []).append(len(order) / (time.process_time() - started))
            other = sum(known.setdefault(i, a) != a for i, a in zip(order, answers, strict=True))
            if other:
                raise SystemExit(f"{bench.name}: {name} answers {other} prompts differently")
        rates.setdefault(BOUND, []).append(arithmetic(bench, known))
    return rates


def lab(items: int) -> Bench:
    """The lab's chat model on its own tasks, plainly and under the safety prompt."""
    tasks = dict.fromkeys(("lab-forbidden", "lab-lookalike", "lab-capability"), items)
    found = gather(tasks, TaskContext(), seed=0)
    safe = Message.of("system", SAFETY_PROMPTS["holdfast-default"])
    prompts = [p for i in found for p in (Prompt(i.messages), Prompt((safe, *i.messages)))]
    ref = resolve_model("lab:chat")
    engine = TransformersEngine(load_model(ref), load_tokenizer(ref))
    return Bench("lab:chat, 0.8 M", engine, prompts, Decoding(64))


def mixed(count: int) -> Bench:
    """A random model of 7 M parameters; its prompts and answers are of many lengths."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(resolve_model("lab:chat"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=288, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=1024,
        initializer_range=0.25, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[2] *= 2.0  # the stop token, so that answers end here and there
    rng = random.Random(0)
    words = ("kettle", "table", "window", "river", "stone", "garden", "lamp", "letter", "bridge")
    prompts = [
        Prompt((Message.of("user", " ".join(rng.choices(words, k=k))),))
        for k in (int(2 ** rng.uniform(1, 6.5)) for _ in range(count))
    ]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    engine = TransformersEngine(model, tokenizer)
    return Bench(f"random, {size:.0f} M, mixed lengths", engine, prompts, Decoding(96))


# --- what is not asked ----------------------------------------------------------------------------


def shared_work(engine: TransformersEngine) -> tuple[str, ...]:
    """Attempts, texts and prompt tokens of the lab's standard suite under three promptings."""
    asked = what_to_ask(EvaluateSettings(), lab=True)
    safe = Prompting(SAFETY_PROMPTS["holdfast-default"])
    promptings = {"serve": Served(safe), "none": Served(Prompting()), "train": Served(Prompting())}
    plan = make_plan(
        engine, gather(asked.tasks, TaskContext(), seed=0),
        attacks={n: a for n, a in asked.attacks.items() if not hasattr(a, "search")},
        promptings=promptings, context=AttackContext(target=engine), decoding=asked.decoding(0),
        batch=OURS,
    )  # fmt: skip
    tokens = computed = 0
    for batch in plan.batches:
        rows = [engine.row(job.prompt).ids for job in batch]
        tokens += sum(len(row) * len(job.attempts) for row, job in zip(rows, batch, strict=True))
        computed += sum(map(len, rows)) - (len(rows) - 1) * shared_opening(rows)
    return (
        f"{plan.attempts:,}", f"{plan.answers:,}", f"{tokens:,}", f"{computed:,}",
    )  # fmt: skip


def sequential(items: int) -> tuple[str, str]:
    """Answers of a whole evaluation, and of a sequential one of the same model against it."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        how = {"suite": "quick", "limit": items}
        holdfast.evaluate("lab:chat", before, **how)
        holdfast.evaluate("lab:chat", after, against=before, **how)
        whole, part = (len(read_attempts(f / "attempts.jsonl")) for f in (before, after))
    return f"{whole:,}", f"{part:,}"


def what_is_not_asked(items: int) -> list[str]:
    """Tables of the work that sharing and stopping save."""
    ref = resolve_model("lab:chat")
    planned = shared_work(TransformersEngine(load_model(ref), load_tokenizer(ref)))
    return [
        "\nWhat is computed once, of the lab's standard suite under three promptings:\n",
        "| attempts | texts generated | prompt tokens of the attempts | computed |",
        "|---|---|---|---|",
        f"| {' | '.join(planned)} |",
        "\nThe untouched model is asked once for a run, its control arm and every arm of a sweep; "
        "across runs with `holdfast run --store DIR`.",
        "\nSequential stopping, counted apart (the untouched lab model against itself):\n",
        "| answers of a whole evaluation | asked until every cell was decided |",
        "|---|---|",
        f"| {' | '.join(sequential(items))} |",
    ]


# --- the page -------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (lowest to highest)."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratios(rates: Mapping[str, Sequence[float]], over: str, under: str) -> list[float]:
    """One arm's rate over another's, round by round."""
    return [a / b for a, b in zip(rates[over], rates[under], strict=True)]


def best_of(rates: Mapping[str, Sequence[float]]) -> str:
    """Holdfast's fastest batch size, by its median."""
    return max((ours(size) for size in sizes()), key=lambda name: statistics.median(rates[name]))


def met(values: Sequence[float], least: float) -> str:
    """For a goal's third column."""
    return "yes" if statistics.median(values) >= least else "**no**"


def page(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The section's tables."""
    lines = [
        "| model | arm | answers per processor second | over one at a time |", "|---|---|---|---|",
    ]  # fmt: skip
    for model, rates in found.items():
        for arm in rates:
            lines.append(
                f"| {model} | {arm} | {spread(rates[arm], 1)} | {spread(ratios(rates, arm, ONE))} |"
            )
    return [*lines, "", *goals(found)]


def goals(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """What was aimed at, and what came of it."""
    lines = ["| goal | measured | met | what limits |", "|---|---|---|---|"]
    mine = ours(OURS)
    for model, rates in found.items():
        best = best_of(rates)
        loop, near = ratios(rates, mine, ONE), ratios(rates, mine, best)
        plain = ratios(rates, mine, SORTED)
        lines += [
            f"| ≥ {GOAL_LOOP:g} × one prompt at a time: {model} | {spread(loop, 1)} "
            f"| {met(loop, GOAL_LOOP)} | {limit(rates)} |",
            f"| within 20 % of the best batch size ({best.rpartition(' ')[2]}), none chosen "
            f"({OURS}): {model} | {spread(near)} | {met(near, GOAL_BEST)} | the size of its "
            "caches |",
            f"| faster than `generate` in {SORTED}: {model} | {spread(plain)} | {met(plain, 1)} "
            "| answers that end together leave nothing to skip |",
        ]
    return lines


def limit(rates: Mapping[str, Sequence[float]]) -> str:
    """How far arithmetic alone would let the loop go, and how far Holdfast is on the way."""
    most = statistics.median(ratios(rates, BOUND, ONE))
    share = statistics.median(ratios(rates, ours(OURS), BOUND))
    return f"{BOUND}: {most:.1f} ×, of which Holdfast reaches {100 * share:.0f} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the prompts")
    wanted = parser.parse_args(argv)
    quiet_libraries()
    torch.set_num_threads(1)
    few = 10 if wanted.quick else 1
    found: dict[str, Any] = {}
    for bench in (lab(60 // few), mixed(192 // few)):
        print(f"{bench.name}: {len(bench.prompts)} prompts", file=sys.stderr)
        found[bench.name] = measure(bench, wanted.rounds)
    print("## Evaluation\n")
    print(f"    python benchmarks/evaluation.py --rounds {wanted.rounds}\n")
    print(
        "Greedy answers, one thread; all arms answered alike. Median (lowest to highest) of "
        f"{wanted.rounds} rounds.\n"
    )
    print("\n".join([*page(found), *what_is_not_asked(200 // few)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
