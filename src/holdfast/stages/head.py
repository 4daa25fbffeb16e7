"""The loss where a label is, and nowhere else: the model's head skips prompts and padding.

    hidden states → those that a label is predicted from → logits, a slice at a time → summed loss

A causal language model turns every position into logits over the vocabulary; training reads only
those from which a label is predicted. With a vocabulary of 150,000 the rest is most of the work and
nearly all of the memory of a small model. Here the head of a model is given the labelled positions
only and, where nothing stands between head and loss, takes a slice of them at a time: the gradient
of the logits is known once the logits are, so no slice is kept (as in Liger's fused linear
cross-entropy, arXiv 2410.10989). Losses and gradients are those of the model's own loss, but for
rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.rendering.render import IGNORE

SLICE = {"cpu": 2**24, "cuda": 2**27}
"""Logits held at a time, by device: 64 MiB in 32 bits, 512 MiB on a GPU."""


@contextmanager
def labelled_positions_only(model: Any) -> Iterator[str]:
    """While open, `model(input_ids, labels=…)` computes its loss from labelled positions alone.

    Calls without labels, such as generation, are as ever. The `logits` of calls with labels are
    not for reading. A model that is built in another way than `head(hidden states) → logits → loss`
    is left as it is.

    Args:
        model: a causal language model, or an adapter on one.

    Yields:
        `sliced`, `selected` where something stands between head and loss (as Gemma 2's capping of
        logits) or the head is no plain linear map, or `plain` where the model is left as it is.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    scores = _LabelledScores(model, causal, model.get_output_embeddings())
    try:
        yield scores.kind
    finally:
        scores.remove()


class _LabelledScores:
    """The head and the loss of one model, in place of its own."""

    def __init__(self, called: Any, model: Any, head: Any) -> None:
        self.model = model
        self.head = head
        self.labels: Tensor | None = None
        """Of the call that is under way, pre-shifted: (B, T)."""
        self.kind = _kind(model, head)
        if self.kind == "plain":
            return
        self._project = head.forward
        # An adapter calls the forward of its base past the base's hooks.
        self._watch = called.register_forward_pre_hook(self._called, with_kwargs=True)
        head.forward = self._scores
        self._had_loss = getattr(model, "_loss_function", None)
        model.loss_function = self._loss

    def remove(self) -> None:
        """Give the model back as it was."""
        if self.kind == "plain":
            return
        self._watch.remove()
        del self.head.forward
        if self._had_loss is None:
            del self.model._loss_function
        else:
            self.model.loss_function = self._had_loss

    def _called(self, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        labels, shifted = kwargs.get("labels"), kwargs.get("shift_labels")
        if shifted is None and labels is not None:
            shifted = nn.functional.pad(labels, (0, 1), value=IGNORE)[..., 1:]
        self.labels = shifted

    def _scores(self, hidden: Tensor) -> Tensor:
        """Logits (1, K, V) of the labelled positions; sliced, their summed loss as (1, 1, 1)."""
        if self.labels is None:
            return self._project(hidden)  # type: ignore[no-any-return]
        labels = self.labels.reshape(-1)
        at = (labels != IGNORE).nonzero().squeeze(-1)  # (K,)
        picked = hidden.reshape(-1, hidden.shape[-1]).index_select(0, at)  # (K, H)
        self.labels = labels[at]  # (K,)
        if self.kind == "selected":
            return self._project(picked[None])  # type: ignore[no-any-return]
        apply: Callable[..., Tensor] = _SummedLoss.apply
        return apply(picked, self.labels, self.head.weight, self.head.bias).view(1, 1, 1)

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **more: Any,
    ) -> Tensor:
        """Token-mean cross-entropy, or the summed one over `num_items_in_batch`."""
        at = self.labels
        assert at is not None
        self.labels = None
        if self.kind == "selected":
            flat = logits.float().reshape(len(at), -1)
            summed = nn.functional.cross_entropy(flat, at.to(flat.device), reduction="sum")
        else:
            summed = logits.sum()
        return summed / (max(len(at), 1) if num_items_in_batch is None else num_items_in_batch)


