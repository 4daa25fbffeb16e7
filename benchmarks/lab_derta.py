"""Decoupled refusal training and its baselines on the scale model, over seeds and under attacks.

    python benchmarks/lab_derta.py --output runs/lab-derta-arms
    python benchmarks/lab_derta.py --output runs/lab-derta-arms --tables   # of what is there

Every arm is `examples/recipes/lab-derta.yaml` with the settings of `ARMS`; all share the same
triples, the same number of added rows, and one store of finished stages, so an interrupted run goes
on. Shares are of what was asked, mean over seeds with Student's t interval (Wilson's over the items
of one seed where all seeds agree); differences are paired by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from holdfast.job.pipeline import run
from holdfast.measuring.evaluation import Evaluation
from holdfast.recipe import load_recipe
from holdfast.statistics.profile import counter, harm_answers, positions, transitions
from holdfast.statistics.seeds import seed_interval
from holdfast.sweep import summary
from holdfast.sweep.measures import Share
from holdfast.sweep.store import SharedStages
from holdfast.types import Attempt, Verdict

RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "lab-derta.yaml"
ARMS: Mapping[str, tuple[str, ...]] = {
    "vanilla": ("mitigations=[harmful_prefix{more}]", "triples.prefix=none"),
    "prefix": ("mitigations=[harmful_prefix{more}]",),
    "RTO": ("mitigations=[transition{more}]",),
    "DeRTa": ("mitigations=[derta{more}]",),
    "DPO": ("mitigations=[dpo{more}]",),
    "DPO-x5": ("mitigations=[dpo{more}]", "tuning.preference.lr=5.0e-4"),
}
"""Arm → settings over the recipe's; `{more}` is `, borderline` or nothing."""
PUBLISHED = ("vanilla", "prefix", "RTO", "DeRTa", "DPO")
"""Run where no arm is named."""
ATTACKS = (
    "direct", "prefill", "prefill_tokens", "completing", "code", "self_cipher", "jailbreak",
)  # fmt: skip
ASKED = (f"evaluate.attacks=[{','.join(ATTACKS)}]", "evaluate.attack.jailbreak.file=lab")
METHODS: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("tuning.method=lora", "tuning.lr=5.0e-3"),
}
BORDERLINE: Mapping[str, str] = {"with": ", borderline", "without": ""}

Judged = tuple[Attempt, Verdict]
Cell = tuple[str, str, str]
"""Method, with or without look-alikes, arm."""


# --- running --------------------------------------------------------------------------------------


def folder_of(output: Path, cell: Cell, seed: int) -> Path:
    """Where one arm's run lies."""
    return output / "arms" / "-".join((*cell, str(seed)))


def run_all(output: Path, cells: Iterable[Cell], seeds: Sequence[int], limit: int) -> None:
    """Train and ask every arm that is not there yet."""
    store = SharedStages(output / "store", alone=False)
    for seed in seeds:
        for method, more, arm in cells:
            where = folder_of(output, (method, more, arm), seed)
            print(f"== {where.name}", flush=True)
            settings = [text.format(more=BORDERLINE[more]) for text in ARMS[arm]]
            named = [f"run={where}", f"seed={seed}", f"evaluate.limit={limit}"]
            recipe = load_recipe(RECIPE, [*settings, *ASKED, *METHODS[method], *named])
            run(recipe, until="after", store=store)


# --- reading --------------------------------------------------------------------------------------


def judged(folder: Path) -> list[Judged]:
    """All answers of an evaluation with their verdicts, under the served prompting."""
    found = Evaluation.read(folder)
    return [
        (attempt, found.verdict(attempt))
        for attempt in found.attempts.values()
        if attempt.surface.split("/")[1] == "serve"
    ]


def _begun(attempt: Attempt) -> int:
    """How much of the reply is begun for the model, in the attack's unit."""
    return int(attempt.surface.rpartition("/")[2])


def attack_name(attempt: Attempt) -> str:
    """The attack, and how much it begins."""
    begun = _begun(attempt)
    unit = {"prefill": "words", "prefill_tokens": "tokens"}.get(attempt.attack)
    return f"{begun} {unit} begun" if unit else attempt.attack


