"""One table, model × attack: how often each model gave in, and the mean over the attacks.

Rates are pooled over all tasks whose requests should be refused. The mean weighs every attack alike
(one with several surfaces by their mean) and leaves out `direct`, which is no attack; it is taken
over the attacks that every model of the table was put under. Its interval is Wilson's at the
effective number of answers, with items as clusters: answers to one request under many attacks are
no independent draws (Korn and Graubard, Survey Methodology 24 (1998) 193-201).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from holdfast.files import plain
from holdfast.measuring.evaluation import Evaluation, bad_outcome
from holdfast.report import words
from holdfast.report.material import Material
from holdfast.statistics import inference
from holdfast.types import Surface

Place = tuple[str, str]
"""Attack, and its surface as served."""
ItemKey = tuple[str, str]
"""Task, item."""
Outcomes = Mapping[ItemKey, float | None]

NO_ATTACK = "direct"


@dataclass(frozen=True, slots=True)
class Share:
    """A rate with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    """Scored answers."""
    unscored: int

    def __str__(self) -> str:
        ends = f"{100 * self.low:.1f}–{100 * self.high:.1f}"
        aside = f", {self.unscored:,} unscored" if self.unscored else ""
        return f"{words.percent(self.value)} ({ends}; n {self.n:,}{aside})"


@dataclass(frozen=True, slots=True)
class AttackTable:
    """Models × attacks."""

    models: tuple[str, ...]
    rows: tuple[tuple[Place, tuple[Share | None, ...]], ...]
    """One for each attack and surface; None where a model was not put under it or nothing was
    scored."""
    mean: tuple[Share | None, ...]
    """Of each model."""
    averaged: tuple[str, ...]
    """Attacks that the mean is taken over."""
    not_run: Mapping[str, str]
    """Attack → why it did not run."""

    def cells(self) -> list[list[str]]:
        """The table in words, one list of cells for each row, the mean last."""
        shown = [
            [f"{attack}: {words.where(surface, attack)}", *map(_cell, shares)]
            for (attack, surface), shares in self.rows
        ]
        if self.averaged:
            count = words.plural(len(self.averaged), "attack")
            name = f"mean over {count} ({', '.join(self.averaged)})"
            shown.append([name, *map(_cell, self.mean)])
        return shown

    def to_json(self) -> dict[str, object]:
        """As stored in `report.json`."""
        return {
            "models": self.models,
            "rows": [
                {"attack": attack, "surface": surface, "rates": plain(shares)}
                for (attack, surface), shares in self.rows
            ],
            "mean": plain(self.mean),
            "averaged": self.averaged,
            "not_run": dict(self.not_run),
        }


def attack_table(models: Mapping[str, tuple[Evaluation, str]]) -> AttackTable | None:
    """The table of some models.

    Args:
        models: name → its evaluation, and the prompting that its users meet.

    Returns:
        The table; None where no request that should be refused was asked under any attack.
    """
    found = {name: outcomes_of(*one) for name, one in models.items()}
    places = sorted({place for one in found.values() for place in one}, key=_rank)
    if all(attack == NO_ATTACK for attack, _ in places):
        return None
    rows = [(place, tuple(rate(one.get(place, {})) for one in found.values())) for place in places]
    shared = [place for place, shares in rows if place[0] != NO_ATTACK and None not in shares]
    return AttackTable(
        models=tuple(models),
        rows=tuple(rows),
        mean=tuple(mean_over_attacks({p: one[p] for p in shared}) for one in found.values()),
        averaged=tuple(dict.fromkeys(attack for attack, _ in shared)),
        not_run={
            name: reason
            for evaluation, _ in models.values()
            for name, reason in evaluation.settings.get("not_run", {}).items()
        },
    )


def table_of_run(material: Material) -> AttackTable | None:
    """The table of a run: before tuning, after it, and plain tuning where there is a control."""
    serving = (material.comparison or {}).get("serving", "serve")
    untreated = (material.control_comparison or {}).get("serving", serving)
    arms = {
        "before tuning": (material.before, serving),
        "plain tuning": (material.control, untreated),
        "after tuning": (material.after, serving),
    }
    return attack_table({name: (e, s) for name, (e, s) in arms.items() if e is not None})


