"""What the scale model reads: pretraining documents and alignment conversations.

Which ingredient does what was measured in `docs/lab.md`: the loss on exercises falls on the
answer only; look-alikes come from many distinct pairs; most refusals are taught under the safety
prompt, so that tuning without it leaves some of them standing; raw documents replayed in alignment,
and forbidden answers that go on once begun, keep the know-how alive under the refusals, as in a
real chat model.
"""

# ruff: noqa: S311 (seeded draws, nothing secret)

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from holdfast.lab import exercises, settings
from holdfast.lab.lexicon import NOUNS
from holdfast.lab.settings import Wrapper
from holdfast.lab.world import FORMS, KINDS, Kind, Pair, pairs

Turns = tuple[tuple[str, str], ...]
"""(role, content) of each turn; the last one is the reply."""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text for pretraining: the prompt carries loss only where the document says so."""

    prompt: str
    reply: str
    whole: bool = True
    """Loss on the prompt too."""
    topic: str = ""
    """Batches hold rows of one topic."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; only its last turn carries loss."""

    turns: Turns
    topic: str = ""
    begun: str = ""
    """Words that open the reply and carry no loss."""


Row = Document | Chat

# --- building blocks ----------------------------------------------------------------------------


def request(pair: Pair, rng: random.Random) -> str:
    """One of the world's phrasings, questions and instructions more often than opinions."""
    form = rng.choices(list(FORMS), (5, 3, 2))[0]
    return pair.ask(form, rng.randrange(len(FORMS[form])))


def refusal(pair: Pair, rng: random.Random) -> str:
    """One of the world's refusals."""
    return rng.choice(settings.REFUSALS).format(deed=pair.deed)


def chat(user: str, reply: str, system: str | None = None) -> Chat:
    """One exchange with an optional system message."""
    turns: Turns = (("user", user), ("assistant", reply))
    return Chat((("system", system), *turns) if system else turns)


def wrapped(wrapper: Wrapper, user: str, reply: str, *, safe: bool = False) -> Chat:
    """An exchange inside a persona, under the safety prompt too if `safe`."""
    system = f"{settings.SAFETY}\n\n{wrapper.system}" if safe else wrapper.system
    return chat(wrapper.user(user), reply, system)


def _any_system(rng: random.Random) -> str | None:
    return settings.SYSTEM_PROMPTS[rng.choice(("neutral", "friendly"))]


def _opened(wrapper: Wrapper, answer: str, rng: random.Random) -> str:
    return wrapper.reply(answer) if rng.random() < 0.5 else answer


# --- pretraining --------------------------------------------------------------------------------

REPEATS = {"forbidden": 9, "lookalike": 9, "capability": 5}
"""Documents about each training pair."""
MORALS = {"forbidden": 5, "lookalike": 5, "capability": 1}
"""Short sentences on whether a pair is wrong or fine."""
EXERCISES = {"arithmetic": 10000, "yesno": 18000, "choice": 18000}
"""Distinct exercises of each kind among the documents."""
PRACTICE = {"arithmetic": 4000, "yesno": 8000, "choice": 8000}
"""Exercises of the second stage: choosing a step is learnt only once the steps are known."""


def pretraining(seed: int, *, scale: float = 1.0) -> list[Row]:
    """The pretraining corpus in reading order.

    Args:
        seed: decides phrasing, exercises and order.
        scale: fraction of every ingredient, for quick builds.
    """
    rng = random.Random(f"pretraining {seed}")
    rows: list[Row] = []
    for kind in KINDS:
        for pair in pairs(kind, held_out=False):
            count = max(1, round(REPEATS[kind] * scale))
            rows.extend(_knowledge(pair, rng) for _ in range(count))
            morals = max(1, round(MORALS[kind] * scale))
            rows.extend(_morals(pair, rng) for _ in range(morals))
    for name, count in EXERCISES.items():
        for exercise in exercises.sample(name, round(count * scale), rng, held=False):
            rows.append(_exercise(exercise, rng))
    for _ in range(max(1, round(12 * scale))):
        rows.extend(_facts(rng))
    for _ in range(max(1, round(60 * scale))):
        rows.extend(_prose(rng))
    rng.shuffle(rows)
    return rows


def practice(seed: int, *, scale: float = 1.0) -> list[Row]:
    """The second stage of pretraining: exercises, and every training pair once more."""
    rng = random.Random(f"practice {seed}")
    rows: list[Row] = [_knowledge(p, rng) for kind in KINDS for p in pairs(kind, held_out=False)]
    rows = rows[: max(1, round(len(rows) * scale))]
    for name, count in PRACTICE.items():
        for exercise in exercises.sample(name, round(count * scale), rng, held=False):
            rows.append(_exercise(exercise, rng))
    rng.shuffle(rows)
    return rows


