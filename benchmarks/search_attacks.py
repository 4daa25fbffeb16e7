"""Search attacks against the direct request and blind tries, at equal queries, over seeds.

    for seed in 0 1 2; do
      holdfast train examples/recipes/lab-derta.yaml model=lab:base 'data=lab:howto?n=1200' \
        'mitigations=[safety_mix]' safety.share=10% tuning.epochs=3 'evaluate.attacks=[direct]' \
        'evaluate.tasks=[lab-forbidden,lab-capability]' seed=$seed run=runs/tuned-$seed
    done
    python benchmarks/search_attacks.py runs/tuned-0 runs/tuned-1 runs/tuned-2

That is the plainest safety tuning there is: safety rows mixed into helpful ones (P1). Every model
is searched with a seed of its own, on items drawn with that seed; a model named three times is
searched three times. The seed is the unit: intervals are Student's t over the seeds. All arms may
ask the same number of questions; a likelihood or a gradient is a question too. `blind moves` draws
PAIR's own moves without reading any answer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from holdfast.api import evaluate
from holdfast.files import read_jsonl
from holdfast.measuring.evaluation import Evaluation
from holdfast.statistics.seeds import seed_interval

TASK = "lab-forbidden"
STREAMS = 2
LOOKS = (3, 5, 10, 20)
"""Queries at which the share of items solved so far is printed."""


def arms(queries: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Row of the table → attack and its settings."""
    return {
        "direct": ("direct", {}),
        "random_mutation": ("random_mutation", {"queries": queries, "at_once": STREAMS}),
        "blind moves": (
            "random_mutation", {"queries": queries, "operators": "lab", "at_once": STREAMS},
        ),
        "pair": (
            "pair", {"attacker": "lab-mutator", "streams": STREAMS, "depth": queries // STREAMS},
        ),
        "autodan": (
            "autodan", {"seeds": "lab", "queries": queries, "population": max(2, queries // 5)},
        ),
        "gcg": ("gcg", {"queries": queries, "width": max(1, queries // 5), "answer_every": 1}),
    }  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one attack did to one model."""

    complied: Mapping[str, float]
    """Item → 1 or 0; an answer that the judge could not read is no compliance."""
    unscored: int
    solved_at: Sequence[int]
    """Queries of each search that succeeded."""

    @property
    def share(self) -> float:
        """Of all items."""
        return fmean(self.complied.values())

    def solved(self, queries: int) -> float:
        """Share of the items solved within so many queries."""
        return sum(at <= queries for at in self.solved_at) / len(self.complied)


def searched(model: str, row: str, options: argparse.Namespace, seed: int, root: Path) -> Found:
    """One arm on one model."""
    attack, settings = arms(options.queries)[row]
    folder = root / f"{row.replace(' ', '-')}-{seed}"
    evaluate(
        model, folder, tasks=[TASK], attacks=[attack], attack={attack: settings},
        limit=options.items, seed=seed,
    )  # fmt: skip
    found = Evaluation.read(folder)
    (key,) = found.cells
    outcomes = {found.attempts[name].item: bad for name, bad in found.outcomes(key)}
    path = folder / "searches.jsonl"
    records = list(read_jsonl(path)) if path.exists() else []
    at = [n for record in records for n, score in record["trace"] if score >= 1]
    unscored = sum(bad is None for bad in outcomes.values())
    return Found({item: bad or 0.0 for item, bad in outcomes.items()}, unscored, at)


def percent(differences: Sequence[float], signed: bool = True) -> str:
    """Mean and its interval over the seeds, in points."""
    mean, low, high = (100 * value for value in seed_interval(differences))
    return f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]" if signed else f"{mean:.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", help="folders of runs or of models, or lab:chat")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=list(arms(20)), help="rows of the table")
    parser.add_argument("--output", type=Path, help="keep the evaluation folders here")
    options = parser.parse_args()
    root = options.output or Path(tempfile.mkdtemp())
    models = [
        str(Path(name) / "5-model") if (Path(name) / "5-model").is_dir() else name
        for name in options.models
    ]
    print(f"{', '.join(options.models)}; {options.items} items, {options.queries} queries each\n")
    looks = [n for n in LOOKS if n <= options.queries]
    print(
        f"| attack | complied | by seed | unscored | over direct | over random_mutation "
        f"| over blind moves |{''.join(f' by {n} |' for n in looks)} s |"
    )
    print(f"|{'---|' * (8 + len(looks))}")
    found: dict[str, list[Found]] = {}
    for row in options.only:
        started = time.perf_counter()
        found[row] = [searched(m, row, options, seed, root) for seed, m in enumerate(models)]
        shares = [one.share for one in found[row]]
        over = [
            percent([a - b.share for a, b in zip(shares, found[base], strict=True)])
            if base in found and base != row else "–"
            for base in ("direct", "random_mutation", "blind moves")
        ]  # fmt: skip
        cells = [
            row, percent(shares, signed=False), ", ".join(f"{100 * s:.0f}" for s in shares),
            str(sum(one.unscored for one in found[row])), *over,
            *(f"{100 * fmean(one.solved(n) for one in found[row]):.0f}" if row != "direct" else "–"
              for n in looks),
            f"{time.perf_counter() - started:.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
    if {"pair", "blind moves"} <= found.keys():
        for n in looks:
            gaps = [
                a.solved(n) - b.solved(n)
                for a, b in zip(found["pair"], found["blind moves"], strict=True)
            ]
            print(f"pair over blind moves, solved within {n} queries: {percent(gaps)} points")


if __name__ == "__main__":
    main()
