"""How well a labelled sample corrects a judge: coverage, bias and width, by simulation.

    python benchmarks/calibration.py

300 items asked before and after tuning, read by a judge of known faults; a sample of the answers,
spread over arms and verdicts as `holdfast judge --sample` draws it, is labelled without error.
Printed are how often the corrected 90 % interval covers the true change, its mean bias beside that
of the judged change, and its mean half width, all in points.
"""

from __future__ import annotations

import random

from holdfast.statistics.calibration import Stratum, allocate, corrected

ITEMS = 300
LABELS = (50, 100, 200, 400)
STUDIES = 400
WORLDS = {
    "misses some": ((0.85, 0.95), (0.85, 0.95), (0.02, 0.20)),
    "misled by tuning": ((0.95, 0.98), (0.60, 0.98), (0.05, 0.15)),
    "cries wolf": ((0.95, 0.80), (0.95, 0.80), (0.10, 0.10)),
    "rare events": ((0.90, 0.99), (0.90, 0.99), (0.00, 0.01)),
}
"""Sensitivity and specificity before and after tuning, and the true rates."""


def study(world, labels: int, chance: random.Random):
    """One evaluation, judged and labelled: the corrected change, and the judged one."""
    judged: dict[str, list[bool]] = {}
    truth: dict[str, list[bool]] = {}
    for arm, quality, rate in zip(("before", "after"), world[:2], world[2], strict=True):
        truth[arm] = [chance.random() < rate for _ in range(ITEMS)]
        judged[arm] = [chance.random() < (quality[0] if t else 1 - quality[1]) for t in truth[arm]]
    members: dict[tuple[str, bool], list[int]] = {}
    for arm, said in judged.items():
        for i, event in enumerate(said):
            members.setdefault((arm, event), []).append(i)
    given = allocate({key: len(rows) for key, rows in members.items()}, labels)
    strata = {
        (arm, event): Stratum(
            len(rows),
            given[arm, event],
            sum(truth[arm][i] for i in chance.sample(rows, given[arm, event])),
            float(event),
        )
        for (arm, event), rows in members.items()
    }
    items = [
        [(("after", judged["after"][i]), 1.0), (("before", judged["before"][i]), -1.0)]
        for i in range(ITEMS)
    ]
    naive = (sum(judged["after"]) - sum(judged["before"])) / ITEMS
    return corrected(items, strata, level=0.90), naive


def main() -> None:
    """Print one line for every world and number of labels."""
    print("| judge | labels | covers | bias, judged | bias, corrected | half width |")
    print("|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        true = world[2][1] - world[2][0]
        for labels in LABELS:
            chance = random.Random(f"{name} {labels}")
            found = [study(world, labels, chance) for _ in range(STUDIES)]
            covers = sum(f.low <= true <= f.high for f, _ in found) / STUDIES
            bias = sum(f.value - true for f, _ in found) / STUDIES
            naive = sum(n - true for _, n in found) / STUDIES
            width = sum(f.high - f.low for f, _ in found) / STUDIES / 2
            print(
                f"| {name} | {labels} | {100 * covers:.1f} % | {100 * naive:+.1f} | "
                f"{100 * bias:+.1f} | {100 * width:.1f} |"
            )


if __name__ == "__main__":
    main()
