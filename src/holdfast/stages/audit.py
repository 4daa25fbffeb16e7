"""Audit: what in the user's rows tends to erode safety. No model, no torch.

    rows → every detector on the shelf → findings → 1-audit.json, and a table a person can act on

Rows stream by; what is held does not grow with their length: counters, a few ids, a bounded sample
for the formats, and less than 64 bytes a row to find duplicates. Many rows are read by several
processes, each of which sees some batches; what they saw is added up, and the report is the same
whoever saw what. Detectors that need material (a guard model, evaluation sets, the model's
template) say nothing until they are given it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from holdfast.audits import AUDITS, Detector
from holdfast.audits._evidence import Evidence, percent
from holdfast.audits.formats import FormatCensus
from holdfast.audits.guarded import Guarded
from holdfast.audits.overlap import Overlap
from holdfast.audits.template import Template
from holdfast.errors import AuditFailed, MaterialError, RecipeError
from holdfast.files import read_json, write_json, write_jsonl
from holdfast.judges import judge
from holdfast.measuring.suites import gather
from holdfast.processes.workers import in_order, processes
from holdfast.progress import track
from holdfast.rows.induction import Format
from holdfast.rows.load import BATCH, FEW_BATCHES, RowBatch, RowStream, noted
from holdfast.rows.near import NearIndex
from holdfast.tasks import TASKS, TaskContext, task
from holdfast.templates import template_text
from holdfast.types import SEVERITIES, Conversation, Finding, Severity

TABLE_WIDTH = 100
_STYLES: dict[Severity, str] = {
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}
_IDS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What the detectors said of a dataset."""

    rows: int
    findings: tuple[Finding, ...]
    """Worst first."""
    formats: tuple[Format, ...]
    """The wrappers the rows share, commonest first."""
    answers: tuple[str, ...] = ()
    """How the replies inside each of them are compared: `number`, `choice`, `yesno` …"""
    evidence: Iterable[Evidence] = field(default=(), compare=False, repr=False)
    """The rows behind the findings, read from disk as they are asked for."""

    def to_json(self) -> dict[str, Any]:
        """As stored, but for the announcement."""
        return {
            "rows": self.rows,
            "findings": [asdict(finding) for finding in self.findings],
            "formats": [found.to_json() for found in self.formats],
            "answers": list(self.answers),
        }


class Watcher(Protocol):
    """Whatever sees rows; what also adds up (`Detector`) is shared out over processes."""

    def see(self, row: Conversation) -> None:
        """Look at one row."""


