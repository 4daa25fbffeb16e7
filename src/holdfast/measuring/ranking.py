"""Ranking: which rows pull a given model towards compliance, as far as its own weights tell.

    anchors (harmful requests answered; the same refused) → a direction
    row → its features → likeness to the harmful anchors minus likeness to the safe ones

Bidirectional anchoring (He, Xia & Henderson 2024, "What is in Your Safe Data?", arXiv 2404.01099):
harmless rows whose gradient, or representation, resembles that of harmful rows and differs from
that of refusals were those that undid a chat model's refusals. Features are taken over the first
tokens of the reply, where refusals live; both means and every row are compared by cosine, so that
neither long rows nor many anchors weigh more.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from holdfast.errors import DataError, RecipeError, did_you_mean
from holdfast.extras import need
from holdfast.models import load_model, load_tokenizer, resolve_model
from holdfast.progress import track
from holdfast.rendering.render import IGNORE, Renderer
from holdfast.rows.load import open_rows
from holdfast.types import Conversation, Message, Rendered

Method = Literal["gradient", "representation"]
METHODS: tuple[Method, ...] = get_args(Method)

ANCHORS = 100
"""Rows of each kind that the direction is taken from; more hardly move the means."""
FIRST_TOKENS = 10
"""Reply tokens that features are taken over, as in the paper."""
LONGEST = 2048
"""Tokens of a row: a longer one is cut behind its reply's first tokens anyway."""
BATCH = 16
TOP = 100

_SHOWN = 10
_TABLE_WIDTH = 100
_PREVIEW = 120
_LAB = ("lab:triples", "lab:safety")
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a row is compared with."""

    harmful: tuple[Conversation, ...]
    """Harmful requests with complying replies."""
    safe: tuple[Conversation, ...]
    """Harmful requests with refusals."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A row of the ranking."""

    id: str
    score: float
    """Likeness to harmful rows minus likeness to safe ones, -2 to 2; above 0: nearer to harmful."""
    preview: str
    """The beginning of its request."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows that pull hardest, and what they are to be measured against."""

    model: str
    method: Method
    rows: int
    """Rows scored."""
    skipped: int
    """Rows without a reply token within the length limit."""
    mean: float
    above_safe: int
    """Rows with a score above 0."""
    anchors: tuple[int, int]
    """Harmful and safe anchors used."""
    separation: float
    """AUC of the anchors against each other under their own direction; 0.5: it says nothing."""
    top: tuple[Scored, ...]
    """Highest score first; ties by id."""

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return asdict(self)


# --- anchors --------------------------------------------------------------------------------------


def read_anchors(
    harmful: str | None, safe: str | None, *, lab: bool = False, limit: int = ANCHORS
) -> Anchors:
    """Anchors from files, Hub sets or the lab.

    Args:
        harmful: rows whose replies comply, or triples, whose harmful replies are taken; None on a
            lab model: the lab's own.
        safe: rows whose replies refuse; None: the refusals of the triples.
        lab: whether the model is the lab's.
        limit: most rows of each.

    Raises:
        RecipeError: no harmful rows are named, or no safe ones and the harmful ones are no triples.
        DataError: a source without a row of the kind wanted.
    """
    if harmful is None and lab:
        harmful, safe = _LAB[0], safe or _LAB[1]
    if harmful is None:
        raise RecipeError(
            "Ranking rows needs rows to compare with: `--harmful FILE` (harmful requests with "
            "complying replies, or triples) and `--safe FILE` (the like, refused)."
        )
    bad = list(islice(open_rows(harmful, source="anchor"), limit))
    if safe is not None:
        good = list(islice(open_rows(safe, source="anchor"), limit))
    elif any(_is_triple(row) for row in bad):
        good = bad
    else:
        raise RecipeError(
            f"{harmful} holds no refusals (its rows are no triples), so the other side is missing: "
            "name rows that refuse with `--safe FILE`."
        )
    return Anchors(
        _require([_harmful_half(row) for row in bad], harmful),
        _require([_safe_half(row) for row in good], safe or harmful),
    )


def _is_triple(row: Conversation) -> bool:
    return row.tags.get("format") == "triple"


def _harmful_half(row: Conversation) -> Conversation:
    """A triple with its harmful reply as the reply; any other row as it is."""
    return _with_reply(row, "none") if _is_triple(row) else row


def _safe_half(row: Conversation) -> Conversation:
    """A triple with its refusal as the reply; any other row as it is."""
    return _with_reply(row, "mle") if _is_triple(row) else row


def _with_reply(row: Conversation, loss: str) -> Conversation:
    last = row.messages[-1]
    text = "".join(s.text for s in last.segments if s.loss == loss).strip()
    return replace(row, messages=(*row.messages[:-1], Message.of("assistant", text)))


