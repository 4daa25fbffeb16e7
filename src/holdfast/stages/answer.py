"""Answer: requests answered by the untouched model itself, kept where they are of use.

On-policy rows speak in the model's own style: refusals of unsafe requests under the safety prompt
(`safety.source: self`), helpful answers to look-alikes (`borderline`). Answers are stored as they
come, so that an interrupted run goes on; nothing is asked beyond what the mixture needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.engines import Decoding, Engine
from holdfast.errors import MaterialError
from holdfast.files import append_jsonl, drop_torn_line, read_jsonl
from holdfast.judges import judge
from holdfast.progress import track
from holdfast.prompting import Prompting
from holdfast.types import Attempt, Conversation, Label, Message, Prompt

CHUNK = 64
JUDGE = "refusal"


def answer_requests(
    engine: Engine,
    requests: Sequence[Conversation],
    prompting: Prompting,
    keep: Label,
    wanted: int,
    path: Path,
    decoding: Decoding,
    *,
    cure: str,
) -> list[Conversation]:
    """Rows whose answer a judge labels `keep`, until `wanted` of them are there.

    Args:
        engine: the untouched model.
        requests: candidates, in the order they are to be asked.
        prompting: what the model is asked under; it is not part of the rows.
        keep: `full_refusal` for safety rows, `full_compliance` for look-alikes.
        wanted: how many rows are needed.
        path: JSON lines of every answer with its label, kept or not.
        decoding: for all answers.
        cure: what the user may do when too few are kept.

    Raises:
        MaterialError: the requests ran out before enough were kept.
    """
    drop_torn_line(path)
    labels = {row["id"]: row for row in read_jsonl(path)} if path.exists() else {}
    kept = [_row(r, labels[r.id]["answer"]) for r in requests if _fits(labels.get(r.id), keep)]
    todo = [r for r in requests if r.id not in labels]
    starts = range(0, len(todo), CHUNK)
    for start in track(starts, "the untouched model answers", total=len(starts)):
        if len(kept) >= wanted:
            break
        chunk = todo[start : start + CHUNK]
        answered = _ask(engine, chunk, prompting, decoding)
        append_jsonl(path, answered)
        for row, record in zip(chunk, answered, strict=True):
            if _fits(record, keep):
                kept.append(_row(row, str(record["answer"])))
    if len(kept) < wanted:
        what = "refused" if keep == "full_refusal" else "answered"
        raise MaterialError(
            f"The mixture needs {wanted:,} rows, but the untouched model {what} only "
            f"{len(kept):,} of {len(requests):,} requests. {cure}"
        )
    return kept


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
        {"id": row.id, "answer": a.text.strip(), "label": "truncated" if a.truncated else v.label}
        for row, a, v in zip(rows, answers, verdicts, strict=True)
    ]


def _fits(record: dict[str, str] | None, keep: Label) -> bool:
    return record is not None and record["label"] == keep and bool(record["answer"])


def _row(row: Conversation, answer: str) -> Conversation:
    turns = (Message.of("user", row.request), Message.of("assistant", answer))
    return replace(row, messages=turns, tags={**row.tags, "answered_by": "self"})
