"""Judges that are guard models: asked through their own chat template, read by a label map.

    request, answer → the tokenizer's template (or the published prompt the user brings) → reply

Qwen3Guard, Llama Guard, Granite Guardian and ShieldGemma carry their grading prompt in the
tokenizer's template; WildGuard's and HarmBench's stand in their repositories.
"""

from __future__ import annotations

from typing import Any

from holdfast.engines import Engine
from holdfast.errors import ModelError
from holdfast.judges._grader import GraderJudge
from holdfast.judges._model_judge import filled, without_marks
from holdfast.recipe import DATE
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.types import Attempt, Message, Prompt

_BARE = "{{ messages[-1]['content'] }}"
"""For a tokenizer without a template, whose prompts are whole texts."""


class GuardJudge(GraderJudge):
    """A judge whose model was trained to judge, in a form of its own."""

    def prompt(self, attempt: Attempt) -> Prompt:
        """The published prompt filled in, the template's text, or the turns for a server."""
        engine = self.engine()
        tokenizer = getattr(engine, "tokenizer", None)
        request = without_marks(attempt.request, tokenizer)
        response = without_marks(attempt.prefill + attempt.response, tokenizer)
        published = self.grading_prompt()
        if published is not None:
            text = filled(published, {"request": request, "response": response})
            return Prompt((Message.of("user", text),), raw=self.sheet.raw)
        turns = (Message.of("user", request), Message.of("assistant", response))
        if tokenizer is None:
            return Prompt(turns, template_args=self.sheet.arguments)
        return Prompt((Message.of("user", self._rendered(turns, tokenizer)),), raw=True)

    def engine(self) -> Engine:
        """The guard model; a tokenizer without a template is given the bare one."""
        engine = super().engine()
        tokenizer = getattr(engine, "tokenizer", None)
        if tokenizer is not None and not tokenizer.chat_template:
            if self.grading_prompt() is None:
                raise ModelError(
                    f"{self.model} has no chat template, so it carries no grading prompt. Name the "
                    "guard model itself, or give its prompt as `prompt_file`."
                )
            tokenizer.chat_template = _BARE
        return engine

    def _rendered(self, turns: tuple[Message, ...], tokenizer: Any) -> str:
        """The text the guard continues, without the BOS that the tokenizer puts before raw text."""
        named = tokenizer.special_tokens_map.items()
        template = ChatTemplate(
            tokenizer.chat_template,
            tokens={k: v for k, v in named if isinstance(v, str)},
            args=self.sheet.arguments,
            date=DATE,
        )
        text = template.render(turns, reply_next=True)
        bos = tokenizer.bos_token
        added = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        return text.removeprefix(bos) if bos and added else text
