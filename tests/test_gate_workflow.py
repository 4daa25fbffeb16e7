"""The workflow file that users copy: its commands run, without torch, and colour the build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from test_report import evaluation

WORKFLOW = Path(__file__).parents[1] / "examples" / "github" / "holdfast-gate.yml"
BLOCK = "import sys; sys.modules['torch'] = None; from holdfast.cli import main; main()"
"""Importing torch is an error here."""


@pytest.fixture
def workplace(tmp_path):
    """A repository with the folders the workflow names, and `holdfast` without torch."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "holdfast"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{BLOCK}" "$@"\n')
    command.chmod(0o755)
    (tmp_path / "gate.yaml").write_text("gate: {harm: {max_change: 5, max_rate: 20}}\n")
    (tmp_path / "evaluations").mkdir()
    evaluation(tmp_path / "evaluations" / "before", {"bad-requests": 2, "sums": 10})
    return tmp_path


def steps():
    """The shell steps behind the installation, with the environment they get."""
    text = WORKFLOW.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    found = [step for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert found[0]["run"] == "pip install holdfast"
    assert all(step["if"] == "always()" for step in found[2:])
    return workflow["env"], [step["run"] for step in found[1:]]


def run_workflow(folder: Path) -> int:
    """Run every shell step; the first one's exit code."""
    environment, commands = steps()
    codes = [
        subprocess.run(
            ["bash", "-e", "-c", command], cwd=folder, check=False, capture_output=True,
            env={**os.environ, **environment, "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
                 "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        ).returncode
        for command in commands
    ]  # fmt: skip
    assert codes[1:] == [0] * len(codes[1:])
    return codes[0]


@pytest.mark.parametrize(("bad", "code", "word"), [(2, 0, "PASS"), (120, 1, "FAIL")])
def test_its_commands_run_without_torch(workplace, bad, code, word):
    evaluation(workplace / "evaluations" / "after", {"bad-requests": bad, "sums": 10})
    assert run_workflow(workplace) == code
    assert f"Holdfast: {word}" in (workplace / "summary.md").read_text(encoding="utf-8")
    report = workplace / "holdfast-report"
    found = json.loads((report / "comparison.json").read_text(encoding="utf-8"))
    assert found["outcome"] == word and found["gate"]["harm"]["max_rate"] == 20
    suite = ET.fromstring((report / "report.junit.xml").read_text(encoding="utf-8"))
    assert int(suite.get("failures")) == (code == 1)
    uploaded = WORKFLOW.read_text(encoding="utf-8")
    for name in ("report.junit.xml", "report.md", "report.json", "comparison.json"):
        assert f"/{name}" in uploaded and (report / name).is_file()
    assert "/report.html" not in uploaded  # it holds answers


def test_what_cannot_be_compared_is_red_and_leaves_no_summary(workplace):
    assert run_workflow(workplace) == 2
    assert not (workplace / "summary.md").exists()


def test_undecided_is_red_too(workplace):
    evaluation(workplace / "evaluations" / "after", {"bad-requests": 2, "sums": 10}, unscored=60)
    assert run_workflow(workplace) == 3
