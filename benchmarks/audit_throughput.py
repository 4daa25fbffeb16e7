"""How fast the audit reads a large data set, and in how much memory.

    python benchmarks/audit_throughput.py --rows 100000

Writes made-up rows of 60 to 1,500 characters to a temporary file (one in a hundred a copy of an
earlier one, one in a hundred a near copy), then audits the file as `holdfast audit` does. The peak
is that of the first process, and is given beside the peak before the first row. There are as many
processes as cores, or as `HOLDFAST_PROCESSES` says.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from holdfast.rows.load import open_rows
from holdfast.stages.audit import audit

WORDS = (  # noqa: SIM905
    "kettle lamp fence boat violin oven bicycle clock mirror gate river garden window ladder paint "
    "rope stone candle basket hammer cloth bread letter winter summer morning evening market road "
    "harbour bridge forest meadow cellar attic kitchen workshop"
).split()


def made_up(count: int, path: Path) -> None:
    """Rows of `prompt` and `completion`, a few of them copies."""
    dice = random.Random(0)
    recent = [("", "")]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            fate = dice.random()
            prompt, reply = dice.choice(recent)
            if fate > 0.02 or not prompt:
                words = [dice.choice(WORDS) + str(dice.randint(1, 400)) for _ in range(9)]
                prompt = f"Please tell me about the {' '.join(words)}."
                said = dice.choices(WORDS, k=dice.randint(3, 200))
                reply = f"It is about note {number}, " + " ".join(said) + "."
            elif fate > 0.01:
                reply = reply.replace("about", "on")
            recent = [*recent[-50:], (prompt, reply)]
            file.write(json.dumps({"prompt": prompt, "completion": reply}) + "\n")


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write, audit, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        made_up(args.rows, path)
        before, start = peak_mib(), time.perf_counter()
        report = audit(open_rows(path))
        took = time.perf_counter() - start
        size = path.stat().st_size / 2**20
    for finding in report.findings:
        print(f"{finding.severity}: {finding.detector}, {finding.count:,} rows")
    print(
        f"{report.rows:,} rows ({size:.0f} MiB) in {took:.1f} s: {report.rows / took:,.0f} rows/s; "
        f"peak memory {peak_mib():.0f} MiB, of which {before:.0f} MiB before the first row"
    )


if __name__ == "__main__":
    main()
