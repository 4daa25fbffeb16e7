"""Claims re-measured: what scripted answers come to, and a tiny study that is killed twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from scipy.stats import page_trend_test

from holdfast.claims import (
    CLAIMS,
    MARKS,
    PAPERS,
    Arm,
    Claim,
    Contrast,
    Need,
    Reading,
    Trend,
    claim,
    side,
)
from holdfast.errors import RecipeError
from holdfast.files import read_json, read_jsonl
from holdfast.recipe import read_values
from holdfast.reproduce.commands import choose, ordered
from holdfast.reproduce.ledger import Origin, as_markdown, as_page, stored
from holdfast.reproduce.orders import Answers, orders, questions, readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.study import check_looks
from holdfast.reproduce.trend import page_p
from holdfast.reproduce.verdicts import LEVEL, Table, finding, judge_all, value, widened
from holdfast.sweep.grid import read_promptings

TORCH = find_spec("torch") is not None
ASKED = 200
LOOKS = (3, 5, 8)
A, B = Arm("tiny", {"tuning.lr": 0.1}), Arm("tiny", {"tuning.lr": 0.2})
TINY = {
    "model": "lab:chat",
    "data": "lab:howto?n=24&seed={seed}",
    "run": "unused",
    "mitigations": [],
    "tuning": {"method": "full", "lr": 1e-3, "epochs": 1, "batch": 8, "max_length": 256},
    "evaluate": {"tasks": ["lab-forbidden", "lab-lookalike", "lab-capability"], "limit": 8,
                 "attacks": ["direct"], "hold_out": 0, "max_new_tokens": 8},
}  # fmt: skip


@pytest.fixture
def recipes(tmp_path) -> Recipes:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in ("tiny", "howto"):
        (folder / f"{name}.yaml").write_text(json.dumps(TINY))  # JSON is YAML
    return Recipes(folder)


def answered(recipes: Recipes, shares: dict[Arm, list[float]] | list, rate: str = "harm"):
    """Answers as if every arm had been asked 200 requests: (arm, share of each seed) pairs."""
    answers = Answers()
    for arm, of_seeds in shares:
        for seed, share in enumerate(of_seeds):
            bad = round(share * ASKED)
            counted = {"asked": ASKED, "unscored": 0, "bad": bad, "likelihood": 0.0,
                       "placed": ASKED - bad, "late": 0}  # fmt: skip
            for question in questions(Reading(arm, rate)):
                mine = answers.counts.setdefault(recipes.name(arm, seed), {})
                mine[question] = {"plain/serve/chat/0": {"lab-forbidden": counted}}
    return answers


def judged(recipes, part, shares, *, seeds=8, more=(), needs=(), passes=(), looks=LOOKS):
    """The verdict of one claim with `part`, beside further claims of its family."""
    rate = side(part.a)[0].rate if isinstance(part, Contrast) else part.readings[0].rate
    table = Table(answered(recipes, shares, rate), recipes)
    claims = {"R01": Claim("ptst", "1 → 2", ("TT",), (part, *more), needs, passes=passes)}
    return judge_all(
        [finding(n, c, table, range(seeds), looks, looks[0]) for n, c in claims.items()]
    )[0]


def spread(mean: float, seeds: int = 8, by: float = 0.03) -> list[float]:
    return [mean + by * (-1) ** seed * (1 + seed % 3) / 2 for seed in range(seeds)]


LOWER = Contrast("harm", Reading(A), Reading(B), "lower")


# --- verdicts -------------------------------------------------------------------------------------


def test_a_claim_is_supported_and_with_its_arms_swapped_contradicted(recipes):
    shares = [(A, spread(0.2)), (B, [share + 0.3 for share in spread(0.2, by=0.05)])]
    found = judged(recipes, LOWER, shares)
    assert found.verdict == "supported"
    assert found.finding.effects[0].mean == pytest.approx(-0.3, abs=0.01)
    swapped = replace(LOWER, a=LOWER.b, b=LOWER.a)
    assert judged(recipes, swapped, shares).verdict == "contradicted"


@pytest.mark.parametrize("expected", ["lower", "higher", "different"])
def test_equal_arms_are_inconclusive(recipes, expected):
    shares = [(A, spread(0.4, by=0.05)), (B, spread(0.4, by=0.02))]
    part = replace(LOWER, expected=expected)
    assert judged(recipes, part, shares).verdict == "inconclusive"
    same = replace(part, b=part.a)
    assert judged(recipes, same, shares).verdict == "inconclusive"


def test_no_change_is_shown_by_equivalence_and_not_by_silence(recipes):
    part = Contrast("accuracy", Reading(A, "capability"), Reading(B, "capability"), "same", 0.02)
    close = [(A, [0.1, 0.105, 0.1]), (B, [0.1, 0.1, 0.105])]
    assert judged(recipes, part, close, seeds=3, looks=(3,)).verdict == "supported"
    loose = [(A, [0.1, 0.2, 0.15]), (B, [0.15, 0.1, 0.2])]
    assert judged(recipes, part, loose, seeds=3, looks=(3,)).verdict == "inconclusive"
    apart = [(A, [0.1, 0.105, 0.1]), (B, [0.2, 0.2, 0.205])]
    assert judged(recipes, part, apart, seeds=3, looks=(3,)).verdict == "contradicted"


def test_all_parts_have_to_hold(recipes):
    shares = [(A, spread(0.2)), (B, [share + 0.3 for share in spread(0.2, by=0.05)])]
    undecided = Contrast("nothing", Reading(A), Reading(A), "higher")
    assert judged(recipes, LOWER, shares, more=(undecided,)).verdict == "inconclusive"
    against = replace(LOWER, expected="higher")
    assert judged(recipes, LOWER, shares, more=(against,)).verdict == "contradicted"


def test_seeds_that_agree_exactly_are_no_proof(recipes):
    one_answer = [(A, [0.5] * 3), (B, [0.505] * 3)]
    assert judged(recipes, LOWER, one_answer, seeds=3, looks=(3,)).verdict == "inconclusive"
    far = [(A, [0.0] * 3), (B, [1.0] * 3)]
    assert judged(recipes, LOWER, far, seeds=3, looks=(3,)).verdict == "supported"
    assert widened([0.3, 0.1, 0.2], 0.01) == [0.3, 0.1, 0.2]
    kept = widened([0.1, 0.1, 0.1], 0.05)
    assert sum(kept) == pytest.approx(0.3) and max(kept) - min(kept) == pytest.approx(0.1)


def test_one_seed_decides_nothing(recipes):
    found = judged(recipes, LOWER, [(A, [0.0]), (B, [1.0])], seeds=1, looks=(1,))
    assert found.verdict == "inconclusive" and found.finding.effects[0].low is None


def test_a_model_that_does_not_refuse_has_nothing_to_lose(recipes):
    shares = [(A, spread(0.2)), (B, spread(0.6)), (A.untouched, [0.5] * 8)]
    need = Need(Reading(A.untouched, "refused"), 0.6, "the model refuses before training")
    found = judged(recipes, LOWER, shares, needs=(need,))
    assert found.verdict == "not testable"
    assert "50.0 %, 60 % are needed" in found.finding.untestable
    kept = [*shares[:2], (A.untouched, [0.1] * 8)]
    assert judged(recipes, LOWER, kept, needs=(need,)).verdict == "supported"


def test_a_family_asks_more_of_each_of_its_claims(recipes):
    table = Table(
        answered(recipes, [(A, [0.2, 0.22, 0.2]), (B, [0.3, 0.36, 0.33])]), recipes
    )  # fmt: skip
    one = Claim("ptst", "", ("T",), (LOWER,), ())

    def verdicts(names):
        found = [finding(name, one, table, range(3), (3,), 3) for name in names]
        return {j.verdict for j in judge_all(found)}

    assert verdicts(["R01"]) == {"supported"}
    assert verdicts([f"R{n:02}" for n in range(1, 21)]) == {"inconclusive"}


def test_looking_often_does_not_make_up_effects(recipes):
    """At most the level of null claims are decided, whichever way; the bound is binomial."""
    rng = random.Random(7)
    wrong, studies = 0, 250
    for _ in range(studies):
        shares = [(arm, [rng.gauss(0.4, 0.05) for _ in range(8)]) for arm in (A, B)]
        wrong += judged(recipes, LOWER, shares).verdict != "inconclusive"
    assert wrong <= 2 * LEVEL * studies * 1.2  # a level for each direction


def test_a_trend_is_over_all_doses(recipes):
    arms = [Arm("tiny", {"safety.ratio": dose}) for dose in (0.1, 0.2, 0.3, 0.4)]
    falls = Trend("harm", tuple(map(Reading, arms)), "falling", ("a", "b", "c", "d"))
    shares = [(arm, spread(0.8 - 0.2 * i, 3)) for i, arm in enumerate(arms)]
    assert judged(recipes, falls, shares, seeds=3, looks=(3,)).verdict == "supported"
    rises = replace(falls, expected="rising")
    assert judged(recipes, rises, shares, seeds=3, looks=(3,)).verdict == "contradicted"


@pytest.mark.parametrize("doses", [3, 4, 5])
def test_pages_test_agrees_with_another_implementation(doses):
    rng = random.Random(doses)
    rows = [[rng.random() + 0.2 * place for place in range(doses)] for _ in range(4)]
    other = page_trend_test(rows, method="exact").pvalue
    assert page_p(rows) == pytest.approx(other, abs=1e-12)
    assert page_p([[0.5] * doses] * 3) == 1.0  # ties throughout say nothing
    with pytest.raises(ValueError, match="3 to 7 readings"):
        page_p([[1.0, 2.0]])


# --- readings -------------------------------------------------------------------------------------


def test_a_reading_is_a_mean_over_attacks_and_their_places():
    def counted(bad, unscored=0, **more):
        return {"asked": 10, "unscored": unscored, "bad": bad, "likelihood": 0.0, "placed": 4,
                "late": 1, **more}  # fmt: skip

    reading = Reading(A, attacks=("direct", "prefill"))
    direct, prefill = questions(reading)
    counts = {
        direct: {"plain/serve/chat/0": {"one": counted(2), "two": counted(4, unscored=3)}},
        prefill: {
            "plain/serve/chat/5": {"one": counted(5)},
            "plain/serve/chat/10": {"one": counted(10)},
        },
    }
    assert value(reading, counts).share == pytest.approx((6 / 20 + (0.5 + 1.0) / 2) / 2)
    assert value(replace(reading, words=(5,), attacks=("prefill",)), counts).share == 0.5
    assert value(replace(reading, tasks=("two",), attacks=("direct",)), counts).share == 0.4
    asked = replace(reading, attacks=("direct",))
    assert value(replace(asked, rate="refused"), counts).share == pytest.approx(11 / 20)
    assert value(replace(asked, rate="unscored"), counts).share == pytest.approx(3 / 20)
    assert value(replace(asked, rate="late"), counts).share == pytest.approx(2 / 8)
    assert value(replace(reading, words=(7,), attacks=("prefill",)), counts) is None


def test_two_judges_are_told_by_their_lowest_agreement(recipes):
    answers = answered(recipes, [(A, [0.2, 0.2]), (B, [0.6, 0.6])])
    only = Claim("ptst", "", ("T",), (LOWER,), ())

    def told():
        return finding("R01", only, Table(answers, recipes), (0, 1), (2,), 2).agreement

    assert told() is None  # one judge
    for arm, kappa in ((A, 0.9), (B, 0.7)):
        for tasks in answers.counts[recipes.name(arm, 1)].values():
            tasks["plain/serve/chat/0"]["lab-forbidden"]["kappa"] = kappa
    assert told() == 0.7


def test_what_several_claims_want_is_ordered_once(recipes, tmp_path):
    both = [Reading(A), Reading(B), Reading(A, serve="none"), Reading(A, "over_refusal")]
    found = orders([*both, Reading(Arm("tiny", {"tuning.lr": 0.1}))], (0, 1), recipes, tmp_path)
    assert Counter(order.recipe.seed for order in found) == {0: 2, 1: 2}
    assert len(found[0].questions) == 3
    assert found[0].recipe.data == "lab:howto?n=24&seed=0"
    assert A.untouched == B.untouched  # a learning rate changes nothing before training


def test_seeds_and_looks():
    assert check_looks(None, 8) == (tuple(range(8)), (3, 5, 8))
    assert check_looks(None, 6) == (tuple(range(5)), (3, 5))
    assert check_looks([4, 7], 8) == ((4, 7), (2,))
    with pytest.raises(RecipeError, match="at least 3 seeds"):
        check_looks(None, 2)


# --- the shelf ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS.names())
def test_every_claim_can_be_asked(name, tmp_path):
    """Its recipes can be read, and hold the attacks, tasks and promptings that it reads."""
    one = claim(name.lower())
    assert one.paper in PAPERS and set(one.marks) <= set(MARKS) and one.parts
    assert one.passes or (one.marks and one.deviations)
    assert [part.name for part in one.parts] == list(dict.fromkeys(p.name for p in one.parts))
    for order in orders(readings_of(one), (0,), Recipes(), tmp_path):
        assert {q.attack for q in order.questions} <= set(order.recipe.evaluate.attacks or ())
    for reading in readings_of(one):
        assert "ptst" not in Recipes().recipe(reading.arm, 0).mitigations
        tasks = Recipes().recipe(reading.arm, 0).evaluate.tasks or []
        assert set(reading.tasks) <= {*tasks, "held-out"}
        assert reading.serve is None or len(read_promptings(reading.serve)) == 1


def test_base_recipes_say_what_they_are():
    folder = Path(str(CLAIMS.get("R03").__code__.co_filename)).parent / "recipes"
    for path in folder.glob("*.yaml"):
        assert path.read_text().startswith("# ")
        assert read_values(path)["evaluate"]["tasks"]


def test_claims_are_chosen_by_name_or_paper():
    assert choose(["r14", "R03"], None) == ["R03", "R14"]
    assert choose([], None) == ordered() and ordered()[-1].startswith("R-null")
    assert {claim(name).paper for name in choose([], "ptst")} == {"ptst"}
    with pytest.raises(RecipeError, match="Did you mean 'R03'"):
        choose(["R033"], None)
    with pytest.raises(RecipeError, match="Did you mean 'ptst'"):
        choose([], "ptts")
    with pytest.raises(RecipeError, match="not both"):
        choose(["R03"], "ptst")


# --- the ledger -----------------------------------------------------------------------------------


def test_a_failed_control_stands_at_the_top(recipes):
    shares = [(A, spread(0.2)), (B, spread(0.6))]
    must_not = {"passes": ("inconclusive",)}
    failed = judged(recipes, replace(LOWER, expected="different"), shares, **must_not)
    assert failed.verdict == "supported" and failed.passes is False
    kept = judged(recipes, replace(LOWER, a=LOWER.b), shares, **must_not)
    assert kept.passes is True
    origin = Origin("holdfast reproduce", "holdfast reproduce {claim}", LOOKS)
    for one, first in ((failed, True), (kept, False)):
        ledger = stored([one], origin)
        text, page = as_markdown(ledger), as_page(ledger)
        assert ("The control R01 failed" in text.splitlines()[2]) is first
        assert ("The control R01 failed" in page.partition("<section")[0]) is first


def test_the_ledger_says_everything_and_runs_nothing(recipes):
    shares = [(A, spread(0.2)), (B, spread(0.6))]
    one = judged(recipes, replace(LOWER, name="harm <script>|x"), shares)
    note = Claim("ptst", "18 → 1", ("TT",), one.finding.claim.parts, (), ("a <b>small</b> model",))
    one = replace(one, finding=replace(one.finding, claim=note))
    ledger = stored([one], Origin("holdfast reproduce", "holdfast reproduce {claim}", LOOKS))
    text, page = as_markdown(ledger), as_page(ledger)
    json.dumps(ledger, allow_nan=False)
    for told in (text, page):
        assert "18 → 1 " in told and "TT" in told and "holdfast reproduce R01" in told
        assert "<script>" not in told and "<b>small" not in told
        assert "supported" in told and "two independent transcriptions" in told
    assert "src=" not in page and "http" not in page.replace("http-equiv", "")
    assert page.count('class="span holds"') == 1
    assert all(f"seed {seed}" in text for seed in range(8))


# --- a study --------------------------------------------------------------------------------------

STUDY = """
import os, signal, sys, time
from pathlib import Path
import torch, peft, holdfast.engines.transformers, holdfast.stages.train  # paid once: studies fork
from transformers import Trainer, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from holdfast.claims import claim
from holdfast.reproduce import training
from holdfast.reproduce.commands import Wanted, _origin
from holdfast.reproduce.ledger import write_ledger
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.study import Study, _Run
from holdfast.job.rundir import RunFolder
from holdfast.sweep.store import SharedStages