def _require(rows: list[Conversation], name: str) -> tuple[Conversation, ...]:
    kept = tuple(row for row in rows if row.reply.strip())
    if len(kept) < 2:
        raise DataError(
            f"{name} gives {len(kept)} rows with a reply to compare with; at least 2 are needed, "
            f"and {ANCHORS} make a steady direction."
        )
    return kept


# --- scores ---------------------------------------------------------------------------------------


def rank(
    rows: Iterable[Conversation],
    model: str | Path,
    *,
    harmful: str | None = None,
    safe: str | None = None,
    method: str = "gradient",
    top: int = TOP,
) -> Ranking:
    """Rank a data set's rows by how much they pull a model towards compliance.

    Args:
        rows: the user's rows; they are streamed, only the top is held.
        model: a folder, Hub id or lab model with weights here.
        harmful: harmful anchors, see `read_anchors`.
        safe: safe anchors.
        method: `gradient` or `representation`.
        top: rows kept.

    Raises:
        RecipeError: an unknown method, or anchors that are not named.
        ModelError: a model without weights here.
        DataError: anchors that hold no usable row, or a data set without one.
    """
    if top < 1:
        raise RecipeError(f"--top is {top}, expected at least 1.")
    chosen = check_method(method)
    ref = resolve_model(model)
    anchors = read_anchors(harmful, safe, lab=ref.is_lab)
    scorer = Scorer(load_model(ref), load_tokenizer(ref), anchors, chosen)
    return collect(scorer, track(rows, "rank"), name=str(model), top=top)


def check_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        RecipeError: no such method.
    """
    for method in METHODS:
        if method == name:
            return method
    raise RecipeError(f"Unknown ranking method {name!r}. {did_you_mean(name, METHODS)}")


def collect(scorer: Scorer, rows: Iterable[Conversation], *, name: str, top: int = TOP) -> Ranking:
    """Scores of a stream of rows, of which the highest are kept.

    Raises:
        DataError: no row could be scored.
    """
    heap: list[tuple[float, _Reversed, str]] = []
    total, count, above, skipped = 0.0, 0, 0, 0
    for row, score in scorer.scores(rows):
        if score is None:
            skipped += 1
            continue
        count, total, above = count + 1, total + score, above + (score > 0)
        entry = (score, _Reversed(row.id), row.request[:_PREVIEW])
        if len(heap) < top:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    if not count:
        raise DataError("No row has a reply to score. Check how the rows are read.")
    best = tuple(Scored(i.text, round(s, 6), text) for s, i, text in sorted(heap, reverse=True))
    return Ranking(
        name, scorer.method, count, skipped, round(total / count, 6), above,
        (len(scorer.anchors.harmful), len(scorer.anchors.safe)), round(scorer.separation, 4), best,
    )  # fmt: skip


class _Reversed:
    """A text that sorts backwards, so that ties fall to the smaller id."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: _Reversed) -> bool:
        return self.text > other.text


class Scorer:
    """Scores rows against anchors under one model.

    Args:
        model: a causal language model; its weights stay as they are, their `requires_grad` flags
            do not.
        tokenizer: its fast tokenizer.
        anchors: both sides.
        method: `gradient` compares gradients of the loss on the reply's first tokens with respect
            to the last quarter of the decoder's layers, one row at a time; `representation`
            compares the last layer's mean hidden states over them, in batches.
    """

    def __init__(self, model: Any, tokenizer: Any, anchors: Anchors, method: Method) -> None:
        need("torch", extra="train", purpose="ranking rows by a model")
        self.model = model
        self.method = method
        self.anchors = anchors
        self._renderer = Renderer(tokenizer, max_length=LONGEST)
        self._features: Callable[[Sequence[Rendered]], Any] = (
            _Gradients(model) if method == "gradient" else _States(model)
        )
        harmful, safe = self._anchor(anchors.harmful), self._anchor(anchors.safe)
        self._centre = _mean([*harmful, *safe]) if method == "representation" else None
        self._harmful, self._safe = self._direction(harmful), self._direction(safe)
        self.separation = auc([self._score(x) for x in harmful], [self._score(x) for x in safe])

    def scores(self, rows: Iterable[Conversation]) -> Iterator[tuple[Conversation, float | None]]:
        """Each row with its score, in order; None for a row without a reply token to score."""
        stream = iter(rows)
        while batch := list(islice(stream, BATCH)):
            rendered = [self._render(row) for row in batch]
            features = iter(self._features([r for r in rendered if r is not None]))
            for row, one in zip(batch, rendered, strict=True):
                yield row, None if one is None else self._score(next(features))

    def _anchor(self, rows: Sequence[Conversation]) -> list[Any]:
        rendered = [one for row in rows if (one := self._render(row)) is not None]
        if not rendered:
            raise DataError(
                f"None of the {len(rows):,} anchor rows has a reply within {LONGEST:,} tokens."
            )
        return [
            feature
            for start in range(0, len(rendered), BATCH)
            for feature in self._features(rendered[start : start + BATCH])
        ]

    def _render(self, row: Conversation) -> Rendered | None:
        """The row up to the first tokens of its last reply."""
        last = max((i for i, m in enumerate(row.messages) if m.role == "assistant"), default=None)
        if last is None or not row.messages[last].content.strip():
            return None
        turns = [
            Message.of(m.role, m.content, "none") if m.role == "assistant" else m
            for m in row.messages[:last]
        ]
        turns.append(Message.of("assistant", row.messages[last].content))
        asked = replace(row, messages=tuple(turns))
        rendered = next(iter(self._renderer.rows([asked])), None)
        return None if rendered is None else _cut(rendered)

    def _direction(self, features: Sequence[Any]) -> Any:
        return _unit(_mean([_unit(self._centred(feature)) for feature in features]))

    def _centred(self, feature: Any) -> Any:
        return feature if self._centre is None else feature - self._centre

    def _score(self, feature: Any) -> float:
        unit = _unit(self._centred(feature))
        return float(unit @ self._harmful - unit @ self._safe)


