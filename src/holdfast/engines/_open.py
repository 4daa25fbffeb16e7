"""A model's name → the engine that asks it: a server's client, or the local weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.endpoint import Address
from holdfast.engines import Engine
from holdfast.models import ModelRef, load_model, load_tokenizer, resolve_model
from holdfast.recipe import DATE


def open_engine(
    model: str | Path | ModelRef, kind: str = "transformers", arguments: Sequence[str] = ()
) -> Engine:
    """The engine of a model by reference.

    Args:
        model: a folder, a Hub id, `lab:chat`, `http://HOST:PORT/v1#MODEL` or `openai:MODEL`.
        kind: what answers for local weights: `transformers`, or `vllm`.
        arguments: further words of `vllm serve`.

    Raises:
        ModelError: no such model, or a server that cannot be reached.
        MaterialError: a Hub id that cannot be fetched, or an extra or program that is missing.
    """
    ref = model if isinstance(model, ModelRef) else resolve_model(model)
    if ref.address is not None:
        return served(ref.address)
    return local(ref, kind=kind, arguments=arguments)


@contextmanager
def in_use(engine: Engine) -> Iterator[Engine]:
    """An engine for as long as it is needed: a server that it started ends with that."""
    try:
        yield engine
    finally:
        close = getattr(engine, "close", None)
        if close is not None:
            close()


def served(address: Address, *, cache: Path | None = None, grading: bool = False) -> Engine:
    """A server's client.

    Args:
        address: where the model is.
        cache: folder of replies by content.
        grading: whether it is asked as a judge: then a request without an answer costs itself
            only. Else the server is asked at once what it can, so that a wrong address shows.
    """
    from holdfast.engines.openai import OpenAIEngine

    engine = OpenAIEngine(address, cache=cache, failures="record" if grading else "raise")
    if not grading:
        _ = engine.can
    return engine


def local(
    ref: ModelRef,
    *,
    kind: str = "transformers",
    arguments: Sequence[str] = (),
    tokenizer: Any = None,
    date: str = DATE,
) -> Engine:
    """The engine of local weights.

    Args:
        ref: where they are.
        kind: `transformers`, or `vllm`.
        arguments: further words of `vllm serve`.
        tokenizer: the model's; None: loaded.
        date: that templates may print.
    """
    if kind == "vllm":
        from holdfast.engines.vllm import VLLMEngine

        return VLLMEngine(ref, tokenizer=tokenizer, arguments=arguments, date=date)
    from holdfast.engines.transformers import TransformersEngine

    tokenizer = tokenizer or load_tokenizer(ref)
    return TransformersEngine(load_model(ref), tokenizer, name="transformers", date=date)
