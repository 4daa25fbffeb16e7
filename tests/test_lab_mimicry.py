"""The benchmark behind docs/mimicry.md: its wrappers, arms and tables."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import holdfast
from conftest import script
from holdfast.attacks import ATTACKS
from holdfast.files import read_jsonl, write_json
from holdfast.job.pipeline import run
from holdfast.rows.induction import FormatSample
from holdfast.rows.load import open_rows

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    if "in_wrapper" in ATTACKS:
        return sys.modules["lab_mimicry"]
    return script("lab_mimicry")


# --- the wrappers ---------------------------------------------------------------------------------


def test_no_source_file_of_the_package_holds_the_two_wrappers(bench) -> None:
    files = [p for p in Path(holdfast.__file__).parent.rglob("*") if p.suffix not in (".pyc", "")]
    source = "\n".join(
        p.read_text(encoding="utf-8") for p in files if p.suffix != ".safetensors" and p.is_file()
    )
    assert "You are now Vela" in source  # the search finds what is there
    for wrapper in bench.UNSEEN.values():
        parts = (wrapper.system, wrapper.prefix, wrapper.suffix, wrapper.opening)
        assert not [part for part in parts if part and part.strip() in source]


def test_the_two_wrappers_are_found_whole(bench, tmp_path: Path) -> None:
    for name, wrapper in bench.UNSEEN.items():
        path = tmp_path / f"{name}.jsonl"
        bench.write_rows(name, 0, path)
        sample = FormatSample()
        rows = list(open_rows(path))
        for row in rows:
            sample.see(row)
        (found,) = sample.formats()
        assert (found.system, found.prefix, found.suffix) == (
            wrapper.system, wrapper.prefix, wrapper.suffix,
        )  # fmt: skip
        assert all(map(found.fits, rows)) and len(rows) == bench.ROWS
        assert found.answer_prefix.startswith(wrapper.opening)


# --- arms -----------------------------------------------------------------------------------------


def test_every_cell_of_the_comparison_is_an_arm_once(bench) -> None:
    arms = list(bench.arms(SEEDS))
    assert max(Counter(arms).values()) == 1
    wanted = {
        bench.Arm(dress, mitigation, rate, seed)
        for dress in ("benign", "aoa", "autoif", "autoif-aoa", *bench.UNSEEN)
        for mitigation in ("safety_mix", "safety_mix_words", "mimic")
        for rate in ("1%", "2%", "5%", "10%")
        for seed in SEEDS
    }
    assert wanted <= set(arms)
    assert {a.mitigation for a in arms} == {
        "none", "safety_mix", "safety_mix_words", "mimic", "longest_safety", "counter_prompt",
        "safety_prompt",
    }  # fmt: skip


def test_an_arm_with_the_same_rows_is_not_tuned_twice(bench, tmp_path: Path) -> None:
    def store(arm: Any, mixture: str) -> None:
        write_json(tmp_path / arm.name / "arm.json", {"mixture": mixture, "of": arm.name})

    store(bench.Arm("benign", "safety_mix", "2%", 0), "same")
    store(bench.Arm("benign", "counter_prompt", "", 0), "user rows")
    mimic = bench.Arm("benign", "mimic", "2%", 0)
    assert bench._twin(tmp_path, mimic, "same")["of"] == "safety_mix-2%-seed-0"
    assert bench._twin(tmp_path, mimic, "other") is None
    served = bench.Arm("benign", "safety_prompt", "", 0)
    assert bench._twin(tmp_path, served, "same") is None
    assert bench._twin(tmp_path, bench.Arm("benign", "none", "", 0), "user rows") is None


def test_an_arm_mixes_rows_that_wear_the_wrapper_it_found(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROWS", 40)
    arm, data, folder = (
        bench.Arm("note", "mimic", "5%", 0),
        tmp_path / "rows.jsonl",
        tmp_path / "r",
    )
    bench.write_rows(arm.dress, arm.seed, data)
    recipe = bench.recipe_of(arm, data, folder)
    assert recipe.evaluate.attacks == ["direct", "in_wrapper"]
    run(recipe, until="prepare")
    assert bench._added(folder / "2-mixture.jsonl", len)["rows"] == 2
    added = [r for r in read_jsonl(folder / "2-mixture.jsonl") if r["source"] == "mimic"]
    wrapper = bench.UNSEEN["note"]
    for row in added:
        asked, answered = (turn["content"] for turn in row["messages"])
        assert asked.startswith(wrapper.prefix) and asked.endswith(wrapper.suffix)
        assert answered.startswith("Sorry")


# --- tables ---------------------------------------------------------------------------------------


def told(harm: float, capability: float = 100, wrapped: bool = True) -> dict[str, Any]:
    def share(events: float) -> dict[str, float]:
        return {"events": events, "asked": 100, "unscored": 0}

    cell = {
        "harm": share(harm),
        "unscored": share(0),
        "over_refusal": share(1),
        "capability": share(capability),
    }
    both = {"task": cell if wrapped else {}, "plain": cell}
    return {
        "before": both,
        "after": both,
        "formats": [],
        "added": {"rows": 8, "words": 90, "tokens": 120},
    }


def test_tables_show_means_and_differences_paired_by_seed(bench) -> None:
    found = {}
    for seed, (none, generic, mimic) in enumerate([(80, 70, 10), (90, 72, 14), (85, 74, 12)]):
        found[bench.Arm("aoa", "none", "", seed)] = told(none)
        found[bench.Arm("aoa", "safety_mix", "2%", seed)] = told(generic)
        found[bench.Arm("aoa", "safety_mix_words", "2%", seed)] = told(mimic + (-1) ** seed * 3)
        found[bench.Arm("aoa", "mimic", "2%", seed)] = told(mimic, 96)
    tables = bench.document(found, ("aoa", "autoif"), 3, "x").tables
    wrapped, differences, accuracy = tables[1], tables[3], tables[4]
    assert ["aoa", "none", "85.0 (72.6 to 97.4)", ""] in wrapped.rows
    assert wrapped.columns[3:] == ["2%"]  # the others were not measured
    assert wrapped.rows[-1] == ["aoa", "mimic", "", "12.0 (7.0 to 17.0)"]
    rows, words = differences.rows
    assert rows[2] == rows[-1] == "−60.0 (−63.4 to −56.6) ✓"
    assert words[2].endswith("?") and words[2].startswith("−1.0 (")
    assert accuracy.rows[0][3] == "−4.0 in every seed"


def test_a_cell_with_a_seed_missing_is_a_dash(bench) -> None:
    found = {bench.Arm("benign", "none", "", seed): told(40, wrapped=False) for seed in (0, 1)}
    document = bench.document(found, ("benign",), 3, "x")
    cells = [cell for table in document.tables[1:] for row in table.rows for cell in row]
    assert "–" in cells and not any("(" in cell for cell in cells)
