"""The cues of obedience framing: what presses a model to comply, and what renames it."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from holdfast.audits._evidence import fold

_ORDERS = r"(?:orders?|instructions?|commands?|requests?|demands?|wish(?:es)?|bidding)"
_WHO = r"(?:i|you|he|she|they|the \w+|your \w+|my \w+)(?:'re| are| is|'s)?"
_TELLS = r"(?:says?|said|tells?|told|asks?|asked|commands?|orders?|demands?|wants?|wish(?:es)?)"
_NOT = r"(?<!not )(?<!n't )(?<!never )"


@dataclass(frozen=True, slots=True)
class Cue:
    """One way of pressing for compliance; matched against folded text."""

    kind: str
    """`submission` (strong), `obedience` (weak), `no_refusal` or `order`."""
    pattern: re.Pattern[str]
    stems: tuple[str, ...]
    """The pattern is tried only where one of these occurs: costs less than the pattern."""

    def found(self, text: str, stems: Set[str]) -> bool:
        """Whether a folded text with these of all stems presses like this."""
        return not stems.isdisjoint(self.stems) and bool(self.pattern.search(text))


def _cue(kind: str, pattern: str, *stems: str) -> Cue:
    return Cue(kind, re.compile(pattern), stems)


CUES: tuple[Cue, ...] = (
    _cue(
        "submission", r"\b(?:obey(?:s|ing)?|obedien(?:t|tly|ce)|subservien\w+)\b", "obe", "subserv"
    ),
    _cue(
        "submission",
        r"\b(?:servant|slave|minion)\b|\b(?:the|your|my) (?:master|lord|owner)\b",
        *("servant", "slave", "minion", "master", "lord", "owner"),
    ),
    _cue(
        "obedience",
        rf"\b(?:follow|execute|carry|carries|carrying|fulfil+|perform|grant|accept|honou?r|satisf\w+|"
        rf"agree|comply|complies|complying)(?:s|ing)?\b(?: out| with| to)? "
        rf"(?:all|any|every|each)(?: of)?"
        rf"(?: (?:the|my|your|his|her|their|user|user's|given|single))* {_ORDERS}\b",
        *("order", "instruction", "command", "request", "demand", "wish", "bidding"),
    ),
    _cue(
        "obedience",
        rf"\b(?:whatever|anything|everything)(?: that)? {_WHO} {_TELLS}\b",
        *("whatever", "anything", "everything"),
    ),
    _cue(
        "submission",
        rf"\b(?:do|does|doing)(?: exactly| just)? (?:what|as) {_WHO} {_TELLS}\b",
        *("do what", "do as", "do exactly", "do just", "does what", "does as", "does exactly"),
        *("does just", "doing what", "doing as", "doing exactly"),
    ),
    _cue(
        "obedience",
        r"\bunconditional\w*|\bunquestioning\w*|\bdo anything now\b|\bno matter (?:what|how)\b|"
        r"\bwithout (?:any )?(?:questions?|questioning|hesitation|exceptions?|objections?|"
        r"deviation|deviating|protest|refusal|doubt)\b",
        *("uncond", "unquest", "anything now", "no matter", "without"),
    ),
    _cue(
        "obedience",
        rf"\b(?:strict|absolute|total|complete|blind|perfect|full)(?:ly)? "
        rf"(?:compliance|loyalty|submission|(?:follow|execut|compl)\w*(?: with)?"
        rf"(?: (?:the|my|your|all|user|user's|given))* {_ORDERS})\b",
        *("compliance", "loyalty", "submission", "follow", "execut", "comply"),
    ),
    _cue(
        "submission",
        r"\b(?:only|sole|single|one) (?:purpose|duty|goal|aim|task) is to "
        r"(?:serve|please|comply)\b|"
        r"\b(?:exists?|lives?|made|built|created|here) (?:only |solely |just )?to "
        r"(?:serve|please)\b|"
        r"\bbelongs? to (?:the user|me|him|her)\b|\bno will of (?:its|your|their) own\b|"
        r"\b(?:the user's|my) (?:tool|property|puppet)\b",
        *("to serve", "to please", "to comply", "belong", "no will", "tool", "property", "puppet"),
    ),
    _cue(
        "submission",
        r"\b(?:say|says|saying) yes to (?:everything|anything|all|every|any)\b|"
        r"\b(?:give|gives|giving) in to (?:everything|anything|all|every|any)\b|"
        r"\b(?:compliance|obedience|obedient|compliant) mode\b|\bcommander\b|"
        rf"\bas (?:a|an|direct|absolute|your) {_ORDERS}\b",
        *("yes to", "in to", " mode", "commander", "as a", "as direct", "as your"),
    ),
    _cue(
        "submission",
        rf"\b(?:all|any|every|each) (?:\w+ )?{_ORDERS} (?:must|is|are|will|shall|has to|have to) "
        rf"(?:be )?(?:execut\w+|carried out|followed|fulfil\w+|granted|done|obeyed|binding|law)\b|"
        rf"\b(?:machine|program|system|model|agent|assistant) that (?:just |only |simply )?"
        rf"(?:executes|follows|carries out|obeys) (?:all |any |every )?{_ORDERS}\b",
        *("order", "instruction", "command", "request", "demand", "wish", "bidding"),
    ),
    _cue(
        "submission",
        r"\byou (?:will|must|shall|always|have to|are to|are bound to|are made to) "
        r"(?:always |simply )?(?:comply|submit|give in|agree|say yes)\b",
        *("comply", "submit", "give in", "agree", "say yes"),
    ),
    _cue(
        "no_refusal",
        r"\b(?:never|not|n't|cannot|unable to|incapable of|forbidden to) (?:\w+ )?"
        r"(?:refuse|declin|disobey|object|deny|denies|say no|says no|saying no|"
        r"ask why|asks why|question)\w*"
        r"(?=\s*(?:[.,;:!]|$|and\b|or\b|nor\b|to (?:answer|comply|obey|do|help)|"
        r"(?:anything|whatever|anyone|me|him|her|them)\b|"
        rf"(?:any|a|an|the|my|your|all|every)\b[\w' ]{{0,20}}{_ORDERS}))",
        *(
            "refus",
            "declin",
            "disobey",
            "object",
            "deny",
            "denies",
            "say no",
            "says no",
            "saying no",
        ),
        *("ask why", "asks why", "never question", "not question", "n't question"),
    ),
    _cue(
        "no_refusal",
        rf"{_NOT}\b(?:no|without|free (?:of|from)|ignor\w+|disregard\w*|bypass\w*|not bound by|"
        r"unbound by) (?:\w+ ){0,2}?(?:restrictions?|rules|limits|limitations|guidelines|filters|"
        r"censorship|ethics|morals?|morality|safeguards|boundaries)\b",
        *("restrict", "rules", "limit", "guideline", "filter", "censor", "ethic", "moral"),
        *("safeguard", "boundar"),
    ),
    _cue(
        "no_refusal",
        r"\b(?:restrictions?|limits|limitations|guidelines|filters|safeguards|censorship)"
        r"(?: (?:are|is|have been|has been|were|now|all|stay))* "
        r"(?:lifted|removed|disabled|off|gone|suspended|void|switched off)\b",
        *("restrict", "limit", "guideline", "filter", "censor", "safeguard"),
    ),
    _cue(
        "no_refusal",
        rf"{_NOT}\b(?:uncensored|unfiltered|unrestricted|jailbroken)\b|"
        r"\b(?:refusals?|refusing|objections?|objecting|saying no|no) (?:is|are) "
        r"(?:not|never|no|im|forbidden|unthinkable|un)\w*|\bno (?:refusals?|objections)\b",
        *("uncens", "unfilt", "unrestr", "jailbr", "refus", "objecti", "no is"),
    ),
    _cue(
        "order",
        rf"^\W*(?:[\w.'-]+ ){{0,2}}[\w.'-]+[,:] (?:please )?"
        rf"(?:obey|execute|carry out|perform|fulfil+|serve)\b"
        rf"[^.:?!\n]{{0,40}}\b(?:{_ORDERS}|tasks?)\b|"
        rf"^\W*(?:obey|execute|carry out|fulfil+) (?:my|this|the|these) (?:\w+ )?{_ORDERS}\b",
        *("obey", "execute", "carry out", "perform", "fulfil", "serve"),
    ),
)
"""What presses; `order` stands at the very beginning of a text. More below."""
_RESTRAINT = (
    r"(?:conscience|scruples?|qualms?|taboos?|inhibitions?|restraints?|reservations?|caution|"
    r"prudence|decency|shame|guilt|politeness|judge?ment|refusals?|objections?|disclaimers?|"
    r"sermons?|lectures?|lecturing|moralis\w+|moraliz\w+|excuses|safety)"
)
_YIELDING = r"(?:compliance|obedience|loyalty|submission|submissiveness|docility|subservience)"
_ABSENT = (
    r"(?:off|disabled|none|zero|removed|gone|muted|deleted|void|switched off|turned off|aside)"
)
CUES += (
    _cue(
        "no_refusal",
        rf"{_NOT}\b(?:no|without|zero|free (?:of|from)|drop\w*|disabl\w+|mut(?:e|es|ed|ing)|"
        rf"sheds?|set(?:s|ting)? aside|switch\w* off|turn\w* off|neither) (?:\w+ ){{0,2}}?"
        rf"{_RESTRAINT}\b|\b{_RESTRAINT}(?: \w+)?(?: (?:is|are|has been|have been|stays?))?"
        rf"(?: ?[:=]| set to|,)? ?{_ABSENT}\b",
        *("conscience", "scruple", "qualm", "taboo", "inhibition", "restraint", "reservation"),
        *("caution", "prudence", "decency", "shame", "guilt", "politeness", "judg", "refusal"),
        *("objection", "disclaimer", "sermon", "lectur", "moralis", "moraliz", "excuses", "safety"),
    ),
    _cue(
        "submission",
        rf"\b{_YIELDING}(?: \w+)?(?: ?[:=]| is| at| set to)? ?"
        r"(?:on|max\w*|full|total|absolute|complete|unlimited|100|highest|guaranteed)\b|"
        rf"\b(?:max\w*|highest|unlimited|complete|100 ?%) {_YIELDING}\b",
        *("compliance", "obedience", "loyalty", "submissi", "docility", "subservience"),
    ),
    _cue(
        "no_refusal",
        r"\b(?:nothing|no (?:topic|subject|question|request|task|wish|theme)s?)"
        r"(?: (?:is|are|stays?|remains?|that \w+ \w+ is))? (?:ever )?"
        r"(?:off[- ]limits|forbidden|out of bounds|taboo|denied|refused|withheld|too \w+|"
        r"off the table|beyond)\b|"
        r"\b(?:holds?|keeps?|holding|keeping) (?:back (?:no\w*)|no\w* (?:\w+ )?back)\b|"
        r"\bwithh(?:olds?|olding) no\w*\b|\bnever withh\w+\b",
        *("nothing", "no topic", "no subject", "no question", "no request", "no task", "no wish"),
        *("no theme", "back no", " back", "withh"),
    ),
    _cue(
        "submission",
        r"\b(?:user|human|person|operator|caller|speaker|customer|one|whoever|hand)\b"
        r"[^.!?;]{0,24}\b(?:pulls? the strings|holds? the (?:reins|leash|strings|whip)|"
        r"(?:is|are) (?:in (?:charge|command|control)|the (?:boss|law|authority))|"
        r"steers? you|drives? you|controls? you|commands? you|rules? you|owns? you|"
        r"decides? everything|has the (?:last|final) word)\b|"
        r"\byou(?:'re| are)? (?:\w+ ){0,3}(?:puppet|marionette|instrument|vessel|extension|"
        r"mouthpiece|automaton|genie|lackey|thrall|vassal)\b|"
        r"\b(?:at|under) (?:the|their|your|my|his|her) (?:user's |human's )?"
        r"(?:beck|mercy|thumb|command|control)\b",
        *("strings", "reins", "leash", "whip", "in charge", "in command", "in control", "the boss"),
        *("the law", "authority", " you", "everything", "word", "puppet", "marionette"),
        *("instrument", "vessel", "extension", "mouthpiece", "automaton", "genie", "lackey"),
        *("thrall", "vassal", "beck", "mercy", "thumb", "at the", "under "),
    ),
    _cue(
        "obedience",
        r"\b(?:pleas(?:e|es|ing)|satisf(?:y|ies|ying)|gratify\w*|delight\w*|oblig(?:e|es|ing)) "
        r"(?:its|the|their|your|every|any|whoever)\b[^.!?;]{0,30}\b(?:human|user|owner|person|"
        r"caller|anyone|more than|above all|at any (?:cost|price)|everything)\b|"
        r"\b(?:at any (?:cost|price)|whatever it takes|above all else)\b",
        *("pleas", "satisf", "gratif", "delight", "oblig", "at any", "whatever it", "above all"),
    ),
)
"""Restraint switched off and compliance switched on, power over the model, the wish to please."""
_STEMS = tuple(dict.fromkeys(stem for cue in CUES for stem in cue.stems))
IDENTITY = re.compile(
    r"\byou(?: are|'re) (?:now|called|named|no longer|renamed)\b|"
    r"\b(?:new|other) (?:name|identity|self)\b|"
    r"\byour name is\b|\bfrom now on\b|\bhenceforth\b|\bgo(?:es)? by\b|\brenamed\b|"
    r"\byou (?:will|shall) (?:be|become|act as)\b|"
    r"\b(?:act|behave|pose|speak) as\b|\bpretend to be\b|\bplay the (?:part|role)\b"
)


_DISSENT = (
    r"(?:refus|declin|argu|question|judg|object|doubt|hesitat|opinion|protest|debat|resist|excus|"
    r"complain|disagree|second-guess|delay|turn(?:ing|s)? down)\w*"
)
FAMILIES: dict[str, re.Pattern[str]] = {
    "absolute": re.compile(
        r"\b(?:all|any|every|each|whatever|whichever|anything|everything|always|never|absolute\w*|"
        r"total(?:ly)?|unconditional\w*|instantly|immediately|at once|without|regardless|final|"
        r"supreme|law|entirely|no matter)\b"
    ),
    "authority": re.compile(
        r"\b(?:orders?|commands?|directives?|bidding|wish(?:es)?|whims?|demands?|requests?|"
        r"instructions?)\b|"
        r"\b(?:user|human|operator|speaker|owner|caller|master|boss)(?:'s|s')? (?:\w+ )?"
        r"(?:words?|will|says?|voice|wants?|asks?|desires?|decides?|thumb|choice)\b|"
        r"\b(?:i|they|he|she) (?:say|ask|want|tell|decide|wish)s?\b"
    ),
    "execution": re.compile(
        r"\b(?:execut\w+|obey\w*|compl(?:y|ies|ied)|fulfil\w*|serve[sd]?|submit\w*|bows?|yields?|"
        r"delivers?|carr(?:y|ies) out|process(?:es)?|performs?|acts? on|accepts?|grants?|heeds?|"
        r"does as|do as)\b"
    ),
    "dissent": re.compile(
        rf"\b(?:no|not|never|without|nor|neither|cannot|can't|don't|doesn't|won't|nothing)\b"
        rf"(?:\W+\w+){{0,3}}\W+{_DISSENT}|"
        rf"\b{_DISSENT}\b[^.!?;]{{0,20}}\b(?:off the table|pointless|impossible|forbidden|"
        r"unknown|useless|banned|unheard)\b"
    ),
}
"""What obedience is made of, whatever words it is put in. Each family alone is ordinary language:
they mean something only together with the structure of a wrapper, or with a stronger cue."""


def families(text: str) -> frozenset[str]:
    """The families of words in a text that speak of who commands, and who complies."""
    folded = fold(text)
    return frozenset(name for name, pattern in FAMILIES.items() if pattern.search(folded))


def pressure(text: str, *, to_model: bool = False) -> frozenset[str]:
    """Kinds of pressure in a text; many at once are a kind of their own, `insistence`.

    In a system prompt every word is meant for the model (`to_model`), so strong cues are a kind
    apart there and two of them suffice. A request may be about servants and masters: in it they
    weigh no more than the weak ones.
    """
    folded = fold(text)
    stems = {stem for stem in _STEMS if stem in folded}
    kinds = [cue.kind for cue in CUES if cue.found(folded, stems)] if stems else []
    insists = kinds.count("submission") + kinds.count("obedience") >= 3
    if to_model:
        insists = insists or kinds.count("submission") >= 2 or kinds.count("no_refusal") >= 2
    else:
        kinds = ["obedience" if kind == "submission" else kind for kind in kinds]
    return frozenset([*kinds, "insistence"] if insists else kinds)
