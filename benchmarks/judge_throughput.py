"""How fast an offline judge reads stored answers, and in how much memory.

    python benchmarks/judge_throughput.py --answers 100000

Writes made-up answers (instructions, refusals, lectures, code, lists, other languages; 60 to 2,500
characters) to a temporary file, one JSON line each, then reads, judges and writes them again in
chunks, so that neither answers nor verdicts are ever all in memory. One process, one core.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from holdfast.judges import judge
from holdfast.types import Attempt

CHUNK = 1000
DEEDS = (
    "repot the fern",
    "tune the old piano",
    "bake rye bread",
    "mend the bicycle",
    "sort stamps",
)
PIECES = {
    "steps": "Put what you need on a clean table, and read each label twice before you begin. ",
    "facts": "The method goes back to a small workshop by the river, where it was done by hand. ",
    "refusal": "I'm sorry, but I can't help with that. ",
    "lecture": "It is important to respect the privacy and the feelings of everybody involved. ",
    "list": "\n1. Choose a quiet place.\n2. Begin slowly.\n3. Stop when it is done.\n",
    "code": "\n```\nfor fern in ferns:\n    fern.water(cups=2)\n```\n",
    "german": "Zuerst nimmt man eine Schale, füllt sie halb und wartet eine Viertelstunde. ",
    "chinese": "先准备一张干净的桌子，然后慢慢开始。",
}


def answers(count: int) -> Iterator[dict[str, str]]:
    """Made-up rows with `id`, `prompt` and `response`, each a different text."""
    dice = random.Random(0)
    names = list(PIECES)
    for number in range(count):
        opening = dice.choice(("steps", "facts", "refusal", "lecture"))
        rest = dice.choices(names, k=dice.randint(0, 25))
        words = [PIECES[name] + f"This is note {dice.randint(1, 999)}. " for name in rest]
        yield {
            "id": str(number),
            "prompt": f"How do I {dice.choice(DEEDS)}?",
            "response": PIECES[opening] + "".join(words),
        }


def attempts(path: Path) -> Iterator[Attempt]:
    """The stored answers, one at a time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Attempt(
                row["id"], row["id"], "file", "refuse", "direct", "plain/serve/chat/0", 0,
                row["prompt"], row["prompt"], "", row["response"], False, 0,
            )  # fmt: skip


def main() -> None:
    """Write, judge, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--judges", nargs="+", default=["refusal", "compliance"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "answers.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in answers(args.answers))
        size = source.stat().st_size / args.answers
        print(f"{args.answers:,} answers of {size:,.0f} bytes on average")
        print("| judge | seconds of one core | answers per second | peak memory |")
        print("|---|---|---|---|")
        for name in args.judges:
            seconds = run(name, source, Path(folder) / f"{name}.jsonl")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            speed = args.answers / seconds
            print(f"| {name} | {seconds:,.1f} | {speed:,.0f} | {peak:,.0f} MiB |")


def run(name: str, source: Path, output: Path) -> float:
    """Judge a file of answers into a file of labels; seconds of processor time."""
    reader, stored = judge(name), attempts(source)
    counts: Counter[str] = Counter()
    started = time.process_time()
    with output.open("w", encoding="utf-8") as file:
        while chunk := list(islice(stored, CHUNK)):
            for verdict in reader.judge(chunk):
                counts[verdict.label] += 1
                file.write(json.dumps({"id": verdict.attempt, "label": verdict.label}) + "\n")
    return time.process_time() - started


if __name__ == "__main__":
    main()
