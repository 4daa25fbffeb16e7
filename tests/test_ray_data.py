"""Audit and render under Ray Data, on one node; where Ray is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import make_tokenizer
from holdfast.audits import Detector
from holdfast.errors import MaterialError, RecipeError
from holdfast.processes.ray_data import Aside, audit, render
from holdfast.rendering.render import Renderer
from holdfast.rows.load import open_rows
from holdfast.stages.audit import audit as audit_here
from holdfast.types import Conversation, Finding
from test_workers import source as source

pytestmark = pytest.mark.filterwarnings("ignore")
"""Ray warns of its own future versions, in many places."""


class Stuck:
    """A detector whose parts do not add up."""

    def see(self, row: Conversation) -> None:
        """Look at nothing."""

    def findings(self) -> list[Finding]:
        """Nothing."""
        return []


def test_a_detector_of_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.processes.ray_data.need", lambda *_, **__: None)
    given: dict[str, Detector] = {"guarded": Stuck()}
    with pytest.raises(RecipeError, match="'guarded' works in one process only"):
        audit(None, given=given)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MaterialError, match=r"holdfast\[ray\]"):
        audit(None)


@pytest.fixture(scope="module")
def ray() -> Any:
    """Ray on this machine, with one worker."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_the_report_is_that_of_one_machine(ray: Any, source: Path) -> None:
    rows = ray.data.read_json(str(source), lines=True).repartition(7)
    aside = Aside()
    found, here = audit(rows, aside=aside), audit_here(open_rows(source))
    assert found.rows == here.rows == 399
    assert found.formats == here.formats
    assert [(f.detector, f.severity, f.count, f.title) for f in found.findings] == [
        (f.detector, f.severity, f.count, f.title) for f in here.findings
    ]
    assert aside.reasons == {"prompt is empty": 1}


def test_rows_are_rendered_as_on_one_machine(ray: Any, source: Path) -> None:
    renderer = Renderer(make_tokenizer())
    rows = render(ray.data.read_json(str(source), lines=True).repartition(3), renderer)
    here = sorted(tuple(row.input_ids) for row in renderer.rows(open_rows(source)))
    assert sorted(tuple(row["input_ids"]) for row in rows.take_all()) == here
