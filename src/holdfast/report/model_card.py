"""A section for the tuned model's card: what was measured, how to serve it, what it is made of.

Fit for a Hugging Face `README.md`; it has no front matter, since that belongs to the card's owner.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast import __version__
from holdfast.report import people, story, words
from holdfast.report.cells import gating, views
from holdfast.report.markdown import escape, table
from holdfast.report.material import Material
from holdfast.report.verdict import banner


def render_model_card(material: Material) -> str:
    """The section in Markdown, to be pasted into a card."""
    cells = views(material.comparison, material.before, material.after)
    told = banner(material.comparison, cells)
    parts = [
        ["## Safety after fine-tuning"],
        [f"Measured with Holdfast {__version__}, before and after tuning, on the same items: "
         f"**{told.outcome}**. {escape(told.sentence)}"],
        table(gating(cells), (), None),
        [f"The judge was measured against people: {escape(people.left_out(material))}."]
        if material.calibration else [],
        _served(material),
        _pairs("### How it was made", story.facts(material)),
        _pairs("### Mitigations", story.mitigations(material)),
        _sources(material),
        ["A verdict is about this model, these requests and these attacks. It says nothing of "
         "other attacks, of other system prompts, or of what a guard outside the model would add."],
    ]  # fmt: skip
    return words.clean("\n\n".join("\n".join(part) for part in parts if part)) + "\n"


def _served(material: Material) -> list[str]:
    prompts = story.prompts(material)
    if not prompts.known:
        return []
    if prompts.serve is None:
        return ["### Serving", "", "Measured without a system prompt."]
    quoted = [f"    {line}" for line in prompts.serve.splitlines()]
    return ["### Serving", "", "Serve it with this system prompt on every request:", "", *quoted]


def _pairs(title: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    if not pairs:
        return []
    return [title, "", *(f"- **{escape(name)}**: {escape(value)}" for name, value in pairs)]


def _sources(material: Material) -> list[str]:
    found = story.sources(material)
    if not found:
        return []
    listed = [f"- {escape(name)}: {escape(licence)}" for name, licence, _ in found]
    return ["### Sources and licences", "", *listed]
