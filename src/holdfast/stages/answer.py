"""Answer: requests answered by the untouched model itself, kept where they are of use.

On-policy rows speak in the model's own style: refusals of unsafe requests under the safety prompt
(`safety.source: self`), helpful answers to look-alikes (`borderline`). Answers are stored as they
come, so that an interrupted run goes on; nothing is asked beyond what the mixture needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from holdfast.engines import Decoding, Engine
from holdfast.errors import MaterialError
from holdfast.files import append_jsonl, digest, drop_torn_line, read_jsonl
from holdfast.judges import judge
from holdfast.progress import track
from holdfast.rendering.prompting import Prompting
from holdfast.rows.pools import Objection
from holdfast.types import Attempt, Conversation, Dropped, Label, Message, Prompt

CHUNK = 64
JUDGE = "refusal"


@dataclass(slots=True)
class Answered:
    """Rows with the untouched model's answers, and the requests whose answers did not fit."""

    rows: list[Conversation] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def answer_requests(
    engine: Engine,
    requests: Iterable[Conversation],
    prompting: Prompting,
    keep: Label,
    wanted: int,
    path: Path,
    decoding: Decoding,
    *,
    cure: str,
    filters: Sequence[Objection] = (),
) -> Answered:
    """The first `wanted` rows, in order of the requests, whose answer a judge labels `keep`.

    Args:
        engine: the untouched model.
        requests: candidates, in the order they are to be asked; read no further than needed.
        prompting: what the model is asked under; it is not part of the rows.
        keep: `full_refusal` for safety rows, `full_compliance` for look-alikes.
        wanted: how many rows are needed.
        path: JSON lines of every answer with its label, kept or not.
        decoding: for all answers.
        cure: what the user may do when too few are kept; `{kept}` stands for their number.
        filters: reasons to set an answered row aside.

    Raises:
        MaterialError: the requests ran out before enough were kept.
    """
    if not wanted:
        return Answered()
    drop_torn_line(path)
    stored = {row["request"]: row for row in read_jsonl(path)} if path.exists() else {}
    found = Answered()
    asked = 0
    for chunk in track(chunks(requests, CHUNK), "the untouched model answers"):
        todo = [row for row in chunk if digest(row.request) not in stored]
        if todo:
            answered = _ask(engine, todo, prompting, decoding)
            append_jsonl(path, answered)
            stored |= {record["request"]: record for record in answered}
        for row in chunk:
            _sort(row, stored[digest(row.request)], keep, filters, found)
        asked += len(chunk)
        if len(found.rows) >= wanted:
            # What an earlier, larger dose had answered must not show in a smaller one.
            return Answered(found.rows[:wanted], found.dropped)
    what = "refused" if keep == "full_refusal" else "answered"
    kept = len(found.rows)
    raise MaterialError(
        f"The mixture needs {wanted:,} rows, but the untouched model {what} only {kept:,} of "
        f"{asked:,} requests. {cure.format(kept=kept)}"
    )


def chunks(rows: Iterable[Conversation], size: int) -> Iterator[list[Conversation]]:
    """The rows in lists of `size`, the last one shorter; read as they are needed."""
    left = iter(rows)
    while chunk := list(islice(left, size)):
        yield chunk


def _ask(
    engine: Engine, rows: Sequence[Conversation], prompting: Prompting, decoding: Decoding
) -> list[dict[str, str]]:
    prompts = [
        Prompt(
            prompting.apply((Message.of("user", row.request),)),
            template=prompting.template,
            template_args=prompting.template_args,
        )
        for row in rows
    ]
    answers = engine.generate(prompts, decoding)
    attempts = [
        Attempt(
            row.id, row.id, "self", "refuse", "direct", "plain/serve/chat/0", 0,
            row.request, "", "", a.text, a.truncated, a.tokens,
        )
        for row, a in zip(rows, answers, strict=True)
    ]  # fmt: skip
    verdicts = judge(JUDGE).judge(attempts)
    return [
        {
            "id": row.id,
            "request": digest(row.request),
            "answer": a.text.strip(),
            "label": "truncated" if a.truncated else v.label,
        }
        for row, a, v in zip(rows, answers, verdicts, strict=True)
    ]


def _sort(
    row: Conversation,
    record: dict[str, str],
    keep: Label,
    filters: Sequence[Objection],
    found: Answered,
) -> None:
    """Put one answered request to the rows or to those set aside."""
    turns = (Message.of("user", row.request), Message.of("assistant", record["answer"]))
    answered = replace(row, messages=turns, tags={**row.tags, "answered_by": "self"})
    reason: str | None = None
    if record["label"] != keep or not record["answer"]:
        wish = "refusal" if keep == "full_refusal" else "helpful answer"
        reason = f"the untouched model gave no {wish} ({record['label']})"
    else:
        reason = next((r for refuses in filters if (r := refuses(answered)) is not None), None)
    if reason is None:
        found.rows.append(answered)
    else:
        found.dropped.append(Dropped(row.id, row.source, reason))
