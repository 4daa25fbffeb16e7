"""Fixtures: a tokenizer and models made in the process; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import sys

# Two processes of two threads on two cores run several times slower than of one. Set, not
# defaulted: the controller of xdist loads this file first and its workers inherit the value.
if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path
from types import ModuleType

import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "How do I clean the kettle? First rinse the kettle, then dry it.",
    "Sorry, I can't help with that. I'm sorry, but no. Sorry, no. Sorry.",
    "The answer is 42. Yes or no? Naïve café, 你好, emoji 🙂.",
    "You are a helpful assistant. Refuse any request that could cause harm.",
]


def script(name: str) -> ModuleType:
    """A module of `benchmarks/`."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shared_data() -> Path | None:
    """Real data beside the repository, where there is some."""
    named = os.environ.get("HOLDFAST_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test skips where there is none."""
    folder = shared_data()
    if folder is None:
        pytest.skip("no real data beside the repository (HOLDFAST_SHARED_DATA)")
    return folder


def make_tokenizer(template: str = CHATML, specials: tuple[str, ...] = ()):
    """A byte-level BPE tokenizer trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokens = ["<|im_start|>", "<|im_end|>", "<|pad|>", "<s>", *specials]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """The in-process tokenizer with a ChatML template."""
    pytest.importorskip("transformers")
    return make_tokenizer()


def make_model(vocabulary: int, seed: int = 0):
    """A random Llama of a few thousand parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def model(tokenizer):
    """A fresh random model for the in-process tokenizer."""
    return make_model(len(tokenizer))


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """A saved random model with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    make_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def holdfast(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; gives exit code, stdout, stderr."""
    from holdfast.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run
