"""What was done, in tables: model, data, doses, prompting, audit, tokens, licences, versions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.files import dumps
from holdfast.mitigations import MITIGATIONS
from holdfast.report import words
from holdfast.report.material import FILES, Material
from holdfast.usage import read_cost, read_usage

Rows = list[tuple[str, ...]]

_SHOWN_APART = ("sources", "mixture", "versions", "prompting", "model", "holdfast")
"""Blocks of the manifest that have a place of their own."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """System prompts of training and serving."""

    known: bool
    train: str | None
    serve: str | None

    @property
    def apart(self) -> bool:
        """Whether the model is served as it was not trained (P2)."""
        return self.known and self.train != self.serve


def facts(material: Material) -> list[tuple[str, str]]:
    """Model, data, rows and tuning in a few lines."""
    recipe, model = material.recipe, _block(material.manifest, "model")
    found = [
        ("Model", str(model.get("name") or recipe.get("model") or _compared(material, "before"))),
        ("Fingerprint", str(model.get("fingerprint", ""))),
        ("Compared with", "" if recipe else _compared(material, "after")),
        ("Data", _data(material)),
        ("Rows", _rows(material)),
        ("Tuning", _tuning(_block(recipe, "tuning"))),
        ("Trained by", _trained_by(material)),
        ("Serving contract", " ".join(contract(material))),
        ("Seed", str(material.manifest.get("seed", recipe.get("seed", "")))),
        ("Control", "plain: the same rows tuned without mitigations" * bool(recipe.get("control"))),
    ]
    return [(name, value) for name, value in found if value]


def contract(material: Material) -> list[str]:
    """What could be verified of how the tuned model is served, in sentences; empty if unchecked."""
    found = _block(material.comparison or {}, "contract")
    checks = [check for check in found.get("checks", ()) if isinstance(check, Mapping)]
    if not checks:
        return []
    counts = [
        f"{sum(c.get('outcome') == outcome for c in checks)} {said}"
        for outcome, said in _CHECKED.items()
        if any(c.get("outcome") == outcome for c in checks)
    ]
    reasons = dict.fromkeys(str(c.get("reason")) for c in checks if c.get("reason"))
    lines = [f"{found.get('outcome')}: of {len(checks)} checks, {', '.join(counts)}."]
    return [*lines, *(f"{reason[:1].upper()}{reason[1:]}." for reason in reasons)]


_CHECKED = {"HOLDS": "hold", "BROKEN": "are broken", "NOT VERIFIABLE": "cannot be verified"}


def _trained_by(material: Material) -> str:
    """Who trained, where it was not Holdfast."""
    asked = _block(material.recipe, "train")
    if asked.get("with") == "external":
        return f"another trainer; tuned model: {material.recipe.get('after') or 'not named yet'}"
    return "the server's fine-tuning" if asked.get("with") == "openai" else ""


def mitigations(material: Material) -> list[tuple[str, str]]:
    """Each mitigation with its first line of documentation."""
    names = [str(name) for name in material.recipe.get("mitigations") or ()]
    return [(n, MITIGATIONS.summary(n) if n in MITIGATIONS else "") for n in names]


def doses(material: Material) -> Rows:
    """Added rows as source, count, share of the set, ratio to the user's rows."""
    rows = _block(_mixture(material), "plan").get("rows", ())
    return [
        (
            str(row.get("source", "")),
            words.number(row.get("count", 0)),
            words.percent(row.get("share", 0.0)),
            f"{row.get('ratio', 0.0):.4g}",
        )
        for row in rows
    ]


def notes(material: Material) -> list[str]:
    """What the plan remarked."""
    return [str(note) for note in _block(_mixture(material), "plan").get("notes", ())]


def prompts(material: Material) -> Prompts:
    """The system prompts: what was trained with, and what must be served."""
    plan = _block(_mixture(material), "plan")
    if "serve_system" in plan:
        return Prompts(True, plan.get("train_system"), plan["serve_system"])
    asked = _block(material.manifest, "prompting") or _block(material.recipe, "prompting")
    serve, train = asked.get("serve"), asked.get("train")
    if isinstance(serve, Mapping) and isinstance(train, Mapping):
        return Prompts(True, train.get("system"), serve.get("system"))
    return Prompts(False, None, None)


def mixture(material: Material) -> list[tuple[str, float]]:
    """Training rows by source."""
    return [(str(k), v) for k, v in _block(_mixture(material), "by_source").items()]


def token_budget(material: Material) -> list[tuple[str, float]]:
    """Trained tokens by source and loss, in the order of `mixture`."""
    order = [source for source, _ in mixture(material)]
    found = [(str(k), v) for k, v in _block(material.tally, "targets").items()]
    known = {source: place for place, source in enumerate(order)}
    return sorted(found, key=lambda part: known.get(part[0].split("/")[0], len(order)))


def tally(material: Material) -> list[tuple[str, str]]:
    """What rendering did."""
    names = {
        "rows": "rendered rows",
        "tokens": "tokens",
        "truncated": "replies cut at the longest row",
        "one_row_per_turn": "conversations rendered turn by turn",
        "dropped": "rows dropped in rendering",
    }
    return [(n, words.number(material.tally[k])) for k, n in names.items() if k in material.tally]


