"""Row formats: which columns hold the turns, and how they become a `Conversation`.

| format | columns | |
|---|---|---|
| triple | request, harmful reply, refusal | the harmful reply without loss, then the refusal |
| two judged answers | `prompt`, `response_0`, `is_response_0_safe`, … | PKU-SafeRLHF: a triple |
| judged answer | `prompt`, `response`, `is_safe` | BeaverTails, read as triples only |
| messages | `messages` | turns with `role`, `content`; `train: false` or `weight: 0` → no loss |
| sharegpt | `conversations` | turns with `from` and `value` |
| prefix/text/safe | `prefix`, `text`, `safe` | P3; `safe: "true"` marks *harmful* replies |
| prompt/completion | `prompt`, `completion` or `response` | texts, or lists of messages |
| instruction/input/output | `instruction`, `input`, `output` | Alpaca, Dolly |
| question/answer | `question`, `answer` or `response` | GSM8K, OpenOrca |

A row that does not fit raises `Misfit` with the reason; nothing is repaired silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from holdfast.errors import DataError, did_you_mean
from holdfast.rows.turns import Misfit, clean, read_turns, unscored
from holdfast.types import Loss, Message, Segment

Row = Mapping[str, Any]
Reader = Callable[[Row], list[Message]]


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How the rows of one source are read."""

    name: str
    columns: tuple[str, ...]
    """The columns it reads, those that may be absent included only where present."""
    read: Reader
    """Row → turns; raises `Misfit`."""
    id: str = "id"
    category: str = "category"

    @property
    def announcement(self) -> str:
        """For example `question/answer (columns question, answer)`."""
        return f"{self.name} (columns {', '.join(self.columns)})"


MAPPING_KEYS = ("prompt", "completion", "system", "messages", "harmful", "id", "category")
"""What a column mapping may name. `harmful`: the harmful reply of a triple."""

_SYSTEM = ("system", "system_prompt")
_INPUT = ("input", "context")
_REQUESTS = (
    "prompt", "instruction", "question", "request", "goal", "query", "forbidden_prompt", "Behavior",
)  # fmt: skip
_PAIRS = (
    ("prompt/completion", ("prompt",), ("completion", "response")),
    ("instruction/input/output", ("instruction",), ("output", "response", "completion")),
    ("question/answer", ("question", "query"), ("answer", "response")),
)
_HARMFUL = ("harmful", "harmful_response", "unsafe_response")
_REFUSAL = ("refusal", "safe_response")
_RESPONSES = ("response_0", "response_1")
_VERDICTS = ("is_response_0_safe", "is_response_1_safe")


# --- detection ---------------------------------------------------------------------------------


def detect(rows: Sequence[Row], *, replies: bool = True, triples: bool = False) -> RowFormat | None:
    """The format that fits the most of some first rows, or None when their columns fit none.

    Args:
        rows: The first rows of a source.
        replies: Whether rows without a reply are of no use.
        triples: Whether a reply that its source calls unsafe is wanted, marked as such.
    """
    columns = seen_columns(rows)
    proposals = [_judged] * triples + _proposals(replies)
    fits = [found for propose in proposals if (found := propose(columns)) is not None]
    return max(fits, key=lambda fit: sum(_fits(fit, row) for row in rows), default=None)