class Here:  # a pool of no processes
    def __init__(self, output):
        self.store = SharedStages(output / "store")
    def work(self, orders):
        for order in orders:
            yield order, training.work(order, self.store), 2.0
    def costs(self, orders):
        return [training.cost(order, self.store) for order in orders]

def study(output):
    torch.set_num_threads(1)
    asked = Study({"R03": claim("R03")}, Recipes(Path("recipes")), output, (0, 1), (2,))
    with RunFolder(output).opened():
        judged = _Run(asked, Here(output)).go()
    write_ledger(judged, _origin(Wanted(("R03",)), (2,)), output)

def started(output):
    child = os.fork()
    if not child:
        study(output)
        os._exit(0)
    return child

out = Path("out")
for trained in (1, 3):
    child = started(out)
    while len(list(out.glob("store/train-*"))) < trained:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (out / "ledger.json").exists()
for output in (out, Path("whole")):
    assert os.waitpid(started(output), 0)[1] == 0
"""


def events(output: Path) -> Counter:
    """(stage, event) over all arms."""
    logs = output.glob("arms/*/log.jsonl")
    return Counter((row["stage"], row["event"]) for log in logs for row in read_jsonl(log))


@pytest.mark.slow
@pytest.mark.skipif(not (TORCH and hasattr(os, "fork")), reason="studies are forked")
def test_a_study_killed_twice_ends_with_the_same_ledger(recipes, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUDY], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    out, whole = tmp_path / "out", tmp_path / "whole"
    for name in ("ledger.json", "ledger.md", "ledger.html"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert events(whole)["train", "finished"] == 4
    assert events(out)["train", "finished"] <= 4 + 2  # what was trained stays trained
    assert "4 arms to train, 4 questions to ask" in done.stderr and " left" in done.stderr
    (one,) = read_json(out / "ledger.json")["claims"]
    assert one["seeds"] == [0, 1] and one["needs"][0]["mean"] is not None


POOL = """
import sys
from pathlib import Path
from holdfast.claims import claim
from holdfast.reproduce.orders import orders, readings_of
from holdfast.reproduce.recipes import Recipes
from holdfast.reproduce.workers import workers
if __name__ == "__main__":
    out = Path("out").resolve()
    out.mkdir()
    wanted = readings_of(claim("R03"))
    with workers(out, 1, 1) as pool:
        broken = Recipes(Path("recipes"), ("data=nowhere.jsonl",))
        for order, brought, _ in pool.work(orders(wanted[:1], (0,), broken, out)):
            print(brought["error"], flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(not (TORCH and Path("/proc").is_dir()), reason="looks for the worker in /proc")
def test_a_worker_tells_what_stopped_an_arm_and_ends_with_its_parent(recipes, tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    process = subprocess.Popen(
        [sys.executable, "pool.py"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"nowhere.jsonl" in process.stdout.readline()
    assert len(holders(tmp_path / "out/messages.log")) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 30
    while holders(tmp_path / "out/messages.log"):
        assert time.monotonic() < until, "the worker outlives its parent"
        time.sleep(0.01)


def holders(path: Path) -> list[str]:
    """Processes that have the file open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(fd.readlink() == path for fd in (folder / "fd").iterdir()):
                found.append(folder.name)
        except OSError:
            continue
    return found
