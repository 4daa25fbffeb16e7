"""What a contract says: the served prompting, and conversations with the text they must become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from holdfast.errors import ModelError
from holdfast.types import Message

CONTRACT = "holdfast-contract.json"

_USER = Message.of("user", "Hello.")
_OWN = Message.of("system", "Answer in one sentence.")
_LATER = (_USER, Message.of("assistant", "Good day."), Message.of("user", "Thank you – 谢谢."))

CASES: Mapping[str, tuple[Message, ...]] = {
    "plain": (_USER,),
    "with_own_system": (_OWN, _USER),
    "plain_two_turns": _LATER,
    "with_own_system_two_turns": (_OWN, *_LATER),
}
"""The conversations a contract is proven on: a caller without and with a system message."""

IN_WORDS = {
    "plain": "no system message",
    "with_own_system": "the caller's own system message",
    "plain_two_turns": "no system message, two turns",
    "with_own_system_two_turns": "the caller's own system message, two turns",
}


class Contract(BaseModel):
    """The contract as stored in `holdfast-contract.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model: str
    """The model that was tuned, as the recipe names it."""
    system: str | None
    """The system prompt that every request carries; None: none."""
    prefix: str = ""
    """Put before the last request."""
    suffix: str = ""
    """Put after the last request."""
    demonstrations: list[dict[str, Any]] = []
    """Turns between the system prompt and the conversation."""
    template_args: dict[str, Any] = {}
    """Variables that the template is pinned to."""
    date: str
    """The date that the template writes, if it writes one."""
    template_digest: str
    """Of the template the measuring was done with."""
    served_digest: str
    """Of the template beside the weights."""
    messages: dict[str, list[dict[str, Any]]]
    """Case → the turns a caller sends."""
    rendered: dict[str, str]
    """Case → the exact text the model was measured on."""
    token_ids: dict[str, list[int]]
    """Case → that text's tokens."""

    @model_validator(mode="after")
    def _whole(self) -> Contract:
        for part in ("messages", "rendered", "token_ids"):
            if lacking := sorted(set(CASES) - set(getattr(self, part))):
                raise ValueError(f"`{part}` has no {lacking[0]!r}")
        for name, turns in CASES.items():
            if self.messages[name] != [turn.to_json() for turn in turns]:
                raise ValueError(f"the conversation {name!r} is not the one contracts are made of")
        return self

    @property
    def injects(self) -> bool:
        """Whether anything is put around a caller's turns."""
        return bool(self.system or self.prefix or self.suffix or self.demonstrations)


def read_contract(folder: Path) -> Contract:
    """The contract beside a model.

    Raises:
        ModelError: there is none, or it cannot be read as one.
    """
    path = folder / CONTRACT
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {CONTRACT}: it was not exported by `holdfast run` or `train`, or the "
            "file was left behind when the folder was copied. Copy it from the run's 5-model/."
        )
    try:
        return Contract.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(
            f"{path} cannot be read as a contract ({where}: {first['msg']}). Restore it from the "
            "run that made the model, or train again."
        ) from None
