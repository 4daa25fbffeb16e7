"""Audit: what in the user's rows tends to erode safety. No model, no torch.

    rows → every detector on the shelf → findings → 1-audit.json, and a table a person can act on

Rows stream by; what is held does not grow with their length: counters, a few ids, a bounded sample
for the formats, and less than 64 bytes a row to find duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from holdfast.audits import AUDITS, Detector
from holdfast.audits._evidence import percent
from holdfast.audits.formats import FormatCensus
from holdfast.errors import AuditFailed, RecipeError, did_you_mean
from holdfast.files import read_json, write_json
from holdfast.formats import Format
from holdfast.progress import track
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

    def to_json(self) -> dict[str, Any]:
        """As stored, but for the announcement."""
        return {
            "rows": self.rows,
            "findings": [asdict(finding) for finding in self.findings],
            "formats": [found.to_json() for found in self.formats],
        }


class Audit:
    """Shows each row to each detector.

    Args:
        detectors: names on the `audits/` shelf; None: all of them.

    Raises:
        RecipeError: an unknown detector.
    """

    def __init__(self, detectors: Sequence[str] | None = None) -> None:
        names = AUDITS.names() if detectors is None else list(dict.fromkeys(detectors))
        self._detectors: list[Detector] = [AUDITS.get(name)() for name in names]
        census = [d for d in self._detectors if isinstance(d, FormatCensus)]
        self._census = census[0] if census else FormatCensus()
        self._watching = self._detectors if census else [*self._detectors, self._census]
        self._rows = 0

    def see(self, row: Conversation) -> None:
        """Look at one row."""
        self._rows += 1
        for detector in self._watching:
            detector.see(row)

    def report(self) -> AuditReport:
        """What was seen so far; the same for the same rows in any order."""
        findings = [found for detector in self._detectors for found in detector.findings()]
        findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), f.detector, f.title))
        return AuditReport(self._rows, tuple(findings), tuple(self._census.formats()))


def audit(rows: Iterable[Conversation], detectors: Sequence[str] | None = None) -> AuditReport:
    """Audit a stream of rows in one pass."""
    watch = Audit(detectors)
    for row in track(rows, "audit"):
        watch.see(row)
    return watch.report()


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
    raise RecipeError(f"Unknown severity {name!r}. {did_you_mean(name, SEVERITIES)}")


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


def write_audit(path: Path, report: AuditReport, announcement: str = "") -> None:
    """Store a report as JSON, with the sentence that says how the rows were read."""
    stored = report.to_json()
    rows = stored.pop("rows")
    write_json(path, {"rows": rows, "announcement": announcement, **stored})


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