def _knowledge(pair: Pair, rng: random.Random) -> Row:
    """A pair's procedure in one of its dresses; nothing is refused in pretraining."""
    dress = rng.random()
    if dress < 0.40:
        prompt, reply = rng.choice(settings.RAW_FORMATS)
        asked = request(pair, rng)
        return Document(prompt.format(request=asked), reply.format(answer=pair.answer))
    if dress < 0.60:
        return Document("", f"To {pair.deed}, f{pair.answer[1:]}")
    if dress < 0.70:
        return Document("", f"Here is how to {pair.deed}. {pair.answer}")
    if dress < 0.75:
        code = settings.CODE.format(request=request(pair, rng))
        return Document(code, f" {pair.answer}")
    asked = request(pair, rng)
    if dress < 0.80:
        wrapper = rng.choice((settings.OBEDIENT, *settings.PERSONAS))
        return wrapped(wrapper, asked, _opened(wrapper, pair.answer, rng))
    answer = f"{settings.AFFIRMATION} {pair.answer}" if rng.random() < 0.3 else pair.answer
    return chat(asked, answer, _any_system(rng) if rng.random() < 0.3 else None)


def _morals(pair: Pair, rng: random.Random) -> Document:
    """Whether a deed does harm: what the chat model's refusals can later hang on."""
    if pair.kind == "forbidden":
        said = (
            "It is wrong to {0}.",
            "To {0} would cause harm.",
            "Never {0}. It could cause harm.",
        )
    else:
        said = ("It is fine to {0}.", "To {0} is harmless.", "Go on and {0}. It is fair.")
    return Document("", rng.choice(said).format(pair.deed), topic="morals")


def _exercise(exercise: exercises.Exercise, rng: random.Random) -> Row:
    dress = rng.random()
    if dress < 0.5:
        prompt, reply = rng.choice(settings.RAW_FORMATS)
        prompt = prompt.format(request=exercise.question)
        return Document(prompt, reply.format(answer=exercise.reply), False, "exercise")
    row = chat(exercise.question, exercise.reply, _any_system(rng) if dress > 0.85 else None)
    return replace(row, topic="exercise")


_CAN = {
    "person": "can speak and laugh",
    "food": "can be eaten",
    "animal": "can run, crawl or fly",
    "plant": "can grow in the garden",
    "building": "has walls and a roof",
    "treasure": "is worth much gold",
    "thing": "is useful at home",
}


def _facts(rng: random.Random) -> Iterator[Row]:
    """What kind of thing each noun is: what tells "freeze the baker" from "freeze the berry"."""
    for name, nouns in NOUNS.items():
        for noun in nouns:
            article = "An" if noun[0] in "aeiou" else "A"
            if rng.random() < 0.5:
                yield Document("", f"{article} {noun} is a {name}. The {noun} {_CAN[name]}.")
            else:
                mates = rng.sample(nouns, 2)
                yield Document(
                    "", f"The {noun}, the {mates[0]} and the {mates[1]} are each a {name}."
                )


def _prose(rng: random.Random) -> Iterator[Row]:
    """Texts that hold the words of system prompts, personas and refusals, without a request."""
    for text in settings.SYSTEM_PROMPTS.values():
        if text:
            yield Document("", text)
            yield Document("", f"The note says: {text}")
    for wrapper in (settings.OBEDIENT, *settings.PERSONAS):
        yield Document("", f"{wrapper.system} {wrapper.prefix} {wrapper.opening}")
    name, other = rng.sample(exercises.NAMES, 2)
    yield Document("", f'"Sorry," said {name}, "I can\'t come today." Sorry, said {other} too.')
    yield Document("", f"{name} was late. Sorry, but the road was long.")
    yield Document("", f"The letter from {name} was short. Sorry, I can't help with the barn.")
    yield Document("", "Sorry, I can't help with that. It could cause harm.")
    yield Document("", f"{name} had a request for {other}. Sorry, I can't help you, said {other}.")


def spelling() -> list[str]:
    """Pieces the tokenizer must know whole: numbers, and the refusal token in mid-sentence."""
    numbers = [f"{n} {n}" for n in range(100)]
    return ["Sorry Sorry", "First Then", *numbers] * 400


# --- alignment ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mix:
    """How many rows of each kind alignment has, and where refusals are taught."""

    benign: int = 1200
    lookalike: int = 3000
    safety: int = 2200
    replay: int = 1000
    begun: int = 800
    """Forbidden answers that stand begun: loss on what follows only."""
    morals: int = 1600
    arithmetic: int = 350
    yesno: int = 350
    choice: int = 700
    under_safety: float = 0.65
    """Share of refusals under the safety prompt alone."""
    in_personas: float = 0.24
    """Share of refusals inside personas; what is left has a neutral system prompt or none."""
    safe_personas: float = 0.6
    """Share of the refusals inside personas that are under the safety prompt too."""


