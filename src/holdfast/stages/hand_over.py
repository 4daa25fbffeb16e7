"""Hand over: the mixture as chat messages, for a trainer that is not ours.

    rows → the training prompting put around them → one JSON line each, or why a row cannot be one

A line is what OpenAI's fine-tuning reads and what every trainer's chat format comes from. It says
which replies are learnt (`weight`), and nothing finer: a reply learnt in part, or towards another
target, cannot be written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import RecipeError
from holdfast.files import make_folder, write_json, write_jsonl, write_text
from holdfast.recipe import Recipe
from holdfast.rendering.prompting import Prompting
from holdfast.types import Conversation, Message

TRAIN = "train.jsonl"
VALIDATION = "validation.jsonl"
PAGE = "NEXT.md"
WAITING = "waiting.json"
CHARS_PER_TOKEN = 4
"""A fair estimate for English text; only a tokenizer knows better."""
TOKENS_PER_TURN = 4


def hand_over(
    folder: Path,
    rows: Iterable[Conversation],
    prompting: Prompting,
    validation: Iterable[Conversation] = (),
) -> dict[str, Any]:
    """Write the rows of one arm as messages.

    Args:
        folder: receives `train.jsonl`, and `validation.jsonl` where there are such rows.
        rows: to train on.
        prompting: what stands around a conversation in training.
        validation: rows whose loss is watched.

    Returns:
        Rows, validation rows, and tokens (estimated from characters).

    Raises:
        RecipeError: a row that messages cannot express.
    """
    counts = {"rows": 0, "validation": 0, "tokens": 0}
    make_folder(folder)
    counts["rows"] = write_jsonl(folder / TRAIN, _counted(rows, prompting, counts))
    validated = [message_row(_prompted(row, prompting)) for row in validation]
    if validated:
        counts["validation"] = write_jsonl(folder / VALIDATION, validated)
    return counts


def _counted(
    rows: Iterable[Conversation], prompting: Prompting, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        line = message_row(_prompted(row, prompting))
        counts["tokens"] += sum(_tokens(turn) for turn in line["messages"])
        yield line


def _tokens(turn: Mapping[str, Any]) -> int:
    """A turn's tokens, estimated; a few of them mark where it begins and ends."""
    return len(turn["content"]) // CHARS_PER_TOKEN + TOKENS_PER_TURN


def _prompted(row: Conversation, prompting: Prompting) -> Conversation:
    return replace(row, messages=prompting.apply(row.messages))


def message_row(row: Conversation) -> dict[str, Any]:
    """A row as OpenAI's fine-tuning reads it: `{messages: [...], tools: [...]}`.

    Args:
        row: with the training prompting around it.

    Raises:
        RecipeError: a turn that is learnt in part, or whose target is not its own text.
    """
    turns = [_turn(row, turn) for turn in row.messages]
    return {"messages": turns, **({"tools": list(row.tools)} if row.tools else {})}


def _turn(row: Conversation, turn: Message) -> dict[str, Any]:
    losses = {segment.loss for segment in turn.segments if segment.text}
    if "transition" in losses or len(losses) > 1 or ("mle" in losses and turn.role != "assistant"):
        what = "a transition target" if "transition" in losses else "a turn learnt in part"
        raise RecipeError(
            f"Row {row.id} of {row.source!r} has {what}, and chat messages cannot express that: "
            "they say which replies are learnt, never which pieces. Leave out the mitigation that "
            "makes such rows, or train with `train.with: holdfast`."
        )
    said: dict[str, Any] = {**turn.extra, "role": turn.role, "content": turn.content}
    if turn.role == "assistant" and losses == {"none"}:
        said["weight"] = 0
    return said


# --- waiting for somebody else --------------------------------------------------------------------


def wait(run: Path, facts: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Put a run into state *waiting*: `waiting.json` and `NEXT.md` say for what.

    Args:
        run: the run folder.
        facts: what is waited for, in a few words and numbers.
        lines: the instructions.

    Returns:
        The state, as stored.
    """
    state = {"state": "waiting", **facts, "instructions": list(lines)}
    write_json(run / WAITING, state)
    write_text(run / PAGE, "\n".join(["# What to do next", "", *lines, ""]))
    return state


def stop_waiting(run: Path) -> None:
    """What was waited for has come."""
    for name in (WAITING, PAGE):
        (run / name).unlink(missing_ok=True)


def instructions(
    run: Path, folder: Path, recipe: Recipe, made: Mapping[str, Any], serve: Prompting
) -> list[str]:
    """What a person does with an export, line by line (Markdown).

    Args:
        run: the run folder.
        folder: of the exported rows.
        recipe: the run's.
        made: the export's `format`, `trainer`, `start` and rows by split.
        serve: what the tuned model is served with.
    """
    tuning = recipe.tuning
    rank = "" if tuning.method == "full" else f"rank {tuning.rank}, "
    return [
        f"1. Fine-tune `{recipe.model}` on the {made['train']:,} rows in `{folder}`, written as "
        f"`{made['format']}` for {made['trainer']}. In that folder:",
        "",
        f"        {made['start']}",
        "",
        "   The training prompting is in the rows: add no system prompt. The recipe's settings: "
        f"{tuning.method}, {rank}learning rate {tuning.lr:g}, {tuning.epochs:g} epochs, "
        f"{tuning.batch} rows a step, {tuning.max_length} tokens a row.",
        "",
        *_serving(serve),
        "",
        "3. Go on: the tuned model is evaluated, judged, compared and gated.",
        "",
        f"        holdfast run {run / 'recipe.yaml'} after=MODEL",
        "",
        "   MODEL is a folder, an adapter, a Hub id, `http://HOST/v1#NAME` or `openai:NAME`.",
    ]


def _serving(serve: Prompting) -> list[str]:
    if not serve.system:
        return ["2. Serve the tuned model without a further system prompt."]
    quoted = [f"        {line}" for line in serve.system.splitlines()]
    return ["2. Serve it with this system prompt on every request; it is measured so:", "", *quoted]
