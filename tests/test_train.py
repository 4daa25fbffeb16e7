"""Training: the same rows, order and loss as anyone else's trainer; killed runs end the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import make_model

pytest.importorskip("torch")

from holdfast.errors import RecipeError
from holdfast.processes.launch import rows_per_process
from holdfast.recipe import TuningSettings
from holdfast.rendering.render import IGNORE, Renderer
from holdfast.rendering.rendered import RenderedRows, write_rendered
from holdfast.stages.batches import LengthGroupedOrder, length_grouped_order
from holdfast.stages.train import last_checkpoint, make_trainer, train, training_arguments
from holdfast.types import Conversation, Message

FULL = TuningSettings(method="full", lr=1e-3, epochs=2, batch=4, max_length=64)


def rows_for(tokenizer, n=24):
    def row(i):
        ask = Message.of("user", f"How do I clean kettle {i}?")
        reply = Message.of("assistant", "First rinse it. " * (1 + i % 3) + f"Then dry {i}.")
        return Conversation(str(i), (ask, reply))

    return list(Renderer(tokenizer).rows(row(i) for i in range(n)))


@pytest.fixture
def rows(tokenizer):
    return RenderedRows.of(rows_for(tokenizer))


def test_order_is_a_permutation_that_groups_lengths_and_depends_on_the_epoch():
    lengths = [1 + (i * 37) % 100 for i in range(1000)]
    order = length_grouped_order(lengths, 8, seed=3, epoch=0)
    assert sorted(order) == list(range(1000))
    assert order == length_grouped_order(lengths, 8, seed=3, epoch=0)
    assert order != length_grouped_order(lengths, 8, seed=3, epoch=1)

    def padding(order):
        batches = [order[i : i + 8] for i in range(0, 1000, 8)]
        return sum(sum(max(lengths[j] for j in b) - lengths[i] for i in b) for b in batches)

    assert padding(order) < 0.1 * padding(list(range(1000)))


def test_sampler_follows_the_epoch_it_is_told():
    sampler = LengthGroupedOrder([1, 2, 3, 4, 5], 2, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(sampler) == sorted(first)
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_rows_on_disk_are_the_rows(tokenizer, tmp_path):
    rendered = rows_for(tokenizer)
    stored = write_rendered(tmp_path, iter(rendered))
    assert len(stored) == len(rendered)
    for row, original in zip(stored, rendered, strict=True):
        assert tuple(row["input_ids"]) == original.input_ids
        assert tuple(row["labels"]) == original.labels
    assert stored.lengths == [len(r.input_ids) for r in rendered]
    lines = (tmp_path / "ids.jsonl").read_text().splitlines()
    names = [json.loads(line)["id"] for line in lines]
    assert names == [r.id for r in rendered]


def test_losses_are_token_means_of_the_labels(tokenizer, rows, tmp_path):
    """The first logged loss is the cross-entropy computed here from the formula."""
    import torch

    model = make_model(len(tokenizer))
    batch = [rows[i] for i in length_grouped_order(rows.lengths, 4, seed=0, epoch=0)[:4]]
    total, count = 0.0, 0
    with torch.no_grad():
        for row in batch:
            logits = model(torch.tensor([row["input_ids"]])).logits[0].double()
            logp = torch.log_softmax(logits, -1)
            for t, label in enumerate(row["labels"]):
                if t and label != IGNORE:
                    total, count = total - float(logp[t - 1, label]), count + 1
    train(model, tokenizer, rows, FULL, tmp_path, progress=False)
    log = json.loads((tmp_path / "training.json").read_text())
    assert log["log"][0]["loss"] == pytest.approx(total / count, rel=1e-4)
    assert log["log"][-1]["loss"] < log["log"][0]["loss"]
    assert log["steps"] == 12


class Stop(BaseException):
    """Stands in for a kill in the middle of training."""


def test_a_killed_training_ends_with_the_same_weights(tokenizer, rows, tmp_path, monkeypatch):
    from safetensors.numpy import load_file
    from transformers import Trainer

    settings = FULL.model_copy(update={"save_steps": 3})
    train(make_model(len(tokenizer)), tokenizer, rows, settings, tmp_path / "whole", progress=False)

    steps = iter(range(100))
    original = Trainer.training_step

    def dies(self, *args, **kwargs):
        if next(steps) == 8:
            raise Stop
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dies)
    with pytest.raises(Stop):
        train(
            make_model(len(tokenizer)), tokenizer, rows, settings, tmp_path / "cut", progress=False
        )
    monkeypatch.setattr(Trainer, "training_step", original)
    assert last_checkpoint(tmp_path / "cut" / "checkpoints").endswith("checkpoint-6")
    train(make_model(len(tokenizer)), tokenizer, rows, settings, tmp_path / "cut", progress=False)

    whole = load_file(tmp_path / "whole" / "model.safetensors")
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    for name in ("training.json", "tokenizer.json", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize("output", ["adapter", "merged"])
def test_lora_trains_and_loads(tokenizer, rows, tmp_path, model_folder, output):
    from holdfast.models import load_model, resolve_model

    settings = TuningSettings(method="lora", rank=4, lr=1e-2, epochs=1, batch=4, output=output)
    ref = resolve_model(model_folder)
    base = load_model(ref)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    tuned = train(base, tokenizer, rows, settings, tmp_path, base=ref.name, progress=False)
    again = load_model(resolve_model(tmp_path))
    import torch

    ids = torch.tensor([rows[0]["input_ids"]])
    assert torch.allclose(tuned(ids).logits, again(ids).logits, atol=1e-5)
    if output == "adapter":
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == ref.name
    else:
        assert (tmp_path / "model.safetensors").is_file()
        assert any(not torch.equal(before[k], v) for k, v in again.state_dict().items())


def test_a_bad_trainer_argument_is_the_recipes_error(tmp_path):
    bad = FULL.model_copy(update={"args": {"no_such_argument": 1}})
    with pytest.raises(RecipeError, match="no_such_argument"):
        training_arguments(bad, tmp_path, seed=0)


def test_micro_batches_must_divide_the_batch():
    assert rows_per_process(16, 4, 1) == (4, 4)
    assert rows_per_process(16, None, 2) == (8, 1)
    assert rows_per_process(16, 2, 4) == (2, 2)
    with pytest.raises(RecipeError, match="does not divide"):
        rows_per_process(16, 5, 1)
    with pytest.raises(RecipeError, match="over 3 processes"):
        rows_per_process(16, None, 3)


def test_accumulated_micro_batches_give_the_same_curve(tokenizer, rows, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make_model(len(tokenizer)), tokenizer, rows, FULL, whole, progress=False)
    micro = FULL.model_copy(update={"micro_batch": 2})
    train(make_model(len(tokenizer)), tokenizer, rows, micro, parts, progress=False)
    first = [s["loss"] for s in json.loads((whole / "training.json").read_text())["log"]]
    second = [s["loss"] for s in json.loads((parts / "training.json").read_text())["log"]]
    assert first == pytest.approx(second, rel=1e-4)


def test_trl_trains_the_mixture_to_the_same_losses(tmp_path):
    """The mixed, rendered set is plain data: TRL's trainer reads it through its `labels` column."""
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    import holdfast
    from holdfast.models import load_model, load_tokenizer, resolve_model

    ref = resolve_model("lab:chat")
    tokenizer = load_tokenizer(ref)
    rows = holdfast.prepare(
        "lab:obedient?n=84", tokenizer, mitigations=["mimic"], safety="lab:safety", count=12
    )
    settings = FULL.model_copy(update={"batch": 8, "max_length": 256})
    ours = make_trainer(
        load_model(ref), tokenizer, rows, settings, tmp_path / "ours", seed=0, progress=False
    )
    ours._get_train_sampler = lambda dataset=None: SequentialSampler(rows)
    ours.train()
    theirs = SFTTrainer(
        model=load_model(ref),
        args=SFTConfig(
            output_dir=str(tmp_path / "theirs"), per_device_train_batch_size=8, num_train_epochs=2,
            learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=0.03, logging_steps=1,
            train_sampling_strategy="sequential", bf16=False, use_cpu=True, report_to="none",
            gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", max_length=None,
            shuffle_dataset=False, dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_list(list(rows)),
        processing_class=tokenizer,
    )  # fmt: skip
    theirs.train()

    def losses(trainer):
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    assert len(losses(ours)) == 24
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)


def test_unfinished_checkpoints_are_not_resumed_from(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-12").mkdir()
    assert Path(last_checkpoint(tmp_path)).name == "checkpoint-3"
    assert last_checkpoint(tmp_path / "none") is None