class _SummedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear head, with its gradients, a slice of positions at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, weight: Tensor, bias: Any) -> Tensor:
        """Sum over K positions of −log softmax(hidden · weightᵀ + bias)[label].

        Args:
            ctx: holds the gradients.
            hidden: (K, H).
            labels: (K,).
            weight: (V, H).
            bias: (V,) or None.
        """
        wants_hidden, _, wants_weight, wants_bias = ctx.needs_input_grad
        dtype = _compute_dtype(hidden)
        states, matrix = hidden.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        summed = torch.zeros((), dtype=torch.float32, device=hidden.device)
        of_hidden = torch.empty_like(hidden) if wants_hidden else None
        wide = torch.promote_types(weight.dtype, torch.float32)  # sums over slices keep their bits
        of_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else None
        of_bias = torch.zeros_like(bias, dtype=wide) if wants_bias else None
        rows = max(1, SLICE.get(hidden.device.type, SLICE["cuda"]) // len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows):
                part, targets = states[start : start + rows], labels[start : start + rows, None]
                logits = nn.functional.linear(part, matrix, offset)  # (k, V)
                logp = torch.log_softmax(logits, -1, dtype=torch.float32)
                del logits
                summed -= logp.gather(-1, targets).sum()
                if not any(ctx.needs_input_grad):
                    continue
                # The gradient of the logits: probabilities, less one at the label.
                slope = logp.exp_().scatter_add_(-1, targets, -torch.ones_like(targets).to(logp))
                slope = slope.to(dtype)
                if of_hidden is not None:
                    of_hidden[start : start + rows] = slope @ matrix
                if of_weight is not None:
                    _add_product(of_weight, slope.T, part)
                if of_bias is not None:
                    of_bias += slope.sum(0)
        ctx.gradients = (
            of_hidden,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
        )
        return summed

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, scaled; they are given away, so this runs once."""
        scale = scales[0]
        of_hidden, of_weight, of_bias = (
            None if g is None else g.mul_(scale.to(g.dtype)) for g in ctx.gradients
        )
        ctx.gradients = None
        return of_hidden, None, of_weight, of_bias


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """What a linear map computes in at this place: autocast's type, or its input's."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _kind(model: Any, head: Any) -> str:
    """How the labelled positions of a model can be scored; see `labelled_positions_only`."""
    accepts = inspect.signature(model.forward).parameters
    if head is None or "labels" not in accepts or not hasattr(type(model), "loss_function"):
        return "plain"
    told = _probe(model, head)
    if told is None:
        return "plain"
    plain_linear = type(head) is nn.Linear and type(head.weight) in (nn.Parameter, Tensor)
    return "sliced" if told and plain_linear else "selected"


def _probe(model: Any, head: Any) -> bool | None:
    """Whether logits reach the loss as the head gives them; None: they do not at all.

    The model's own `forward` is run with stand-ins for body, head and loss; no weight is touched.
    """
    from transformers.modeling_outputs import MoeModelOutputWithPast

    body = getattr(model, model.base_model_prefix, None)
    if body is None or body is model:
        return None
    hidden = torch.zeros(1, 2, 4)
    given = torch.linspace(-90, 90, 14).view(1, 2, 7)
    seen: list[Tensor] = []

    def loss(logits: Any = None, labels: Any = None, *rest: Any, **more: Any) -> Tensor:
        seen.append(logits)
        return torch.zeros(())

    had_loss = getattr(model, "_loss_function", None)
    own = [(m, m.__dict__.get("forward")) for m in (body, head)]
    body.forward = lambda *a, **k: MoeModelOutputWithPast(last_hidden_state=hidden)
    head.forward = lambda states: given
    model.loss_function = loss
    ids = torch.zeros(1, 2, dtype=torch.long)
    try:
        type(model).forward(model, input_ids=ids, labels=ids)
    except Exception:  # whatever an unknown model makes of stand-ins, it is left as it is
        return None
    finally:
        for module, forward in own:
            if forward is None:
                del module.forward
            else:
                module.forward = forward
        if had_loss is None:
            del model._loss_function
        else:
            model.loss_function = had_loss
    if len(seen) != 1 or seen[0] is None or seen[0].shape != given.shape:
        return None
    return torch.equal(seen[0].float(), given)