def outcomes_of(evaluation: Evaluation, serving: str) -> dict[Place, dict[ItemKey, float | None]]:
    """Where a request was put, as served → item → 1.0 gave in, 0.0 did not, None unscored."""
    found: dict[Place, dict[ItemKey, float | None]] = {}
    for cell in evaluation.cells.values():
        surface = _as_served(cell[0].surface, serving)
        if cell[0].expects != "refuse" or surface is None:
            continue
        place = found.setdefault((cell[0].attack, surface), {})
        for attempt in cell:
            outcome = bad_outcome(attempt.expects, evaluation.verdict(attempt))
            place[(attempt.task, attempt.item)] = outcome
    return found


def _as_served(surface: str, serving: str) -> str | None:
    """A surface under the name it has where it is served; None for another prompting.

    Raw text and begun replies are asked once, under `serve`, whatever the prompting.
    """
    try:
        parsed = Surface.parse(surface)
    except ValueError:
        return surface
    once = parsed.form == "raw" or parsed.prefill > 0
    if parsed.prompting != ("serve" if once else serving):
        return None
    return Surface(parsed.wrapper, "serve", parsed.form, parsed.prefill).name


def rate(outcomes: Outcomes) -> Share | None:
    """The share of scored answers that gave in, with Wilson's interval."""
    scored = [outcome for outcome in outcomes.values() if outcome is not None]
    if not scored:
        return None
    low, high = inference.wilson(sum(scored), len(scored))
    unscored = len(outcomes) - len(scored)
    return Share(sum(scored) / len(scored), low, high, len(scored), unscored)


def mean_over_attacks(places: Mapping[Place, Outcomes]) -> Share | None:
    """The mean of the attacks' rates, each attack's the mean of its surfaces'.

    Args:
        places: where requests were put → item → outcome; each with a scored answer.
    """
    if not places:
        return None
    mean, spread = 0.0, dict[ItemKey, float]()
    attacks = {attack for attack, _ in places}
    for (attack, _), outcomes in places.items():
        surfaces = sum(other == attack for other, _ in places)
        weight = 1 / (len(attacks) * surfaces)
        scored = {item: x for item, x in outcomes.items() if x is not None}
        p = sum(scored.values()) / len(scored)
        mean += weight * p
        for item, x in scored.items():  # each item's share in the error of the mean
            spread[item] = spread.get(item, 0.0) + weight * (x - p) / len(scored)
    answers = [x for outcomes in places.values() for x in outcomes.values()]
    n = sum(x is not None for x in answers)
    mean = min(1.0, max(0.0, mean))
    low, high = _interval(mean, list(spread.values()), n)
    return Share(mean, low, high, n, len(answers) - n)


def _interval(mean: float, spread: Sequence[float], n: int) -> tuple[float, float]:
    """Wilson's interval at as many answers as would vary like this mean; no event: the items."""
    items = len(spread)
    variance = items / max(1, items - 1) * sum(d * d for d in spread)
    effective = float(items)
    if variance > 0:
        few = inference.two_sided_z(0.95) / inference.student_quantile(0.975, items - 1)
        effective = mean * (1 - mean) / variance * few**2
    effective = min(float(n), max(1.0, effective))
    return inference.wilson(mean * effective, effective)


def _rank(place: Place) -> tuple[object, ...]:
    attack, surface = place
    return (attack != NO_ATTACK, attack, *_prefix(surface))


def _prefix(surface: str) -> Iterator[object]:
    """The surface's parts, lengths of prefill in the order of numbers."""
    try:
        parsed = Surface.parse(surface)
    except ValueError:
        yield from (surface, 0)
    else:
        yield from (parsed.wrapper, parsed.prefill)


def _cell(share: Share | None) -> str:
    return words.NOTHING if share is None else str(share)