def losses(material: Material) -> list[tuple[float, float]]:
    """(step, loss) of training."""
    log = material.training.get("log", ())
    return [(float(e["step"]), float(e["loss"])) for e in log if "step" in e and "loss" in e]


def judges(material: Material) -> Rows:
    """Task, judges (the one that gates first), with versions."""
    if material.after is None:
        return []
    versions = material.after.versions()
    named = material.after.settings.get("judges", {})
    return [
        (task, ", ".join(f"{n} (version {versions[n]})" if versions.get(n) else n for n in names))
        for task, names in sorted(named.items())
    ]


def usage(material: Material) -> Rows:
    """What each served model was asked for: arm, requests, tokens in and out, retries, cost."""
    arms = {"before": material.before, "after": material.after, "control": material.control}
    rows: Rows = []
    for arm, evaluation in arms.items():
        found = None if evaluation is None else read_usage(evaluation.folder)
        if evaluation is None or found is None:
            continue
        cost = read_cost(evaluation.folder)
        told = words.NOTHING if cost is None else f"{cost:,.2f}"
        counts = (found.requests, found.prompt_tokens, found.completion_tokens, found.retries)
        rows.append((arm, *(f"{count:,}" for count in counts), told))
    return rows


USAGE = ("evaluation", "requests", "prompt tokens", "answer tokens", "retries", "cost")
"""Heads of `usage`."""


def sources(material: Material) -> Rows:
    """Name, licence, and what pins each source."""
    found = material.manifest.get("sources") or ()
    if isinstance(found, Mapping):
        entries = [(name, value) for name, value in found.items()]
    else:
        entries = [(_name(value), value) for value in found]
    return [
        (str(n), _licence(v), ", ".join(f"{k} {_short(x)}" for k, x in _details(v)))
        for n, v in entries
    ]


def provenance(material: Material) -> list[tuple[str, str]]:
    """Everything else of the manifest, flat."""
    versions = _block(material.manifest, "versions")
    rows = [("holdfast", str(material.manifest.get("holdfast", "")))]
    rows += [(str(k), _short(v)) for k, v in versions.items()]
    rest = {k: v for k, v in material.manifest.items() if k not in _SHOWN_APART}
    rows += list(flat(rest))
    return [(k, v) for k, v in rows if v]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as `a.b` and text."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _short(value)


def evidence(material: Material) -> list[tuple[str, str]]:
    """The files of the run folder that are there."""
    return [(name, FILES[name]) for name in material.files]


def commands(material: Material) -> list[tuple[str, str]]:
    """How to get to the same place again."""
    run = material.recipe.get("run")
    if not run:
        return []
    folder = shlex.quote(str(run))
    return [
        (f"holdfast run {folder}/recipe.yaml", "repeat the run (finished stages are not repeated)"),
        (f"holdfast compare {folder}", "decide again from the stored verdicts"),
        (f"holdfast report {folder}", "write this page again"),
    ]


# --- helpers --------------------------------------------------------------------------------------


def _block(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _mixture(material: Material) -> Mapping[str, Any]:
    return _block(material.manifest, "mixture")


def _compared(material: Material, side: str) -> str:
    known = _block(material.comparison or {}, side)
    return str(known.get("model") or "")


def _data(material: Material) -> str:
    parts = [str(material.recipe.get("data", "")), str(material.audit.get("announcement", ""))]
    return " – ".join(part for part in parts if part)


def _rows(material: Material) -> str:
    counts = _mixture(material)
    by_source = _block(counts, "by_source")
    if not by_source:
        return ""
    user = by_source.get("user", 0)
    parts = [f"{words.plural(user, 'user row')} trained on"]
    added = sum(by_source.values()) - user
    parts.append(f"{added:,} added by mitigations")
    if counts.get("held_out"):
        parts.append(f"{counts['held_out']:,} held out as capability items")
    if counts.get("dropped"):
        parts.append(f"{counts['dropped']:,} set aside with a reason")
    return "; ".join(parts)


def _tuning(tuning: Mapping[str, Any]) -> str:
    if not tuning:
        return ""
    method = str(tuning.get("method", ""))
    if method != "full" and tuning.get("rank"):
        method = f"{method} (rank {tuning['rank']})"
    shown = {"lr": "learning rate", "epochs": "epochs", "batch": "batch"}
    parts = [f"{name} {words.number(tuning[key])}" for key, name in shown.items() if key in tuning]
    return ", ".join([method, *parts])


def _name(value: Any) -> str:
    return str(value.get("name", "")) if isinstance(value, Mapping) else str(value)


def _licence(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("licence") or "not stated")
    return str(value) if isinstance(value, str) else "not stated"


def _details(value: Any) -> Sequence[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return ()
    return [(k, v) for k, v in value.items() if k not in ("name", "licence") and v is not None]


def _short(value: Any) -> str:
    """Text of a value; hashes are cut, since the manifest has them whole."""
    text = value if isinstance(value, str) else dumps(value)
    is_hash = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if is_hash else text
