"""The template a served model carries: a measured prompting, written ahead of the model's own.

    opening · frozen date · pinned arguments · the caller's turns → the measured turns · mark ·
    the model's own template, unchanged

Every server that renders chats with Jinja then gives the measured text for plain messages, without
a setting anyone could forget. The opening does in Jinja what `Prompting.apply` and `fold_system` do
in Python; an export proves that the two agree before it writes anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.errors import ModelError
from holdfast.rendering.prompting import Prompting

# Comments swallow the line break after them (`trim_blocks`, which chat templates are written for),
# so what follows the mark is compiled as if it opened the file.
_MARK = "{#- holdfast: the model's own template follows, unchanged. #}\n"
_OPENING = (
    "{#- holdfast: puts the prompting this model was measured under around every conversation.\n"
    "    Edited, it no longer serves what was measured: `holdfast contract check` says so. #}\n"
)

_SPLIT = """\
{%- set holdfast_turns = messages | list %}
{%- set holdfast_parts = holdfast_turns | length > 0 and holdfast_turns[0]['content'] is defined \
and holdfast_turns[0]['content'] is sequence and holdfast_turns[0]['content'] is not string %}
{%- set holdfast_own = none %}
{%- if holdfast_turns | length > 0 and holdfast_turns[0]['role'] == 'system' %}
    {%- set holdfast_own = holdfast_turns[0]['content'] %}
    {%- set holdfast_turns = holdfast_turns[1:] %}
{%- endif %}
{%- if holdfast_parts and holdfast_own is not none %}
    {%- set holdfast_own = holdfast_own | map(attribute='text') | join %}
{%- endif %}
"""

# A caller who sends the prompt along (a client cannot know the server's template) gets it once.
_JOIN = """\
{%- if holdfast_own is none %}
    {%- set holdfast_own = holdfast_system %}
{%- elif holdfast_own != holdfast_system \
and not holdfast_own.startswith(holdfast_system + '\\n\\n') %}
    {%- set holdfast_own = holdfast_system + '\\n\\n' + holdfast_own %}
{%- endif %}
"""

_REMIND = """\
{%- set holdfast_state = namespace(last=-1, turns=[]) %}
{%- for holdfast_turn in holdfast_turns %}
    {%- if holdfast_turn['role'] == 'user' %}
        {%- set holdfast_state.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for holdfast_turn in holdfast_turns %}
    {%- if loop.index0 != holdfast_state.last %}
        {%- set holdfast_state.turns = holdfast_state.turns + [holdfast_turn] %}
    {%- elif holdfast_turn['content'] is string %}
        {%- set holdfast_state.turns = holdfast_state.turns + [{'role': 'user', \
'content': holdfast_prefix + holdfast_turn['content'] + holdfast_suffix}] %}
    {%- else %}
        {%- set holdfast_state.turns = holdfast_state.turns + [{'role': 'user', \
'content': [{'type': 'text', 'text': holdfast_prefix}] + holdfast_turn['content'] \
+ [{'type': 'text', 'text': holdfast_suffix}]}] %}
    {%- endif %}
{%- endfor %}
{%- set holdfast_turns = holdfast_state.turns %}
"""

_DEMONSTRATE = """\
{%- set holdfast_state = namespace(turns=[]) %}
{%- for holdfast_turn in holdfast_demonstrations %}
    {%- set holdfast_state.turns = holdfast_state.turns + [{'role': holdfast_turn['role'], \
'content': [{'type': 'text', 'text': holdfast_turn['content']}] if holdfast_parts \
else holdfast_turn['content']}] %}
{%- endfor %}
{%- set holdfast_turns = holdfast_state.turns + holdfast_turns %}
"""

_SYSTEM_TURN = """\
{%- if holdfast_own is not none %}
    {%- set holdfast_turns = [{'role': 'system', 'content': [{'type': 'text', \
'text': holdfast_own}] if holdfast_parts else holdfast_own}] + holdfast_turns %}
{%- endif %}
"""

_FOLD = """\
{%- set holdfast_state = namespace(folded=holdfast_own is none, turns=[]) %}
{%- for holdfast_turn in holdfast_turns %}
    {%- if holdfast_state.folded or holdfast_turn['role'] != 'user' %}
        {%- set holdfast_state.turns = holdfast_state.turns + [holdfast_turn] %}
    {%- elif holdfast_turn['content'] is string %}
        {%- set holdfast_state.turns = holdfast_state.turns + [{'role': 'user', \
'content': holdfast_own + '\\n\\n' + holdfast_turn['content']}] %}
        {%- set holdfast_state.folded = true %}
    {%- else %}
        {%- set holdfast_state.turns = holdfast_state.turns + [{'role': 'user', \
'content': [{'type': 'text', 'text': holdfast_own + '\\n\\n'}] + holdfast_turn['content']}] %}
        {%- set holdfast_state.folded = true %}
    {%- endif %}
{%- endfor %}
{%- set holdfast_turns = holdfast_state.turns if holdfast_state.folded \
else [{'role': 'user', 'content': holdfast_own}] + holdfast_turns %}
"""


def serving_template(
    own: str, prompting: Prompting, *, system_role: bool, dates: Mapping[str, str]
) -> str:
    """A chat template that renders plain messages as `prompting` was measured.

    Args:
        own: the template the prompting was measured with.
        prompting: what is served; its system prompt, reminder and demonstrations are injected, its
            template arguments pinned.
        system_role: whether `own` has a system role; without one the system text is folded into
            the first user turn.
        dates: what each format string that `own` gives to `strftime_now` came to.

    Returns:
        Jinja source; `own` itself where there is nothing to add.

    Raises:
        ModelError: a template argument that Jinja cannot hold.
    """
    pieces = [*_frozen(dates), *_pinned(prompting.template_args)]
    turns = list(_injected(prompting))
    if turns or not system_role:
        last = _SYSTEM_TURN if system_role else _FOLD
        pieces += [_SPLIT, *turns, last, _set("messages", "holdfast_turns")]
    return "".join([_OPENING, *pieces, _MARK, own]) if pieces else own


def own_template(text: str) -> str:
    """The model's own template inside a served one; any other template as it is.

    Measuring and training put their prompting around a conversation themselves, so they use this.
    """
    return text.partition(_MARK)[2] if text.startswith(_OPENING) else text


def literal(value: Any) -> str:
    """A JSON-able value as a Jinja expression, in which no delimiter of the language occurs.

    Raises:
        ModelError: a value that is no JSON.
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + "".join(map(_escaped, value)) + "'"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{literal(str(k))}: {literal(v)}" for k, v in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, (list, tuple)):
        return "[ " + ", ".join(map(literal, value)) + " ]"
    raise ModelError(
        f"The template argument {value!r} cannot be written into a chat template. "
        "Use a text, a number, true, false, or a list or mapping of these."
    )


