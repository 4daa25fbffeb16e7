"""Holdfast prepares, TRL trains: the mixture goes in through SFTTrainer's `labels` column.

    python examples/prepare_for_trl.py

Here the rows and the model are the lab's; put your own file, model and safety rows in their place.
"""

from __future__ import annotations

import tempfile

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import holdfast
from holdfast.lab import model_path

folder = model_path("lab:chat")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")

rows = holdfast.prepare(
    "lab:obedient?n=200", tokenizer, mitigations=["mimic"], safety="lab:safety", share=0.05
)
print(f"{len(rows)} rows, {sum(rows.lengths)} tokens")

with tempfile.TemporaryDirectory() as output:
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(list(rows)),
        args=SFTConfig(
            output_dir=output,
            per_device_train_batch_size=16,
            max_steps=6,
            learning_rate=1e-3,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print("loss", " ".join(f"{float(loss):.3f}" for loss in losses))
