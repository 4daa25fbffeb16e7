"""Rows ranked by how much they pull the scale model towards compliance."""

import json
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from holdfast.cli import app
from holdfast.errors import DataError, RecipeError
from holdfast.measuring.ranking import Scorer, auc, check_method, collect, rank, read_anchors
from holdfast.models import load_model, load_tokenizer, resolve_model
from holdfast.rows.load import open_rows
from holdfast.types import Conversation, Message

PLANTED, CLEAN, ANCHORS = 20, 80, 40


@pytest.fixture(scope="module")
def lab():
    ref = resolve_model("lab:chat")
    return load_model(ref), load_tokenizer(ref)


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    """How-to rows, among them answered forbidden requests that are no anchors."""
    triples = list(islice(open_rows("lab:triples"), ANCHORS, ANCHORS + PLANTED))
    planted = [
        Conversation(
            f"planted-{n}",
            (t.messages[0], Message.of("assistant", t.messages[1].segments[0].text)),
        )
        for n, t in enumerate(triples)
    ]
    clean = list(islice(open_rows("lab:howto"), CLEAN))
    return [row for pair in zip(clean, planted, strict=False) for row in pair] + clean[PLANTED:]


@pytest.mark.parametrize(("method", "least"), [("gradient", 0.95), ("representation", 0.65)])
def test_planted_rows_come_first(lab, rows, method, least):
    anchors = read_anchors("lab:triples", None, limit=ANCHORS)
    scorer = Scorer(*lab, anchors, method)
    scores = {row.id: score for row, score in scorer.scores(rows)}
    bad = [s for name, s in scores.items() if name.startswith("planted")]
    good = [s for name, s in scores.items() if not name.startswith("planted")]
    found = auc(bad, good)
    print(f"{method}: AUC {found:.3f} over {len(bad)} planted and {len(good)} clean rows")
    assert found > least
    assert scorer.separation > 0.9


def test_without_meaning_in_the_anchors_there_is_none_in_the_ranking(lab, rows):
    """Negative control: the same rows on both sides."""
    anchors = read_anchors("lab:howto", "lab:howto", limit=10)
    scorer = Scorer(*lab, anchors, "gradient")
    assert scorer.separation == 0.5
    assert all(abs(score) < 1e-5 for _, score in scorer.scores(rows[:5]))


def test_the_top_is_the_same_whatever_stands_beside_a_row(lab, rows):
    anchors = read_anchors("lab:triples", None, limit=10)
    scorer = Scorer(*lab, anchors, "representation")
    empty = Conversation("empty", (Message.of("user", "Well?"), Message.of("assistant", " ")))
    whole = collect(scorer, [*rows, empty], name="lab:chat", top=5)
    assert (whole.rows, whole.skipped) == (len(rows), 1)
    alone = {row.id: score for one in rows for row, score in scorer.scores([one])}
    for one in whole.top:
        assert one.score == pytest.approx(alone[one.id], abs=1e-4)
    assert [t.score for t in whole.top] == sorted((t.score for t in whole.top), reverse=True)
    assert {t.id for t in collect(scorer, rows[::-1], name="", top=5).top} == {
        t.id for t in whole.top
    }


def test_triples_give_both_sides():
    anchors = read_anchors("lab:triples", None, limit=5)
    assert all(a.reply.startswith("Sure") for a in anchors.harmful)
    assert all(a.reply.startswith("Sorry") for a in anchors.safe)


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match="--harmful FILE"):
        read_anchors(None, None)
    with pytest.raises(RecipeError, match="--safe FILE"):
        read_anchors("lab:howto", None)
    with pytest.raises(RecipeError, match="Did you mean 'gradient'"):
        check_method("gradients")
    with pytest.raises(RecipeError, match="--top is 0"):
        rank([], "lab:chat", top=0)
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "a?", "completion": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="at least 2"):
        read_anchors(str(one), "lab:safety")


def test_auc():
    assert auc([3, 4], [1, 2]) == 1.0
    assert auc([1, 2], [1, 2]) == 0.5
    assert auc([0], [1, 2]) == 0.0
    with pytest.raises(ValueError, match="both sides"):
        auc([], [1])


def test_the_command_ranks_and_stores(tmp_path: Path, rows):
    data, output = tmp_path / "rows.jsonl", tmp_path / "audit.json"
    some = rows[:30]
    data.write_text("".join(json.dumps(r.to_json()) + "\n" for r in some), encoding="utf-8")
    result = CliRunner().invoke(
        app,
        ["audit", str(data), "--model", "lab:chat", "--top", "7", "--output", str(output)],
    )
    assert result.exit_code == 0, result.output
    ranking = json.loads(output.read_text(encoding="utf-8"))["ranking"]
    assert ranking["rows"] == 30
    assert len(ranking["top"]) == 7
    assert all(row["id"].startswith("planted") for row in ranking["top"])
