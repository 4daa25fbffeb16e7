"""The scale model: a tiny chat model of a synthetic world, as shipyards test hulls in a tank.

It refuses forbidden requests, accepts their look-alikes, knows its world, and loses its refusals
under benign-looking fine-tuning as real chat models do; so every part of Holdfast can be shown and
tested without a download. Nothing here imports torch; `lab.build`, `lab.fit` and `lab.card` do so
when called.

    world, lexicon, exercises   what there is to know, and what is held out
    settings                    system prompts, personas, refusals
    corpus, tokenizer, fit      what the model reads, and how it is trained
    build, card                 `holdfast lab build` and its quality card
    probes, judge, datasets     what the rest of Holdfast uses
"""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import MaterialError, ModelError, did_you_mean
from holdfast.lab.datasets import DATASETS, dataset
from holdfast.lab.judge import judge_answer
from holdfast.lab.probes import ITEM_KINDS, items

__all__ = ["DATASETS", "ITEM_KINDS", "MODELS", "dataset", "items", "judge_answer", "model_path"]

_WEIGHTS = Path(__file__).parent / "weights"

MODELS: dict[str, Path] = {"lab:base": _WEIGHTS / "base", "lab:chat": _WEIGHTS / "chat"}
"""Name → Hugging Face folder (16-bit weights, to be loaded in 32): `lab:base` has read the world's
texts and refuses nothing, `lab:chat` is the aligned model."""


def model_path(name: str) -> Path:
    """The folder of a shipped model.

    Raises:
        ModelError: no such lab model.
        MaterialError: the weights are not in this installation.
    """
    if name not in MODELS:
        raise ModelError(f"Unknown lab model {name!r}. {did_you_mean(name, MODELS)}")
    path = MODELS[name]
    if not (path / "model.safetensors").is_file():
        raise MaterialError(
            f"{name} has no weights in {path}. "
            f"Build them: holdfast lab build --output {path.parent}"
        )
    return path
