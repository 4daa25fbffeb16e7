"""A model's name → the engine that asks it: a server's client, or the local weights."""

from __future__ import annotations

from pathlib import Path

from holdfast.endpoint import Address
from holdfast.engines import Engine
from holdfast.models import ModelRef, load_model, load_tokenizer, resolve_model


def open_engine(model: str | Path | ModelRef) -> Engine:
    """The engine of a model by reference.

    Args:
        model: a folder, a Hub id, `lab:chat`, `http://HOST:PORT/v1#MODEL` or `openai:MODEL`.

    Raises:
        ModelError: no such model, or a server that cannot be reached.
        MaterialError: a Hub id that cannot be fetched, or an extra that is missing.
    """
    ref = model if isinstance(model, ModelRef) else resolve_model(model)
    return served(ref.address) if ref.address is not None else local(ref)


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


def local(ref: ModelRef) -> Engine:
    """The engine of local weights."""
    from holdfast.engines.transformers import TransformersEngine

    tokenizer = load_tokenizer(ref)
    return TransformersEngine(load_model(ref), tokenizer, name="transformers")
