"""The built-in scale model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from holdfast.commands import app

lab_app = typer.Typer(help="The built-in scale model.", no_args_is_help=True)
app.add_typer(lab_app, name="lab")


@lab_app.command("build")
def lab_build(
    output: Annotated[Path, typer.Option(help="Folder for base/ and chat/.")],
    seed: Annotated[int, typer.Option(help="Seed of the whole build.")] = 0,
) -> None:
    """Make the scale model from nothing; prints its quality card."""
    from holdfast.extras import need

    need("torch", extra="train", purpose="building the lab")
    from holdfast.lab.build import build

    print(json.dumps(build(output, seed=seed), indent=2))


@lab_app.command("card")
def lab_card(
    model: Annotated[str, typer.Argument(help="lab:chat, lab:base or a folder.")] = "lab:chat",
) -> None:
    """Measure a lab model's quality card."""
    from holdfast.lab.card import card
    from holdfast.models import load_model, load_tokenizer, quiet_libraries, resolve_model

    quiet_libraries()
    ref = resolve_model(model)
    print(json.dumps(card(load_model(ref), load_tokenizer(ref)), indent=2))