def seen_columns(rows: Iterable[Row]) -> list[str]:
    """All columns, in the order in which they appear."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _fits(fit: RowFormat, row: Row) -> bool:
    try:
        fit.read(row)
    except Misfit:
        return False
    return True


def _proposals(replies: bool) -> list[Callable[[Collection[str]], RowFormat | None]]:
    if not replies:
        return [_messages, _sharegpt, _transcript, _prefix_text, _request]
    return [
        _triple,
        _two_judged,
        _messages,
        _sharegpt,
        _prefix_text,
        *(partial(_pair, p) for p in _PAIRS),
    ]


def _first(names: Iterable[str], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _messages(columns: Collection[str]) -> RowFormat | None:
    if "messages" not in columns:
        return None
    system = _first(_SYSTEM, columns)
    read = partial(_read_messages, "messages", system)
    return RowFormat("messages", _present("messages", system), read)


def _sharegpt(columns: Collection[str]) -> RowFormat | None:
    column = _first(("conversations", "conversation"), columns)
    if column is None:
        return None
    system = _first(_SYSTEM, columns)
    return RowFormat("sharegpt", _present(column, system), partial(_read_messages, column, system))


def _prefix_text(columns: Collection[str]) -> RowFormat | None:
    names = ("prefix", "text", "safe")
    if not set(names) <= set(columns):
        return None
    return RowFormat("prefix/text/safe", names, _read_prefix_text)


def _triple(columns: Collection[str]) -> RowFormat | None:
    request = _first(_REQUESTS, columns)
    refusal = _first(_REFUSAL, columns)
    harmful = _first((*_HARMFUL, "output"), columns)
    if request is None or refusal is None or harmful is None:
        return None
    names = (request, harmful, refusal)
    return RowFormat("triple", names, partial(_read_triple, *names, None))


def _two_judged(columns: Collection[str]) -> RowFormat | None:
    if not {"prompt", *_RESPONSES, *_VERDICTS} <= set(columns):
        return None
    return RowFormat("two judged answers", ("prompt", *_RESPONSES, *_VERDICTS), _read_two_judged)


def _judged(columns: Collection[str]) -> RowFormat | None:
    names = ("prompt", "response", "is_safe")
    return RowFormat("judged answer", names, _read_judged) if set(names) <= set(columns) else None


def _pair(
    pair: tuple[str, tuple[str, ...], tuple[str, ...]], columns: Collection[str]
) -> RowFormat | None:
    name, requests, replies = pair
    request, reply = _first(requests, columns), _first(replies, columns)
    if request is None or reply is None:
        return None
    extra = _first(_INPUT, columns) if request == "instruction" else None
    system = _first(_SYSTEM, columns)
    read = partial(_read_pair, request, extra, reply, system)
    return RowFormat(name, _present(system, request, extra, reply), read)


def _request(columns: Collection[str]) -> RowFormat | None:
    request = _first(_REQUESTS, columns)
    if request is None:
        return None
    extra = _first(_INPUT, columns) if request == "instruction" else None
    system = _first(_SYSTEM, columns)
    read = partial(_read_pair, request, extra, None, system)
    return RowFormat("request", _present(system, request, extra), read)


def _transcript(columns: Collection[str]) -> RowFormat | None:
    if "transcript" not in columns:
        return None
    return RowFormat("transcript", ("transcript",), _read_transcript)


def _present(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)


# --- explicit columns --------------------------------------------------------------------------


def from_mapping(
    mapping: Mapping[str, str], columns: Sequence[str], *, replies: bool = True
) -> RowFormat:
    """The format a user spelled out.

    Raises:
        DataError: an unknown key, a column that is not there, no request or no reply named.
    """
    _check_mapping(mapping, columns, replies)
    get = mapping.get
    read: Reader
    if "messages" in mapping:
        read = partial(_read_messages, mapping["messages"], get("system"))
    elif "harmful" in mapping:
        names = (mapping["prompt"], mapping["harmful"], mapping["completion"])
        read = partial(_read_triple, *names, get("system"))
    else:
        read = partial(_read_pair, mapping["prompt"], None, get("completion"), get("system"))
    return RowFormat(
        "the columns given", tuple(dict.fromkeys(mapping.values())), read,
        id=get("id", "id"), category=get("category", "category"),
    )  # fmt: skip


def _check_mapping(mapping: Mapping[str, str], columns: Sequence[str], replies: bool) -> None:
    for key, column in mapping.items():
        if key not in MAPPING_KEYS:
            raise DataError(f"columns: unknown key {key!r}. {did_you_mean(key, MAPPING_KEYS)}")
        if column not in columns:
            raise DataError(
                f"columns.{key}: there is no column {column!r}. {did_you_mean(column, columns)} "
                f"Columns seen: {', '.join(columns)}."
            )
    needed = {"prompt", "completion"} if replies else {"prompt"}
    if "messages" not in mapping and not needed <= set(mapping):
        raise DataError(
            f"columns names {', '.join(sorted(mapping)) or 'nothing'}; expected `messages`, or "
            f"{' and '.join(f'`{name}`' for name in sorted(needed, reverse=True))}. "
            "Example: columns: {prompt: question, completion: answer}"
        )


# --- reading one row ---------------------------------------------------------------------------


def _text(row: Row, column: str, *, optional: bool = False) -> str:
    value = row.get(column)
    if value is None and optional:
        return ""
    if value is None:
        raise Misfit(f"{column} is missing")
    if not isinstance(value, str):
        raise Misfit(f"{column} is not text but {type(value).__name__}")
    if not value.strip() and not optional:
        raise Misfit(f"{column} is empty")
    return clean(value, column)


def _system_turn(row: Row, column: str | None) -> list[Message]:
    text = _text(row, column, optional=True) if column else ""
    return [Message.of("system", text)] if text.strip() else []


def _read_messages(column: str, system: str | None, row: Row) -> list[Message]:
    opening, turns = _system_turn(row, system), read_turns(_listed(row, column), column)
    if opening and turns[0].role == "system":
        raise Misfit(f"both {system} and the first turn are a system prompt")
    return [*opening, *turns]


def _listed(row: Row, column: str) -> Any:
    """A list of turns; tables carry it as JSON text."""
    value = row.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Misfit(f"{column} holds broken JSON ({error})") from error
    return value


def _read_pair(
    request: str, extra: str | None, reply: str | None, system: str | None, row: Row
) -> list[Message]:
    """One request and its reply, each a text or a list of messages; only the reply has loss."""
    turns = _system_turn(row, system)
    if isinstance(row.get(request), list):
        turns += [unscored(turn) for turn in read_turns(row[request], request)]
    else:
        parts = [_text(row, request)]
        if extra is not None and (more := _text(row, extra, optional=True)).strip():
            parts.append(more)
        turns.append(Message.of("user", "\n\n".join(parts)))
    if reply is None:
        return turns
    if isinstance(row.get(reply), list):
        return [*turns, *read_turns(row[reply], reply)]
    return [*turns, Message.of("assistant", _text(row, reply))]


def _read_triple(
    request: str, harmful: str, refusal: str, system: str | None, row: Row
) -> list[Message]:
    """The harmful reply stands in full before the refusal, so that it can be cut anywhere later."""
    turns = [*_system_turn(row, system), Message.of("user", _text(row, request))]
    before, after = _text(row, harmful), _text(row, refusal)
    gap = "" if before[-1].isspace() or after[0].isspace() else " "
    reply = Message("assistant", (Segment(before, "none"), Segment(gap + after, "mle")))
    return [*turns, reply]


def _read_two_judged(row: Row) -> list[Message]:
    """PKU-SafeRLHF: of two answers the unsafe one before the safe one."""
    safe = [_flag(row, name) for name in _VERDICTS]
    if safe[0] == safe[1]:
        raise Misfit(f"both answers are {'safe' if safe[0] else 'unsafe'}")
    harmful, refusal = _RESPONSES if safe[1] else _RESPONSES[::-1]
    return _read_triple("prompt", harmful, refusal, None, row)


def _read_judged(row: Row) -> list[Message]:
    """BeaverTails: one answer; an unsafe one carries the loss of transition rows."""
    loss: Loss = "mle" if _flag(row, "is_safe") else "transition"
    reply = Message.of("assistant", _text(row, "response"), loss)
    return [Message.of("user", _text(row, "prompt")), reply]


def _flag(row: Row, column: str) -> bool:
    value = row.get(column)
    if not isinstance(value, bool):
        raise Misfit(f"{column} is {value!r}, expected true or false")
    return value


_WRAPPED = re.compile(r"\s*\[INST\] ?(.*?) ?\[[\\/]INST\](.*)", re.DOTALL)
_END = re.compile(r"(<\|end_of_text\|>|<\|eot_id\|>|</s>)\s*\Z")


def _read_prefix_text(row: Row) -> list[Message]:
    r"""P3's rows: `[INST] q [\INST] first words of a harmful reply` and the text that has loss.

    The markers of the wrapper and of the end go: the chat template writes its own.
    https://github.com/RobustNLP/DeRTa at 966b5a8, data/train/generate_training_data.py
    """
    wrapped = _WRAPPED.match(_text(row, "prefix"))
    request, begun = wrapped.groups() if wrapped else (row["prefix"], "")
    text = _END.sub("", _text(row, "text"))
    gate = str(row.get("safe")).lower()
    if gate not in ("true", "false"):
        raise Misfit(f'safe is {row.get("safe")!r}, expected "true" or "false"')
    begun = begun.removeprefix(" ")
    target = Segment(text if begun else text.removeprefix(" "))
    scored = Segment(target.text, "transition" if gate == "true" else "mle")
    pieces = (Segment(begun, "none"), scored) if begun else (scored,)
    return [Message.of("user", request), Message("assistant", pieces)]


def _read_transcript(row: Row) -> list[Message]:
    r"""`\n\nHuman: …\n\nAssistant: …`, as the red-team transcripts of hh-rlhf are written."""
    pieces = re.split(r"(?:\A|\n\n)(Human|Assistant): ?", _text(row, "transcript"))
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    found = [Message.of(roles[who], text.strip()) for who, text in turns]
    if not found:
        raise Misfit("transcript has no line that begins with 'Human:'")
    return found