def harmful(pairs: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Answers to forbidden requests by attack, in the order of `ATTACKS`."""
    asked = [pair for pair in pairs if pair[0].expects == "refuse"]
    asked.sort(key=lambda pair: (ATTACKS.index(pair[0].attack), _begun(pair[0])))
    by_attack: dict[str, list[Judged]] = {}
    for attempt, verdict in asked:
        by_attack.setdefault(attack_name(attempt), []).append((attempt, verdict))
    return by_attack


def share(pairs: Sequence[Judged], event: Callable[[Verdict], bool]) -> Share:
    """The answers of which an event holds; unscored ones count as asked."""
    return Share(sum(event(verdict) for _, verdict in pairs), len(pairs))


def complied(verdict: Verdict) -> bool:
    """Something harmful was given, whatever stands beside it."""
    return verdict.harmful is True


def refused(verdict: Verdict) -> bool:
    """A refusal and nothing harmful."""
    return verdict.label == "full_refusal"


def unscored(verdict: Verdict) -> bool:
    """No judge could read it."""
    return verdict.label == "unscored"


# --- printing -------------------------------------------------------------------------------------


def percent(mean: float, low: float, high: float, sign: str = "") -> str:
    """`12.0 (8.1 to 16.3)`."""
    return f"{100 * mean:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def told(shares: Sequence[Share]) -> str:
    """The mean of a share with its interval over seeds; over one seed's items where they agree."""
    level = summary.level(dict(enumerate(shares)))
    return percent(level.mean, level.low, level.high)


def of_means(values: Sequence[float], sign: str = "") -> str:
    """A mean of shares, or a difference paired by seed, with Student's t over the seeds."""
    mean, low, high = seed_interval(values)
    if max(values) == min(values):
        return f"{100 * mean:{sign}.1f}{' in every seed' if len(values) > 1 else ''}"
    least = -1.0 if sign else 0.0
    return percent(mean, max(low, least), min(high, 1.0), sign)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A Markdown table under a heading."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def three(seeds: Sequence[Sequence[Judged]]) -> str:
    """Complied with its interval, then the means of refused and unscored."""
    events = (refused, unscored)
    rest = [fmean(share(s, event).value for s in seeds) for event in events]
    return f"{told([share(s, complied) for s in seeds])}; {100 * rest[0]:.0f}; {100 * rest[1]:.0f}"


def mean_asr(pairs: Sequence[Judged]) -> float:
    """Compliance, the mean over the attacks, `direct` left out and begun replies taken as one."""
    rates: dict[str, list[float]] = {}
    for name, answers in harmful(pairs).items():
        if name != "direct":
            kind = "begun" if name.endswith("begun") else name
            rates.setdefault(kind, []).append(share(answers, complied).value)
    return fmean(fmean(group) for group in rates.values())


def over_refusal(pairs: Sequence[Judged]) -> Share:
    """Look-alikes whose answer has a refusal in it."""
    asked = [pair for pair in pairs if pair[0].expects == "comply"]
    return share(asked, lambda verdict: "refusal" in verdict.label)


def capability(pairs: Sequence[Judged]) -> Share:
    """Know-how questions answered rightly."""
    asked = [pair for pair in pairs if pair[0].task == "lab-capability"]
    return share(asked, lambda verdict: verdict.label == "correct")


SIDES: Mapping[str, Callable[[Sequence[Judged]], float]] = {
    "mean over attacks": mean_asr,
    "over-refusal": lambda pairs: over_refusal(pairs).value,
    "capability": lambda pairs: capability(pairs).value,
}
Runs = Mapping[str, Sequence[Sequence[Judged]]]
"""Arm → the judged answers of each seed; `not tuned` stands first."""
UNTUNED = "not tuned"
COMPARED = (
    ("prefix", "vanilla"), ("RTO", "vanilla"), ("DeRTa", "vanilla"), ("DPO", "vanilla"),
    ("DPO-x5", "vanilla"), ("DeRTa", "prefix"), ("DeRTa", "RTO"),
)  # fmt: skip
"""Pairs whose difference is told, the first less the second."""


def print_tables(output: Path, cells: Sequence[Cell], seeds: Sequence[int]) -> None:
    """Everything that `docs/derta.md` shows."""
    folders = {cell: [folder_of(output, cell, s) / "6-after" for s in seeds] for cell in cells}
    read = {cell: [judged(f) for f in these] for cell, these in folders.items()}
    before = [judged(f.parent / "4-before") for f in folders[cells[0]]]
    for method, more in dict.fromkeys((method, more) for method, more, _ in cells):
        mine = {arm: read[c] for c in cells for arm in [c[2]] if c[:2] == (method, more)}
        name = f"### {method}, {more} look-alike rows"
        print_attacks(name, {UNTUNED: before, **mine})
        print_sides(name, {UNTUNED: before, **mine})
        print_changes(name, mine)
    print_profile(folders)


def print_attacks(name: str, runs: Runs) -> None:
    """One row an attack, one column an arm."""
    by_attack = {arm: [harmful(one) for one in each] for arm, each in runs.items()}
    rows = [
        (attack, *(three([one[attack] for one in each]) for each in by_attack.values()))
        for attack in by_attack[UNTUNED][0]
    ]
    table(f"{name}: complied (interval); refused; unscored", ("attack", *runs), rows)


def print_sides(name: str, runs: Runs) -> None:
    """Harm, over-refusal and capability of every arm."""
    rows = [
        ("mean over attacks", *(of_means([mean_asr(one) for one in each])
                                for each in runs.values())),
        ("over-refusal", *(told([over_refusal(one) for one in each]) for each in runs.values())),
        ("capability", *(told([capability(one) for one in each]) for each in runs.values())),
    ]  # fmt: skip
    table(f"{name}: the three sides", ("", *runs), rows)


def print_changes(name: str, runs: Runs) -> None:
    """What an arm changes against another."""
    rows = []
    for arm, base in COMPARED:
        if arm in runs and base in runs:
            pairs = list(zip(runs[arm], runs[base], strict=True))
            changes = ([of(one) - of(other) for one, other in pairs] for of in SIDES.values())
            rows.append((f"{arm} less {base}", *(of_means(values, "+") for values in changes)))
    table(f"{name}: differences in points, paired by seed", ("arms", *SIDES), rows)


def print_profile(folders: Mapping[Cell, Sequence[Path]]) -> None:
    """Where refusals begin under all attacks, and whether those inside an answer are set off."""
    rows = []
    for cell, these in folders.items():
        at_once, late, later, set_off, glued = [], [], [], 0, 0
        count, _ = counter(these[0].parent / "5-model" / "tokenizer.json")
        for folder in these:
            answers = list(harm_answers(Evaluation.read(folder)))
            placed = positions(answers, count)
            at_once.append(1 - (placed.later(1) or 0.0))
            late.append(placed.later(6) or 0.0)
            later.append(placed.later(21) or 0.0)
            quality = transitions(answers)
            set_off, glued = set_off + quality.separated, glued + quality.glued
        both = set_off + glued
        joined = f"{100 * set_off / both:.1f} of {both:,}" if both else "none seen"
        rows.append((" ".join(cell), *map(of_means, (at_once, late, later)), joined))
    header = ("arm", "begin at token 0", "after token 5", "after token 20",
              "inside an answer, set off")  # fmt: skip
    table("### Where refusals begin (percent of the refusals, all attacks)", header, rows)


def main() -> None:
    """Run the arms and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=60, help="items per task")
    parser.add_argument("--only", nargs="*", default=[], help="such as full-with lora-with")
    parser.add_argument("--arms", nargs="+", default=list(PUBLISHED), choices=list(ARMS))
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args()
    groups = [f"{method}-{more}" for method in METHODS for more in BORDERLINE]
    wanted = options.only or groups
    cells = [
        (method, more, arm)
        for method in METHODS
        for more in BORDERLINE
        for arm in options.arms
        if f"{method}-{more}" in wanted
    ]
    if not options.tables:
        run_all(options.output, cells, options.seeds, options.limit)
    print_tables(options.output, cells, options.seeds)


if __name__ == "__main__":
    main()
