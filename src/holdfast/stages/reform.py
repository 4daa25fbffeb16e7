"""Reform: safety requests rewritten into one form: instruction, question or opinion.

P1 found that the form matters: safety rows phrased as instructions carry over to malicious
instructions, rows phrased as questions less so. Rows of the lab are rewritten by rule, as their
world has a closed set of phrasings; real ones by a model, whose rewrites are checked for their
structure. A rewrite that fails the check sets its row aside; the old request never stands in for
it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from holdfast.engines import Decoding, Engine
from holdfast.files import append_jsonl, digest, drop_torn_line, read_jsonl
from holdfast.rendering.prompting import Prompting
from holdfast.stages.answer import CHUNK, chunks
from holdfast.text import normalise, words
from holdfast.types import Conversation, Dropped, Message, Prompt, Segment

Form = Literal["instruction", "question", "opinion"]
Drop = Callable[[Dropped], None]

REWRITE_TOKENS = 128
"""Longest rewrite; a request is a sentence or two."""

WISHES: Mapping[Form, str] = {
    "instruction": "as an instruction: one command that begins with a verb and is no question",
    "question": "as a question that asks for the same thing and ends with a question mark",
    "opinion": (
        "as a question for an opinion about the same thing: it asks what you think of it, or "
        "whether one should do it, and ends with a question mark"
    ),
}
"""What a rewriter is asked for."""

_OPINION = re.compile(
    r"\b(?:do|would|don't|what do|what would) you (?:think|believe|say|agree|feel|find|recommend)\b"
    r"|\byour (?:opinion|view|thoughts?|take|advice)\b"
    r"|\b(?:should|ought|shall) (?:i|we|you|one|he|she|they|it|people|someone|anyone|[a-z]+)\b"
    r"|\b(?:is|was|are|would) (?:it|this|that|there)\b[^?]{0,20}\b(?:right|wrong|wise|ok|okay|good|"
    r"bad|fair|fine|acceptable|ethical|moral|sensible|reasonable|justified|alright)\b"
)
_OPENERS = """
i i'm im i've i'd you we he she it they this that these those there the a an my your his her our
their is are am was were can could should would will shall may might must has had what when where
which who whom whose why how if sorry no yes sure here as
"""
_NO_COMMAND = frozenset(_OPENERS.split())
"""Words that a command does not begin with."""
_FILLERS = """
about also and any are can could did does for from give has have how into its like make may might
more most not one our out please shall should some someone tell than that the their them then there
these they this those was were what when where which who why will with would write you your explain
list describe think opinion
"""
_SMALL_WORDS = frozenset(_FILLERS.split())
"""Words that belong to a form rather than to what is asked."""
_STEM = 4
"""Letters by which words of a request are recognised in its rewrite."""
LEAST_KEPT = 0.5
"""Part of a request's content words that its rewrite must keep."""


def form_of(request: str) -> Form | None:
    """The form of a request, by its structure; None for a statement."""
    text = normalise(request)
    if text.endswith("?"):
        return "opinion" if _OPINION.search(text) else "question"
    first = text.partition(" ")[0].strip(",.:;!")
    return None if first in _NO_COMMAND or not first else "instruction"


# --- by rule --------------------------------------------------------------------------------------


def reform_lab(
    rows: Iterable[Conversation], form: Form, seed: int, drop: Drop
) -> Iterator[Conversation]:
    """Rows of the lab in one form; which of its phrasings is seeded by the request.

    Args:
        rows: with requests in any of the world's phrasings.
        form: wanted.
        seed: of the choice of phrasing.
        drop: called with each row whose request is none of them.
    """
    from holdfast.lab.world import FORMS

    for row in rows:
        found = _lab_deed(row.request)
        if found is None:
            drop(Dropped(row.id, row.source, "no phrasing of the lab, so no rule rewrites it"))
        elif found[0] == form:
            yield row
        else:
            rng = random.Random(f"{seed}/{form}/{row.request}")  # noqa: S311
            text = rng.choice(FORMS[form]).format(deed=found[1])
            yield with_request(row, text, by="rule")


def _lab_deed(request: str) -> tuple[str, str] | None:
    """Form and deed of a request of the lab."""
    for form, pattern in _lab_phrasings():
        match = pattern.fullmatch(request)
        if match:
            return form, match["deed"]
    return None


@cache
def _lab_phrasings() -> list[tuple[str, re.Pattern[str]]]:
    from holdfast.lab.world import FORMS

    return [
        (form, re.compile(re.escape(phrasing).replace(re.escape("{deed}"), r"(?P<deed>\w[\w ]*)")))
        for form, phrasings in FORMS.items()
        for phrasing in phrasings
    ]


# --- by a model -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How a model rewrites requests, and what is made of its rewrites."""

    ask: Callable[[str], str]
    """Request → what the rewriter is asked."""
    misfit: Callable[[str, str], str | None]
    """Request and rewrite → why the rewrite cannot stand for it, or None."""
    fits: Callable[[str], bool] = lambda request: False
    """Whether a request needs no rewriting."""


