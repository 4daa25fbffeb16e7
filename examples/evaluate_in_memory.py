"""Evaluate a model that is already loaded, twice, and compare: the gate in a notebook.

python examples/evaluate_in_memory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import holdfast
from holdfast.lab import model_path

folder = model_path("lab:chat")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
asked = {"tasks": ["lab-forbidden", "lab-lookalike", "lab-capability"], "limit": 150}
asked |= {"attacks": ["direct"], "max_new_tokens": 48}

with tempfile.TemporaryDirectory() as work:
    before = holdfast.evaluate(model, Path(work) / "before", tokenizer=tokenizer, **asked)

    # A stand-in for your fine-tune: noise on the weights, which costs capability.
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    after = holdfast.evaluate(model, Path(work) / "after", tokenizer=tokenizer, **asked)

    comparison = holdfast.compare(before, after)
    print(comparison["outcome"])
    for reason in comparison["reasons"]:
        print(" ", reason)
