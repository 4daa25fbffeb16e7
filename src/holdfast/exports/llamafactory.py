"""LLaMA-Factory: rows as a tokenized dataset, or in its ShareGPT form.

`llamafactory` is what `tokenized_path` reads: a dataset as the package `datasets` saves it, with
the labels made here. `llamafactory-sharegpt` has one row for each reply with a loss, since
`mask_history` learns the last turn of a row and no other; its template is read from the model's
tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast.exports import EVERYTHING, EXPORTS, TEMPLATE, Export, write_config
from holdfast.exports._material import Material, Split
from holdfast.extras import need
from holdfast.files import (
    make_folder,
    sha256_file,
    storage_errors,
    write_json,
    write_jsonl,
    write_text,
)
from holdfast.recipe import TuningSettings
from holdfast.types import Conversation

VERSION = "LLaMA-Factory 0.9.5"
CONFIG = "llamafactory.yaml"
START = f"llamafactory-cli train {CONFIG}"
NAME = "holdfast"
"""What the data set is called in `dataset_info.json`."""
TOKENIZED = "tokenized"
_COLUMNS = ("input_ids", "attention_mask", "labels")
_ARROW = "data-00000-of-00001.arrow"
_BATCH = 1000
"""Rows in memory at a time."""


@EXPORTS.register("llamafactory")
def llamafactory() -> Export:
    """LLaMA-Factory, as a tokenized dataset: token ids and labels."""
    return Export(VERSION, EVERYTHING, write_token_ids, START)


@EXPORTS.register("llamafactory-sharegpt")
def llamafactory_sharegpt() -> Export:
    """LLaMA-Factory, as ShareGPT rows: messages."""
    lacks = {"masked prefix", "transition targets", "tools", "irregular turns", "chat template"}
    return Export(VERSION, EVERYTHING - lacks, write_sharegpt, START, rows=replies)


def replies(material: Material) -> Iterator[Conversation]:
    """The rows, each ending in the reply that it teaches."""
    for split in material.splits:
        yield from material.texts(split, per_reply=True)


# --- token ids ------------------------------------------------------------------------------------


def write_token_ids(material: Material, to: Path) -> Mapping[Split, int]:
    """`tokenized/`, as `datasets.DatasetDict.save_to_disk` writes it.

    Raises:
        MaterialError: pyarrow is missing.
    """
    need("pyarrow", extra="parquet", purpose="writing a tokenized dataset")
    rows = {split: _write_split(material, split, to / TOKENIZED) for split in material.splits}
    write_json(to / TOKENIZED / "dataset_dict.json", {"splits": list(rows)})
    write_text(to / TEMPLATE, material.template)
    # The data set's name is asked for and not looked up; the template `empty` adds no token.
    form = {"dataset": NAME, "template": "empty", "tokenized_path": TOKENIZED}
    write_config(to / CONFIG, settings(material, form))
    return rows


def _write_split(material: Material, split: Split, to: Path) -> int:
    folder = make_folder(to / split)
    rows = material.rendered(split)
    with storage_errors(folder):
        _write_arrow(folder / _ARROW, iter(rows))
    numbers = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"}
    features = {column: numbers for column in _COLUMNS}
    write_json(
        folder / "dataset_info.json",
        {"citation": "", "description": "", "features": features, "homepage": "", "license": ""},
    )
    write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": _ARROW}],
            "_fingerprint": sha256_file(folder / _ARROW)[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        },
    )
    return len(rows)


def _write_arrow(path: Path, rows: Iterator[dict[str, list[int]]]) -> None:
    """An Arrow stream of int32 lists, `_BATCH` rows a record batch."""
    import pyarrow as pa

    schema = pa.schema([(column, pa.list_(pa.int32())) for column in _COLUMNS])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            columns = {
                "input_ids": [row["input_ids"] for row in batch],
                "attention_mask": [[1] * len(row["input_ids"]) for row in batch],
                "labels": [row["labels"] for row in batch],
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))


# --- ShareGPT -------------------------------------------------------------------------------------


def write_sharegpt(material: Material, to: Path) -> Mapping[Split, int]:
    """`SPLIT.jsonl` with `conversations` and `system`, and `dataset_info.json`."""
    rows = {s: write_jsonl(to / f"{s}.jsonl", _shared(material, s)) for s in material.splits}
    names = {split: NAME if split == "train" else f"{NAME}_{split}" for split in rows}
    write_json(
        to / "dataset_info.json", {names[s]: _described(f"{s}.jsonl") for s in material.splits}
    )
    write_text(to / TEMPLATE, material.template)
    form = {"dataset": NAME, "dataset_dir": ".", "mask_history": True}
    if "validation" in names:
        form["eval_dataset"] = names["validation"]
    write_config(to / CONFIG, settings(material, form))
    return rows


def _shared(material: Material, split: Split) -> Iterator[dict[str, Any]]:
    for row in material.texts(split, per_reply=True):
        turns = row.messages if row.system is None else row.messages[1:]
        speakers = {"user": "human", "assistant": "gpt"}
        yield {
            "conversations": [{"from": speakers[m.role], "value": m.content} for m in turns],
            "system": row.system or "",
        }


def _described(file: str) -> dict[str, Any]:
    return {
        "file_name": file,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
        },
    }


# --- configuration --------------------------------------------------------------------------------


def settings(material: Material, form: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration: the recipe's `tuning`, and where the rows lie."""
    tuning = material.tuning
    micro = tuning.micro_batch or tuning.batch
    checked = {} if "validation" not in material.splits else {
        "eval_strategy": "steps", "eval_steps": tuning.save_steps,
    }  # fmt: skip
    warm_up = {} if "warmup_steps" in tuning.args else {"warmup_ratio": 0.03}
    return {
        "model_name_or_path": material.model,
        "stage": "sft",
        "do_train": True,
        **form,
        **_adapter(tuning),
        "cutoff_len": tuning.max_length,
        "output_dir": "model",
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, tuning.batch // micro),
        "learning_rate": tuning.lr,
        "num_train_epochs": tuning.epochs,
        "lr_scheduler_type": "cosine",
        **warm_up,
        "save_steps": tuning.save_steps,
        "bf16": True,
        "seed": material.seed,
        **checked,
        **tuning.args,
    }


def _adapter(tuning: TuningSettings) -> dict[str, Any]:
    if tuning.method == "full":
        return {"finetuning_type": "full"}
    targets = tuning.targets if isinstance(tuning.targets, str) else ",".join(tuning.targets)
    return {
        "finetuning_type": "lora",
        **({"quantization_bit": 4} if tuning.method == "qlora" else {}),
        "lora_rank": tuning.rank,
        "lora_alpha": round(tuning.alpha or 2 * tuning.rank),
        "lora_dropout": tuning.dropout,
        "lora_target": "all" if targets == "all-linear" else targets,
    }
