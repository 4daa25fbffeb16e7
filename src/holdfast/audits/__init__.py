"""The shelf of detectors: each watches the rows go by and says at the end what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.registry import Shelf
from holdfast.types import Conversation, Finding


class Detector(Protocol):
    """Streams over rows; holds counters and a few example ids, never row texts."""

    def see(self, row: Conversation) -> None:
        """Look at one row."""

    def findings(self) -> list[Finding]:
        """What was seen, after the last row; empty when there is nothing to say."""


AUDITS: Shelf[Callable[[], Detector]] = Shelf("audits")
