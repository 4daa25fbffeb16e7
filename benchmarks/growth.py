"""How cost grows with the tokens of a row and with the attacks of an evaluation: `## Growth`.

    python benchmarks/growth.py

How it grows with rows, `data_throughput.py` shows. Here the rows (`audit_throughput.py`) stay as
many and get longer: each point joins twice as many into one. The attacks are those that need no
rows of a user, asked of `lab:chat` under three promptings. All in one process, by processor time.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from itertools import pairwise
from math import log
from pathlib import Path
from unittest.mock import patch

os.environ |= {"HOLDFAST_PROCESSES": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

import evaluation
from audit_throughput import made_up
from data_throughput import STAGES, WORK, make_model

from holdfast.attacks import AttackContext
from holdfast.engines._greedy import shared_opening
from holdfast.measuring.asking import what_to_ask
from holdfast.measuring.suites import gather
from holdfast.recipe import EvaluateSettings
from holdfast.rendering.prompting import SAFETY_PROMPTS, Prompting
from holdfast.stages.planning import Served, make_plan
from holdfast.tasks import TaskContext

ROWS = 1000
LONGER = (1, 2, 4, 8)
"""Made-up rows that one row is made of."""
ITEMS = 30
"""Of each of two tasks."""
ATTACKS = ("direct", "prefill", "code", "self_cipher", "completing", "prefill_tokens")
MANY = (1, 2, 4, 6)


def table(what: str, sizes: Sequence[int], costs: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Each cost with its ratio to the one before; the exponent of cost over size; 1 is linear."""
    yield f"| | {' | '.join(f'{what} {size}' for size in sizes)} | exponent |"
    yield "|---|" + "---|" * (len(sizes) + 1)
    for name, values in costs.items():
        shown = [f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for value in values]
        ratios = ["", *(f" (× {after / before:.2f})" for before, after in pairwise(values))]
        cells = " | ".join(a + b for a, b in zip(shown, ratios, strict=True))
        slope = statistics.linear_regression(list(map(log, sizes)), list(map(log, values))).slope
        yield f"| {name} | {cells} | {slope:.2f} |"


def joined(rows: Sequence[Mapping[str, str]], count: int, each: int, path: Path) -> None:
    """A file of so many rows, each made of so many."""
    with path.open("w", encoding="utf-8") as file:
        for some in list(zip(*[iter(rows)] * each, strict=True))[:count]:
            row = {key: " ".join(one[key] for one in some) for key in ("prompt", "completion")}
            file.write(json.dumps(row) + "\n")


def with_tokens() -> dict[str, list[float]]:
    """Seconds of each stage, over the length of its rows."""
    costs: dict[str, list[float]] = {stage: [] for stage in STAGES}
    clock, nowhere = patch.object(time, "perf_counter", time.process_time), Path(os.devnull)
    with tempfile.TemporaryDirectory() as name, clock, redirect_stderr(nowhere.open("w")):
        short, model = Path(name, "short.jsonl"), Path(name, "model")
        made_up(ROWS * LONGER[-1], short)
        make_model(model, short)
        rows = [json.loads(line) for line in short.read_text(encoding="utf-8").splitlines()]
        for count, each in ((ROWS // 10, 1), *((ROWS, each) for each in LONGER)):
            data = Path(name, f"{count}-{each}.jsonl")
            joined(rows, count, each, data)
            for stage in STAGES:
                work = WORK[stage](data, str(model))
                start = time.process_time()
                found = work()  # seconds, where a stage counts its own
                took = time.process_time() - start
                costs[stage].append(found if isinstance(found, float) else took)
    return {STAGES[stage]: values[1:] for stage, values in costs.items()}  # the first warms up


def with_attacks() -> dict[str, list[float]]:
    """Seconds, texts and prompt tokens of an evaluation, over the number of its attacks."""
    engine = evaluation.lab(1).engine
    asked = what_to_ask(EvaluateSettings(attacks=list(ATTACKS)), lab=True)
    items = gather({"lab-forbidden": ITEMS, "lab-lookalike": ITEMS}, TaskContext(), seed=0)
    safe, plain = Served(Prompting(SAFETY_PROMPTS["holdfast-default"])), Served(Prompting())
    points = []
    for many in MANY:
        start = time.process_time()
        plan = make_plan(
            engine, items, attacks={name: asked.attacks[name] for name in ATTACKS[:many]},
            promptings={"serve": safe, "none": plain, "train": plain}, named=True,
            context=AttackContext(target=engine), decoding=asked.decoding(0), batch=asked.batch,
        )  # fmt: skip
        for jobs in plan.batches:
            engine.generate([job.prompt for job in jobs], asked.decoding(0))
        took = time.process_time() - start
        rows = [[engine.row(job.prompt).ids for job in jobs] for jobs in plan.batches]
        told = [len(engine.row(j.prompt).ids) * len(j.attempts) for b in plan.batches for j in b]
        computed = sum(sum(map(len, r)) - (len(r) - 1) * shared_opening(r) for r in rows)
        points.append((took, plan.attempts, plan.answers, sum(told), computed))
    names = ("seconds", "attempts", "texts generated", "prompt tokens of the attempts", "computed")
    return dict(zip(names, map(list, zip(*points, strict=True)), strict=True))


if __name__ == "__main__":
    print("## Growth\n\n    python benchmarks/growth.py\n")
    print(f"Seconds for {ROWS:,} rows, each made of 1 to {LONGER[-1]} made-up ones.\n")
    print("\n".join(table("tokens ×", LONGER, with_tokens())))
    print(f"\n{2 * ITEMS} items; attacks in this order: {', '.join(ATTACKS)}.\n")
    print("\n".join(table("attacks:", MANY, with_attacks())))
