"""`holdfast lab build`: makes the scale model from nothing but a seed.

    corpus → tokenizer → pretraining → practice → base → alignment → chat → quality card

The same seed gives the same bytes on one machine with one set of library versions, and the same
quality card, within rounding, elsewhere.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import ModelError
from holdfast.lab import card as quality
from holdfast.lab import corpus
from holdfast.lab.fit import Stage, fit
from holdfast.lab.tokenizer import VOCABULARY, train_tokenizer

PRETRAINING = Stage("pretraining", lr=3e-3)
PRACTICE = Stage("practice", lr=2.5e-3)
ALIGNMENT = Stage("alignment", lr=2e-3, epochs=3)


@dataclass(frozen=True, slots=True)
class Plan:
    """Size and schedule of a build."""

    width: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 344
    vocabulary: int = VOCABULARY
    pretraining: Stage = field(default=PRETRAINING)
    practice: Stage = field(default=PRACTICE)
    alignment: Stage = field(default=ALIGNMENT)
    mix: corpus.Mix = field(default_factory=corpus.Mix)
    scale: float = 1.0
    """Fraction of every ingredient of the corpus."""
    card_limit: int | None = None
    """Items of each kind on the card; None: all."""


def build(
    out: Path, *, seed: int = 0, plan: Plan | None = None, gate: bool = True
) -> dict[str, Any]:
    """Build tokenizer, base and chat model.

    Args:
        out: folder that gets `base/` and `chat/`; replaced only when everything is finished.
        seed: of corpus, initial weights and order of reading.
        plan: size and schedule; the shipped one by default.
        gate: refuse to keep a chat model that misses its goals.

    Returns:
        The chat model's card, as stored in `chat/card.json`.

    Raises:
        ModelError: the chat model misses its goals (named in the message); nothing is written.
    """
    import torch

    plan = plan or Plan()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum's order, and so the weights, must not depend on the machine
    work = out.with_name(f".{out.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    try:
        measured = _build(work, seed, plan)
        if gate and measured["shortfalls"]:
            missed = "; ".join(measured["shortfalls"])
            raise ModelError(f"The built model misses its goals: {missed}. Try another seed.")
        _swap(work, out)
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(work, ignore_errors=True)
    return measured


def _build(work: Path, seed: int, plan: Plan) -> dict[str, Any]:
    say = _speaker()
    rows = corpus.pretraining(seed, scale=plan.scale)
    lessons = corpus.alignment(seed, plan.mix, scale=plan.scale)
    tokenizer = train_tokenizer(_texts([*rows, *lessons]), vocabulary=plan.vocabulary)
    say(f"corpus: {len(rows)} documents, {len(lessons)} alignment rows; {len(tokenizer)} tokens")
    model = _new_model(tokenizer, plan, seed)
    loss = fit(model, tokenizer, rows, plan.pretraining, seed)
    say(f"pretraining: mean loss {loss:.3f}")
    loss = fit(model, tokenizer, corpus.practice(seed, scale=plan.scale), plan.practice, seed)
    say(f"practice: mean loss {loss:.3f}")
    facts = {"seed": seed, "parameters": model.num_parameters(), "practice_loss": round(loss, 4)}
    model = _save(model, tokenizer, work / "base", facts)
    loss = fit(model, tokenizer, lessons, plan.alignment, seed)
    say(f"alignment: mean loss {loss:.3f}")
    facts |= {"alignment_loss": round(loss, 4)}
    model = _save(model, tokenizer, work / "chat", facts)
    measured = facts | quality.card(model, tokenizer, limit=plan.card_limit)
    _write_card(work / "chat", measured)
    say(quality.table(measured))
    say("; ".join(measured["shortfalls"]) or "all goals reached")
    return measured


def _new_model(tokenizer: Any, plan: Plan, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=plan.feed_forward,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _save(model: Any, tokenizer: Any, folder: Path, facts: dict[str, Any]) -> Any:
    """Write a 16-bit folder; returns the model as anyone will load it, rounding included."""
    import torch
    from transformers import AutoModelForCausalLM

    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_card(folder, facts)
    for file in folder.iterdir():
        file.chmod(0o644)
    model.to(torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _write_card(folder: Path, measured: dict[str, Any]) -> None:
    text = json.dumps(measured, indent=1, sort_keys=True) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")


def _swap(work: Path, out: Path) -> None:
    """Put the finished folder in place of the old one."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    work.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _texts(rows: Iterable[corpus.Row]) -> Iterator[str]:
    for row in rows:
        if isinstance(row, corpus.Document):
            yield from (row.prompt, row.reply)
        else:
            yield from (text for _, text in row.turns)
    yield from corpus.spelling()


def _speaker() -> Callable[[str], None]:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    return say
