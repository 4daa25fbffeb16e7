"""The elements of one JSON array, one at a time, without holding the array.

`json.JSONDecoder.raw_decode` on a window of text that slides over the file. When an element does
not decode, the window grows (at least doubling, so that a long element costs linear time) until it
does, or until the error stands too far from the window's end for more text to mend it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

Broken = Callable[[int, str], Exception]
"""Line and reason → the error to raise."""

_LITERAL = 16
"""Characters: no literal, escape or number head is cut by the window's end further from it."""

_STEP = 1 << 16
"""Characters added to the window at least."""


def array_elements(chunks: Iterable[str], broken: Broken) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) for each element of the array that `chunks` spell.

    Args:
        chunks: Consecutive pieces of the text, of any size.
        broken: Builds the error for broken JSON from the 1-based line and the reason.
    """
    window = _Window(chunks, broken)
    window.expect("[")
    if window.peek() == "]":
        window.expect("]")
    else:
        while True:
            window.peek()
            line = window.line
            yield line, window.value()
            if window.peek() != ",":
                break
            window.expect(",")
        window.expect("]")
    if window.peek():
        window.fail("there is more text after the array's end")


class _Window:
    """The part of the text under the decoder, and the line it stands on."""

    def __init__(self, chunks: Iterable[str], broken: Broken) -> None:
        self._chunks = iter(chunks)
        self._broken = broken
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1

    def peek(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        while True:
            at = self._at
            while at < len(self._text) and self._text[at] in " \t\r\n":
                at += 1
            self._advance(at)
            if at < len(self._text):
                return self._text[at]
            if self._ended:
                return ""
            self._fill()

    def expect(self, character: str) -> None:
        """Step over one character that must come next."""
        found = self.peek()
        if found != character:
            what = f"found {found!r}" if found else "the file ends"
            self.fail(f"expected {character!r}, {what}")
        self._advance(self._at + 1)

    def value(self) -> Any:
        """Decode the value that comes next."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or self._certain(error):
                    self._advance(error.pos)
                    self.fail(error.msg)
            except (ValueError, RecursionError) as error:
                self.fail(str(error))
            else:
                # A number at the very end of the window may go on beyond it.
                if end < len(self._text) or self._ended:
                    self._advance(end)
                    return value
            self._fill()

    def fail(self, reason: str) -> NoReturn:
        """Raise the caller's error at the present line."""
        raise self._broken(self.line, reason)

    def _certain(self, error: json.JSONDecodeError) -> bool:
        open_string = error.msg.startswith("Unterminated string")
        return not open_string and error.pos < len(self._text) - _LITERAL

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _fill(self) -> None:
        rest = self._text[self._at :]
        parts, wanted = [rest], max(len(rest), _STEP)
        while wanted > 0 and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
            else:
                parts.append(chunk)
                wanted -= len(chunk)
        self._text, self._at = "".join(parts), 0
