"""Audit and render under Ray Data: the functions of one machine, batch by batch, on many.

    import ray
    from holdfast.processes.ray_data import audit, render

    rows = ray.data.read_json("s3://bucket/rows/*.jsonl", lines=True)
    report = audit(rows, detectors=["obedience", "forced_opening", "formats", "broken"])
    tokens = render(rows, Renderer(tokenizer))          # id, source, input_ids, labels
    tokens.write_parquet("s3://bucket/rendered")

Each block of rows becomes one part of an audit, and the parts are added up where `audit` is called;
the report is that of `holdfast audit` on the same rows, whatever the blocks. What grows with the
rows is there too: about 400 bytes a row for near duplicates, 50 for duplicates, on disk. Of many
millions of rows name the other detectors. Rows that do not fit are counted, by reason.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.audits import Detector
from holdfast.errors import RecipeError
from holdfast.extras import need
from holdfast.rows.load import SAMPLE, RowBatch, RowReader, reader_of
from holdfast.rows.records import Record
from holdfast.stages.audit import Audit, AuditReport, Part, adds_up

if TYPE_CHECKING:
    from holdfast.rendering.render import Renderer


@dataclass(slots=True)
class Aside:
    """Rows that were set aside: how many, by reason."""

    reasons: Counter[str] = field(default_factory=Counter)


def audit(
    rows: Any,
    *,
    columns: Mapping[str, str] | None = None,
    detectors: Sequence[str] | None = None,
    given: Mapping[str, Detector] | None = None,
    aside: Aside | None = None,
) -> AuditReport:
    """Audit a Ray dataset.

    Args:
        rows: a `ray.data.Dataset` of rows in a format that `holdfast audit` reads.
        columns: which column holds what, where detection does not do.
        detectors: names on the `audits/` shelf; None: all of them.
        given: name → a detector that has its material, in place of the shelf's.
        aside: is told of the rows that do not fit.

    Raises:
        DataError: rows of no known format.
        RecipeError: a detector that works in one process only, such as one with a judge.
        MaterialError: Ray is not installed.
    """
    need("ray", extra="ray", purpose="reading rows with Ray Data")
    stuck = [name for name, detector in (given or {}).items() if not adds_up(detector)]
    if stuck:
        raise RecipeError(
            f"The detector {stuck[0]!r} works in one process only; under Ray Data every detector "
            "sees a part of the rows. Leave it out, or run `holdfast audit` without Ray."
        )
    watch = Audit(detectors, given)
    work = _AuditBlock(watch.part(), _reader(rows, columns))
    parts = rows.map_batches(work, batch_format="pyarrow", batch_size=None)
    for row in parts.iter_rows():
        seen = pickle.loads(row["part"])  # noqa: S301  (what our own workers wrote)
        watch.add(seen)
        if aside is not None:
            aside.reasons.update(reason for _, reason in seen.misfits)
    return watch.report()


def render(rows: Any, renderer: Renderer, *, columns: Mapping[str, str] | None = None) -> Any:
    """Render a Ray dataset: rows of `id`, `source`, `input_ids` and `labels`, lazily.

    Rows that do not fit their format, or cannot be rendered, are left out.

    Args:
        rows: a `ray.data.Dataset` of rows in a format that `holdfast` reads.
        renderer: under the prompting of training; travels to every worker.
        columns: which column holds what, where detection does not do.

    Raises:
        DataError: rows of no known format.
        MaterialError: Ray is not installed.
    """
    need("ray", extra="ray", purpose="reading rows with Ray Data")
    work = _RenderBlock(renderer, _reader(rows, columns))
    return rows.map_batches(work, batch_format="pyarrow", batch_size=1024)


def _reader(rows: Any, columns: Mapping[str, str] | None) -> RowReader:
    return reader_of("the Ray dataset", rows.take(SAMPLE), columns=columns)


def _batch(reader: RowReader, table: Any) -> RowBatch:
    """Rows of an Arrow table; without an id of its own a row goes by a hash of its columns."""
    found = table.to_pylist()
    records = [Record(n, n, row, unit="row") for n, row in enumerate(found, 1)]
    return RowBatch(reader, records, [reader.own_id(row) or _hash(row) for row in found])


def _hash(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class _AuditBlock:
    part: Part
    reader: RowReader

    def __call__(self, table: Any) -> dict[str, list[bytes]]:
        return {"part": [pickle.dumps(self.part(_batch(self.reader, table)))]}


@dataclass(frozen=True, slots=True)
class _RenderBlock:
    renderer: Renderer
    reader: RowReader

    def __call__(self, table: Any) -> Any:
        import pyarrow

        rows = self.renderer.rows(_batch(self.reader, table).read()[0])
        tokens = pyarrow.list_(pyarrow.int32())
        schema = pyarrow.schema(
            [("id", pyarrow.string()), ("source", pyarrow.string()), ("input_ids", tokens),
             ("labels", tokens)]
        )  # fmt: skip
        found = [
            {"id": r.id, "source": r.source, "input_ids": r.input_ids, "labels": r.labels}
            for r in rows
        ]
        return pyarrow.Table.from_pylist(found, schema=schema)
