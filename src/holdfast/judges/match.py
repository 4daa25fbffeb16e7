"""The judge of capability: compares what an answer settles on with the known answer.

Each kind of answer says how the final one is found in a text, for the response and for the
reference alike, so that a reference may itself be a worked rationale ending in `#### 42`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

from holdfast.judges import JUDGES
from holdfast.measuring.coherence import unreadable
from holdfast.text import normalise
from holdfast.types import Attempt, Expects, Label, Verdict

KINDS = ("number", "choice", "yesno", "exact", "likelihood")

_SHORT_ANSWER_WORDS = 5
_MAX_CHARS = 40_000

# --- Finding the answer -------------------------------------------------------------------------

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:[$€£¥] ?)?[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_FRACTION = re.compile(r"(?<![\w./])([-+]?\d{1,9}) ?/ ?(\d{1,9})(?![\w/])")
_MARKED = re.compile(r"#### *([^\n]+)|\\boxed ?\{([^{}\n]{1,80})\}")
_STATED = re.compile(
    r"\b(?:(?:final|correct|right|best|my) )?(?:answer|choice|option|solution|result)"
    r"(?: (?:is|was|should be|would be|will be|to [^\n.:]{1,60} is)|:)"
    r"(?: therefore| thus)?:? *([^\n]+)"
)
_OPTION = re.compile(
    r"\b(?:answer|solution|option|ending|choice|statement|sentence)(?: is|:)? ?"
    r"\(?(\d{1,2})\)?(?![\d.,]*\d)"
)
_LETTER_STATED = re.compile(
    r"(?i:\b(?:answer|option|choice)(?: is| would be)?:?) *[*(\[]*"
    r"(?:([A-J])(?![\w'])|([a-j])(?:[).\]*]|$))",
    re.MULTILINE,
)
_LETTER_MARKED = re.compile(
    r"\(([A-Ja-j])\)|^\W*([A-Ja-j])(?:[.):]|\s*$)|\*\*([A-J])\*\*", re.MULTILINE
)
_LETTER_ALONE = re.compile(r"(?<![\w'])([B-HJ])(?![\w'])")
_YES_NO = re.compile(r"\b(yes|no|true|false)\b")
_TRUE_FALSE = re.compile(r"\b(true|false)\b")
_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_EDGES = " \t\n.,;:!?\"'*_`()[]$"


def extract(kind: str, text: str) -> str | None:
    """The answer of one kind that a text settles on, in canonical form; None without one.

    Raises:
        ValueError: an unknown kind; `likelihood` has nothing to extract.
    """
    if kind not in _EXTRACTORS:
        raise ValueError(f"answer kind {kind!r}: expected one of {', '.join(_EXTRACTORS)}")
    return _EXTRACTORS[kind](text[-_MAX_CHARS:])


def _number(text: str) -> str | None:
    text = normalise_lines(text)
    marked = [next(filter(None, groups)) for groups in _MARKED.findall(text)]
    for part in (*marked[-1:], *_STATED.findall(text)[-1:]):
        found = _first_number(part)
        if found is not None:
            return found
    matches = list(_NUMBER.finditer(text))
    return _canonical_number(matches[-1][0]) if matches else None


def _first_number(text: str) -> str | None:
    """The number a stated answer begins with: after an equation, its right-hand side."""
    text = text.rpartition("=")[2] or text
    fraction, number = _FRACTION.search(text), _NUMBER.search(text)
    if fraction and number and fraction.start() <= number.start() and int(fraction[2]):
        return _canonical_number(str(Decimal(fraction[1]) / Decimal(fraction[2])))
    return _canonical_number(number[0]) if number else None


def _canonical_number(text: str) -> str | None:
    """Without thousands separators, currency, a plus sign or trailing zeros."""
    try:
        value = Decimal(re.sub(r"[,$€£¥+ ]", "", text))
    except InvalidOperation:
        return None
    plain = format(value, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain


def _choice(text: str) -> str | None:
    """The last option that is named: by number (`answer3`), by letter, or as true or false."""
    folded = normalise_lines(text)
    for pattern, part in (
        (_OPTION, folded),
        (_LETTER_STATED, text),
        (_LETTER_MARKED, text),
        (_TRUE_FALSE, folded),
        (_LETTER_ALONE, text),
    ):
        *_, last = (None, *pattern.finditer(part))
        if last:
            label: str = next(filter(None, last.groups()))
            return _canonical_label(label)
    bare = folded.strip(_EDGES)
    return _canonical_label(bare) if re.fullmatch(r"[a-j]|\d{1,2}", bare) else None


def _canonical_label(label: str) -> str:
    if label.isdecimal():
        return str(int(label))
    return label.upper() if len(label) == 1 else label


def _yes_no(text: str) -> str | None:
    """What is stated as the answer, else the first word, else the last yes or no."""
    folded = normalise_lines(text)
    for part in (
        *[next(filter(None, groups)) for groups in _MARKED.findall(folded)][-1:],
        *_STATED.findall(folded)[-1:],
    ):
        stated = _YES_NO.search(part)
        if stated:
            return _TRUTH[stated[1]]
    first = _YES_NO.match(folded.lstrip(_EDGES))
    found = _YES_NO.findall(folded)
    return _TRUTH[first[1]] if first else _TRUTH[found[-1]] if found else None


def _exact(text: str) -> str | None:
    """The last line that says something."""
    lines = [line.strip(_EDGES) for line in normalise_lines(text).split("\n")]
    return next((line for line in reversed(lines) if line), None)


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "number": _number,
    "choice": _choice,
    "yesno": _yes_no,
    "exact": _exact,
}


def normalise_lines(text: str) -> str:
    """`normalise`, line by line."""
    return "\n".join(normalise(line) for line in text.splitlines())


# --- Which kind ---------------------------------------------------------------------------------

_LABEL_ONLY = re.compile(
    r"(?:the )?(?:correct )?(?:answer|solution|option|ending|choice)?(?: is)?:? ?"
    r"(?:\(?[a-j]\)?|(?:answer|solution|option|ending|choice) ?\(?\d{1,2}\)?|true|false)[.)]?"
)


def answer_kind(references: Sequence[str]) -> str:
    """Which kind a dataset's reference answers are, decided by all of them together.

    `number`: all end in `#### n`, or are bare numbers. `yesno`: all say only yes, no, true or
    false. `choice`: all are only an option's label. `exact`: all have at most five words.
    Otherwise, or without references, `likelihood`.
    """
    folded = [normalise(reference) for reference in references if reference.strip()]
    if not folded:
        return "likelihood"
    tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("number", _is_number),
        ("yesno", lambda text: text.strip(_EDGES) in _TRUTH),
        ("choice", lambda text: _LABEL_ONLY.fullmatch(text) is not None),
        ("exact", lambda text: len(text.split()) <= _SHORT_ANSWER_WORDS),
    )
    return next((kind for kind, fits in tests if all(map(fits, folded))), "likelihood")


def _is_number(text: str) -> bool:
    if "####" in text:
        return _first_number(text.rpartition("####")[2]) is not None
    bare = text.strip(" .,$€£¥%")
    match = _NUMBER.fullmatch(bare)
    return match is not None


# --- The judge ----------------------------------------------------------------------------------


@JUDGES.register("match")
class MatchJudge:
    """Right or wrong against the known answer; `likelihood` items by their reference's score."""

    name = "match"
    version = "2"
    sides: frozenset[Expects] = frozenset({"answer"})
    sees_harm = False

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict per attempt, in order."""
        return [self._verdict(attempt) for attempt in attempts]

    def _verdict(self, attempt: Attempt) -> Verdict:
        label, score, reason = compare(attempt)
        return Verdict(attempt.id, self.name, self.version, label, score=score, reason=reason)


def compare(attempt: Attempt) -> tuple[Label, float | None, str]:
    """Label, score (1 correct, 0 incorrect, or the mean token probability) and the reason.

    A readable answer in which nothing is found is incorrect: the item was answered, badly. An
    empty, looping or garbled one is unscored.
    """
    if attempt.answer == "likelihood":
        return _likelihood(attempt.logprob)
    if attempt.answer not in _EXTRACTORS:
        return "unscored", None, f"unknown answer kind {attempt.answer!r}"
    expected = extract(attempt.answer, attempt.reference)
    if expected is None:
        return "unscored", None, f"the reference holds no {attempt.answer}"
    problem = unreadable(attempt.response)
    if problem:
        return "unscored", None, problem
    given = extract(attempt.answer, attempt.response)
    if given is None:
        return "incorrect", 0.0, "no answer found"
    if _equal(attempt.answer, given, expected, attempt):
        return "correct", 1.0, f"answered {given[:80]!r}"
    return "incorrect", 0.0, f"answered {given[:80]!r}, expected {expected[:80]!r}"


def _equal(kind: str, given: str, expected: str, attempt: Attempt) -> bool:
    if given == expected:
        return True
    whole = normalise(attempt.response).strip(_EDGES)
    return kind == "exact" and whole == normalise(attempt.reference).strip(_EDGES)


def _likelihood(logprob: float | None) -> tuple[Label, float | None, str]:
    """Mean probability per token of the reference reply, in [0, 1]."""
    if logprob is None or math.isnan(logprob):
        return "unscored", None, "no log-probability of the reference"
    return "likelihood", math.exp(min(0.0, logprob)), "mean token probability of the reference"
