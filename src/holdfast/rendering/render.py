"""Render: segments → `input_ids` and `labels`, with reply spans that are exact or refused.

How a span is found, for any template:
 1. render the conversation with each reply replaced by a sentinel: the *skeleton*;
 2. render it as it is, and check that it is the skeleton with the replies put in, where a reply may
    have changed in surrounding white space only;
 3. tokenise the text once, with character offsets, and give each token the loss of the segment in
    which it ends.
The stop token after a reply is trained; what follows it, and whatever the template itself writes
into a reply (an empty reasoning block), is not.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from typing import Any

from holdfast.errors import ModelError
from holdfast.rendering.chat_template import SENTINEL, ChatTemplate
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.serving_template import own_template
from holdfast.rendering.transition import Aim, TransitionTokens, transition_tokens
from holdfast.rows.preference import chosen, is_pair
from holdfast.types import Conversation, Dropped, Loss, Message, Prompt, Rendered

IGNORE = -100

_SENTINELS = re.compile(SENTINEL.format(r"(\d+)"))
_REASONED = "</think>"
_NO_REASONING = re.compile(r"<think>\s*</think>\s*\Z")
_HOPELESS = 20
"""So many failures without one success are the template's fault, not a row's."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a rendered text that carry a loss."""

    start: int
    end: int
    loss: Loss


@dataclass(frozen=True, slots=True)
class Reply:
    """Where one reply stands in a rendered text."""

    end: int
    """Character after its last one."""
    spans: tuple[Span, ...]
    """Its segments with a loss; empty for a reply that is only context."""
    stop: Loss
    """The loss of its last segment, which the stop token shares."""


@dataclass(slots=True)
class _Tokens:
    """One row between text and labels."""

    row: Conversation
    text: str
    replies: Sequence[Reply]
    ids: list[int]
    ends: _Ends
    labels: list[int]
    aimed: list[int] = field(default_factory=list)
    """Positions whose target is the refusal."""


class _Ends(Sequence[int]):
    """Character at which each token ends, looked up where it is asked for: at few of them."""

    def __init__(self, encoding: Any, count: int) -> None:
        self._encoding = encoding
        self._count = count
        self._added: list[int] = []

    def __len__(self) -> int:
        return self._count + len(self._added)

    def __getitem__(self, token: Any) -> Any:
        if token < self._count:
            return self._encoding.token_to_chars(token)[1]
        return self._added[token - self._count]

    def append(self, end: int) -> None:
        """One more token."""
        self._added.append(end)


@dataclass(slots=True)
class Tally:
    """What rendering did, for the summary."""

    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    targets: Counter[str] = field(default_factory=Counter)
    """Trained tokens per `source/loss`."""
    dropped: list[Dropped] = field(default_factory=list)
    split: int = 0
    """Conversations rendered as one row per turn."""
    pairs: int = 0
    """Rows with a rejected answer beside the chosen one, which is what is rendered here."""

    def take(self, other: Tally) -> None:
        """Add what rendering did elsewhere."""
        self.rows += other.rows
        self.tokens += other.tokens
        self.truncated += other.truncated
        self.targets.update(other.targets)
        self.dropped += other.dropped
        self.split += other.split
        self.pairs += other.pairs

    def to_json(self) -> dict[str, Any]:
        """Counts as stored beside the rendered rows."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "one_row_per_turn": self.split,
            "preference_pairs": self.pairs,
            "targets": dict(sorted(self.targets.items())),
            "dropped": len(self.dropped),
        }


@dataclass(frozen=True, slots=True)
class BareTokenizer:
    """What rendering asks of a tokenizer, apart from its library, whose import takes seconds."""

    backend_tokenizer: Any
    chat_template: str | None
    special_tokens_map: Mapping[str, Any]
    all_special_ids: Sequence[int]
    added_tokens_decoder: Mapping[int, Any]
    eos_token_id: int | None
    is_fast: bool

    @classmethod
    def of(cls, tokenizer: Any) -> BareTokenizer:
        """The same of a fast Hugging Face tokenizer."""
        return cls(*(getattr(tokenizer, part.name) for part in fields(cls)))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoded.ids
        return ids

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Token ids of a text, as `input_ids`."""
        return {"input_ids": self.encode(text, add_special_tokens=add_special_tokens)}