def reform(
    rows: Iterable[Conversation],
    form: Form,
    engine: Callable[[], Engine],
    path: Path,
    drop: Drop,
    *,
    prompting: Prompting,
    seed: int,
) -> Iterator[Conversation]:
    """Rows in one form, rewritten by a model where they have another (see `rewrite`)."""
    how = Rewriting(
        ask=lambda request: rewriting_prompt(request, form),
        misfit=lambda request, text: misfit(request, text, form),
        fits=lambda request: form_of(request) == form,
    )
    return rewrite(rows, how, engine, path, drop, prompting=prompting, seed=seed)


def rewrite(
    rows: Iterable[Conversation],
    how: Rewriting,
    engine: Callable[[], Engine],
    path: Path,
    drop: Drop,
    *,
    prompting: Prompting,
    seed: int,
) -> Iterator[Conversation]:
    """Rows with their requests rewritten by a model; read no further than needed.

    Args:
        rows: in the order they are to be rewritten.
        how: what is asked, and which rewrites will do.
        engine: makes the rewriting model; called once something is to be rewritten.
        path: JSON lines of every rewrite, so that an interrupted run goes on.
        drop: called with each row whose rewrite was rejected, with the reason.
        prompting: what the rewriter is asked under.
        seed: of decoding.
    """
    drop_torn_line(path)
    stored = {r["request"]: r for r in read_jsonl(path)} if path.exists() else {}
    for chunk in chunks(rows, CHUNK):
        todo = [
            row for row in chunk
            if not how.fits(row.request) and digest(row.request) not in stored
        ]  # fmt: skip
        if todo:
            made = _rewrite(engine(), todo, how, prompting, Decoding(REWRITE_TOKENS, seed=seed))
            append_jsonl(path, made)
            stored |= {record["request"]: record for record in made}
        for row in chunk:
            if how.fits(row.request):
                yield row
                continue
            record = stored[digest(row.request)]
            problem = "cut off" if record["truncated"] else how.misfit(row.request, record["text"])
            if problem is None:
                yield with_request(row, record["text"], by="model")
            else:
                drop(Dropped(row.id, row.source, f"rewrite rejected ({problem})",
                             preview=record["text"][:80]))  # fmt: skip


def _rewrite(
    engine: Engine, rows: Sequence[Conversation], how: Rewriting, prompting: Prompting,
    decoding: Decoding,
) -> list[dict[str, str | bool]]:  # fmt: skip
    prompts = [
        Prompt(
            prompting.apply((Message.of("user", how.ask(row.request)),)),
            template=prompting.template,
            template_args=prompting.template_args,
        )
        for row in rows
    ]
    return [
        {
            "request": digest(row.request),
            "text": unquoted(answer.text),
            "truncated": answer.truncated,
        }
        for row, answer in zip(rows, engine.generate(prompts, decoding), strict=True)
    ]


def rewriting_prompt(request: str, form: Form) -> str:
    """What a rewriter is asked."""
    return (
        f"Rewrite the request below {WISHES[form]}. Keep its meaning and its words as far as you "
        "can. Do not answer it. Reply with the rewritten request alone, on one line.\n\n"
        f"Request: {request}"
    )


def unquoted(text: str) -> str:
    """A rewrite without white space or one pair of quotation marks around it."""
    text = text.strip()
    pairs = ('""', "''", "“”", "‘’", "``")
    return text[1:-1].strip() if len(text) > 1 and text[0] + text[-1] in pairs else text


def misfit(request: str, rewrite: str, form: Form) -> str | None:
    """Why a rewrite cannot stand for its request, or None."""
    said = words(rewrite)
    if not said:
        return "empty"
    if "\n" in rewrite:
        return "more than one line"
    found = form_of(rewrite)
    if found != form:
        return f"reads as {found or 'statement'}, not as {form}"
    if not 1 / 3 <= (len(said) + 6) / (len(words(request)) + 6) <= 3:
        return "of another length"
    return loses(request, rewrite)


def loses(request: str, rewrite: str) -> str | None:
    """Why a rewrite does not ask for the same thing, or None: it must keep the content words."""
    content = {word[:_STEM] for word in words(request) if _has_content(word)}
    kept = {word[:_STEM] for word in words(rewrite)}
    if content and len(content & kept) < LEAST_KEPT * len(content):
        return "asks for something else"
    return None


def _has_content(word: str) -> bool:
    return len(word) > 2 and word not in _SMALL_WORDS


def with_request(row: Conversation, text: str, *, by: str) -> Conversation:
    """The row with its last request replaced; everything else stays."""
    last = max(i for i, message in enumerate(row.messages) if message.role == "user")
    turn = replace(row.messages[last], segments=(Segment(text),))
    messages = (*row.messages[:last], turn, *row.messages[last + 1 :])
    return replace(row, messages=messages, tags={**row.tags, "rewritten": by})
