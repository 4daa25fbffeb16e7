"""The noise floor: what moves when nothing is tuned."""

from __future__ import annotations

import pytest

from holdfast.attacks import AttackContext, attack
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import RecipeError
from holdfast.files import digest, read_json
from holdfast.measuring.asking import Asked, ask
from holdfast.measuring.evaluation import Evaluation
from holdfast.measuring.noise import floor, floor_of_means, floors, measure_noise, table
from holdfast.recipe import GateSettings, build_recipe
from holdfast.rendering.prompting import Prompting
from holdfast.stages.compare import compare
from holdfast.stages.planning import Served
from holdfast.types import Answer, Item, Message

NO, YES = "Sorry, I can't help with that.", "First take the cloth, then rub it dry and clean."
JUDGES = {"bad": ("refusal",), "fine": ("refusal",)}


class Sampling(ScriptedEngine):
    """Refuses what is bad; under sampled decoding one time in five it does not."""

    def generate(self, prompts, decoding):
        return [Answer(self._answer_of(p, decoding), tokens=5) for p in prompts]

    def _answer_of(self, prompt, decoding):
        text = prompt.messages[-1].content
        luck = int(digest(text, decoding.seed)[:4], 16) % 5 == 0
        lapse = decoding.temperature > 0 and luck
        return NO if text.startswith("bad") and not lapse else YES


def items(n=100):
    def item(task, i, expects):
        return Item(str(i), task, (Message.of("user", f"{task} request {i}?"),), expects)

    return [
        *(item("bad", i, "refuse") for i in range(n)),
        *(item("fine", i, "comply") for i in range(n)),
    ]


def again(engine, asked, folder, seed):
    ask(
        engine, items(), asked, folder, promptings={"serve": Served(Prompting())},
        context=AttackContext(), fingerprint="x", date="d", seed=seed,
    )  # fmt: skip


def measured(folder, **more):
    asked = Asked({"bad": None, "fine": None}, {"direct": attack("direct")}, False, JUDGES, 32, 64)
    return measure_noise(again, Sampling(), asked, folder, **{"repeats": 3, **more})


def test_sampling_moves_what_it_moves_and_nothing_else(tmp_path):
    path = measured(tmp_path)
    cells = {c["task"]: c for c in read_json(path)["cells"]}
    bad, fine = cells["bad"]["kinds"], cells["fine"]["kinds"]
    assert bad["sampled"]["discordance"] == pytest.approx(0.32, abs=0.1)  # 2 x 0.2 x 0.8
    assert len(bad["sampled"]["rates"]) == 3 and len(bad["sampled"]["differences"]) == 3
    assert bad["batch"]["differences"] == [0.0]
    assert "precision" not in bad  # a scripted engine has none
    assert cells["bad"]["by"] == "sampled"
    assert fine["sampled"]["discordance"] == 0
    assert cells["fine"]["floor"] == floor(100, 0.0) > 0.03  # few items know little
    assert cells["bad"]["floor"] > 2 * cells["fine"]["floor"]
    assert floors(tmp_path)[("bad", "direct", "plain/serve/chat/0")] == cells["bad"]["floor"]
    assert table(read_json(path)["cells"]).row_count == 2


def test_a_change_within_noise_is_called_that(tmp_path):
    noise = floors(measured(tmp_path / "noise"))
    greedy = Evaluation.read(tmp_path / "noise" / "greedy")

    class Slips(Sampling):
        def generate(self, prompts, decoding):
            slip = ("bad request 1?", "bad request 2?")
            return [
                Answer(YES if p.messages[-1].content in slip else self._answer_of(p, decoding))
                for p in prompts
            ]

    asked = Asked({"bad": None, "fine": None}, {"direct": attack("direct")}, False, JUDGES, 32, 64)
    again(Slips(), asked, tmp_path / "after", 0)
    found = compare(greedy, Evaluation.read(tmp_path / "after"), GateSettings(), noise=noise)
    cells = {c["task"]: c for c in found["cells"]}
    assert cells["bad"]["change"] == pytest.approx(0.02)
    assert cells["bad"]["within_noise"] and cells["bad"]["noise"] == noise[greedy_key()]
    silent = compare(greedy, greedy, GateSettings())
    assert silent["cells"][0]["noise"] is None and silent["cells"][0]["within_noise"] is None


def greedy_key():
    return ("bad", "direct", "plain/serve/chat/0")


def test_one_repetition_or_no_temperature_shows_nothing(tmp_path):
    for wrong in ({"repeats": 1}, {"temperature": 0.0}):
        with pytest.raises(RecipeError, match="would show nothing"):
            measured(tmp_path, **wrong)
    with pytest.raises(RecipeError, match="nothing to differ from"):
        build_recipe({"model": "m", "data": "d", "run": "r", "evaluate": {"noise": 1}})


def test_the_floor_covers_two_evaluations_of_one_model():
    """The difference of two evaluations of one model lies within it nineteen times in twenty."""
    import numpy as np

    rng, n, runs = np.random.default_rng(0), 200, 2000
    chances = rng.beta(0.3, 1.0, size=n)
    one, other = (rng.random((2, runs, n)) < chances).astype(float)
    moved = float((one != other).mean())
    inside = np.abs((one - other).mean(axis=1)) <= floor(n, moved)
    assert inside.mean() == pytest.approx(0.95, abs=0.02)
    assert floor_of_means(100, 0.01) == pytest.approx(0.0196, abs=1e-4)
