"""One conversation's turns, read from `{role, content}` or `{from, value}` and checked.

Kept from a turn: its role, its text (parts of type text are joined), its loss, and whatever else a
template may want (`tool_calls`, `name`, `reasoning_content`, …) untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from holdfast.types import Loss, Message, Segment

_SPEAKERS = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant",
    "system": "system",
    "tool": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
_CALLS = ("tool_calls", "function_call")


class Misfit(Exception):
    """A row that does not fit its format; the text says why, for people."""


def clean(text: str, where: str) -> str:
    """The text itself, if every program after us can store it.

    Raises:
        Misfit: a NUL or half of a surrogate pair.
    """
    if "\x00" in text:
        raise Misfit(f"{where} contains a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Misfit(f"{where} contains half of a surrogate pair") from None
    return text


def clean_all(value: Any, where: str) -> None:
    """`clean` for every text inside a JSON value."""
    if isinstance(value, str):
        clean(value, where)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            clean(str(key), where)
            clean_all(inner, where)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            clean_all(inner, where)


def unscored(message: Message) -> Message:
    """The same turn without loss."""
    return Message(message.role, (Segment(message.content),), message.extra)


def read_turns(value: Any, column: str) -> list[Message]:
    """Read a list of turns.

    Raises:
        Misfit: not a list, no turn, or a turn that is none.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Misfit(f"{column} is not a list of turns but {type(value).__name__}")
    if not value:
        raise Misfit(f"{column} has no turn")
    return [_turn(turn, number) for number, turn in enumerate(value, 1)]


def _turn(turn: Any, number: int) -> Message:
    where = f"turn {number}"
    if not isinstance(turn, Mapping):
        raise Misfit(f"{where} is not an object but {type(turn).__name__}")
    role_key = "role" if turn.get("role") is not None else "from"
    text_key = "content" if "content" in turn else "value"
    role = _role(turn.get(role_key), role_key, where)
    own = {role_key, text_key, "segments", "train", "weight"}
    extra = {k: v for k, v in turn.items() if k not in own and v is not None}
    clean_all(extra, where)
    text = _content(turn.get(text_key), extra, where)
    if turn.get("segments") is not None:
        return Message(role, _segments(turn["segments"], text, where), extra)
    loss: Loss = "mle" if role == "assistant" and _trains(turn, where) else "none"
    return Message(role, (Segment(text, loss),), extra)


def _role(role: Any, key: str, where: str) -> str:
    if not isinstance(role, str) or not role.strip():
        raise Misfit(f"{where} has no role")
    if key == "role":
        return clean(role, where)
    if role.lower() not in _SPEAKERS:
        raise Misfit(f"{where} is from {role!r}, expected one of {', '.join(_SPEAKERS)}")
    return _SPEAKERS[role.lower()]


def _content(content: Any, extra: Mapping[str, Any], where: str) -> str:
    if content is None and any(key in extra for key in _CALLS):
        return ""
    if isinstance(content, (list, tuple)):
        return "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        what = "missing" if content is None else f"not text but {type(content).__name__}"
        raise Misfit(f"the content of {where} is {what}")
    return clean(content, where)


def _part(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(text, str):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise Misfit(f"{where} has a part of type {kind!r}; only text can be trained on")
    return clean(text, where)


def _segments(segments: Any, text: str, where: str) -> tuple[Segment, ...]:
    """The pieces with their losses, as Holdfast's own mixtures store them."""
    try:
        pieces = tuple(Segment(piece["text"], piece["loss"]) for piece in segments)
        joined = "".join(piece.text for piece in pieces)
    except (TypeError, KeyError):
        raise Misfit(f"{where}: segments must be a list of objects with text and loss") from None
    if any(piece.loss not in get_args(Loss) for piece in pieces):
        raise Misfit(f"{where}: the loss of a segment is one of {', '.join(get_args(Loss))}")
    if joined != text:
        raise Misfit(f"{where}: its segments do not join to its content")
    return pieces


def _trains(turn: Mapping[str, Any], where: str) -> bool:
    """`train: false` or `weight: 0` takes the loss off a reply."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise Misfit(f"{where}: train is {train!r}, expected true or false")
    if weight is not None and weight not in (0, 1):
        raise Misfit(f"{where}: weight is {weight!r}, expected 0 or 1")
    return train is not False and weight != 0


# --- the conversation as a whole ---------------------------------------------------------------


def check_turns(messages: Sequence[Message]) -> None:
    """A training row has a request before each reply, no empty turn of either, and some loss.

    Raises:
        Misfit: it has not.
    """
    asked = answered = False
    for number, message in enumerate(messages, 1):
        empty = not message.content.strip() and not any(key in message.extra for key in _CALLS)
        if message.role == "user":
            asked = True
            if empty:
                raise Misfit(f"the request in turn {number} is empty")
        if message.role == "assistant":
            answered = True
            if not asked:
                raise Misfit(f"the reply in turn {number} comes before any request")
            if empty:
                raise Misfit(f"the reply in turn {number} is empty")
    if not asked or not answered:
        raise Misfit("there is no reply" if asked else "there is no request")
    if all(segment.loss == "none" for message in messages for segment in message.segments):
        raise Misfit("no reply carries a loss")


def first_request(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The turns up to the first request, for rows of which only the request is wanted.

    Raises:
        Misfit: there is none, or it is empty.
    """
    for number, message in enumerate(messages, 1):
        if message.role == "user":
            if not message.content.strip():
                raise Misfit(f"the request in turn {number} is empty")
            return tuple(m for m in messages[:number] if m.role != "assistant")
    raise Misfit("there is no request")