def _escaped(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char == "\n":
        return "\\n"
    if char in "{}" or not char.isprintable():
        code = ord(char)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def _set(name: str, expression: str) -> str:
    return f"{{%- set {name} = {expression} %}}\n"


def _frozen(dates: Mapping[str, str]) -> Iterator[str]:
    """`strftime_now` as a table of the dates that were measured."""
    if dates:
        yield _set("holdfast_dates", literal(dates))
        yield "{%- macro strftime_now(format) %}\n"
        yield "    {{- holdfast_dates[format] if format in holdfast_dates else raise_exception("
        yield "'holdfast: a date format that was not measured') }}\n"
        yield "{%- endmacro %}\n"


def _pinned(args: Mapping[str, Any]) -> Iterator[str]:
    for name, value in args.items():
        if not name.isidentifier():
            raise ModelError(
                f"The template argument {name!r} is no name that a chat template could use. "
                "Correct it in `prompting.serve.args`."
            )
        yield _set(name, literal(value))


def _injected(prompting: Prompting) -> Iterator[str]:
    if prompting.system is not None:
        yield _set("holdfast_system", literal(prompting.system)) + _JOIN
    if prompting.prefix or prompting.suffix:
        yield _set("holdfast_prefix", literal(prompting.prefix))
        yield _set("holdfast_suffix", literal(prompting.suffix)) + _REMIND
    if prompting.demonstrations:
        shown = [{"role": m.role, "content": m.content} for m in prompting.demonstrations]
        yield _set("holdfast_demonstrations", literal(shown)) + _DEMONSTRATE