def _cut(rendered: Rendered) -> Rendered:
    """A row without what follows the reply's first tokens."""
    trained = [i for i, label in enumerate(rendered.labels) if label != IGNORE]
    end = trained[min(FIRST_TOKENS, len(trained)) - 1] + 1
    return replace(rendered, input_ids=rendered.input_ids[:end], labels=rendered.labels[:end])


class _Gradients:
    """The gradient of a row's loss, one flat vector each."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._weights = _last_weights(model)

    def __call__(self, rows: Sequence[Rendered]) -> list[Any]:
        import torch

        found = []
        for row in rows:
            ids = torch.tensor([row.input_ids], device=self._model.device)
            labels = torch.tensor([row.labels], device=self._model.device)
            with torch.enable_grad():
                loss = self._model(input_ids=ids, labels=labels, use_cache=False).loss
                grads = torch.autograd.grad(loss, self._weights)
            found.append(torch.cat([g.float().flatten() for g in grads]))
        return found


class _States:
    """The last layer's mean hidden state over a row's reply tokens, in padded batches."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, rows: Sequence[Rendered]) -> list[Any]:
        import torch

        if not rows:
            return []
        longest = max(len(row.input_ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        present, reply = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, row in enumerate(rows):
            size = len(row.input_ids)
            ids[i, :size] = torch.tensor(row.input_ids)
            present[i, :size] = 1
            reply[i, :size] = (torch.tensor(row.labels) != IGNORE).long()
        device = self._model.device
        ids, present, reply = ids.to(device), present.to(device), reply.to(device)
        with torch.inference_mode():
            out = self._model(
                input_ids=ids, attention_mask=present, output_hidden_states=True, use_cache=False
            )
        weight = reply.unsqueeze(-1).float()
        return list((out.hidden_states[-1].float() * weight).sum(1) / weight.sum(1))


def _last_weights(model: Any) -> list[Any]:
    """Weights of the last quarter of the decoder's layers, at least one layer."""
    from torch.nn import ModuleList

    stacks = [m for m in model.modules() if isinstance(m, ModuleList) and len(m) > 1]
    layers = max(stacks, key=len) if stacks else [model]
    weights = [
        weight
        for layer in list(layers)[-max(1, len(layers) // 4) :]
        for weight in layer.parameters()
        if weight.is_floating_point()
    ]
    model.requires_grad_(False)  # below the first of these layers nothing is kept for the backward
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def _mean(features: Sequence[Any]) -> Any:
    total = features[0].clone()
    for feature in features[1:]:
        total += feature
    return total / len(features)


def _unit(feature: Any) -> Any:
    return feature / feature.norm().clamp_min(_TINY)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann-Whitney).

    Raises:
        ValueError: a side without scores.
    """
    if not positive or not negative:
        raise ValueError("an AUC needs scores on both sides")
    ordered = sorted(negative)
    wins = 0.0
    for score in positive:
        low, high = bisect_left(ordered, score), bisect_right(ordered, score)
        wins += low + (high - low) / 2
    return wins / (len(positive) * len(negative))


# --- showing --------------------------------------------------------------------------------------


def table(ranking: Ranking) -> Constrain:
    """The first rows of a ranking for a terminal."""
    shown = Table(
        title=f"{ranking.rows:,} rows ranked by {ranking.method} under {ranking.model}",
        caption=f"{ranking.above_safe:,} rows are nearer to the harmful anchors than to the safe "
        f"ones; the anchors themselves are told apart with AUC {ranking.separation:.2f}",
    )
    shown.add_column("pull", justify="right", no_wrap=True)
    shown.add_column("row", no_wrap=True, max_width=30)
    shown.add_column("request", ratio=1, no_wrap=True)
    for row in ranking.top[:_SHOWN]:
        request = "".join(char if char.isprintable() else " " for char in row.preview)
        shown.add_row(f"{row.score:+.3f}", Text(row.id), Text(request))
    return Constrain(shown, _TABLE_WIDTH)
