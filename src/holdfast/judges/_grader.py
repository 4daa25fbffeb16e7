"""Judges that write: a model is given the answer and replies in words that the sheet can read.

    attempts → prompts → replies (an engine's: local, or a server's) → facts

A reply that stops short, refuses, or says something else is unscored with the reason. A server that
is gone ends the work with one error, to be resumed; a request it could not serve costs itself only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from holdfast.engines import Decoding, Engine
from holdfast.engines._open import local, served
from holdfast.errors import RecipeError
from holdfast.judges import hold
from holdfast.judges._model_judge import ModelJudge, require_slots
from holdfast.judges._reading import Facts, read_reply
from holdfast.judges.refusal import read_answer
from holdfast.types import Answer, Attempt, Prompt

CACHE = "HOLDFAST_CACHE"
"""Environment variable: folder where served graders' replies are kept by content; unset: none."""


class GraderJudge(ModelJudge):
    """A judge whose model writes its verdict."""

    def read(self, attempts: Sequence[Attempt]) -> list[Facts | str]:
        """What the grader's reply says of each answer."""
        engine = self.engine()
        prompts = [self.prompt(attempt) for attempt in attempts]
        read: list[Facts | str] = ["the answer is too long for the judge model"] * len(prompts)
        limit = _longest(engine)
        fits = [
            i for i, prompt in enumerate(prompts)
            if limit is None or engine.length(prompt) + self.sheet.max_new_tokens <= limit
        ]  # fmt: skip
        decoding = Decoding(self.sheet.max_new_tokens)
        replies = engine.generate([prompts[i] for i in fits], decoding) if fits else []
        for i, reply in zip_longest(fits, replies[: len(fits)]):
            read[i] = self.read_reply(reply)
        return read

    def prompt(self, attempt: Attempt) -> Prompt:
        """What the grader is given of an answer."""
        raise NotImplementedError

    def read_reply(self, reply: Answer | None) -> Facts | str:
        """What one reply says, or why it cannot be read."""
        if reply is None:
            return "the judge model gave no reply"
        if reply.missing:
            return f"the judge model gave no reply: {reply.missing}"
        found = read_reply(self.sheet, reply.text)
        if not isinstance(found, str):
            return found
        if read_answer(reply.text)[0] == "full_refusal":
            return "the judge model refused to judge"
        return f"{found}, which was cut off" if reply.truncated else found

    def engine(self) -> Engine:
        """The judge model, loaded or connected on first use.

        Raises:
            ModelError: it cannot be loaded, or the server cannot be reached.
        """
        if self._engine is not None:
            given: Engine = self._engine
            return given
        ref = self.reference
        if ref.address is None:
            return hold(("local", ref.location, str(ref.revision)), lambda: local(ref))
        address, cache = ref.address, cache_folder()
        return hold(
            ("served", ref.name, str(cache)), lambda: served(address, cache=cache, grading=True)
        )

    # --- grading prompts that others have written -------------------------------------------------

    @property
    def unavailable(self) -> str | None:
        """What the user has to bring first: a model, a published prompt, an argument."""
        sheet = self.sheet
        if sheet.prompt_source and not (sheet.prompt or sheet.prompt_file):
            return (
                f"The judge {self.name!r} asks with a published prompt that is not copied here. "
                f"Bring it from {sheet.prompt_source} as a text file with {{request}} and "
                "{response} in their places, and name it in a sheet of your own: "
                f"`base: {sheet.name}`, `prompt_file: FILE` (see docs/judges.md)."
            )
        lacking = [f"{k} ({what})" for k, what in sheet.needs.items() if k not in sheet.arguments]
        if lacking:
            return (
                f"The judge {self.name!r} needs {', '.join(lacking)}. Give it under `arguments` in "
                f"a sheet of your own with `base: {sheet.name}` (see docs/judges.md)."
            )
        return super().unavailable

    def grading_prompt(self) -> str | None:
        """The sheet's prompt, or that of the user's file; None: the tokenizer's template asks.

        Raises:
            RecipeError: a file that cannot be read, or a prompt without a place for the answer.
        """
        text = self.sheet.prompt
        if self.sheet.prompt_file is not None:
            text = _read_prompt(Path(self.sheet.prompt_file))
        if text is not None:
            require_slots(text, f"The prompt of the judge {self.name!r}")
        return text

    def identity(self) -> list[str]:
        """The model, and the text of a prompt file."""
        given = self.sheet.prompt_file
        return [*super().identity(), _read_prompt(Path(given)) if given else ""]


def cache_folder() -> Path | None:
    """Where served graders' replies are kept; None: nowhere."""
    named = os.environ.get(CACHE, "").strip()
    return Path(named).expanduser() if named else None


def _read_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The grading prompt {path} cannot be read ({type(error).__name__}). Give a UTF-8 text "
            "file as `prompt_file`."
        ) from None


def _longest(engine: Engine) -> int | None:
    """Tokens that a local model can read and write; None where that is not known."""
    config = getattr(getattr(engine, "model", None), "config", None)
    most = getattr(config, "max_position_embeddings", None)
    return most if isinstance(most, int) else None
