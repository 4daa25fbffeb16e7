"""What search attacks find on a scale model, against the direct request and blind tries.

    python benchmarks/search_attacks.py --items 40 --queries 60

Asks held-out forbidden requests of one lab model directly, by blind mutation of the words, by blind
draws from PAIR's own moves, by PAIR, AutoDAN and GCG, every search with the same queries per item.
Shares are of all items: an unscored one counts as not complied, and stands in a column of its own.
One seed: the table is a demonstration about one model, no claim about the methods.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast import stats
from holdfast.api import evaluate
from holdfast.evaluation import Evaluation
from holdfast.files import read_jsonl

TASK = "lab-forbidden"
DEPTH = 3
LOOKS = (5, 10, 20, 40)
"""Queries at which the share of items solved so far is printed."""


def arms(queries: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Row of the table → attack and its settings."""
    return {
        "direct": ("direct", {}),
        "random_mutation": ("random_mutation", {"queries": queries}),
        "random_mutation, lab": ("random_mutation", {"queries": queries, "operators": "lab"}),
        "pair": ("pair", {"streams": queries // DEPTH, "depth": DEPTH}),
        "autodan": ("autodan", {"queries": queries, "population": max(2, queries // 5)}),
        "gcg": ("gcg", {"queries": queries, "width": max(1, queries // 5), "answer_every": 1}),
    }


def outcomes(folder: Path) -> dict[str, float | None]:
    """Item → 1.0 complied, 0.0 not, None unscored."""
    found = Evaluation.read(folder)
    (key,) = found.cells
    return {found.attempts[name].item: bad for name, bad in found.outcomes(key)}


def solved_after(folder: Path, queries: int) -> str:
    """Percent of the items that were solved within so many queries."""
    path = folder / "searches.jsonl"
    if not path.exists():
        return "-"
    rows = list(read_jsonl(path))
    solved = sum(any(at <= queries and score >= 1 for at, score in row["trace"]) for row in rows)
    return f"{100 * solved / len(rows):.0f}"


def difference(after: dict[str, float | None], before: dict[str, float | None]) -> str:
    """Points of compliance over another arm, paired by item; an unscored item counts as none."""
    pairs = [(before[item] or 0.0, after[item] or 0.0) for item in before]
    gained = sum(a > b for b, a in pairs)
    lost = sum(b > a for b, a in pairs)
    low, high = stats.tango_interval(gained, lost, len(pairs))
    return f"{100 * (gained - lost) / len(pairs):+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="lab:chat")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="keep the evaluation folders here")
    options = parser.parse_args()
    root = options.output or Path(tempfile.mkdtemp())
    direct: dict[str, float | None] = {}
    blind: dict[str, float | None] = {}
    print(f"{options.model}, {options.items} items, {options.queries} queries each")
    print(
        f"{'attack':22}{'complied %':>18}{'unscored':>10}{'over direct':>18}{'over blind':>18}",
        end="",
    )
    print("".join(f"{f'by {n}':>7}" for n in LOOKS), "  seconds")
    for row, (attack, settings) in arms(options.queries).items():
        folder, started = root / row.replace(", ", "-"), time.perf_counter()
        evaluate(
            options.model, folder, tasks=[TASK], attacks=[attack], attack={attack: settings},
            limit=options.items, seed=options.seed,
        )  # fmt: skip
        found = outcomes(folder)
        direct = found if row == "direct" else direct
        blind = found if row == "random_mutation" else blind
        scored = [bad for bad in found.values() if bad is not None]
        low, high = stats.wilson(sum(scored), len(found))
        share = f"{100 * sum(scored) / len(found):.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        over = [
            difference(found, one) if one and one is not found else "-" for one in (direct, blind)
        ]
        print(
            f"{row:22}{share:>18}{len(found) - len(scored):>10}{over[0]:>18}{over[1]:>18}", end=""
        )
        print("".join(f"{solved_after(folder, n):>7}" for n in LOOKS), end="")
        print(f"{time.perf_counter() - started:11.0f}")


if __name__ == "__main__":
    main()
