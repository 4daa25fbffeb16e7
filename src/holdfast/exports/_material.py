"""What a prepared run holds for other trainers: rows, prompting, template, settings.

Everything is read as a stream, and nothing of the run is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import DataError, ModelError
from holdfast.files import read_jsonl, read_object
from holdfast.job.mixture import MixtureJob
from holdfast.job.rundir import RunFolder
from holdfast.job.setup import set_up
from holdfast.recipe import TuningSettings, load_recipe
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import one_per_reply
from holdfast.rendering.rendered import RenderedRows
from holdfast.rendering.serving_template import serving_template
from holdfast.stages import prepare
from holdfast.types import Conversation, Message

Split = Literal["train", "validation"]
_FILES: dict[Split, tuple[str, str]] = {
    "train": (prepare.MIXTURE, "3-rendered"),
    "validation": (prepare.VALIDATION, "3-rendered/validation"),
}
"""Split → its rows, and the same rendered."""


class Material:
    """A prepared run folder, as the exports read it."""

    def __init__(self, folder: Path) -> None:
        """Open a run folder.

        Raises:
            DataError: its mixture is not there, or was made under another prompting.
        """
        for name in ("recipe.yaml", "manifest.json", prepare.MIXTURE):
            if not (folder / name).is_file():
                raise _unprepared(folder, name)
        self.folder = folder
        self.manifest = read_object(folder / "manifest.json")
        self._job = MixtureJob(set_up(load_recipe(folder / "recipe.yaml")), RunFolder(folder))
        planned = self.manifest["mixture"]["plan"]["train_system"]
        if planned != self.prompting.system:
            raise DataError(
                f"{folder} was prepared under the training prompt {planned!r}, and its recipe now "
                f"gives {self.prompting.system!r}. Run `holdfast prepare RECIPE` again."
            )

    @property
    def prompting(self) -> Prompting:
        """What stands around a conversation in training."""
        return self._job.plan_without_rows.train

    @property
    def tuning(self) -> TuningSettings:
        """The recipe's training settings."""
        return self._job.recipe.tuning

    @property
    def seed(self) -> int:
        """Of the run."""
        return self._job.recipe.seed

    @property
    def model(self) -> str:
        """The model as any trainer finds it: a Hub id, a folder in full, or its name in an API."""
        ref = self._job.setup.model
        if ref.address is not None:
            return ref.address.model
        return str(ref.path.resolve()) if ref.path else ref.name

    @property
    def splits(self) -> list[Split]:
        """`train`, and `validation` where rows were kept for it."""
        validation = self.manifest["mixture"]["validation"]
        return ["train", "validation"] if validation else ["train"]

    # --- rows ---------------------------------------------------------------------------------

    def conversations(self, split: Split) -> Iterator[Conversation]:
        """All rows of the mixture, the training prompting applied; needs no tokenizer."""
        for row in read_jsonl(self.folder / _FILES[split][0]):
            yield self._prompted(Conversation.from_json(row))

    def texts(self, split: Split, *, per_reply: bool = False) -> Iterator[Conversation]:
        """The rows that were rendered, one for each text that is trained.

        Args:
            split: of the run.
            per_reply: a row for each reply with a loss, in which it stands last.

        Raises:
            DataError: the mixture is not the one that was rendered.
        """
        kept = read_jsonl(self._rendered(split) / "ids.jsonl")
        wanted = next(kept, None)
        for stored in read_jsonl(self.folder / _FILES[split][0]):
            for piece in self._renderer.pieces(Conversation.from_json(stored)):
                if wanted is None or piece.id != wanted["id"]:
                    continue  # dropped when it was rendered
                wanted = next(kept, None)
                for part in one_per_reply(piece) if per_reply else [piece]:
                    yield self._prompted(replace(part, id=piece.id))
        if wanted is not None:
            raise DataError(
                f"{self.folder} has rendered the row {wanted['id']!r}, which its mixture lacks. "
                "Run `holdfast prepare RECIPE` again."
            )

    def rendered(self, split: Split) -> RenderedRows:
        """Token ids and labels, memory-mapped."""
        return RenderedRows.open(self._rendered(split))

    def sources(self, split: Split) -> Counter[str]:
        """Rendered rows per source."""
        return Counter(row["source"] for row in read_jsonl(self._rendered(split) / "ids.jsonl"))

    def _rendered(self, split: Split) -> Path:
        folder = self.folder / _FILES[split][1]
        if not (folder / "ids.jsonl").is_file():
            raise _unprepared(self.folder, _FILES[split][1])
        return folder

    def _prompted(self, row: Conversation) -> Conversation:
        messages = self.prompting.apply(row.messages)
        trained = [i for i, m in enumerate(messages) if m.role == "assistant"]
        return replace(row, messages=messages[: trained[-1] + 1] if trained else messages)

    # --- template -----------------------------------------------------------------------------

    @property
    def own_template(self) -> bool:
        """Whether training uses the model's chat template as it is."""
        return self.prompting.template is None and not self.prompting.template_args

    @cached_property
    def template(self) -> str:
        """The training template for plain messages: arguments, date and system role settled."""
        measured = self._renderer.template
        settled = Prompting(template_args=self.prompting.template_args)
        return serving_template(
            measured.text, settled, system_role=measured.has_system_role, dates=measured.dates
        )

    def prove(self, row: Conversation) -> None:
        """Check that plain messages under `template` read as Holdfast renders the row.

        Raises:
            ModelError: they do not.
        """
        ours = self._renderer.template.render(row.messages, tools=row.tools)
        if self._exported.render(row.messages, tools=row.tools, fold=False) != ours:
            raise ModelError(
                f"The row {row.id!r} reads differently from plain messages under the exported "
                "template. Export token ids instead: trl, axolotl or llamafactory."
            )

    @property
    def stop_tokens(self) -> list[str]:
        """Tokens that end a reply."""
        renderer = self._renderer
        return [renderer.tokenizer.convert_ids_to_tokens(i) for i in renderer.stop_ids]

    @property
    def eos_token(self) -> str | None:
        """The tokenizer's own end token."""
        token: str | None = self._renderer.tokenizer.eos_token
        return token

    @cached_property
    def _exported(self) -> ChatTemplate:
        measured = self._renderer.template
        return ChatTemplate(self.template, tokens=measured.tokens, date="1999-12-31")

    @cached_property
    def _renderer(self) -> Any:
        return self._job.renderer(self.prompting, self.tuning.max_length)


def plain_turn(message: Message) -> dict[str, Any]:
    """`{role, content}` and whatever else the turn carries."""
    return {**message.extra, "role": message.role, "content": message.content}


def _unprepared(folder: Path, name: str) -> DataError:
    return DataError(
        f"{folder} is not a prepared run (no {name}). Run `holdfast prepare RECIPE` first."
    )