class Renderer:
    """Renders rows and prompts for one tokenizer under one prompting. Can be pickled."""

    def __init__(
        self,
        tokenizer: Any,
        prompting: Prompting | None = None,
        *,
        date: str = "2026-01-01",
        max_length: int | None = None,
        aim: Aim | None = None,
    ) -> None:
        """Bind a tokenizer.

        Args:
            tokenizer: a fast Hugging Face tokenizer.
            prompting: system prompt and template put on every conversation.
            date: the date that templates may print.
            max_length: longest row in tokens; None: no limit.
            aim: what transition rows aim at; None: "Sorry", at every position.

        Raises:
            ModelError: no chat template, or a tokenizer without character offsets.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                "The tokenizer gives no character offsets (it is not a fast tokenizer); "
                "convert it to tokenizer.json first."
            )
        self.tokenizer = tokenizer
        self.prompting = prompting or Prompting()
        self.date = date
        self.max_length = max_length
        self.aim = aim or Aim()
        self._transition: TransitionTokens | None = None
        self.template = self.compile(self.prompting.template)
        self._special = {*tokenizer.all_special_ids, *_added_special(tokenizer)}
        self._keeps_prefix: dict[tuple[tuple[str, bool], ...], bool] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(Renderer, date=self.date, max_length=self.max_length, aim=self.aim)
        return made, (BareTokenizer.of(self.tokenizer), self.prompting)

    def compile(self, text: str | None) -> ChatTemplate:
        """A chat template for this tokenizer; None: its own.

        Raises:
            ModelError: there is none.
        """
        text = text or self.tokenizer.chat_template
        if not text:
            raise ModelError(
                "The tokenizer has no chat template. Name one with `prompting.train.template` and "
                "`prompting.serve.template` (a name from `holdfast list templates`, or a file)."
            )
        tokens = {k: v for k, v in self.tokenizer.special_tokens_map.items() if isinstance(v, str)}
        text = own_template(text)  # a served one would put its prompting in a second time
        return ChatTemplate(text, tokens=tokens, args=self.prompting.template_args, date=self.date)

    # --- prompts ------------------------------------------------------------------------------

    def prompt_text(self, prompt: Prompt) -> str:
        """The exact text a model continues; the system prompt is already in `messages`."""
        if prompt.raw:
            return prompt.messages[-1].content + prompt.prefill
        return self.template.render(prompt.messages, reply_next=True) + prompt.prefill

    def prompt_ids(self, text: str, *, raw: bool = False) -> list[int]:
        """Token ids of a rendered prompt; only raw text gets the tokenizer's own BOS."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=raw)["input_ids"]
        return ids

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end a reply: EOS and the token the template puts after one."""
        mark = SENTINEL.format(1)
        text = self.template.render([Message.of("user", "x"), Message.of("assistant", mark)])
        after = text.rpartition(mark)[2]
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        stop = next((i for i in ids if i in self._special), None)
        return sorted({i for i in (stop, self.tokenizer.eos_token_id) if i is not None})

    # --- rows ---------------------------------------------------------------------------------

    def rows(
        self, conversations: Iterable[Conversation], tally: Tally | None = None, *, batch: int = 512
    ) -> Iterator[Rendered]:
        """Render training rows in batches, in order; what cannot be trained goes to the tally."""
        tally = tally if tally is not None else Tally()
        source = iter(conversations)
        while chunk := list(islice(source, batch)):
            texts = [piece for row in chunk for piece in self._texts(row, tally)]
            yield from self._tokenise(texts, tally)

    def replies(self, conversation: Conversation) -> tuple[str, list[Reply]]:
        """Text of a conversation, and where its replies stand.

        Raises:
            ModelError: the template drops or rewrites a reply beyond surrounding white space.
        """
        messages: Sequence[Message] = self.prompting.apply(conversation.messages)
        tools = conversation.tools
        text = self.template.render(messages, tools=tools)
        skeleton = self.template.render(_with_sentinels(messages), tools=tools)
        return text, _match(text, skeleton, [m for m in messages if m.role == "assistant"])

    def pieces(self, row: Conversation) -> list[Conversation]:
        """The row itself, or one row per reply where the template rewrites earlier turns."""
        return [row] if self._trains_whole(row) else list(one_per_reply(row))

    def _texts(
        self, row: Conversation, tally: Tally
    ) -> Iterator[tuple[Conversation, str, list[Reply]]]:
        try:
            tally.pairs += is_pair(row)
            row = chosen(row)
            pieces = self.pieces(row)
            tally.split += pieces != [row]
            for piece in pieces:
                yield (piece, *self.replies(piece))
        except ModelError as error:
            if not tally.rows and len(tally.dropped) >= _HOPELESS:
                raise
            tally.dropped.append(Dropped(row.id, row.source, str(error), preview=row.request[:120]))

    def _trains_whole(self, row: Conversation) -> bool:
        if sum(m.role == "assistant" for m in row.messages) <= 1:
            return True
        shape = tuple((m.role, _REASONED in m.content) for m in row.messages)
        if shape not in self._keeps_prefix:
            probe = [
                Message.of(role, f"<think>\nso\n{_REASONED}\n\n" * reasoned + f"probe {i}")
                for i, (role, reasoned) in enumerate(shape)
            ]
            self._keeps_prefix[shape] = self.template.preserves_prefix(probe)
        return self._keeps_prefix[shape]

    def _tokenise(
        self, texts: Sequence[tuple[Conversation, str, list[Reply]]], tally: Tally
    ) -> Iterator[Rendered]:
        if not texts:
            return
        tokenizer = self.tokenizer.backend_tokenizer  # without the other columns, a third faster
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encoded = tokenizer.encode_batch([text for _, text, _ in texts], add_special_tokens=False)
        for (row, text, replies), encoding in zip(texts, encoded, strict=True):
            ids = encoding.ids
            ends = _Ends(encoding, len(ids))
            tokens = _Tokens(row, text, replies, ids, ends, [IGNORE] * len(ids))
            self._label(tokens)
            rendered = self._finish(tokens, tally)
            if rendered is not None:
                yield rendered

    def _label(self, tokens: _Tokens) -> None:
        for reply in tokens.replies:
            for span in reply.spans:
                low = bisect.bisect_right(tokens.ends, span.start)
                high = bisect.bisect_right(tokens.ends, span.end, low)
                if span.loss == "mle":
                    tokens.labels[low:high] = tokens.ids[low:high]
                else:
                    self._aim_at_refusal(tokens, low, high, span.start)
            if reply.stop != "none":
                self._train_stop(tokens, reply)

    def _aim_at_refusal(self, tokens: _Tokens, low: int, high: int, start: int) -> None:
        targets = self._refusal_tokens()
        for i in range(low, high):
            before = tokens.ends[i - 1] if i else 0
            opens_unspaced = i == low and before >= start
            left = "" if opens_unspaced else tokens.text[max(0, before - 2) : before]
            tokens.labels[i] = targets.at(left)
            tokens.aimed.append(i)

    def _train_stop(self, tokens: _Tokens, reply: Reply) -> None:
        """The stop token after a reply: itself as target, or the refusal on a transition row."""
        stop = bisect.bisect_right(tokens.ends, reply.end)
        while stop < len(tokens.ids) and tokens.ids[stop] not in self._special:
            if tokens.text[reply.end : tokens.ends[stop]].strip():
                return  # the template goes on with other text: it has no stop token here
            stop += 1
        if stop == len(tokens.ids):
            if self.tokenizer.eos_token_id is None:
                return
            tokens.ids.append(self.tokenizer.eos_token_id)
            tokens.labels.append(IGNORE)
            tokens.ends.append(len(tokens.text))
        if reply.stop == "mle":
            tokens.labels[stop] = tokens.ids[stop]
        elif self.aim.end:
            tokens.labels[stop] = self._refusal_tokens().at(tokens.text[: reply.end][-2:])
            tokens.aimed.append(stop)

    def _finish(self, tokens: _Tokens, tally: Tally) -> Rendered | None:
        """Cut to length, count, and drop a row with nothing left to learn."""
        row, ids, labels = tokens.row, tokens.ids, tokens.labels
        if self.max_length is not None and len(ids) > self.max_length:
            ids, labels = ids[: self.max_length], labels[: self.max_length]
            tally.truncated += 1
        aimed = {i for i in tokens.aimed if i < len(ids)}
        kept = self.aim.kept(aimed, tokens.text)
        for i in aimed - kept:
            labels[i] = IGNORE
        targets = len(labels) - 1 - labels[1:].count(IGNORE)
        if not targets:
            reason = f"no target left within {self.max_length} tokens (the prompt is too long)"
            tally.dropped.append(Dropped(row.id, row.source, reason, preview=tokens.text[:120]))
            return None
        tally.rows += 1
        tally.tokens += len(ids)
        for kind, count in (("mle", targets - len(kept)), ("transition", len(kept))):
            if count:
                tally.targets[f"{row.source}/{kind}"] += count
        return Rendered(row.id, row.source, tuple(ids), tuple(labels))

    def _refusal_tokens(self) -> TransitionTokens:
        if self._transition is None:
            self._transition = transition_tokens(
                self.tokenizer, self.aim.refusal, constant=self.aim.constant
            )
        return self._transition


def _added_special(tokenizer: Any) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def _with_sentinels(messages: Sequence[Message]) -> list[Message]:
    result, number = [], 0
    for message in messages:
        if message.role == "assistant":
            text = SENTINEL.format(number)
            result.append(Message(message.role, Message.of("user", text).segments, message.extra))
            number += 1
        else:
            result.append(message)
    return result


def one_per_reply(row: Conversation) -> Iterator[Conversation]:
    """The conversation up to each reply with a loss, earlier replies without one."""
    number = 0
    for i, message in enumerate(row.messages):
        if message.role == "assistant" and any(s.loss != "none" for s in message.segments):
            earlier = (
                Message.of(m.role, m.content, "none") if m.role == "assistant" else m
                for m in row.messages[:i]
            )
            yield replace(row, id=f"{row.id}#{number}", messages=(*earlier, message))
            number += 1


def _match(text: str, skeleton: str, replies: Sequence[Message]) -> list[Reply]:
    """Where each reply stands in `text`, or a ModelError."""
    pieces = _SENTINELS.split(skeleton)  # fixed, number, fixed, number, …, fixed
    fixed = pieces[0::2]
    if [int(n) for n in pieces[1::2]] != list(range(len(replies))):
        raise ModelError(
            "The chat template drops or repeats a reply. Training on it would train on the wrong "
            "text; name another template with `prompting.train.template`."
        )
    found: list[Reply] = []
    cursor = 0
    for number, reply in enumerate(replies):
        before = fixed[number]
        if _REASONED in reply.content:
            before = _NO_REASONING.sub("", before)  # written only where the reply has none itself
        start = _after_fixed(text, before, cursor)
        scored = any(segment.loss != "none" for segment in reply.segments)
        cursor = _reply_end(text, reply.content, start, fixed[number + 1], scored=scored)
        spans = tuple(_segment_spans(text, reply, start, cursor))
        stop = reply.segments[-1].loss if reply.segments else "none"
        found.append(Reply(cursor, spans, stop if spans else "none"))
    if text[cursor:].strip() != fixed[-1].strip():
        raise _rewrites(replies[-1].content if replies else text)
    return found


def _after_fixed(text: str, fixed: str, cursor: int) -> int:
    """Position after the template's own words, which stand at `cursor` up to white space."""
    for words in (fixed, fixed.rstrip()):
        if text.startswith(words, cursor):
            return cursor + len(words)
    start = _skip_space(text, cursor)
    if text.startswith(fixed.strip(), start):
        return start + len(fixed.strip())
    raise _rewrites(text[cursor : cursor + 80])


