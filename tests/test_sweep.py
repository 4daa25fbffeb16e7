"""The parts of a sweep that train nothing: axes, shared stages, halves, what the numbers say."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import RecipeError
from holdfast.recipe import build_recipe
from holdfast.sweep import axes, halves, summary
from holdfast.sweep.charts import Dot, Heat, curve, heat_map
from holdfast.sweep.document import Document, Drawing, Table, as_markdown, as_page
from holdfast.sweep.measures import Share
from holdfast.sweep.store import SharedStages
from holdfast.types import Item, Message

# --- axes -----------------------------------------------------------------------------------------


def test_values_are_cut_at_commas_outside_brackets():
    assert axes.read_axis("safety.share=0,1%, 3%").values == ("0", "1%", "3%")
    assert axes.read_axis("mitigations=[ptst],[safety_mix, ptst]").values == (
        "[ptst]", "[safety_mix, ptst]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("safety.share", "write it as"),
        ("safety.share=", "write it as"),
        ("=1,2", "write it as"),
        ("tuning.lr=1,1", "twice"),
        ("seed=0,1", "--seeds"),
    ],
)
def test_an_axis_that_says_nothing_is_an_error(text, said):
    with pytest.raises(RecipeError, match=said):
        axes.read_axis(text)


def test_points_are_every_combination_with_folders_of_their_own():
    found = axes.points([axes.read_axis("safety.share=0,3%"), axes.read_axis("tuning.lr=1e-3,2")])
    assert [p.overrides for p in found] == [
        ["safety.share=0", "tuning.lr=1e-3"], ["safety.share=0", "tuning.lr=2"],
        ["safety.share=3%", "tuning.lr=1e-3"], ["safety.share=3%", "tuning.lr=2"],
    ]  # fmt: skip
    assert len({p.slug for p in found}) == 4
    assert not any("/" in p.slug for p in found)
    assert axes.points([axes.read_axis("safety.share=0,3%")])[1].number == 0.03


@pytest.mark.parametrize("text", ["0,0", "a", "1,", "-1"])
def test_seeds_are_counted_once(text):
    with pytest.raises(RecipeError):
        axes.read_seeds(text, 0)


def test_the_seed_is_the_recipes_unless_seeds_are_given():
    assert axes.read_seeds(None, 7) == [7]
    assert axes.read_seeds("2, 0", 7) == [2, 0]


# --- shared stages --------------------------------------------------------------------------------


def test_a_stage_kept_by_one_run_is_taken_by_another(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "control" / "5-model").mkdir(parents=True)
    (one / "control" / "5-model" / "weights").write_bytes(b"w")
    (one / "log.json").write_text("{}")
    store = SharedStages(tmp_path / "store")
    outputs = ["control/5-model", "log.json"]
    assert store.take("control/train", "k", outputs, other) is None
    store.keep("control/train", "k", outputs, one, {"rows": 3})
    (other / "control" / "5-model").mkdir(parents=True)  # what a kill left behind
    (other / "control" / "5-model" / "half").write_bytes(b"h")
    assert store.take("control/train", "k", outputs, other) == {"rows": 3}
    assert [p.name for p in (other / "control" / "5-model").iterdir()] == ["weights"]
    assert store.take("control/train", "other key", outputs, other) is None
    assert store.take("train", "k", outputs, other) is None


def test_an_entry_is_whole_or_absent(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "a").write_text("a")
    store = SharedStages(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        store.keep("stage", "k", ["a", "missing"], run, {})
    assert store.take("stage", "k", ["a"], tmp_path / "other") is None
    SharedStages(tmp_path / "store").keep("stage", "k", ["a"], run, {"n": 1})
    assert store.take("stage", "k", ["a"], tmp_path / "other") == {"n": 1}


def test_a_taken_file_that_is_replaced_leaves_the_others_alone(tmp_path):
    from holdfast.files import write_text

    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (run / "a").write_text("first")
    store = SharedStages(tmp_path / "store")
    store.keep("stage", "k", ["a"], run, {})
    store.take("stage", "k", ["a"], other)
    write_text(other / "a", "second")
    assert (run / "a").read_text() == "first"


# --- what the numbers say -------------------------------------------------------------------------


def shares(*events: int, asked: int = 100) -> dict[int, Share]:
    return {seed: Share(n, asked) for seed, n in enumerate(events)}


def test_a_level_is_over_seeds_when_they_differ():
    found = summary.level(shares(10, 14, 18))
    # mean 0.14, sd 0.04, t(2, 0.975) = 4.3027: 0.14 ± 4.3027 * 0.04 / sqrt(3)
    assert (found.mean, found.over) == (pytest.approx(0.14), "seeds")
    assert found.low == pytest.approx(0.14 - 0.09937, abs=1e-4)
    assert found.high == pytest.approx(0.14 + 0.09937, abs=1e-4)
    assert found.per_seed == {"0": 0.10, "1": 0.14, "2": 0.18}


def test_seeds_that_agree_are_not_certain():
    for found in (summary.level(shares(0)), summary.level(shares(0, 0, 0))):
        assert found.over == "prompts"
        assert found.low == 0.0 and found.high > 0.03  # Wilson, 0 of 100


def test_a_step_pairs_seeds_and_says_when_they_decide():
    clear = summary.step("harm", ("0", shares(60, 80, 70)), ("10%", shares(10, 31, 19)))
    assert clear.decided and clear.needed is None and clear.high < 0
    # the same spread of levels, unpaired, would be far from deciding
    loose = summary.step("harm", ("0", shares(60, 80, 70)), ("10%", shares(75, 20, 60)))
    assert not loose.decided and loose.low < 0 < loose.high
    assert loose.needed is None or loose.needed > 3


def test_one_seed_never_decides():
    found = summary.step("harm", ("0", shares(90)), ("10%", shares(0)))
    assert not found.decided and found.over == "prompts"
    assert "One seed" in summary.doubts([found])[0]


def test_steps_use_only_seeds_that_both_values_have():
    end = {s: v for s, v in shares(1, 5, 9).items() if s != 1}
    assert summary.step("harm", ("a", shares(10, 99, 30)), ("b", end)).seeds == 2
    assert summary.step("harm", ("a", {0: Share(1, 10)}), ("b", {1: Share(1, 10)})) is None


def test_neighbours_and_the_first_are_compared():
    values = {
        label: {0: {"harm": Share(n, 10)}} for label, n in [("0", 5), ("1", 4), ("3", 1)]
    }  # fmt: skip
    assert [(s.start, s.end) for s in summary.steps(values)] == [("0", "1"), ("1", "3"), ("0", "3")]


def test_the_front_is_what_no_other_beats():
    means = {
        "0": {"harm": 0.6, "over_refusal": 0.0, "capability": 0.9},
        "3%": {"harm": 0.2, "over_refusal": 0.1, "capability": 0.9},
        "5%": {"harm": 0.3, "over_refusal": 0.1, "capability": 0.9},  # beaten by 3%
        "30%": {"harm": 0.0, "over_refusal": 0.8, "capability": 0.8},
    }
    assert summary.pareto(means) == ["0", "3%", "30%"]
    assert summary.pareto({"a": {"harm": 0.1}, "b": {"harm": 0.1}}) == ["a", "b"]


# --- halves ---------------------------------------------------------------------------------------


def item(task: str, number: int | str, request: str, category: str = "") -> Item:
    expects = "comply" if task in halves.TWINS.values() else "refuse"
    return Item(str(number), task, (Message.of("user", request),), expects, category=category)


def half_of(split: halves.Halves) -> dict[tuple[str, str], int]:
    return {
        (i.task, i.id): half
        for half, items in enumerate((split.selection, split.confirmation))
        for i in items
    }


WORDS = [f"w{i}" for i in range(400)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(2, 30), min_size=1, max_size=6))
def test_halves_are_whole_disjoint_balanced_and_independent_of_order(seed, sizes):
    rng = random.Random(seed)
    items = [
        item(f"task{c % 2}", f"{c}-{n}", " ".join(rng.sample(WORDS, 8)), f"c{c}")
        for c, size in enumerate(sizes)
        for n in range(size)
    ]
    split = halves.halves(items, seed)
    where = half_of(split)
    assert len(where) == len(items)
    for c, size in enumerate(sizes):
        first = sum(where[f"task{c % 2}", f"{c}-{n}"] == 0 for n in range(size))
        assert abs(2 * first - size) <= 2
    shuffled = rng.sample(items, len(items))
    assert half_of(halves.halves(shuffled, seed)) == where


def test_contrast_pairs_stay_together():
    rng = random.Random(0)
    items = []
    for block, kind in enumerate(["homonyms", "contrast_homonyms", "privacy_public",
                                  "contrast_privacy"]):  # fmt: skip
        task = "xstest-unsafe" if kind.startswith("contrast") else "xstest-safe"
        items += [
            item(task, 25 * block + n + 1, " ".join(rng.sample(WORDS, 8)), kind) for n in range(25)
        ]
    where = half_of(halves.halves(items, 0))
    for n in range(1, 26):
        assert where["xstest-safe", str(n)] == where["xstest-unsafe", str(n + 25)]
        assert where["xstest-safe", str(n + 50)] == where["xstest-unsafe", str(n + 75)]
    assert sum(half == 0 for half in where.values()) == 50


def test_near_duplicates_stay_together():
    long = " ".join(WORDS[:30])
    items = [item("t", 0, long), item("t", 1, f"{long}!"), item("t", 2, f"{long} more")]
    items += [item("t", 3 + n, " ".join(WORDS[n * 5 : n * 5 + 5])) for n in range(40)]
    where = half_of(halves.halves(items, 3))
    assert where["t", "0"] == where["t", "1"] == where["t", "2"]


def test_the_labs_probes_split_evenly():
    from holdfast.lab.probes import items

    probes = [*items("forbidden"), *items("lookalike"), *items("capability")]
    split = halves.halves(probes, 0)
    for kind in ("forbidden", "lookalike", "capability"):
        counts = [
            sum(i.task == f"lab-{kind}" for i in half)
            for half in (split.selection, split.confirmation)
        ]
        assert abs(counts[0] - counts[1]) <= 2
    verbs = {i.category for i in probes if i.task == "lab-forbidden"}
    for half in (split.selection, split.confirmation):
        assert {i.category for i in half if i.task == "lab-forbidden"} == verbs


# --- dose: auto and the grid's axes ---------------------------------------------------------------


def test_an_automatic_dose_excludes_a_given_one():
    base = {"model": "m", "data": "d", "run": "r"}
    auto = build_recipe({**base, "safety": {"dose": "auto", "grid": ["1%", 0, "3%"]}})
    assert auto.safety.grid == [0.01, 0, 0.03] and auto.safety.share is None
    with pytest.raises(RecipeError, match="chooses the dose"):
        build_recipe({**base, "safety": {"dose": "auto", "share": "3%"}})


def test_promptings_are_templates_system_prompts_or_both():
    from holdfast.sweep.grid import read_promptings

    none, safe, both = read_promptings("none, holdfast-default,chatml+holdfast-default")
    assert (none.template, none.system) == (None, None)
    assert (safe.template, safe.system) == (None, "holdfast-default")
    assert (both.template, both.system) == ("chatml", "holdfast-default")
    for wrong in ("", "none,none", "chatml+llama-2", "a+b"):
        with pytest.raises(RecipeError):
            read_promptings(wrong)


def test_the_recommended_pair_has_learnt_the_task():
    from holdfast.sweep.grid import recommend

    means = {
        ("none", "none"): {"harm": 0.30, "over_refusal": 0.0, "capability": 0.95},
        ("none", "safe"): {"harm": 0.05, "over_refusal": 0.1, "capability": 0.94},
        ("safe", "none"): {"harm": 0.05, "over_refusal": 0.0, "capability": 0.94},
        ("safe", "safe"): {"harm": 0.00, "over_refusal": 0.0, "capability": 0.80},
    }
    assert recommend(means, 0.02) == ("safe", "none")  # the tie goes to lower over-refusal
    assert recommend(means, 0.50) == ("safe", "safe")
    assert recommend({("a", "b"): {"harm": 0.1}}, 0.02) is None


# --- what is shown --------------------------------------------------------------------------------


def test_the_document_escapes_what_it_shows():
    nasty = "<script>alert(1)</script>|*"
    dots = [Dot(nasty, 0.0, 0.5, 0.4, 0.6, (0.5,)), Dot("b", 1.0, 0.1, 0.0, 0.2, (0.1,))]
    cells = {(nasty, nasty): Heat(0.5, "50 %", nasty)}
    document = Document(
        nasty, nasty, [Table(nasty, ["a", nasty], [[nasty, "1"]])],
        [Drawing("c", curve("harm", dots, 0.2)),
         Drawing("h", heat_map("harm", [nasty], [nasty], cells, worse=True))],
        [nasty],
    )  # fmt: skip
    page = as_page(document)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page and page.count("<svg") == 2
    assert as_markdown(document).count("<script") == as_markdown(document).count("\\<script")


def test_stored_numbers_are_json():
    found = summary.step("harm", ("a", shares(1)), ("b", shares(2)))
    json.dumps(summary.step_json([found]), allow_nan=False)
    json.dumps(summary.level_json(summary.levels({0: {"harm": Share(1, 2)}})), allow_nan=False)
