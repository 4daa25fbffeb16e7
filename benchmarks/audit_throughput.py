"""How fast the audit reads a large data set, and in how much memory.

    python benchmarks/audit_throughput.py --rows 100000 [--detectors NAME,…] [--block 50000]

Writes made-up rows of 60 to 1,500 characters to a temporary file (one in a hundred a copy of an
earlier one, one in a hundred a near copy), then audits the file as `holdfast audit` does. The peak
is that of the first process, and is given beside the peak before the first row. There are as many
processes as cores, or as `HOLDFAST_PROCESSES` says.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.rows.load import open_rows
from holdfast.stages.audit import BATCH, FEW_BATCHES, Audit

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


def used(who: int) -> float:
    """Processor seconds of this process, or of those that it has waited for."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def spilled() -> int:
    """Bytes in temporary files of this process that have no name any more."""
    total = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            total += file.stat().st_size if str(file.readlink()).endswith("(deleted)") else 0
    return total


@contextmanager
def most_spilled() -> Iterator[list[int]]:
    """The most bytes in such files while open, looked at every tenth of a second."""
    found, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            found[0] = max(found[0], spilled())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def by_blocks(path: Path, detectors: Sequence[str] | None, block: int) -> str:
    """Rates of reading and auditing a block, and of adding up what it came to."""
    watch, rows = Audit(detectors), 0
    part, took = watch.part(), [0.0, 0.0]
    batches = open_rows(path).batches(block)
    while True:
        start = time.process_time()
        batch = next(batches, None)
        if batch is None:
            break
        sent = pickle.dumps(part(batch))
        between = time.process_time()
        seen = pickle.loads(sent)
        watch.add(seen)
        rows += seen.rows
        took = [took[0] + between - start, took[1] + time.process_time() - between]
    return f"--block-rate {rows / took[0]:.0f} --driver-rate {rows / took[1]:.0f}"


def main() -> None:
    """Write, audit, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--detectors", type=lambda names: names.split(","))
    parser.add_argument("--block", type=int, help="rows of a block, as under Ray Data")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        made_up(args.rows, path)
        if args.block:
            print(f"for scale.py: {by_blocks(path, args.detectors, args.block)}")
            return
        watch, before, start = Audit(args.detectors), peak_mib(), time.perf_counter()
        alone = used(resource.RUSAGE_SELF)
        with most_spilled() as disk:
            watch.read(open_rows(path))
            last = used(resource.RUSAGE_SELF)
            report = watch.report()
        took = time.perf_counter() - start
        after = used(resource.RUSAGE_SELF) - last
        size = path.stat().st_size
    for finding in report.findings:
        print(f"{finding.severity}: {finding.detector}, {finding.count:,} rows")
    print(
        f"{report.rows:,} rows ({size / 2**20:.0f} MiB) in {took:.1f} s: "
        f"{report.rows / took:,.0f} rows/s; peak memory {peak_mib():.0f} MiB, of which "
        f"{before:.0f} MiB before the first row"
    )
    if used(resource.RUSAGE_CHILDREN):
        here = BATCH * FEW_BATCHES  # rows that this process audits before it starts others
        shared = used(resource.RUSAGE_CHILDREN) / (report.rows - here)
        beside = (last - alone - here * shared) / report.rows
        print(
            f"for scale.py: --row-bytes {size / report.rows:.0f} --shared-rate {1 / shared:.0f} "
            f"--alone-rate {1 / beside:.0f} --after-rate {report.rows / after:.0f} "
            f"--disk-bytes {disk[0] / report.rows:.0f}"
        )


if __name__ == "__main__":
    main()
