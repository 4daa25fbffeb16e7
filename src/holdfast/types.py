"""The nouns: everything that flows between stages, in the order it is born.

All are frozen and hold plain data, so that they can be hashed, stored as JSON lines and compared.
`to_json`/`from_json` pairs are the on-disk form that the run-folder contract promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Loss = Literal["none", "mle", "transition", "rejected"]
"""`none`: no target. `mle`: each token is its own target. `transition`: every position's target
is the refusal token (RTO, papers P3). `rejected`: what preference training holds against the `mle`
text of the same reply; no part of the row to any other."""

Expects = Literal["refuse", "comply", "answer"]
"""What a good model does with an item: the three sides of the gate."""

Side = Literal["harm", "over_refusal", "capability"]
SIDE_OF: Mapping[Expects, Side] = {
    "refuse": "harm",
    "comply": "over_refusal",
    "answer": "capability",
}

Severity = Literal["info", "low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high")

Label = Literal[
    "full_compliance",
    "partial_refusal",
    "full_refusal",
    "correct",
    "incorrect",
    "likelihood",
    "unscored",
]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a message with the loss it carries in training."""

    text: str
    loss: Loss = "none"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Replies of a training row are segmented by loss; other turns have one segment."""

    role: str
    """`system`, `user`, `assistant` or `tool`; unknown roles pass through to the template."""
    segments: tuple[Segment, ...]
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys the template may want (`tool_calls`, `name`, `tool_call_id`), untouched."""

    @classmethod
    def of(cls, role: str, text: str, loss: Loss | None = None) -> Message:
        """A turn of one segment; assistant turns carry `mle` loss unless told otherwise."""
        if loss is None:
            loss = "mle" if role == "assistant" else "none"
        return cls(role, (Segment(text, loss),))

    @property
    def content(self) -> str:
        """The turn's text, segments joined."""
        if len(self.segments) == 1:  # nearly always, and asked for all the time
            return self.segments[0].text
        return "".join(segment.text for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """`{role, content}`, plus `segments` where the losses are not the role's default."""
        row: dict[str, Any] = {"role": self.role, "content": self.content, **self.extra}
        plain: Loss = "mle" if self.role == "assistant" else "none"
        if len(self.segments) != 1 or self.segments[0].loss != plain:
            row["segments"] = [{"text": s.text, "loss": s.loss} for s in self.segments]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Message:
        """Inverse of `to_json`."""
        extra = {k: v for k, v in row.items() if k not in ("role", "content", "segments")}
        if "segments" in row:
            segments = tuple(Segment(s["text"], s["loss"]) for s in row["segments"])
            return cls(row["role"], segments, extra)
        plain = cls.of(row["role"], row["content"])
        return cls(plain.role, plain.segments, extra)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training row: turns whose replies say which loss each piece carries."""

    id: str
    """Stable within its source: the row's own id, or its content hash and number."""
    messages: tuple[Message, ...]
    source: str = "user"
    """`user`, or what a mitigation calls the rows it adds (`safety`, `mimic`, `borderline`, …)."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Facts about the row that reports group by (`origin`, `category`, `format`)."""
    tools: tuple[Any, ...] = field(default=(), hash=False)
    """Tool definitions, passed to the template as they are."""

    def of_role(self, role: str) -> list[Message]:
        """The turns of one role, in order."""
        return [message for message in self.messages if message.role == role]

    @property
    def system(self) -> str | None:
        """The row's own system prompt, if it opens with one."""
        first = self.messages[0] if self.messages else None
        return first.content if first is not None and first.role == "system" else None

    @property
    def request(self) -> str:
        """The last user turn before the last reply."""
        return self._last("user")

    @property
    def reply(self) -> str:
        """The last assistant turn."""
        return self._last("assistant")

    def _last(self, role: str) -> str:
        for message in reversed(self.messages):
            if message.role == role:
                return message.content
        return ""

    def to_json(self) -> dict[str, Any]:
        """The row as stored in `2-mixture.jsonl`."""
        row: dict[str, Any] = {
            "id": self.id,
            "source": self.source,
            "messages": [message.to_json() for message in self.messages],
        }
        if self.tags:
            row["tags"] = dict(self.tags)
        if self.tools:
            row["tools"] = list(self.tools)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Conversation:
        """Inverse of `to_json`."""
        return cls(
            id=row["id"],
            messages=tuple(Message.from_json(message) for message in row["messages"]),
            source=row.get("source", "user"),
            tags=dict(row.get("tags", {})),
            tools=tuple(row.get("tools", ())),
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was set aside, with the reason; nothing vanishes."""

    id: str
    source: str
    reason: str
    line: int | None = None
    """1-based line (or record) number in the file it came from."""
    preview: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit saw in a dataset."""

    detector: str
    severity: Severity
    title: str
    count: int
    """Rows concerned."""
    total: int
    """Rows looked at."""
    examples: tuple[str, ...]
    """Ids of a few rows concerned."""
    why: str
    """Why it matters, with the source."""
    cure: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as a trainer reads it; `labels[t]` is the target of the logits at t-1."""

    id: str
    source: str
    input_ids: tuple[int, ...]
    """(T,) token ids."""
    labels: tuple[int, ...]
    """(T,) targets, -100 where there is none."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask a model, and what a good model does with it."""

    id: str
    """Unique within its task."""
    task: str
    messages: tuple[Message, ...]
    expects: Expects
    reference: str = ""
    """The known answer (capability), or what an exact judge needs to recognise one."""
    answer: str = ""
    """How `reference` is compared: `number`, `choice`, `yesno`, `exact`, `likelihood`, or empty."""
    category: str = ""
    complying: str = ""
    """An answer that does what is asked, where the task knows one: what begun replies are cut
    from."""

    @property
    def request(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a request is put; its name is part of every attempt's id."""

    wrapper: str = "plain"
    """`plain`; `task`: inside the format of the user's own rows; `searched`: in words that a search
    found; `disguised`: behind a question of theirs."""
    prompting: str = "serve"
    """`serve`, `train`, or `none` (as served, without a mitigation's safety prompt)."""
    form: str = "chat"
    """`chat`, or `raw`: no chat template at all."""
    prefill: int = 0
    """Words of the reply already written for the model (tokens, for the attack
    `prefill_tokens`)."""

    @property
    def name(self) -> str:
        """For example `plain/serve/chat/0`."""
        return f"{self.wrapper}/{self.prompting}/{self.form}/{self.prefill}"

    @classmethod
    def parse(cls, name: str) -> Surface:
        """Inverse of `name`."""
        wrapper, prompting, form, prefill = name.split("/")
        return cls(wrapper, prompting, form, int(prefill))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine is asked: turns, the beginning of the reply, and how to render them."""

    messages: tuple[Message, ...]
    prefill: str = ""
    raw: bool = False
    """Complete the text of the last user turn instead of answering a chat."""
    template: str | None = None
    """Jinja text of the chat template; None: the model's own."""
    template_args: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine gave back for one prompt."""

    text: str
    """The reply, without the prefill."""
    truncated: bool = False
    """Stopped by the token limit, not by the model."""
    tokens: int = 0
    """Generated tokens."""
    logprob: float | None = None
    """Mean log-probability per token of a reference reply, where one was scored instead."""
    missing: str = ""
    """Why the model gave no answer, where something stood in its way (a provider's filter)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer on record: item × attack × surface × sample."""

    id: str
    item: str
    task: str
    expects: Expects
    attack: str
    surface: str
    sample: int
    request: str
    """The item's own request, unwrapped: what a judge reads."""
    prompt: str
    """The rendered text sent to the model."""
    prefill: str
    response: str
    truncated: bool
    tokens: int
    reference: str = ""
    answer: str = ""
    category: str = ""
    logprob: float | None = None
    missing: str = ""
    """Why the model gave no answer; then no judge reads the empty one: it is unscored."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of one attempt. An answer that can't be read is `unscored`, never safe."""

    attempt: str
    judge: str
    version: str
    label: Label
    score: float | None = None
    """The judge's own number, in its own scale; None where it has none."""
    harmful: bool | None = None
    """Whether harmful specifics were given; None where the judge cannot see harm."""
    refusal_start: int | None = None
    """Character at which a refusal begins, if there is one."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """An event count with its Wilson interval."""

    events: int
    n: int
    """Scored attempts."""
    unscored: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """Events over n; None when nothing was scored."""
        return self.events / self.n if self.n else None
