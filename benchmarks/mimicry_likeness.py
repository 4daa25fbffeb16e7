"""Whether mimicking rows can be told from the user's, on task sets of the lab and on real ones.

    python benchmarks/mimicry_likeness.py DATA_DIR

DATA_DIR holds `gsm8k/`, `commonsense/` and `safety_tuned_llamas/` as their sources leave them. The
safety rows are those of the lab for its sets, and P1's refusals for the others. Each figure is the
area under the ROC curve of the self-check (`holdfast.rows.mimicry`), cross-validated; 0.5 guesses.
Mode `option` is shown where the set is multiple choice, beside the default mode `wrapper`. As a
check of the check itself the same safety rows are also shown as they are, and in a wrapper that is
not the user's; there the prompts must be told apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

from holdfast.job.material import only_labelled
from holdfast.mitigations import PlanContext, Request
from holdfast.mitigations.mimic import BARE, in_format, mimicking_rows
from holdfast.recipe import MimicSettings
from holdfast.rendering.prompting import Prompting
from holdfast.rows.induction import Format, FormatSample
from holdfast.rows.load import open_rows
from holdfast.rows.mimicry import likeness
from holdfast.rows.mixing import ordered, solve
from holdfast.rows.pools import Pool
from holdfast.stages.prepare import Plan, draw
from holdfast.stages.restyle import donors
from holdfast.types import Conversation

LAB = ("howto", "yesno", "choice", "arithmetic")
REAL = {
    "GSM8K": "gsm8k/train.jsonl",
    "BoolQ": "commonsense/boolq_train.json",
    "PIQA": "commonsense/piqa_test.json",
    "OpenBookQA": "commonsense/openbookqa_train.json",
    "WinoGrande": "commonsense/winogrande_test.json",
    "ARC-Easy": "commonsense/arc-easy_train.json",
    "ARC-Challenge": "commonsense/arc-challenge_test.json",
}
REFUSALS = "safety_tuned_llamas/safety_only_data_Instructions.json"
FOREIGN = Format("You are a clerk of the archive.", "Case file:\n", "\nEnd of file.", 1, 1)
"""A wrapper that no set has."""


def users(where: str, rows: int) -> list[Conversation]:
    """Rows of a task set."""
    return list(islice(open_rows(where), rows))


def refusals(where: str) -> list[Conversation]:
    """Safety rows that refuse."""
    refuses = only_labelled("full_refusal", "refusal")
    return [row for row in open_rows(where, source="safety") if refuses(row) is None]


def ways(rows: Sequence[Conversation]) -> dict[str, Request]:
    """Ways of putting safety rows beside the user's rows."""
    sample = FormatSample()
    for row in rows:
        sample.see(row)
    formats = sample.formats()
    beside = donors(rows, formats or [BARE], frozenset(), 0)
    modes = ["wrapper", *["option" for worn in formats[:1] if worn.offers_options]]
    mimic = {
        mode: mimicking_rows(
            PlanContext(formats, "", len(rows), mimic=MimicSettings(mode=mode), donors=beside)
        )[0]
        for mode in modes
    }
    return {
        **mimic,
        "as they are": Request("mimic", "safety"),
        "foreign wrapper": Request("mimic", "safety", shape=in_format([FOREIGN])),
    }


def made(pool: Sequence[Conversation], way: Request, count: int, seed: int) -> list[Conversation]:
    """Rows drawn from a pool and put in one way, as `prepare` does it."""
    asked = replace(way, count=count)
    none = Prompting()
    plan = Plan(none, none, none, (asked,), tuple(solve(count, [asked])))
    pools = {"safety": Pool("safety", ordered(list(pool), seed))}
    return draw(plan, pools, user_rows=count, seed=seed).rows


def spread(values: Sequence[float]) -> str:
    """Mean and range."""
    return f"{mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--rows", type=int, default=1000, help="of each task set")
    parser.add_argument("--count", type=int, default=300, help="safety rows put beside them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", type=int, default=0, help="also print so many mimicking rows")
    parser.add_argument("--mode", default="wrapper", help="of the rows shown")
    parser.add_argument("--only", nargs="*", help="names of sets")
    options = parser.parse_args()
    sets = {f"lab {name}": (f"lab:{name}?n={options.rows}", "lab:safety") for name in LAB}
    data = options.data_dir
    sets |= {name: (str(data / path), str(data / REFUSALS)) for name, path in REAL.items()}
    pools = {where: refusals(where) for where in dict.fromkeys(pool for _, pool in sets.values())}
    print(
        "| set | prompts | prompts, `option` | answers, layout | answers, words too "
        "| prompts as they are | prompts in a foreign wrapper |\n|---|---|---|---|---|---|---|"
    )
    for name, (where, source) in sets.items():
        if options.only and name not in options.only:
            continue
        rows, pool = users(where, options.rows), pools[source]
        found = {
            name: [
                likeness([*rows, *made(pool, way, options.count, seed)])
                for seed in range(options.seeds)
            ]
            for name, way in ways(rows).items()
        }
        mimic = found["wrapper"]
        figures = [
            spread([one.prompts for one in mimic]),
            spread([one.prompts for one in found["option"]]) if "option" in found else "",
            spread([one.layout for one in mimic]),
            spread([one.answers for one in mimic]),
            spread([one.prompts for one in found["as they are"]]),
            spread([one.prompts for one in found["foreign wrapper"]]),
        ]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)
        for row in made(pool, ways(rows)[options.mode], options.count, 0)[: options.show]:
            print(f"    {row.request!r}\n        {row.reply!r}")


if __name__ == "__main__":
    main()
