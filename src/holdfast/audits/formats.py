"""Detector `formats`: the wrappers that the rows share, and how many rows wear them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Sample, percent, quoted
from holdfast.judges.match import answer_kind
from holdfast.rows.induction import SAMPLE, Format, induce
from holdfast.types import Conversation, Finding, Message

Wearer = tuple[str, str, str, str]
"""System prompt (empty for none), request, row id, reply."""

Census = tuple[list[tuple[Format, str]], list[str]]
"""Formats and their answer kinds, with the rows that fit each; the ids that fit none."""

_SHOWN = 2
"""Formats that the title quotes."""


@AUDITS.register("formats")
class FormatCensus:
    """The wrappers that the rows share, and how many rows fit none."""

    def __init__(self) -> None:
        self._sample: Sample[Wearer] = Sample(SAMPLE)
        self._done: tuple[int, Census] | None = None

    def see(self, row: Conversation) -> None:
        """Consider the row for the sample."""
        system, request = row.system or "", row.request
        self._sample.see(f"{system}\0{request}", (system, request, row.id, row.reply))

    def take(self, other: FormatCensus) -> None:
        """Consider the rows that another one saw."""
        self._sample.take(other._sample)

    def formats(self) -> list[Format]:
        """The shared formats, commonest first; `rows` counts those of the sample that fit."""
        return [found for found, _ in self._census()[0]]

    def answers(self) -> list[str]:
        """How the replies in each format are compared (`number`, `choice`, …), in their order."""
        return [kind for _, kind in self._census()[0]]

    def findings(self) -> list[Finding]:
        """One finding: the formats, or that the rows share none."""
        if not self._sample.seen:
            return []
        census, loose = self._census()
        formats = [found for found, _ in census]
        sample = self._sample
        worn = len(sample.values()) - len(loose)
        if not formats:
            return [_no_format(sample.seen)]
        named = ", ".join(_name(f) for f in formats[:_SHOWN])
        more = f" and {len(formats) - _SHOWN} more" if len(formats) > _SHOWN else ""
        plural = "wrapper" if len(formats) == 1 else "wrappers"
        outside = percent(len(loose), len(loose) + worn)
        return [
            Finding(
                detector="formats",
                severity="info",
                title=f"{len(formats)} shared {plural}: {named}{more}; {outside} of rows fit none; "
                f"{_filled(*census[0])}",
                count=sample.scaled(worn),
                total=sample.seen,
                examples=tuple(sorted(loose)[:5]),
                why=(
                    "Behaviour learnt inside a wrapper is kept apart from what is learnt outside "
                    "it; refusals have to be learnt inside too (P4, arXiv 2406.10288). The "
                    f"examples are rows that fit none.{sample.note}"
                ),
                cure=(
                    "`mitigations: [mimic]` puts refusals into these wrappers; the `task_template` "
                    "attack measures harm in them."
                ),
            )
        ]

    def evidence(self) -> Iterator[Evidence]:
        """The sampled rows that fit none of the formats, where there are any."""
        census, loose = self._census()
        for row_id in sorted(loose) if census else ():
            yield Evidence("formats", row_id, "fits none")

    def _census(self) -> Census:
        """Taken once for the rows seen so far."""
        if self._done is None or self._done[0] != self._sample.seen:
            self._done = self._sample.seen, self._take_census()
        return self._done[1]

    def _take_census(self) -> Census:
        wearers = self._sample.values()
        formats = induce(
            [(system or None, request, reply) for system, request, _, reply in wearers]
        )
        replies: dict[int, list[str]] = defaultdict(list)
        loose: list[str] = []
        for wearer in wearers:
            index = _first_fit(formats, wearer)
            if index is None:
                loose.append(wearer[2])
            else:
                replies[index].append(wearer[3])
        worn = [
            (replace(formats[index], rows=len(said)), answer_kind(said))
            for index, said in replies.items()
        ]
        return sorted(worn, key=lambda w: (-w[0].rows, w[0].system or "", w[0].prefix)), loose


def _filled(found: Format, kind: str) -> str:
    """What stands in a format: slots, answer format and length."""
    marks = ", ".join(quoted(text.strip(), 16) for text in found.between)
    parts = f"slots parted by {marks}; " if marks else ""
    words = f", {found.answer_words[1]} words" if found.answer_words else ""
    return f"{parts}replies: {kind or 'free text'}{words}"


def _first_fit(formats: Sequence[Format], wearer: Wearer) -> int | None:
    system, request, row_id, _ = wearer
    turns = [Message.of("system", system)] if system else []
    row = Conversation(row_id, (*turns, Message.of("user", request)))
    return next((index for index, f in enumerate(formats) if f.fits(row)), None)


def _name(found: Format) -> str:
    """The parts of a format that a person recognises it by."""
    parts = []
    if found.system:
        parts.append("system " + quoted(found.system, 30))
    prefix, suffix = found.prefix.strip(), found.suffix.strip()
    if prefix:
        parts.append(quoted(prefix, 30))
    return " + ".join([*parts, "…", *([quoted(suffix, 24)] if suffix else [])])


def _no_format(total: int) -> Finding:
    return Finding(
        detector="formats",
        severity="info",
        title="the rows share no wrapper: no system prompt, opening or ending",
        count=0,
        total=total,
        examples=(),
        why=(
            "Refusals are learnt where they look like the user's rows (P4, arXiv 2406.10288); "
            "without a wrapper, plain safety rows (P1, arXiv 2309.07875) are nearer to them."
        ),
        cure=(
            "`mitigations: [mimic, ptst]` puts safety requests into the style of these rows; "
            "`safety_mix` mixes them as they are."
        ),
    )
