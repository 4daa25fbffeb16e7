"""Verify: a model folder against its contract, and a server that is named against it too."""

from __future__ import annotations

from pathlib import Path

from holdfast.contract.check import Check
from holdfast.contract.endpoint import TIMEOUT, check_endpoint
from holdfast.contract.folder import check_folder
from holdfast.contract.terms import read_contract
from holdfast.endpoint import Address
from holdfast.errors import RecipeError


def verify(
    folder: Path, url: str | None = None, model: str | None = None, *, timeout: float = TIMEOUT
) -> list[Check]:
    """Every check there is to make; `overall` sums them up.

    Args:
        folder: a tuned model's, merged or adapter.
        url: base URL of an OpenAI-compatible server; None: the folder alone.
        model: the model's name there.
        timeout: seconds each request may take.

    Raises:
        RecipeError: a server without the model's name, or a name without a server.
        ModelError: a folder without a readable contract, or a server that answers no chat.
    """
    address = _address(url, model)
    contract = read_contract(folder)
    checks = check_folder(folder, contract)
    if address is not None:
        checks += check_endpoint(folder, contract, address, timeout=timeout)
    return checks


def _address(url: str | None, model: str | None) -> Address | None:
    if url is None and model is None:
        return None
    if url is None or not model:
        raise RecipeError(
            "Give a server and the model's name there: "
            "--endpoint http://localhost:8000/v1 --model NAME."
        )
    address = Address.parse(f"{url}#{model}")
    if address is None:
        raise RecipeError(f"{url!r} is no address of a server: write http://HOST:PORT/v1.")
    return address
