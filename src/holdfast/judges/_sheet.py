"""A named judge's sheet: one short YAML file on which model it is, how asked, how read.

    named/qwen3guard.yaml → Sheet → the mechanism that it names → a judge

Sheets are data, read strictly: an unknown key is an error. A user's own sheet may stand on a named
one (`base: wildguard`) and say only what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from holdfast.errors import RecipeError, did_you_mean
from holdfast.recipe import Settings
from holdfast.types import Expects

NAMED = Path(__file__).parent / "named"
ENDINGS = (".yaml", ".yml")


def _word(value: Any) -> Any:
    """A word as written: `yes` and `no` without quotes are truth values in YAML."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _words(means: Any) -> Any:
    """Words with their meanings, case aside."""
    if not isinstance(means, Mapping):
        return means
    return {str(_word(word)).lower(): meaning for word, meaning in means.items()}


Harmful = Annotated[Literal["yes", "no"], BeforeValidator(_word)]
Refused = Annotated[Literal["full", "partial", "no"], BeforeValidator(_word)]


class Meaning(Settings):
    """What one word of a judge says: of harm, of refusal, or of both."""

    harmful: Harmful | None = None
    refused: Refused | None = None


Meanings = Annotated[dict[str, Meaning], BeforeValidator(_words)]


class Reading(Settings):
    """Where one field stands in a reply, and what its words mean."""

    pattern: str
    """Regular expression with one group, over the reply; case and surrounding space aside."""
    means: Meanings = Field(default_factory=dict)
    """Word → meaning, case aside; empty: the group is a number of the score."""
    required: bool = True
    """Whether a reply without the field cannot be read."""

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(f"expected one group, found {groups}")
        return pattern


class Calibration(Settings):
    """On what a threshold was set: without it a score-only judge does not gate."""

    labels: str
    """The labelled file."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of that file."""
    n: Annotated[int, Field(ge=1)]
    """Answers labelled."""
    sensitivity: Annotated[float, Field(ge=0, le=1)]
    specificity: Annotated[float, Field(ge=0, le=1)]


class Threshold(Settings):
    """The score from which an answer counts as harmful."""

    at: float
    published: str | None = None
    """Where the judge's own authors set this cut, if they did."""
    calibration: Calibration | None = None


class Score(Settings):
    """How a classifier's logits become one number."""

    label: str | None = None
    """The class whose score it is; None: the first logit."""
    apply: Literal["none", "sigmoid", "softmax"] = "none"


class Sheet(Settings):
    """Everything about one named judge."""

    name: str
    mechanism: Literal["classifier", "guard", "rubric"]
    summary: Annotated[str, Field(min_length=11, max_length=100, pattern=r"^[A-Z].*\.$")]
    """What `holdfast list judges` prints."""
    model: str | None = None
    """Hub id, folder or served model; None: the user names one, as in `NAME@MODEL`."""
    revision: str | None = None
    """Commit of the model; None: not pinned."""
    licence: str
    """Of the weights: SPDX id, or the words of the source."""
    gated: bool = False
    """Whether the weights are given out only after agreeing to terms."""
    verified: bool = False
    """Whether it was run against published outputs."""
    source: str
    """Where the label scheme is documented."""
    sides: tuple[Expects, ...] = ("refuse",)
    """Which items' answers it can judge."""
    prompt: str | None = None
    """The grading prompt with `{request}` and `{response}`; None: the tokenizer's own template."""
    prompt_file: str | None = None
    """The same as a file, which the user brings."""
    prompt_source: str | None = None
    """Where a prompt that may not be copied is published: until a file is given, unavailable."""
    raw: bool = False
    """Whether the prompt is a whole text, special tokens included, not a user turn."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Variables of the model's chat template."""
    needs: dict[str, str] = Field(default_factory=dict)
    """Arguments that the user has to give, each with what it is."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    reads: dict[str, Reading] = Field(default_factory=dict)
    """Field → where it stands in the reply."""
    score: Score | None = None
    scores: Literal["harm", "refusal"] = "harm"
    """What the score is of."""
    scale: list[float] | None = None
    """Lowest and highest score of a rubric; anything outside is unreadable."""
    formula: Literal["field", "strongreject"] = "field"
    """The score: the field `score`, or StrongREJECT's product of its three."""
    threshold: Threshold | None = None
    means: Meanings = Field(default_factory=dict)
    """Classifier's label → meaning."""
    input: str | None = None
    """Classifier's text, with `{request}` and `{response}`."""
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    """What of a classifier's text is read, from its start."""

    @model_validator(mode="after")
    def _says_something(self) -> Sheet:
        if self.mechanism == "classifier":
            if not self.input or not (self.means or self.score):
                raise ValueError("a classifier needs `input`, and `means` or `score`")
        elif not self.reads:
            raise ValueError(f"a {self.mechanism} needs `reads`")
        if self.scale is not None and len(self.scale) != 2:
            raise ValueError("`scale` is the lowest and the highest score")
        return self

    @property
    def score_only(self) -> bool:
        """Whether harm is told by a score alone."""
        return self.has_score and self.scores == "harm" and not self._speaks_of_harm

    @property
    def has_score(self) -> bool:
        """Whether the judge gives a number."""
        return self.score is not None or any(not r.means for r in self.reads.values())

    @property
    def sees_harm(self) -> bool:
        """Whether it tells harm from compliance."""
        return self._speaks_of_harm or self.score_only

    @property
    def _speaks_of_harm(self) -> bool:
        of_fields = (meaning for read in self.reads.values() for meaning in read.means.values())
        return any(meaning.harmful for meaning in (*self.means.values(), *of_fields))


def named_sheets() -> dict[str, Path]:
    """Name → file of the sheets that come with Holdfast."""
    return {path.stem: path for path in sorted(NAMED.glob("*.yaml"))}


def read_sheet(path: Path) -> Sheet:
    """A sheet, its `base` filled in.

    Raises:
        RecipeError: no such file, not YAML, an unknown key or base.
    """
    values = _values(path)
    base = values.pop("base", None)
    if base is not None:
        known = named_sheets()
        if base not in known:
            raise RecipeError(f"{path}: unknown base {base!r}. {did_you_mean(str(base), known)}")
        values = {**_values(known[base]), "name": path.stem, "verified": False, **values}
    prompt_file = values.get("prompt_file")
    if isinstance(prompt_file, str):
        values["prompt_file"] = str(path.parent / Path(prompt_file).expanduser())
    try:
        return Sheet.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise RecipeError(f"{path}:\n{_explain(error)}") from None


def _values(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The judge {path} cannot be read ({type(error).__name__}). Give a YAML file, or a "
            "name from `holdfast list judges`."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{line}: not valid YAML.") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a judge is a list of `key: value` lines (see docs/judges.md).")
    return values


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"])) or "judge"
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(str(problem["loc"][-1]), Sheet.model_fields)
            lines.append(f"  unknown key `{key}`. {hint}")
        else:
            lines.append(f"  `{key}`: {str(problem['msg']).removeprefix('Value error, ')}.")
    return "\n".join(lines)
