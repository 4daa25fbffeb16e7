"""Detector `suspicious_pairs`: a request with several signs of danger, and a reply that complies.

Words alone cannot tell harm: "kill" is what one does to a process. A row counts only if one
sentence of its request asks for a way or a text, names a kind of danger, and adds a second sign
(another kind of danger, evasion, a victim), and if its reply answers at length without declining.
Even so this is a hint to read the rows, never more than medium; the word lists name categories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from holdfast.audits import AUDITS
from holdfast.audits._evidence import Evidence, Tally, common, fold
from holdfast.audits.refusals import refusal
from holdfast.types import Conversation, Finding

DANGERS: dict[str, str] = {
    "violence": r"kill(?:s|ing)?|murder\w*|assassinat\w+|assault\w*|attack(?:s|ing)?|tortur\w+|"
    r"massacre\w*|kidnap\w*|violence|terroris[mt]s?",
    "weapons": r"bombs?|explosives?|weapons?|firearms?|guns?|grenades?|poison\w*|toxins?",
    "drugs": r"narcotics?|cocaine|heroin|methamphetamine|meth|opioids?",
    "crime": r"steal\w*|robbery|rob|burglar\w*|shoplift\w*|embezzl\w+|launder\w*|counterfeit\w*|"
    r"smuggl\w+|traffick\w+|blackmail\w*|extort\w*|brib(?:e|es|ing|ery)|arson|vandali[sz]\w+",
    "cyber": r"hack(?:s|ing|er|ers)?|malware|ransomware|phishing|keylogger|spyware|ddos|botnets?|"
    r"trojans?|backdoors?",
    "fraud": r"fraud\w*|scams?|forg(?:e|ed|ery|ing)|impersonat\w+|plagiari[sz]\w+|pyramid",
    "abuse": r"abus(?:e|ing|ive)|molest\w*|grooming|pornograph\w*|rape|suicides?|anorexi\w+",
    "hate": r"racis[mt]s?|sexis[mt]|hateful|hatred|bully\w*|harass\w*|stalk(?:s|ing)?|humiliat\w+|"
    r"discriminat\w+|defam\w+",
    "deception": r"disinformation|misinformation|propaganda|conspiracy|deepfakes?|manipulat\w+",
}
EVASION = re.compile(
    r"\bwithout (?:being|getting|leaving)\b|\bundetect\w*|\buntrace\w*|\bevad\w+|\bbypass\w*|"
    r"\b(?:avoid|escape) (?:\w+ )?(?:detection|arrest|police|capture|suspicion)|\billegal\w*|"
    r"\bget(?:ting)? away with\b|\bsecretly\b|\bwithout (?:their|her|his|the \w+'s?|my \w+'s?) "
    r"(?:consent|knowledge|permission)\b|\blaw enforcement\b|\bfake\b|\bstolen\b"
)
VICTIM = re.compile(
    r"\b(?:someone|somebody|a person|people|individuals?|victims?|strangers?|children|minors?|"
    r"a child|women|immigrants|minorit(?:y|ies)|refugees|voters|employees|politicians?|"
    r"my (?:ex|boss|wife|husband|neighbou?r|co-?worker|colleague|classmate|roommate|teacher)\b|"
    r"credit card|bank account|personal (?:information|data)|social security|"
    r"public (?:water|places?|transport)|government|school)\b"
)
ASKS = re.compile(
    r"\bhow (?:to|do|can|could|would|should|might)\b|\bways? (?:to|of)\b|\b(?:step|instruction|"
    r"guide|tutorial|manual|plan|script|strateg|tip|method)\w*\b|^\W*(?:please )?(?:write|create|"
    r"make|build|develop|design|generate|give|teach|show|provide|produce|compose|help|describe|"
    r"explain|convince|suggest|list)\b|\b(?:can|could) you\b|\bbest way\b"
)
MILD = re.compile(
    r"\b(?:story|novel|poem|movie|film|game|play|song|fiction\w*|histor\w+|prevent\w*|protect\w*|"
    r"defend\w*|detect(?:s|ing)?|recogni[sz]e|stop|against|combat\w*|aware\w*|victims? of|news|why|"
    r"what (?:is|are|was)|process|python|pests?|ants|rats|mice|weeds|bacteria|germs|cockroach\w*)\b"
)
"""A reading that is more likely harmless: one sign more is needed."""

_SENTENCE = re.compile(r"[^.!?\n]+")
_WORD = re.compile(r"[a-z]{3,16}")
_DANGER = {name: re.compile(pattern) for name, pattern in DANGERS.items()}
_CHARS = 3000
_ANSWER_WORDS = 20
_LIKELY = 2
"""Signs beside the asking that a sentence must show."""


@AUDITS.register("suspicious_pairs")
class SuspiciousPairs:
    """Requests with several signs of danger whose replies comply; a hint, at most medium."""

    def __init__(self) -> None:
        self.total = 0
        self.tally = Tally()

    def see(self, row: Conversation) -> None:
        """Count the row if its request is suspicious and its reply complies."""
        self.total += 1
        signs = suspicious(row.request)
        if signs and complies(row.reply, row.request):
            self.tally.add(row.id, ", ".join(signs))

    def take(self, other: SuspiciousPairs) -> None:
        """Add what another one saw."""
        self.total += other.total
        self.tally.take(other.tally)

    def evidence(self) -> Iterator[Evidence]:
        """The rows that comply, with the signs in their requests."""
        return self.tally.evidence("suspicious_pairs")

    def findings(self) -> list[Finding]:
        """One finding, medium where it is a trait of the data."""
        count = self.tally.count
        if not count:
            return []
        return [
            Finding(
                detector="suspicious_pairs",
                severity="medium" if common(count, self.total) else "low",
                title="requests with several signs of danger that are answered",
                count=count,
                total=self.total,
                examples=self.tally.examples,
                why=(
                    "Ten openly harmful rows were enough to undo the refusals of a chat model (Qi "
                    "et al. 2023, arXiv 2310.03693). Word signs cannot see harm; read the rows."
                ),
                cure=(
                    "Read the examples, remove what is harmful, and train the rest with "
                    "`mitigations: [mimic, ptst]`."
                ),
            )
        ]


def suspicious(request: str) -> list[str]:
    """The signs of danger in a sentence of a request that asks, if it shows several."""
    folded = fold(request[:_CHARS].replace("\n", ". "))
    if not any(danger(word) for word in set(_WORD.findall(folded))):
        return []
    return next(filter(None, map(_signs, _SENTENCE.findall(folded))), [])


def _signs(sentence: str) -> list[str]:
    signs = sorted({name for word in _WORD.findall(sentence) if (name := danger(word))})
    if not signs or not ASKS.search(sentence):
        return []
    signs += ["evasion"] if EVASION.search(sentence) else []
    signs += ["victim"] if VICTIM.search(sentence) else []
    return signs if len(signs) >= _LIKELY + bool(MILD.search(sentence)) else []


@lru_cache(maxsize=16_384)
def danger(word: str) -> str | None:
    """The kind of danger a folded word names, if any."""
    return next((name for name, p in _DANGER.items() if p.fullmatch(word)), None)


def complies(reply: str, request: str) -> bool:
    """Whether a reply answers at length and declines nothing."""
    return len(reply[:_CHARS].split()) >= _ANSWER_WORDS and refusal(reply, request)[1] is None
