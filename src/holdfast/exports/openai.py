"""OpenAI: messages as JSON lines, as its fine-tuning API takes them.

The provider's template is its own and no token of ours reaches it: a reply is learnt whole, or with
`weight: 0` not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import DataError
from holdfast.exports import EVERYTHING, EXPORTS, Export
from holdfast.exports._material import Material, Split
from holdfast.files import write_json, write_jsonl
from holdfast.stages.hand_over import message_row
from holdfast.types import Conversation

FEWEST = 10
"""Rows that a fine-tuning job needs."""
JOB = "job.json"


@EXPORTS.register("openai")
def openai() -> Export:
    """The OpenAI fine-tuning API, as messages."""
    lacks = {"masked prefix", "transition targets", "chat template"}
    start = f"upload each file with purpose=fine-tune, put their ids into {JOB}, and create the job"
    return Export("OpenAI fine-tuning API (chat format, 2025)", EVERYTHING - lacks, write, start,
                  rows=conversations)  # fmt: skip


def conversations(material: Material) -> Iterator[Conversation]:
    """All rows of the mixture."""
    for split in material.splits:
        yield from material.conversations(split)


def write(material: Material, to: Path) -> Mapping[Split, int]:
    """`SPLIT.jsonl` with `messages`, and the body of the job."""
    rows = {
        split: write_jsonl(to / f"{split}.jsonl", map(message_row, material.conversations(split)))
        for split in material.splits
    }
    if rows["train"] < FEWEST:
        raise DataError(
            f"The OpenAI fine-tuning API takes no fewer than {FEWEST} rows, and the mixture has "
            f"{rows['train']}. Add rows."
        )
    write_json(to / JOB, job(material))
    return rows


def job(material: Material) -> dict[str, Any]:
    """What `POST /v1/fine_tuning/jobs` is sent; file ids are known only after the upload."""
    tuning = material.tuning
    hyper = {"n_epochs": max(1, round(tuning.epochs)), "batch_size": tuning.batch}
    files = {"training_file": "ID OF train.jsonl"}
    if "validation" in material.splits:
        files["validation_file"] = "ID OF validation.jsonl"
    return {
        "model": material.model,
        **files,
        "seed": material.seed,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyper}},
    }
