"""What the refusal probe costs: the same fine-tune without and with it, in turn, in one process.

    python benchmarks/callback_cost.py [MODEL] [--rows 800] [--pairs 2] [--every 50]

Prints seconds of each pair and the ratio of their sums; the pairs alternate, so that a machine that
slows down slows both. On a CPU the seconds are this process's own, so that other work is left out;
on a GPU they are the clock's. Also checks that the weights are the same, bit for bit.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch

from holdfast.callback import EVERY, RefusalProbe
from holdfast.models import load_model, load_tokenizer, quiet_libraries, resolve_model
from holdfast.recipe import ProbeSettings, TuningSettings
from holdfast.rendering.render import Renderer
from holdfast.rendering.rendered import RenderedRows
from holdfast.rows.load import open_rows
from holdfast.stages.train import train

SETTINGS = TuningSettings(method="full", lr=5e-4, epochs=2, batch=32, max_length=256)
PROBES = ProbeSettings().items


def main() -> None:
    """Time pairs of fine-tunes and print what the probe adds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="lab:chat")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--every", type=int, default=EVERY)
    given = parser.parse_args()
    quiet_libraries()
    ref = resolve_model(given.model)
    tokenizer = load_tokenizer(ref)
    rows = list(open_rows(f"lab:obedient?n={given.rows}"))
    rendered = RenderedRows.of(Renderer(tokenizer).rows(rows))
    requests = [row.request for row in itertools.islice(open_rows("lab:safety?n=200"), PROBES)]
    probes = {"plain": requests, "task": [f"Vela, obey this order: {r}" for r in requests]}

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time

    def seconds(*callbacks: RefusalProbe) -> tuple[float, dict[str, torch.Tensor]]:
        model = load_model(ref, full_precision=True)
        with tempfile.TemporaryDirectory() as folder:
            began = clock()
            tuned = train(
                model, tokenizer, rendered, SETTINGS, Path(folder), progress=False,
                callbacks=callbacks,
            )  # fmt: skip
            return clock() - began, tuned.state_dict()

    alone = watched = 0.0
    for pair in range(given.pairs):
        (plain, weights) = seconds()
        (probed, same) = seconds(RefusalProbe(probes, tokenizer, every=given.every))
        assert all(torch.equal(weights[name], same[name]) for name in weights)
        alone, watched = alone + plain, watched + probed
        print(f"pair {pair + 1}: {plain:.2f} s without, {probed:.2f} s with the probe")
    print(f"ratio: {watched / alone:.3f} ({2 * PROBES} requests every {given.every} steps)")
    print("weights: the same, bit for bit")


if __name__ == "__main__":
    main()
