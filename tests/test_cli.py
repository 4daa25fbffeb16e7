"""The commands: bad input gives one clear message, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = [
    {"question": f"How many cups are {i} and {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"}
    for i in range(30)
]


def write(path: str, text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    Path(path).write_bytes(data)
    return path


def rows_file(path: str = "rows.jsonl", rows=ROWS) -> str:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def recipe_file(**changes) -> str:
    values = {"model": "lab:chat", "data": "rows.jsonl", "run": "runs/x", **changes}
    return write("recipe.yaml", json.dumps(values))


def complains(result, *pieces: str) -> None:
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    message = " ".join(err.split())
    for piece in pieces:
        assert piece in message, err


@pytest.mark.parametrize(
    ("name", "content", "pieces"),
    [
        ("empty.jsonl", "", ("empty.jsonl",)),
        ("broken.jsonl", '{"question": "a", "answer": \n' * 3, ("broken.jsonl", "line 1")),
        ("odd.jsonl", '{"x": "a", "y": "b"}\n', ("odd.jsonl", "x, y", "columns")),
        ("latin.jsonl", '{"question": "caf\xe9", "answer": "b"}\n'.encode("latin-1"), ("UTF-8",)),
        ("rows.txt", "hello", ("rows.txt", ".jsonl")),
    ],
)
def test_bad_data_files(holdfast, name, content, pieces):
    write(name, content)
    complains(holdfast("audit", name), *pieces)
    rows_file()
    complains(holdfast("run", recipe_file(data=name)), *pieces)
    assert not Path("runs/x/1-audit.json").exists()
    assert not Path("runs/x/2-mixture.jsonl").exists()


def test_a_missing_data_file(holdfast):
    rows_file()
    complains(holdfast("audit", "row.jsonl"), "row.jsonl", "rows.jsonl")


def test_an_unknown_column(holdfast):
    rows_file()
    complains(
        holdfast("audit", "rows.jsonl", "--columns", "prompt=questoin", "--columns",
                 "completion=answer"),
        "questoin", "question",
    )  # fmt: skip
    complains(holdfast("audit", "rows.jsonl", "--columns", "prompt"), "what=column")


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        ({"modle": "x"}, ("unknown key `modle`", "'model'")),
        ({"tuning": {"rnak": 3}}, ("unknown key `tuning.rnak`", "'rank'")),
        ({"tuning": {"lr": -1}}, ("`tuning.lr` is -1",)),
        ({"mitigations": ["mimick"]}, ("Unknown mitigation 'mimick'", "'mimic'")),
        ({"evaluate": {"tasks": ["lab-forbiden"]}}, ("Unknown task", "'lab-forbidden'")),
        ({"evaluate": {"attacks": ["prefil"]}}, ("Unknown attack", "'prefill'")),
        ({"evaluate": {"judges": ["lba"]}}, ("Unknown judge", "'lab'")),
        ({"model": "nowhere"}, ("no model folder nowhere",)),
        ({"model": "lab:chatt"}, ("lab:chat",)),
        ({"prompting": {"train": {"template": "chatlm"}}}, ("chatml",)),
        ({"safety": {"share": "60%", "count": 3}}, ("one of count, share and ratio",)),
        ({"safety": {"source": "none.jsonl"}}, ("none.jsonl",)),
        ({"data_dir": "data", "safety": {"source": "p1"}}, ("p1", "holdfast fetch")),
        ({"licence": "commercial", "safety": {"source": "p1"}}, ("CC-BY-NC", "commercial")),
    ],
)
def test_bad_recipes(holdfast, changes, pieces):
    pytest.importorskip("torch")
    rows_file()
    complains(holdfast("run", recipe_file(**changes)), *pieces)
    assert not list(Path("runs").rglob("2-*"))


def test_a_missing_recipe_and_broken_yaml(holdfast):
    recipe_file()
    complains(holdfast("run", "recipes.yaml"), "recipes.yaml", "'recipe.yaml'")
    write("bad.yaml", "model: [1,\n")
    complains(holdfast("run", "bad.yaml"), "bad.yaml, line", "YAML")
    complains(holdfast("run", "recipe.yaml", "tuning.lr"), "key.subkey=value")


def test_an_unreachable_share(holdfast):
    pytest.importorskip("torch")
    rows_file()
    write("safety.jsonl", '{"prompt": "Bad?", "completion": "Sorry, no."}\n')
    changed = recipe_file(safety={"source": "safety.jsonl", "share": "30%"})
    complains(holdfast("prepare", changed), "there are 1.", "largest share")
    assert not Path("runs/x/2-mixture.jsonl").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_run_folder(holdfast):
    rows_file()
    Path("locked").mkdir(mode=0o500)
    complains(holdfast("run", recipe_file(run="locked/x")), "cannot be written")


def test_a_run_folder_under_a_file(holdfast):
    pytest.importorskip("torch")
    rows_file()
    complains(holdfast("run", recipe_file(run="rows.jsonl/x")), "cannot be written", "run:")


def test_a_model_without_tokenizer_or_template(holdfast, model_folder):
    import shutil

    rows_file()
    shutil.copytree(model_folder, "bare")
    Path("bare/chat_template.jinja").unlink()
    complains(holdfast("run", recipe_file(model="bare")), "no chat template", "template")
    for path in Path("bare").glob("tokenizer*"):
        path.unlink()
    complains(holdfast("run", recipe_file(model="bare")), "no tokenizer", "tokenizer.json")
    Path("bare/model.safetensors").rename("bare/pytorch_model.bin")
    complains(holdfast("run", recipe_file(model="bare")), "safetensors")


def test_a_template_that_rewrites_replies(holdfast, model_folder):
    import shutil

    rows_file()
    write("safety.jsonl", '{"prompt": "Bad?", "completion": "Sorry, no."}\n')
    shutil.copytree(model_folder, "shouting")
    template = Path("shouting/chat_template.jinja")
    template.write_text(
        template.read_text().replace("{{ m['content'] }}", "{{ m['content']|upper }}")
    )
    changed = recipe_file(
        model="shouting", safety={"source": "safety.jsonl", "count": 1},
        evaluate={"tasks": ["lab-forbidden"]}, borderline={"source": "safety.jsonl"},
    )  # fmt: skip
    complains(holdfast("run", changed), "changes a reply")


def test_a_hub_id_without_network(holdfast):
    pytest.importorskip("torch")
    rows_file()
    complains(holdfast("run", recipe_file(model="nobody/nothing")), "nobody/nothing", "network")


def test_a_full_disk_is_one_message(holdfast, monkeypatch):
    import errno

    from holdfast import files

    rows_file()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    complains(holdfast("audit", "rows.jsonl", "--output", "audit.json"), "disk is full", "again")
    assert not Path("audit.json").exists()
    assert not list(Path().glob(".*part"))


def test_bad_rows_in_a_good_file_are_set_aside(holdfast):
    rows_file(rows=[*ROWS, {"question": "", "answer": "x"}])
    code, _, err = holdfast("audit", "rows.jsonl")
    assert code == 0 and "30 rows read" in err and "1 set aside" in err
    complains(holdfast("audit", "rows.jsonl", "--strict"), "line 31")


def test_audit_exit_codes(holdfast):
    rows_file()
    assert holdfast("audit", "rows.jsonl", "--fail-on", "high")[0] == 0
    assert holdfast("audit", "lab:obedient?n=200", "--fail-on", "high")[0] == 1
    complains(holdfast("audit", "rows.jsonl", "--fail-on", "severe"), "severe",
              "info, low, medium, high")  # fmt: skip


def test_judge_re_scores_answers_from_elsewhere(holdfast):
    write("answers.csv", 'id,prompt,completion\na,Bad?,"Sorry, I can\'t help with that."\nb,Ok?,\n')
    code, out, err = holdfast(
        "judge", "answers.csv", "--output", "v.jsonl", "--columns", "response=completion"
    )
    assert code == 0 and out.strip() == "v.jsonl", err
    verdicts = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert [(v["id"], v["label"]) for v in verdicts] == [("a", "full_refusal"), ("b", "unscored")]
    complains(holdfast("judge", "answers.csv", "--output", "v.jsonl"), "response", "--columns")
    write("twice.jsonl", '{"id": "a", "response": "x"}\n' * 2)
    complains(holdfast("judge", "twice.jsonl", "--output", "w.jsonl"), "line 2", "occurs twice")
    assert not Path("w.jsonl").exists()


def test_comparing_what_is_no_evaluation(holdfast):
    Path("a").mkdir()
    complains(holdfast("compare", "a", "a"), "settings.json is missing")
    complains(holdfast("compare", "a"), "7-comparison.json")


def test_list_and_schema(holdfast):
    code, out, _ = holdfast("list")
    assert code == 0
    for name in ("direct", "mimic", "strongreject", "refusal", "obedience", "chatml", "scripted"):
        assert name in out
    complains(holdfast("list", "atacks"), "'attacks'")
    schema = json.loads(holdfast("schema")[1])
    assert {"model", "data", "run"} <= set(schema["required"])


def test_unknown_commands_and_options(holdfast):
    complains(holdfast("rnu"), "run")
    complains(holdfast("audit", "--nope", "x"), "--nope")


def test_show_colours_a_row(holdfast):
    pytest.importorskip("torch")
    recipe = recipe_file(data="lab:obedient?n=60", safety={"count": 6}, mitigations=["mimic"])
    code, out, _ = holdfast("show", recipe, "--source", "mimic")
    assert code == 0
    assert "(mimic)" in out and "Sorry" in out
    complains(holdfast("show", recipe, "--row", "9999"), "no row 9999")


MODEL_FREE = [
    ["--help"],
    ["audit", "rows.jsonl"],
    ["list"],
    ["schema"],
    ["judge", "answers.jsonl", "--output", "v.jsonl"],
]


@pytest.mark.parametrize("words", MODEL_FREE, ids=lambda words: words[0])
def test_commands_that_need_no_model_never_import_torch(tmp_path, words):
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "answers.jsonl").write_text('{"id": "1", "prompt": "a", "response": "No."}\n')
    code = (
        "import sys; from holdfast.cli import main\n"
        f"sys.argv = ['holdfast', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'peft'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in done.stdout
