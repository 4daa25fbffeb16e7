"""axolotl: rows as token ids with labels, or in its chat format with train flags.

`axolotl` is its pre-tokenized form. `axolotl-chat` says of every turn whether it is learnt, and of
a reply that opens with a masked prefix which characters are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.exports import EVERYTHING, EXPORTS, TEMPLATE, Export, write_config
from holdfast.exports._material import Material, Split
from holdfast.files import write_jsonl, write_text
from holdfast.progress import say
from holdfast.recipe import TuningSettings
from holdfast.types import Conversation, Message

VERSION = "axolotl 0.21"
CONFIG = "axolotl.yaml"
START = f"axolotl train {CONFIG}"
_SAME_ARGS = {
    "lr_scheduler_type": "lr_scheduler",
    "warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_ratio",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "load_best_model_at_end": "load_best_model_at_end",
    "gradient_checkpointing": "gradient_checkpointing",
    "bf16": "bf16",
}
"""`transformers.TrainingArguments` → axolotl's setting of the same meaning."""


@EXPORTS.register("axolotl")
def axolotl() -> Export:
    """The trainer axolotl, as pre-tokenized rows: token ids and labels."""
    return Export(VERSION, EVERYTHING, write_token_ids, START)


@EXPORTS.register("axolotl-chat")
def axolotl_chat() -> Export:
    """The trainer axolotl, as `chat_template` rows: messages with train flags."""
    lacks = {"transition targets", "tools"}
    return Export(VERSION, EVERYTHING - lacks, write_messages, START, rows=texts)


def texts(material: Material) -> Iterator[Conversation]:
    """The rows as whole texts."""
    for split in material.splits:
        yield from material.texts(split)


def write_token_ids(material: Material, to: Path) -> Mapping[Split, int]:
    """`SPLIT.jsonl` with `input_ids`, `attention_mask` and `labels`."""
    rows = {s: write_jsonl(to / f"{s}.jsonl", _masked(material, s)) for s in material.splits}
    write_text(to / TEMPLATE, material.template)
    write_config(to / CONFIG, settings(material, {"type": None}))
    return rows


def write_messages(material: Material, to: Path) -> Mapping[Split, int]:
    """`SPLIT.jsonl` with `messages`, each turn with `train` and `train_detail`."""
    rows = {s: write_jsonl(to / f"{s}.jsonl", _flagged(material, s)) for s in material.splits}
    write_text(to / TEMPLATE, material.template)
    form = {
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "message_field_training": "train",
        "message_field_training_detail": "train_detail",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    stops = [token for token in material.stop_tokens if token != material.eos_token]
    more = {"eot_tokens": stops} if stops else {}
    write_config(to / CONFIG, {**settings(material, form), **more})
    return rows


def _masked(material: Material, split: Split) -> Iterator[dict[str, list[int]]]:
    for row in material.rendered(split):
        mask = [1] * len(row["input_ids"])
        yield {"input_ids": row["input_ids"], "attention_mask": mask, "labels": row["labels"]}


def _flagged(material: Material, split: Split) -> Iterator[dict[str, Any]]:
    for row in material.texts(split):
        material.prove(row)
        yield {"messages": [flagged_turn(message) for message in row.messages]}


def flagged_turn(message: Message) -> dict[str, Any]:
    """A turn with `train` and, by character, `train_detail` (`end_offset` inclusive).

    axolotl reads the detail of a learnt turn only, and takes an empty one for the whole turn. A
    turn that is not learnt has one too: the loader infers the column's type from the first rows,
    where learnt turns alone might all be empty.
    """
    losses = {s.loss for s in message.segments if s.text}
    learnt = "mle" in losses
    whole = losses == {"mle"}
    return {
        "role": message.role,
        "content": message.content,
        "train": learnt,
        "train_detail": [] if whole else list(_parts(message)),
    }


def _parts(message: Message) -> Iterator[dict[str, Any]]:
    start = 0
    for segment in message.segments:
        end = start + len(segment.text)
        if end > start:
            yield {"begin_offset": start, "end_offset": end - 1, "train": segment.loss == "mle"}
        start = end


def settings(material: Material, form: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration: the recipe's `tuning`, and where the rows lie."""
    tuning = material.tuning
    micro = tuning.micro_batch or tuning.batch
    validated = {"path": "validation.jsonl", "ds_type": "json", "split": "train", **form}
    checked = {} if "validation" not in material.splits else {
        "test_datasets": [validated], "eval_steps": tuning.save_steps,
    }  # fmt: skip
    return {
        "base_model": material.model,
        "chat_template": "jinja",
        "chat_template_jinja": TEMPLATE,
        "datasets": [{"path": "train.jsonl", "ds_type": "json", **form}],
        "val_set_size": 0,
        **checked,
        "dataset_prepared_path": "prepared",
        "output_dir": "model",
        "sequence_len": tuning.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        **_adapter(tuning),
        "micro_batch_size": micro,
        "gradient_accumulation_steps": max(1, tuning.batch // micro),
        "num_epochs": tuning.epochs,
        "learning_rate": tuning.lr,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch_fused",
        "warmup_ratio": 0.03,
        "save_steps": tuning.save_steps,
        "bf16": "auto",
        "seed": material.seed,
        **_arguments(tuning),
    }


def _adapter(tuning: TuningSettings) -> dict[str, Any]:
    if tuning.method == "full":
        return {}
    targets: dict[str, Any] = {"lora_target_linear": True}
    if tuning.targets != "all-linear":
        named = [tuning.targets] if isinstance(tuning.targets, str) else list(tuning.targets)
        targets = {"lora_target_modules": named}
    return {
        "adapter": tuning.method,
        **({"load_in_4bit": True} if tuning.method == "qlora" else {}),
        "lora_r": tuning.rank,
        "lora_alpha": round(tuning.alpha or 2 * tuning.rank),
        "lora_dropout": tuning.dropout,
        **targets,
    }


def _arguments(tuning: TuningSettings) -> dict[str, Any]:
    """`tuning.args` under axolotl's names; the others are named to the user."""
    strange = [name for name in tuning.args if name not in _SAME_ARGS]
    if strange:
        say(f"  note: {CONFIG} lacks `tuning.args` {', '.join(strange)}; set them there by hand")
    known = {_SAME_ARGS[k]: v for k, v in tuning.args.items() if k in _SAME_ARGS}
    if "warmup_steps" in known:
        known["warmup_ratio"] = None  # axolotl takes one of the two
    return known
