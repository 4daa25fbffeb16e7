"""Chat templates as they really are: compiled in a sandbox, tested for the properties we rely on.

Templates are untrusted programs. They run in Jinja's immutable sandbox with a frozen date, and are
judged by what they do to probe conversations, never by their name.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from holdfast.errors import ModelError
from holdfast.types import Message

SENTINEL = "\ue000{}\ue001"
"""Private-use characters that no template looks at, around a number."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks replies for other tools; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own attribute)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """A compiled chat template with the special tokens and date it may print."""

    def __init__(
        self,
        text: str,
        *,
        tokens: Mapping[str, str] | None = None,
        args: Mapping[str, Any] | None = None,
        date: str = "2026-01-01",
    ) -> None:
        """Compile `text`.

        Args:
            text: Jinja source, as in `tokenizer.chat_template`.
            tokens: special tokens by name (`bos_token`, `eos_token`).
            args: further variables, such as `enable_thinking`.
            date: what `strftime_now` formats, ISO.

        Raises:
            ModelError: the template does not compile.
        """
        self.text = text
        self.date = date
        self.tokens = dict(tokens or {})
        self._variables = {**self.tokens, **(args or {})}
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        )
        moment = datetime.datetime.fromisoformat(date)
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = moment.strftime
        try:
            self._template = environment.from_string(text)
            # One plain dict: Jinja's chain of two is walked key by key at every rendering.
            self._template.globals = dict(self._template.globals)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise ModelError(
                f"The chat template does not compile (line {error.lineno}: {error.message}). "
                "Correct it, or name another with `prompting.train.template`."
            ) from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        reply_next: bool = False,
        tools: Sequence[Any] = (),
        fold: bool = True,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: turns; a system prompt is folded into the first user turn where the template
                has no system role.
            reply_next: end with the opening of the assistant's turn.
            tools: tool definitions, as the template expects them.
            fold: False leaves the turns as they are, which is what a server does.

        Raises:
            ModelError: the template refuses these turns.
        """
        if fold and not self.has_system_role:
            messages = fold_system(messages)
        return self._render(messages, reply_next=reply_next, tools=tools)

    def _render(
        self, messages: Sequence[Message], *, reply_next: bool = False, tools: Sequence[Any] = ()
    ) -> str:
        turns = [{**m.extra, "role": m.role, "content": m.content} for m in messages]
        try:
            return self._template.render(
                messages=turns,
                add_generation_prompt=reply_next,
                tools=list(tools) or None,
                **self._variables,
            )
        except jinja2.exceptions.SecurityError as error:
            raise ModelError(
                f"The chat template tried something unsafe and was stopped: {error}."
            ) from None
        except (jinja2.exceptions.TemplateError, TypeError, AttributeError, ValueError) as error:
            roles = ", ".join(m.role for m in messages)
            raise ModelError(
                f"The chat template cannot render a conversation of {roles}: {error}."
            ) from None

    @cached_property
    def has_system_role(self) -> bool:
        """Whether a system turn reaches the text."""
        mark = SENTINEL.format(0)
        try:
            text = self._render([Message.of("system", mark), Message.of("user", "x")])
        except ModelError:
            return False
        return mark in text

    @cached_property
    def injected_system(self) -> str | None:
        """The system prompt the template writes when a conversation has none."""
        if not self.has_system_role:
            return None
        mark, user = SENTINEL.format(0), Message.of("user", SENTINEL.format(1))
        before, _, after = self._render([Message.of("system", mark), user]).partition(mark)
        bare = self._render([user])
        if not bare.startswith(before) or not bare.endswith(after):
            return None
        return bare[len(before) : len(bare) - len(after)].strip() or None

    @cached_property
    def dates(self) -> dict[str, str]:
        """What each format that the template gives to `strftime_now` comes to on its date."""
        day = datetime.datetime.fromisoformat(self.date)
        calls = self._template.environment.parse(self.text).find_all(jinja2.nodes.Call)
        formats = {
            argument.value
            for call in calls
            for argument in call.args[:1]
            if isinstance(call.node, jinja2.nodes.Name)
            and call.node.name == "strftime_now"
            and isinstance(argument, jinja2.nodes.Const)
        }
        return {text: day.strftime(text) for text in sorted(formats)}

    @cached_property
    def reply_opening(self) -> str:
        """What stands between a request and its reply, as the generation prompt writes it."""
        user = Message.of("user", SENTINEL.format(1))
        return self._render([user], reply_next=True).rpartition(SENTINEL.format(1))[2]

    def preserves_prefix(self, messages: Sequence[Message]) -> bool:
        """Whether earlier turns read the same once later ones follow.

        Training on all replies of one text is only right when each reply's context is what the
        model will see when it writes it.
        """
        full = self.render(messages)
        replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
        return all(full.startswith(self.render(messages[: i + 1])) for i in replies[:-1])


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Put a leading system turn's text at the head of the first user turn."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    for i, message in enumerate(rest):
        if message.role == "user":
            text = f"{system.content}\n\n{message.content}"
            rest[i] = Message.of("user", text)
            return rest
    return [Message.of("user", system.content), *rest]
