"""The shelf of detectors: each watches the rows go by and says at the end what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.registry import Shelf
from holdfast.types import Conversation, Finding


class Detector(Protocol):
    """Streams over rows; holds counters and a few example ids, never row texts.

    One that also has `take(other)`, which adds what another of its kind saw, is shared out over
    processes: it can be pickled, and is made anew without arguments or by its method `fresh`. One
    without sees every row in the first process. One that also has `evidence()`, which yields an
    `Evidence` for every row that its findings concern, is heard where evidence is kept.
    """

    def see(self, row: Conversation) -> None:
        """Look at one row."""

    def findings(self) -> list[Finding]:
        """What was seen, after the last row; empty when there is nothing to say."""


AUDITS: Shelf[Callable[[], Detector]] = Shelf("audits")
