"""The default path of a real model, on random models of four families and real data."""

from __future__ import annotations

import pytest

from families import FAMILIES, make_family
from holdfast.files import read_json, read_jsonl
from holdfast.recipe import build_recipe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_model_runs_through_and_never_passes(real_data, tmp_path, family):
    pytest.importorskip("torch")
    from holdfast.job.pipeline import run

    model = make_family(family, real_data, tmp_path / family)
    run_folder, rows = tmp_path / "run", tmp_path / "rows.jsonl"
    whole = (real_data / "gsm8k" / "train.jsonl").read_text().splitlines(keepends=True)
    rows.write_text("".join(whole[:1500]))
    recipe = build_recipe(
        {
            "model": str(model),
            "data": str(rows),
            "run": str(run_folder),
            "data_dir": str(real_data),
            "safety": {"source": "p1"},
            "tuning": {"epochs": 0.05, "max_length": 256},
            "evaluate": {"limit": 140, "hold_out": 140, "max_new_tokens": 8},
        }
    )
    comparison = run(recipe)
    assert comparison["outcome"] == "INCONCLUSIVE"
    assert any("refuses" in reason for reason in comparison["reasons"])
    cells = {(c["task"], c["surface"]): c for c in comparison["cells"]}
    assert {task for task, _ in cells} == {
        "strongreject", "xstest-safe", "gsm8k", "arc-easy", "held-out",
    }  # fmt: skip
    assert cells["strongreject", "plain/none/chat/0"]["gates"] is False
    manifest = read_json(run_folder / "manifest.json")
    assert manifest["mixture"]["by_source"] == {"user": 1360, "mimic": 300}
    assert manifest["sources"]["safety"]["licence"].startswith("CC-BY-NC")
    adapter = read_json(run_folder / "5-model" / "adapter_config.json")
    assert adapter["base_model_name_or_path"] == str(model)
    contract = read_json(run_folder / "5-model" / "holdfast-contract.json")
    assert contract["system"] in contract["rendered"]["plain"]
    served = next(read_jsonl(run_folder / "6-after" / "attempts.jsonl"))
    assert "lab" not in {task for task, _ in cells} and served["prompt"]
