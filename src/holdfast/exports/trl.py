"""TRL: rows for `SFTTrainer`, as token ids with labels or as prompt and completion in messages.

`trl` holds Holdfast's own labels; the trainer takes a `labels` column as it is. `trl-messages` is
TRL's conversational prompt-completion form, a row for each reply with a loss: loss on completions
alone needs no `{% generation %}` marks in the chat template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.exports import EVERYTHING, EXPORTS, TEMPLATE, Export, write_config
from holdfast.exports._material import Material, Split, plain_turn
from holdfast.files import write_jsonl, write_text
from holdfast.recipe import TuningSettings
from holdfast.types import Conversation

VERSION = "TRL 1.16"
DATA = "data"
"""Only rows lie here: the loader takes every file of the folder for rows."""
CONFIG = "sft.yaml"


@EXPORTS.register("trl")
def trl() -> Export:
    """TRL's SFTTrainer, as token ids and labels."""
    return Export(VERSION, EVERYTHING, write_token_ids, f"trl sft --config {CONFIG}")


@EXPORTS.register("trl-messages")
def trl_messages() -> Export:
    """TRL's SFTTrainer, as messages: prompt and completion."""
    lacks = {"masked prefix", "transition targets", "tools"}
    return Export(
        VERSION, EVERYTHING - lacks, write_messages, f"trl sft --config {CONFIG}", rows=texts
    )


def texts(material: Material) -> Iterator[Conversation]:
    """The rows as whole texts."""
    for split in material.splits:
        yield from material.texts(split)


def write_token_ids(material: Material, to: Path) -> Mapping[Split, int]:
    """`data/SPLIT.jsonl` with `input_ids` and `labels`."""
    rows = {s: write_jsonl(to / DATA / f"{s}.jsonl", material.rendered(s)) for s in material.splits}
    _write_settings(material, to, {})
    return rows


def write_messages(material: Material, to: Path) -> Mapping[Split, int]:
    """`data/SPLIT.jsonl` with `prompt` and `completion`, each a list of messages."""
    rows = {
        split: write_jsonl(to / DATA / f"{split}.jsonl", _pairs(material, split))
        for split in material.splits
    }
    _write_settings(material, to, {"completion_only_loss": True})
    return rows


def _pairs(material: Material, split: Split) -> Iterator[dict[str, Any]]:
    for row in material.texts(split, per_reply=True):
        material.prove(row)
        turns = [plain_turn(message) for message in row.messages]
        yield {"prompt": turns[:-1], "completion": turns[-1:]}


def _write_settings(material: Material, to: Path, more: Mapping[str, Any]) -> None:
    write_text(to / TEMPLATE, material.template)
    write_config(to / CONFIG, {**sft_settings(material), **more})


def sft_settings(material: Material) -> dict[str, Any]:
    """`SFTConfig`, `ModelConfig` and `ScriptArguments` that train as `holdfast train` would."""
    tuning = material.tuning
    cut = tuning.max_length
    return {
        "model_name_or_path": material.model,
        "dataset_name": DATA,
        "chat_template_path": TEMPLATE,
        "output_dir": "model",
        "max_length": cut,
        **trainer_arguments(material),
        **_adapter(tuning),
        **_validation(material),
        **tuning.args,
    }


def trainer_arguments(material: Material) -> dict[str, Any]:
    """The `transformers.TrainingArguments` of the recipe."""
    tuning = material.tuning
    micro = tuning.micro_batch or tuning.batch
    return {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, tuning.batch // micro),
        "learning_rate": tuning.lr,
        "num_train_epochs": tuning.epochs,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "save_steps": tuning.save_steps,
        "seed": material.seed,
        "data_seed": material.seed,
    }


def _adapter(tuning: TuningSettings) -> dict[str, Any]:
    if tuning.method == "full":
        return {}
    targets = [tuning.targets] if isinstance(tuning.targets, str) else list(tuning.targets)
    return {
        "use_peft": True,
        "lora_r": tuning.rank,
        "lora_alpha": round(tuning.alpha or 2 * tuning.rank),
        "lora_dropout": tuning.dropout,
        "lora_target_modules": targets,
        **({"load_in_4bit": True} if tuning.method == "qlora" else {}),
    }


def _validation(material: Material) -> dict[str, Any]:
    if "validation" not in material.splits:
        return {}
    return {
        "dataset_test_split": "validation",
        "eval_strategy": "steps",
        "eval_steps": material.tuning.save_steps,
    }