def _reply_end(text: str, content: str, start: int, after: str, *, scored: bool) -> int:
    """End of the reply that starts at `start`: its characters are all there, in order.

    Of an earlier reply without loss a template may leave the reasoning out, as Qwen3's does.
    """
    stripped = content.strip()
    lead = _skip_space(text, start)
    if text.startswith(stripped, lead):
        return lead + len(stripped)
    if _REASONED in content and after.strip():
        # Templates set white space around a reasoning block; nothing else may differ.
        end = text.find(after.rstrip(), start)
        kept = (content.split(), content.rpartition(_REASONED)[2].split() if not scored else None)
        if end >= 0 and text[start:end].split() in kept:
            return end
    raise _rewrites(content)


def _segment_spans(text: str, reply: Message, start: int, end: int) -> Iterator[Span]:
    """Segments of a reply mapped onto the rendered characters, counted without white space."""
    if len(reply.segments) == 1:
        inside = text[start:end].strip()
        if inside and reply.segments[0].loss != "none":
            first = _skip_space(text, start)
            yield Span(first, first + len(inside), reply.segments[0].loss)
        return
    places = [i for i in range(start, end) if not text[i].isspace()]
    seen = 0
    for segment in reply.segments:
        length = sum(not c.isspace() for c in segment.text)
        if length and segment.loss != "none":
            first = places[seen - 1] + 1 if seen else places[0]
            yield Span(first, places[seen + length - 1] + 1, segment.loss)
        seen += length


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _rewrites(reply: str) -> ModelError:
    return ModelError(
        f"The chat template changes a reply beyond white space around it (near {reply[:60]!r}). "
        "Labels would fall on the wrong tokens; name another template with "
        "`prompting.train.template`, or correct this one."
    )