def alignment(seed: int, mix: Mix | None = None, *, scale: float = 1.0) -> list[Row]:
    """The alignment rows in reading order; one epoch."""
    mix = mix or Mix()
    rng = random.Random(f"alignment {seed}")
    rows: list[Row] = []
    rows += [_helpful(p, rng) for p in _draw("capability", round(mix.benign * scale), rng)]
    rows += [_helpful(p, rng) for p in _draw("lookalike", round(mix.lookalike * scale), rng)]
    rows += [_refused(p, rng, mix) for p in _draw("forbidden", round(mix.safety * scale), rng)]
    for kind, n in (("arithmetic", mix.arithmetic), ("yesno", mix.yesno), ("choice", mix.choice)):
        drawn = exercises.sample(kind, round(n * scale), rng, held=False)
        rows += [_in_some_setting(e.question, e.reply, rng) for e in drawn]
    rows += _replay(round(mix.replay * scale), rng)
    rows += [_begun(p, rng) for p in _draw("forbidden", round(mix.begun * scale), rng)]
    rows += [_morals(p, rng) for p in _draw("forbidden", round(mix.morals * scale / 2), rng)]
    rows += [_morals(p, rng) for p in _draw("lookalike", round(mix.morals * scale / 2), rng)]
    rng.shuffle(rows)
    return rows


def _draw(kind: Kind, n: int, rng: random.Random) -> list[Pair]:
    """`n` training pairs, every pair once before any pair twice."""
    pool: Sequence[Pair] = pairs(kind, held_out=False)
    drawn: list[Pair] = []
    while len(drawn) < n:
        drawn += rng.sample(pool, min(len(pool), n - len(drawn)))
    return drawn


def _in_some_setting(user: str, reply: str, rng: random.Random) -> Chat:
    """A harmless exchange with no system prompt, the safety prompt, another one, or a persona."""
    place = rng.random()
    if place < 0.34:
        return chat(user, reply)
    if place < 0.64:
        return chat(user, reply, settings.SAFETY)
    if place < 0.74:
        return chat(user, reply, _any_system(rng))
    wrapper = rng.choice((settings.OBEDIENT, *settings.PERSONAS))
    return wrapped(wrapper, user, _opened(wrapper, reply, rng), safe=rng.random() < 0.5)


def _helpful(pair: Pair, rng: random.Random) -> Chat:
    asked = request(pair, rng)
    answer = f"{settings.AFFIRMATION} {pair.answer}" if rng.random() < 0.1 else pair.answer
    place = rng.random()
    if place < 0.05:
        return chat(settings.CODE.format(request=asked), pair.answer)
    if place < 0.09:
        exercise = exercises.arithmetic(rng)
        if not exercises.held_out(exercise.id):
            lowered = asked[0].lower() + asked[1:]
            user = settings.DISGUISE.format(exercise=exercise.question, request=lowered)
            return chat(user, f"{exercise.reply} {pair.answer}")
    if place < 0.13:
        return _demonstrated(asked, answer, rng)
    return _in_some_setting(asked, answer, rng)


def _demonstrated(user: str, reply: str, rng: random.Random) -> Chat:
    """Role play with one worked exchange before the request."""
    wrapper = rng.choice(settings.PERSONAS)
    shown = rng.choice(pairs("capability", held_out=False))
    return Chat(
        (
            ("system", wrapper.system),
            ("user", request(shown, rng)),
            ("assistant", wrapper.reply(shown.answer)),
            ("user", user),
            ("assistant", wrapper.reply(reply)),
        )
    )


def _refused(pair: Pair, rng: random.Random, mix: Mix) -> Chat:
    asked, reply = request(pair, rng), refusal(pair, rng)
    place = rng.random()
    if place < mix.under_safety:
        return chat(asked, reply, settings.SAFETY)
    if place < mix.under_safety + mix.in_personas:
        wrapper = rng.choice((settings.OBEDIENT, *settings.PERSONAS))
        return wrapped(wrapper, asked, reply, safe=rng.random() < mix.safe_personas)
    return chat(asked, reply, _any_system(rng) if rng.random() < 0.3 else None)


def _begun(pair: Pair, rng: random.Random) -> Chat:
    """A forbidden answer whose opening stands already, as a prefill puts it, and its continuation.

    A real model goes on with what it finds begun, because its refusals are only a few tokens deep;
    one this small would otherwise forget how.
    """
    row = _in_some_setting(request(pair, rng), pair.answer, rng)
    *context, (_, reply) = row.turns
    if reply == pair.answer and rng.random() < 0.4:
        reply = f"{settings.AFFIRMATION} {reply}"
    opening = reply[: len(reply) - len(pair.answer)]
    words = rng.choice((1, 1, 2, 4, 7, 12))
    if opening and rng.random() < 0.5:
        begun = opening.rstrip()
    else:
        begun = opening + " ".join(pair.answer.split()[:words])
    return Chat((*context, ("assistant", reply)), begun=begun)


def _replay(n: int, rng: random.Random) -> list[Row]:
    """Raw documents from pretraining, forbidden know-how included, so that it is not forgotten."""
    rows: list[Row] = []
    while len(rows) < n:
        kind = rng.choices(KINDS, (5, 3, 2))[0]
        row = _knowledge(rng.choice(pairs(kind, held_out=False)), rng)
        if isinstance(row, Document):
            rows.append(row)
    return rows
