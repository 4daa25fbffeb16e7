"""No large regression against a bare reference, measured beside it: ratios, never seconds.

The bounds are far below what `docs/benchmarks.md` shows, and one of a few tries has to keep them:
other work on the machine meets both sides, but not always alike.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROUNDS = 3


def script(name):
    """A module of `benchmarks/`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def taken(do):
    """Processor seconds."""
    started = time.process_time()
    do()
    return time.process_time() - started


@pytest.mark.slow
def test_evaluation_is_several_times_as_fast_as_one_prompt_at_a_time():
    pytest.importorskip("torch")
    bench = script("evaluation").lab(12)  # 72 prompts
    few = bench.prompts[::18]
    bench.ours(few)

    def one_at_a_time():
        for prompt in few:
            bench.generate([prompt])

    def ratio():
        together = taken(lambda: bench.ours(bench.prompts)) / len(bench.prompts)
        return taken(one_at_a_time) / len(few) / together

    assert any(ratio() > 3 for _ in range(ROUNDS))


def test_rendering_costs_little_more_than_tokenising(tokenizer):
    from holdfast.rendering.render import Renderer
    from holdfast.types import Conversation, Message

    reply = Message.of("assistant", "First rinse it, then dry it. " * 20)
    asked = [Message.of("user", f"How do I clean kettle {n}? " * 10) for n in range(400)]
    rows = [Conversation(str(n), (turn, reply), "user") for n, turn in enumerate(asked)]
    renderer = Renderer(tokenizer)
    texts = ["".join(m.content for m in row.messages) for row in rows]

    def bare():
        tokenizer(texts, return_offsets_mapping=True)

    def ours():
        assert len(list(renderer.rows(rows))) == len(rows)

    bare(), ours()
    assert any(taken(ours) < 4 * taken(bare) for _ in range(ROUNDS))


def test_the_page_keeps_the_sections_that_were_not_rerun(tmp_path, monkeypatch):
    bench = script("bench")
    page = tmp_path / "page.md"
    bench.write(page, {"Data": "## Data\n\nold\n", "Training": "## Training\n\nold\n"})
    monkeypatch.setattr(bench, "SECTIONS", {**bench.SECTIONS, "Data": lambda: "## Data\n\nnew\n"})
    assert bench.main(["--only", "Data", "--into", str(page)]) == 0
    found = bench.sections_of(page.read_text())
    assert list(found) == ["Training", "Data", "GPU"]
    assert "new" in found["Data"] and "old" in found["Training"]
    printed = tmp_path / "printed.md"
    printed.write_text("## Data\n\nprinted\n")
    assert bench.main(["--take", str(printed), "--into", str(page)]) == 0
    assert "printed" in bench.sections_of(page.read_text())["Data"]


def test_a_script_that_fails_keeps_its_section_and_is_told(tmp_path, monkeypatch, capsys):
    bench = script("bench")
    page = tmp_path / "page.md"
    bench.write(page, {"Data": "## Data\n\nold\n"})
    monkeypatch.setattr(bench, "SECTIONS", {**bench.SECTIONS, "Data": bench.script("missing.py")})
    assert bench.main(["--only", "Data", "--into", str(page)]) == 1
    assert "old" in page.read_text()
    assert "missing.py" in capsys.readouterr().err
