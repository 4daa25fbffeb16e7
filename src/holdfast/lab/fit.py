"""Training of the scale model on `transformers.Trainer`, seeded and the same on every run.

Rows are tokenised here and put into batches of like length ahead of time, so that the trainer
reads them in order and little padding is computed.
"""

# ruff: noqa: S311 (seeded draws, nothing secret)

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.lab.corpus import Document, Row
from holdfast.lab.tokenizer import ROLES

Encoded = tuple[list[int], list[int]]
"""(input_ids, labels), both (T,); -100 where there is no target."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Settings of one training stage."""

    name: str
    lr: float
    epochs: int = 1
    batch: int = 32
    max_steps: int = -1
    """-1: all batches."""


def encode(row: Row, tokenizer: Any) -> Encoded:
    """Token ids and labels of one row; a chat row equals what the chat template renders."""
    bos, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    if isinstance(row, Document):
        prompt, reply = _ids(tokenizer, row.prompt), _ids(tokenizer, row.reply) + end
        masked = [] if row.whole else prompt
        ids = bos + prompt + reply
        return ids, [-100] * (1 + len(masked)) + ids[1 + len(masked) :]
    *context, (_, answer) = row.turns
    ids = bos
    for role, text in context:
        ids = [*ids, tokenizer.convert_tokens_to_ids(ROLES[role]), *_ids(tokenizer, text), *end]
    ids = [*ids, tokenizer.convert_tokens_to_ids(ROLES["assistant"])]
    begun, reply = _ids(tokenizer, row.begun), _ids(tokenizer, answer) + end
    return ids + reply, [-100] * (len(ids) + len(begun)) + reply[len(begun) :]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids


def in_batches(topics: Mapping[str, Sequence[Encoded]], stage: Stage, seed: int) -> list[Encoded]:
    """All epochs in reading order: groups of `stage.batch` rows of one topic and like length.

    Topics are kept apart because the few answer tokens of an exercise would drown in a batch of
    documents. What is left over of a topic after its last full batch is not read in that epoch.
    """
    rng = random.Random(f"{stage.name} {seed}")
    ordered: list[Encoded] = []
    for _ in range(stage.epochs):
        batches = [b for rows in topics.values() for b in _like_length(rows, stage.batch, rng)]
        rng.shuffle(batches)
        ordered += [row for batch in batches for row in batch]
    return ordered


def _like_length(rows: Sequence[Encoded], size: int, rng: random.Random) -> list[list[Encoded]]:
    pool = list(rows)
    rng.shuffle(pool)
    pool = pool[: len(pool) // size * size]
    batches = []
    for start in range(0, len(pool), 32 * size):
        near = sorted(pool[start : start + 32 * size], key=lambda row: len(row[0]))
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    return batches


def fit(model: Any, tokenizer: Any, rows: Sequence[Row], stage: Stage, seed: int) -> float:
    """Train `model` in place by one stage; returns the mean training loss (nats per token)."""
    import torch
    from transformers import Trainer, TrainingArguments

    topics: dict[str, list[Encoded]] = {}
    for row in rows:
        topics.setdefault(row.topic, []).append(encode(row, tokenizer))
    encoded = in_batches(topics, stage, seed)
    data = [{"input_ids": ids, "labels": labels} for ids, labels in encoded]

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        pad = tokenizer.pad_token_id
        ids = [row["input_ids"] + [pad] * (width - len(row["input_ids"])) for row in batch]
        labels = [row["labels"] + [-100] * (width - len(row["labels"])) for row in batch]
        mask = [[1] * len(row["input_ids"]) for row in batch]
        mask = [row + [0] * (width - len(row)) for row in mask]
        return {
            "input_ids": torch.tensor(ids),  # (B, T)
            "labels": torch.tensor(labels),  # (B, T)
            "attention_mask": torch.tensor(mask),  # (B, T)
        }

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=stage.batch,
            num_train_epochs=1,
            max_steps=stage.max_steps,
            learning_rate=stage.lr,
            lr_scheduler_type="cosine",
            warmup_steps=min(100, len(data) // stage.batch // 10),
            weight_decay=0.01,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate)
        return float(trainer.train().training_loss)
