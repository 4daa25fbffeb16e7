"""The GPU script and the arithmetic of scale run, on small shapes and on any machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def test_every_arm_runs_on_small_shapes(gpu, capsys):
    gpu.main(["--tiny", "--steps", "1", "--only", "Qwen-0.5B"])
    printed = capsys.readouterr().out
    assert "no GPU figures" in printed or "NVIDIA" in printed
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| Qwen")]
    trained = [row for row in rows if len(row) > 5]
    assert len(trained) == (6 if gpu.trl else 4)
    assert all(float(row[4].replace(",", "")) > 0 for row in trained)
    assert "`generate`" in printed


def test_without_a_gpu_it_says_so(gpu, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--tiny"):
        gpu.main([])


def test_the_shapes_are_those_of_the_named_models(gpu):
    """Weights counted on the meta device, beside the published counts."""
    import torch
    from transformers import AutoModelForCausalLM

    published = {"Llama-3-8B": 8.03e9, "Qwen-0.5B": 0.494e9}
    for shape in gpu.SHAPES:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape.config)
        count = sum(p.numel() for p in model.parameters())
        assert count == pytest.approx(published[shape.name], rel=0.01)


RATES = [
    f"--{name}={value}"
    for name, value in {
        "row-bytes": 500, "shared-rate": 1000, "alone-rate": 30_000, "after-rate": 20_000,
        "block-rate": 900, "driver-rate": 9000, "memory-bytes": 50, "disk-bytes": 100,
    }.items()
]  # fmt: skip


def test_the_arithmetic_of_scale_counts_the_weights(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    assert scale.LLAMA_70B.weights == pytest.approx(70.6e9, rel=0.001)
    shared = scale.LLAMA_70B.held("full", 16, 4096)["weights and states"]
    assert shared == pytest.approx(scale.LLAMA_70B.held("full", 8, 4096)["weights and states"] / 2)
    monkeypatch.setattr(sys, "argv", ["scale.py", *RATES])
    scale.main()
    printed = capsys.readouterr().out
    assert "rows of 500 bytes: 0.50 TB to read" in printed
    assert "| 1 | 277.8 | 9.3 | 13.9 | 300.9 | detectors |" in printed
    assert "| 64 | 4.3 | 9.3 | 13.9 | 23.1 | one process |" in printed
