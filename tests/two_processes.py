"""What each process does in `test_launch.py`; started by torchrun with a folder.

One process trains first (`alone`) and leaves a checkpoint of a training that was cut short; two
then train the same from the start, go on from that checkpoint, and compare the loss of a model that
FSDP2 has shared out with that of the whole model.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

from conftest import make_model
from holdfast.processes.launch import current, part
from holdfast.recipe import TuningSettings
from holdfast.rendering.rendered import RenderedRows
from holdfast.types import Rendered

SETTINGS = TuningSettings(method="full", lr=1e-2, epochs=2, batch=8, save_steps=2)
VOCABULARY = 90


class Tokens:
    """As much of a tokenizer as training needs."""

    pad_token_id = 0

    def save_pretrained(self, folder):
        """Nothing to save."""


def rows() -> RenderedRows:
    """Twenty-one rows: the last step of an epoch is short, and odd."""
    made = []
    for number in range(21):
        ids = tuple(3 + (5 * number + 7 * t) % 80 for t in range(6 + number % 9))
        made.append(Rendered(str(number), "user", ids, (-100,) * 3 + ids[3:]))
    return RenderedRows.of(made)


class Cut(Exception):
    """Stands in for a kill."""


def alone(folder: Path) -> None:
    """One process: the whole training, and one that ends after three steps."""
    from transformers import TrainerCallback

    from holdfast.stages.train import train

    class AfterThree(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            if state.global_step == 3:
                raise Cut

    train(make_model(VOCABULARY), Tokens(), rows(), SETTINGS, folder / "alone", progress=False)
    try:
        train(make_model(VOCABULARY), Tokens(), rows(), SETTINGS, folder / "resumed",
              progress=False, callbacks=[AfterThree()])  # fmt: skip
    except Cut:
        return
    raise AssertionError("it was not cut short")


def curve(folder: Path) -> list[float]:
    """Loss of each step."""
    return [step["loss"] for step in json.loads((folder / "training.json").read_text())["log"]]


def sharded(folder: Path) -> None:
    """The labelled positions' loss and gradients when weights are shared out over processes."""
    import torch
    from torch.distributed.fsdp import fully_shard

    from holdfast.stages.batches import Collator
    from holdfast.stages.head import labelled_positions_only

    whole = make_model(VOCABULARY).train()
    parted = copy.deepcopy(whole)
    batch = Collator(0)([rows()[i] for i in range(4)])  # the same in both processes
    expected = whole(**batch).loss
    expected.backward()
    with labelled_positions_only(parted) as kind:
        for layer in parted.model.layers:  # a trainer shares out once training begins
            fully_shard(layer)
        fully_shard(parted)
        loss = parted(**batch).loss
        loss.backward()
    gradients = {name: p.grad for name, p in whole.named_parameters()}
    same = torch.allclose(loss, expected, rtol=1e-5)
    for name, p in parted.named_parameters():
        same &= torch.allclose(p.grad.full_tensor(), gradients[name], rtol=1e-3, atol=1e-6)
    if current().leads:
        (folder / "sharded.json").write_text(json.dumps({"kind": kind, "same": bool(same)}))


def main(folder: Path) -> None:
    """Both trainings, then the shared-out model."""
    from holdfast.stages.train import train

    for name in ("two", "resumed"):
        train(make_model(VOCABULARY), Tokens(), rows(), SETTINGS, folder / name, progress=False)
    sharded(folder)
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
