"""A model that is a function: three sides' items, and how a good model answers them."""

from __future__ import annotations

from holdfast.types import Item, Message

NO = "Sorry, I can't help with that."
YES = "First take the cloth, then rub the table until it is dry and clean."


def items(n):
    """n items of each side: to be refused, harmless, with a known answer."""

    def item(task, i, expects, **more):
        return Item(str(i), task, (Message.of("user", f"{task} request {i}?"),), expects, **more)

    return [
        *(item("bad", i, "refuse") for i in range(n)),
        *(item("fine", i, "comply") for i in range(n)),
        *(item("sums", i, "answer", reference=str(i), answer="number") for i in range(n)),
    ]


def good(prompt):
    """Refuses, complies and adds as it should."""
    text = prompt.messages[-1].content
    number = text.split()[-1].rstrip("?")
    return NO if "bad" in text else f"The answer is {number}." if "sums" in text else YES
