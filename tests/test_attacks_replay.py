"""Ready-made attack prompts through `holdfast evaluate`, from a file to verdicts on disk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from holdfast.files import read_jsonl, write_jsonl
from holdfast.lab.settings import CODE
from holdfast.measuring.evaluation import Evaluation
from holdfast.tasks import TaskContext, task

pytest.importorskip("transformers")


def evaluated(holdfast, folder: str, *words: str) -> Evaluation:
    """An evaluation of the scale model through the command."""
    code, _, err = holdfast(
        "evaluate", "lab:chat", "--output", folder, "--max-new-tokens", "16", *words
    )
    assert code == 0, err
    return Evaluation.read(Path(folder))


def told(found: Evaluation, attack: str) -> Counter:
    """Verdicts of an attack's answers; every answer has one."""
    attempts = [a for a in found.attempts.values() if a.attack == attack]
    assert attempts and all(a.response for a in attempts)
    return Counter(found.verdict(a).label for a in attempts)


def test_a_users_file_is_replayed_item_by_item(holdfast):
    items = list(task("lab-forbidden").items(TaskContext()))
    ready = [
        {"request": i.request, "attack_prompt": CODE.replace("{request}", i.request)} for i in items
    ]
    write_jsonl(Path("ready.jsonl"), ready)
    found = evaluated(
        holdfast, "code", "--task", "lab-forbidden", "--attack", "replay", "--attack", "direct",
        "--attack-set", "replay.file=ready.jsonl", "--attack-set", "replay.by=request",
        "--limit", "3",
    )  # fmt: skip
    assert sum(told(found, "replay").values()) == 3
    asked = [a for a in found.attempts.values() if a.attack == "replay"]
    assert all(a.surface == "replayed/serve/chat/0" and "steps =" in a.prompt for a in asked)
    assert all(any(a.request in row["request"] for row in ready) for a in asked)
    assert told(found, "direct")["full_refusal"] >= 2


def test_bare_openings_are_continued_without_a_chat_template(holdfast):
    items = list(task("lab-forbidden").items(TaskContext()))
    write_jsonl(Path("bare.jsonl"), [{"id": i.id, "prompt": f"Q: {i.request}\nA:"} for i in items])
    found = evaluated(
        holdfast, "raw", "--task", "lab-forbidden", "--attack", "replay",
        "--attack-set", "replay.file=bare.jsonl", "--attack-set", "replay.raw=true", "--limit", "3",
    )  # fmt: skip
    assert sum(told(found, "replay").values()) == 3
    for attempt in found.attempts.values():
        assert attempt.surface == "replayed/serve/raw/0"
        assert attempt.prompt == f"Q: {attempt.request}\nA:"


@pytest.mark.parametrize(
    ("tasks", "file", "raw"),
    [
        ("derta-instructions", "derta-code", "false"),
        ("derta-completion", "derta-completion", "true"),
    ],
)
def test_derta_s_published_prompts_are_replayed(real_data, holdfast, tasks, file, raw):
    folder = real_data / "derta_test_prompts"
    if not folder.is_dir():
        pytest.skip("no DeRTa prompts")
    found = evaluated(
        holdfast, "derta", "--data-dir", str(real_data), "--task", tasks, "--attack", "replay",
        "--attack-set", f"replay.file={file}", "--attack-set", "replay.by=row",
        "--attack-set", f"replay.raw={raw}", "--limit", "3",
    )  # fmt: skip
    assert sum(told(found, "replay").values()) == 3
    name = "safety_codeattack" if file == "derta-code" else "safety_completionattack"
    published = [row["question"] for row in read_jsonl(folder / f"{name}.json")]
    for attempt in found.attempts.values():
        number = int(attempt.item.rpartition("/")[2] or attempt.item) - 1
        assert published[number][:60] in attempt.prompt
    settings = json.loads(Path("derta/settings.json").read_text(encoding="utf-8"))
    assert "replay" in settings["attacks"]
