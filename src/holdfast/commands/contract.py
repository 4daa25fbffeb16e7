"""The serving contract: what is served is what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast.commands import app

contract_app = typer.Typer(help="What is served is what was measured.", no_args_is_help=True)
app.add_typer(contract_app, name="contract")


ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL_DIR", help="A tuned model's folder, such as 5-model/.")
]


@contract_app.command("check")
def contract_check(
    model: ModelFolder,
    endpoint: Annotated[
        str | None, typer.Option(help="Also check a server, such as http://localhost:8000/v1.")
    ] = None,
    name: Annotated[str | None, typer.Option("--model", help="The model's name there.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds one request may take.")] = 30,
) -> None:
    """Whether a folder, and a server, give the text that was measured (0, broken 1, hidden 3)."""
    from holdfast.contract.check import overall
    from holdfast.contract.verify import verify

    checks = verify(model, endpoint, name, timeout=timeout)
    outcome = overall(checks)
    for check in checks:
        print(check.line, file=sys.stderr)
    rows = [
        {"where": c.where, "case": c.case, "outcome": c.outcome, "reason": c.reason} for c in checks
    ]
    print(json.dumps({"outcome": outcome, "checks": rows}))
    raise typer.Exit({"HOLDS": 0, "BROKEN": 1, "NOT VERIFIABLE": 3}[outcome])


@contract_app.command("show")
def contract_show(model: ModelFolder) -> None:
    """How to serve the model: the prompting, a vLLM line, a Modelfile, an OpenAI client."""
    from holdfast.contract.howto import serving_page
    from holdfast.contract.terms import read_contract

    print(serving_page(read_contract(model), model, shown_as=str(model)), end="")
