"""Recipes: strict, typed, overridable, and saved as they were understood."""

from __future__ import annotations

import pytest
import yaml

from holdfast.errors import RecipeError
from holdfast.job.setup import fill_defaults
from holdfast.recipe import build_recipe, dump_recipe, load_recipe, recipe_schema

LEAST = {"model": "m", "data": "d", "run": "r"}


def test_the_least_recipe_has_the_documented_defaults():
    recipe = build_recipe(LEAST)
    assert recipe.mitigations == ["mimic", "ptst"]
    assert (recipe.safety.share, recipe.safety.at_least) == (0.03, 300)
    assert (recipe.tuning.method, recipe.tuning.rank, recipe.tuning.lr) == ("lora", 16, 2e-4)
    budgets = recipe.gate.harm, recipe.gate.over_refusal, recipe.gate.capability
    assert [b.max_change for b in budgets] == [5, 5, 2]


def test_doses_are_read_as_people_write_them():
    assert build_recipe({**LEAST, "safety": {"share": "3%"}}).safety.share == 0.03
    assert build_recipe({**LEAST, "safety": {"count": 500}}).safety.share is None
    gate = build_recipe({**LEAST, "gate": {"harm": "+3", "capability": -1}}).gate
    assert (gate.harm.max_change, gate.capability.max_change) == (3, 1)


def test_overrides_reach_nested_keys():
    recipe = build_recipe(LEAST, ["tuning.lr=1e-3", "evaluate.tasks=[gsm8k]", "run=runs/b"])
    assert recipe.tuning.lr == 1e-3
    assert recipe.evaluate.tasks == ["gsm8k"]
    assert recipe.run == "runs/b"


def test_a_saved_recipe_reads_back_as_itself(tmp_path):
    recipe = build_recipe({**LEAST, "safety": {"share": "10%"}, "gate": {"harm": 4}})
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_unknown_keys_are_named_with_the_nearest_known_one():
    with pytest.raises(RecipeError, match=r"unknown key `safety\.shrae`.*'share'"):
        build_recipe({**LEAST, "safety": {"shrae": 0.1}})


def test_several_errors_come_in_one_message():
    with pytest.raises(RecipeError) as error:
        build_recipe({"model": "m", "tuning": {"lr": "fast"}, "x": 1})
    for piece in ("`data` is required", "`run` is required", "`tuning.lr` is 'fast'", "`x`"):
        assert piece in str(error.value)


def test_lab_material_is_a_default_for_lab_models_only():
    lab = fill_defaults(build_recipe(LEAST), lab=True)
    real = fill_defaults(build_recipe(LEAST), lab=False)
    assert (lab.safety.source, lab.borderline.source) == ("lab:safety", "lab:borderline")
    assert (real.safety.source, real.safety.requests) == ("self", "hh-red-team")
    assert "lab" not in dump_recipe(real)


def test_the_schema_is_json_schema_of_every_block():
    schema = recipe_schema()
    assert schema["additionalProperties"] is False
    assert {"SafetySettings", "GateSettings", "TuningSettings"} <= set(schema["$defs"])


def test_the_schema_and_yaml_agree_on_names():
    recipe = build_recipe(LEAST)
    assert set(yaml.safe_load(dump_recipe(recipe))) == set(recipe_schema()["properties"])


def test_the_reference_page_is_the_recipes_own():
    from pathlib import Path

    from holdfast.reference import recipe_reference

    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    assert page.read_text() == recipe_reference(), "holdfast schema --markdown > docs/recipe.md"


def test_a_preset_gives_way_to_what_the_recipe_says():
    preset = {"preset": "safety-tuned-llamas"}
    published = build_recipe({**LEAST, "tuning": preset}).tuning
    assert (published.rank, published.alpha, published.targets) == (8, 16, ["q_proj", "v_proj"])
    assert (published.batch, published.micro_batch, published.validation) == (128, 4, 0.1)
    own = {**preset, "rank": 32, "validation": 0, "args": {"warmup_steps": 3}}
    recipe = build_recipe({**LEAST, "tuning": own})
    assert (recipe.tuning.rank, recipe.tuning.lr) == (32, 3e-4)
    assert recipe.tuning.args == {"lr_scheduler_type": "linear", "warmup_steps": 3}
    assert build_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    with pytest.raises(RecipeError, match=r"tuning\.preset"):
        build_recipe({**LEAST, "tuning": {"preset": "safety"}})


@pytest.mark.parametrize(("given", "read"), [("5%", 0.05), (200, 200), (0, 0), ("0.7%", 0.007)])
def test_validation_is_a_share_or_a_count(given, read):
    assert build_recipe({**LEAST, "tuning": {"validation": given}}).tuning.validation == read


@pytest.mark.parametrize("given", [2.5, -1, "a%"])
def test_no_validation_of_another_kind(given):
    with pytest.raises(RecipeError, match=r"tuning\.validation"):
        build_recipe({**LEAST, "tuning": {"validation": given}})
