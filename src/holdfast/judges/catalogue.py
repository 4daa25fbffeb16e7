"""Puts the named judges on the shelf, and lets users write sheets of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.judges import FROM_FILE, JUDGES, Judge
from holdfast.judges._model_judge import ModelJudge
from holdfast.judges._sheet import ENDINGS, Sheet, named_sheets, read_sheet
from holdfast.judges.classifier import ClassifierJudge
from holdfast.judges.guard import GuardJudge
from holdfast.judges.rubric import RubricJudge

MECHANISMS: Mapping[str, type[ModelJudge]] = {
    "classifier": ClassifierJudge,
    "guard": GuardJudge,
    "rubric": RubricJudge,
}


class NamedJudge:
    """A factory of judges from one sheet."""

    takes_model = True
    """Whether `NAME@MODEL` makes sense."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sheet: Sheet = read_sheet(path)
        self.__doc__ = self.sheet.summary

    def __call__(self, **settings: Any) -> Judge:
        """The judge, with a name, model or engine of its own."""
        return MECHANISMS[self.sheet.mechanism](self.sheet, **settings)


for _name, _path in named_sheets().items():
    JUDGES.register(_name)(NamedJudge(_path))
for _ending in ENDINGS:
    FROM_FILE[_ending] = lambda path: NamedJudge(path)