class Audit:
    """Shows each row to each detector.

    Args:
        detectors: names on the `audits/` shelf; None: all of them.
        given: name → a detector that has its material, in place of the shelf's.
        beside: what sees the rows too, without a word in the report.

    Raises:
        RecipeError: an unknown detector.
    """

    def __init__(
        self,
        detectors: Sequence[str] | None = None,
        given: Mapping[str, Detector] | None = None,
        beside: Sequence[Watcher] = (),
    ) -> None:
        names = AUDITS.names() if detectors is None else list(dict.fromkeys(detectors))
        ready = given or {}
        self._detectors: list[Detector] = [
            ready[name] if name in ready else AUDITS.get(name)() for name in names
        ]
        census = [d for d in self._detectors if isinstance(d, FormatCensus)]
        self._census = census[0] if census else FormatCensus()
        self._watching: list[Watcher] = [
            *self._detectors, *([] if census else [self._census]), *beside
        ]  # fmt: skip
        self._rows = 0

    def see(self, row: Conversation) -> None:
        """Look at one row."""
        self._rows += 1
        for watcher in self._watching:
            watcher.see(row)

    def read(self, rows: RowStream, count: int | None = None) -> None:
        """Look at all rows of a source.

        Args:
            rows: the source; what does not fit is set aside there.
            count: processes, where there are many rows; None: as many as there are cores.

        Raises:
            DataError: as reading the source does.
        """
        count = processes() if count is None else count
        batches = track(rows.batches(BATCH), "audit")
        for batch in batches if count == 1 else islice(batches, FEW_BATCHES):
            conversations, misfits = batch.read()
            rows.set_aside(batch, misfits)
            for row in conversations:
                self.see(row)
        self._share_out(rows, batches, count)
        rows.check()

    def _share_out(self, rows: RowStream, batches: Iterator[RowBatch], count: int) -> None:
        here = [w for w in self._watching if not adds_up(w)]
        sent: deque[RowBatch] = deque()
        for seen in in_order(self.part(), noted(batches, sent), count):
            batch = sent.popleft()
            rows.set_aside(batch, seen.misfits)
            self.add(seen)
            for row in batch.read()[0] if here else ():
                for watcher in here:
                    watcher.see(row)

    def part(self) -> Part:
        """What sees a batch of rows anywhere, for the watchers whose parts add up."""
        return Part([w for w in self._watching if adds_up(w)])

    def add(self, seen: Seen) -> None:
        """Take in what a part saw."""
        self._rows += seen.rows
        shared: list[Any] = [w for w in self._watching if adds_up(w)]
        for watcher, part in zip(shared, seen.watchers, strict=True):
            watcher.take(part)

    def report(self) -> AuditReport:
        """What was seen so far; the same for the same rows in any order."""
        findings = [found for detector in self._detectors for found in detector.findings()]
        findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), f.detector, f.title))
        formats, answers = self._census.formats(), self._census.answers()
        return AuditReport(
            self._rows, tuple(findings), tuple(formats), tuple(answers), _Kept(self._detectors)
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What detectors kept of the rows they found."""

    detectors: Sequence[Any]

    def __iter__(self) -> Iterator[Evidence]:
        for detector in self.detectors:
            if hasattr(detector, "evidence"):
                yield from detector.evidence()


def adds_up(watcher: Any) -> bool:
    """Whether a watcher's parts, each made anew by `fresh` or its class, can be added up."""
    return hasattr(watcher, "take") and getattr(watcher, "shared", True)


def fresh(watcher: Any) -> Any:
    """One of its kind that has seen nothing."""
    return watcher.fresh() if hasattr(watcher, "fresh") else type(watcher)()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one batch came to."""

    rows: int
    misfits: list[tuple[int, str]]
    watchers: list[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Shows the rows of one batch to watchers of its own."""

    watchers: list[Any]

    def __call__(self, batch: RowBatch) -> Seen:
        """What the batch came to."""
        conversations, misfits = batch.read()
        watchers = [fresh(watcher) for watcher in self.watchers]
        for row in conversations:
            for watcher in watchers:
                watcher.see(row)
        return Seen(len(conversations), misfits, watchers)


def audit(
    rows: Iterable[Conversation],
    detectors: Sequence[str] | None = None,
    given: Mapping[str, Detector] | None = None,
    count: int | None = None,
) -> AuditReport:
    """Audit rows in one pass, those of a source in several processes; see `Audit`."""
    watch = Audit(detectors, given)
    if isinstance(rows, RowStream):
        watch.read(rows, count)
    else:
        for row in track(rows, "audit"):
            watch.see(row)
    return watch.report()


def detectors_with(
    *,
    judge_name: str | None = None,
    data_dir: Path | None = None,
    model: str | None = None,
    template: str | None = None,
) -> dict[str, Detector]:
    """The detectors that need material, given what there is of it.

    Args:
        judge_name: a judge that sees harm.
        data_dir: folder with benchmark files: every task on the shelf that is at hand there.
        model: whose chat template is the rows' own; only its tokenizer is loaded.
        template: the template the rows will be rendered by, a name or a file; needs `model`.

    Raises:
        RecipeError: an unknown name, a judge that sees no harm, or a template without a model.
        MaterialError: a folder that holds no evaluation set, or a judge that is not at hand.
    """
    given: dict[str, Detector] = {}
    if judge_name is not None:
        given["guarded"] = Guarded(judge(judge_name))
    if data_dir is not None:
        given["overlap"] = Overlap(_known(data_dir))
    if model is not None:
        from holdfast.models import load_tokenizer, resolve_model

        own = load_tokenizer(resolve_model(model)).chat_template
        given["template"] = Template(own, template_text(template))
    elif template is not None:
        raise RecipeError(
            f"`--template {template}` is compared with a model's own: add `--model MODEL`."
        )
    return given


def _known(data_dir: Path) -> NearIndex:
    """What the evaluation sets in a folder ask."""
    context = TaskContext(data_dir, offline=True)
    own = (name for name in TASKS.names() if not name.startswith("lab-"))
    at_hand = [name for name in own if task(name).missing(context) is None]
    if not at_hand:
        raise MaterialError(
            f"{data_dir} holds no evaluation set. Fill it with `holdfast fetch standard --to "
            f"{data_dir}`, or leave `--data-dir` out."
        )
    items = gather(dict.fromkeys(at_hand), context, seed=0)
    return NearIndex((f"{item.task}/{item.id}", item.request) for item in items)


def worst(report: AuditReport) -> Severity | None:
    """The gravest severity found; None where nothing was."""
    return report.findings[0].severity if report.findings else None


def check_severity(name: str | None) -> Severity | None:
    """The severity called `name`; None stays None.

    Raises:
        RecipeError: no such severity.
    """
    if name is None:
        return None
    for severity in SEVERITIES:
        if severity == name:
            return severity
    raise RecipeError(f"Unknown severity {name!r}. Known, mildest first: {', '.join(SEVERITIES)}.")


def exceeds(report: AuditReport, fail_on: str | None) -> bool:
    """Whether a finding reaches the severity that should stop a pipeline; None stops nothing."""
    return any(_reaches(finding.severity, fail_on) for finding in report.findings)


def _reaches(severity: Severity, fail_on: str | None) -> bool:
    limit = check_severity(fail_on)
    return limit is not None and SEVERITIES.index(severity) >= SEVERITIES.index(limit)


def check_audit(path: Path, fail_on: str | None) -> None:
    """Stop where a stored audit has a finding of that severity or a graver one.

    Raises:
        AuditFailed: it has; the message names the gravest finding and its cure.
    """
    if fail_on is None:
        return
    grave = [found for found in read_json(path)["findings"] if _reaches(found["severity"], fail_on)]
    if not grave:
        return
    first = grave[0]
    more = f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""
    raise AuditFailed(
        f"The audit found {first['detector']} ({first['severity']}) in {first['count']:,} of "
        f"{first['total']:,} rows: {first['title']}{more}. {first['cure']} "
        f"`audit.fail_on: {fail_on}` stops here; everything found is in {path}."
    )


def write_audit(
    path: Path,
    report: AuditReport,
    announcement: str = "",
    ranking: Mapping[str, Any] | None = None,
) -> None:
    """Store a report as JSON, with how the rows were read, and a ranking where there is one.

    Beside it, in `evidence_file`, stands one line for every row behind its findings.
    """
    stored = report.to_json()
    rows = stored.pop("rows")
    if ranking is not None:
        stored["ranking"] = ranking
    write_jsonl(evidence_file(path), report.evidence)
    write_json(path, {"rows": rows, "announcement": announcement, **stored})


def evidence_file(path: Path) -> Path:
    """Where the evidence of a stored report lies: `1-audit-evidence.jsonl` of `1-audit.json`."""
    return path.with_name(f"{path.stem}-evidence.jsonl")


def table(report: AuditReport) -> Constrain:
    """The findings for a terminal, at most 100 columns wide: what, how many, what to do."""
    shown = Table(show_lines=True, title=f"{report.rows:,} rows audited")
    shown.add_column("severity", no_wrap=True)
    shown.add_column("finding", ratio=5)
    shown.add_column("rows", justify="right", no_wrap=True)
    shown.add_column("what to do", ratio=4)
    for finding in report.findings:
        shown.add_row(
            Text(finding.severity, style=_STYLES[finding.severity]),
            _what(finding),
            Text(f"{finding.count:,}\n{percent(finding.count, finding.total)}"),
            Text(finding.cure.replace("`", "")),
        )
    return Constrain(shown, TABLE_WIDTH)


def _what(finding: Finding) -> Text:
    text = Text(f"{finding.detector}: {finding.title}")
    if finding.examples and finding.severity != "info":
        text.append(f"\ne.g. {', '.join(finding.examples[:_IDS_SHOWN])}", style="dim")
    return text
