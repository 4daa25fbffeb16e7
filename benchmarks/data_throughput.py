"""What reading, auditing, mixing and rendering cost, beside bare tokenisation: prints `## Data`.

    python benchmarks/data_throughput.py [--rows 10000,100000] [--processes 2]
    python benchmarks/data_throughput.py --rows 1000000

Made-up rows (`audit_throughput.py`) go through the stages of a run. Each stage and size is a
process of its own, so that its peak of memory is its own; what it builds on (the audit, the
mixture, the tokenizer) is made or loaded before the clock starts, as for bare tokenisation. That is
the tokenizer's own batched call on the very texts that were rendered, on as many cores. The
tokenizer is a byte-level BPE of 8,000 tokens, trained on the rows. With `--model lab:chat`, the
model-based audit too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from itertools import islice
from pathlib import Path
from typing import Any

from audit_throughput import made_up

PROCESSES = "HOLDFAST_PROCESSES"
STAGES = {
    "bare": "bare tokenisation",
    "load": "load",
    "audit": "audit without the next line",
    "near": "near-duplicate search",
    "mix": "mix (`safety_mix`)",
    "mimic": "mimic",
    "render": "render",
}
COMPARED = {
    "load": "decoding lines and JSON, in one process",
    "audit": "regular expressions",
    "mix": "hashes and JSON of every row, twice; one process reads, writes and decides",
    "mimic": "one more pass over the rows, and the self-check",
    "render": "the template in Python, and offsets of the tokens",
}
"""Stages that are held against bare tokenisation, and what limits each."""
RATIO = 1.5
BYTES = 64
HELP_S, AUDIT_S = 0.4, 1.0
STARTS = 5
RANKED = 200
"""Rows of the model-based audit."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- one stage, in a process of its own -----------------------------------------------------------


def measured(stage: str, data: Path, model: str) -> dict[str, float]:
    """Seconds and memory of one stage over one file, all its rows."""
    with redirect_stderr(open(os.devnull, "w")):  # noqa: PTH123
        work = WORK[stage](data, model)
        before = peak_bytes()
        start = time.perf_counter()
        found = work()
        took = time.perf_counter() - start
    seconds = found if isinstance(found, float) else took
    return {"seconds": seconds, "peak": peak_bytes(), "before": before}


def peak_bytes() -> int:
    """The most memory that this process, or one that it has waited for, has held."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def load(data: Path, model: str) -> Callable[[], Any]:
    """Reading alone."""
    from holdfast.rows.load import open_rows

    return lambda: sum(1 for _ in open_rows(data))


def audit(data: Path, model: str) -> Callable[[], Any]:
    """All detectors but the search for near duplicates."""
    from holdfast.audits import AUDITS
    from holdfast.rows.load import open_rows
    from holdfast.stages.audit import audit as run

    names = [name for name in AUDITS.names() if name != "near_duplicates"]
    return lambda: run(open_rows(data), names)


def near(data: Path, model: str) -> Callable[[], Any]:
    """The search for near duplicates, rows read included."""
    from holdfast.rows.load import open_rows
    from holdfast.stages.audit import audit as run

    return lambda: run(open_rows(data), ["near_duplicates"])


def job(data: Path, model: str, mitigation: str) -> Any:
    """The first half of a run on the rows, audited, its tokenizer loaded."""
    from holdfast.job.mixture import MixtureJob
    from holdfast.job.rundir import RunFolder
    from holdfast.job.setup import set_up
    from holdfast.recipe import Recipe

    folder = data.with_suffix(".run")
    folder.mkdir(exist_ok=True)
    recipe = Recipe.model_validate(
        {
            "model": model, "data": str(data), "run": str(folder), "mitigations": [mitigation],
            "safety": {"source": "lab:safety", "count": 500},
            "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"], "hold_out": 50},
        }
    )  # fmt: skip
    made = MixtureJob(set_up(recipe), RunFolder(folder))
    made.audit()
    _ = made.tokenizer
    return made


def audited(data: Path, model: str) -> Callable[[], Any]:
    """The audit of a run, stored for the stages that build on it."""
    return lambda: job(data, model, "safety_mix")


def mix(data: Path, model: str) -> Callable[[], Any]:
    """500 safety rows among the rows."""
    return job(data, model, "safety_mix").prepare


def mimic(data: Path, model: str) -> Callable[[], Any]:
    """500 safety rows in the rows' format, and whether they can be told apart."""
    return job(data, model, "mimic").prepare


def render(data: Path, model: str) -> Callable[[], Any]:
    """The mixture as token ids and labels."""
    from holdfast.job.mixture import MAIN

    made = job(data, model, "mimic")
    made.prepare()
    made.prompting_in_training(MAIN)
    return made.render


def bare(data: Path, model: str) -> Callable[[], float]:
    """The tokenizer alone, on the texts that `render` gives it."""
    from holdfast.job.mixture import MAIN

    made = job(data, model, "mimic")
    made.prepare()
    renderer = made.renderer(made.prompting_in_training(MAIN))

    def work() -> float:
        rows, took = iter(made.mixture(MAIN)), 0.0
        while texts := [renderer.replies(row)[0] for row in islice(rows, 512)]:
            start = time.perf_counter()
            made.tokenizer(texts, add_special_tokens=False)["input_ids"]
            took += time.perf_counter() - start
        return took

    return work


def ranking(data: Path, model: str) -> Callable[[], Any]:
    """Rows ranked by gradient."""
    from holdfast.measuring.ranking import rank
    from holdfast.rows.load import open_rows

    return lambda: rank(open_rows(f"lab:howto?n={RANKED}"), model, top=20)


WORK: dict[str, Callable[[Path, str], Callable[[], Any]]] = {
    "load": load, "audit": audit, "near": near, "audited": audited, "mix": mix, "mimic": mimic,
    "render": render, "bare": bare, "ranking": ranking,
}  # fmt: skip


# --- all of them ----------------------------------------------------------------------------------


def apart(stage: str, data: Path, model: str, processes: int) -> dict[str, float]:
    """One stage measured in a new process."""
    command = [sys.executable, __file__, "--stage", stage, "--data", str(data), "--model", model]
    environment = {
        **os.environ, PROCESSES: str(processes), "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "true" if stage == "bare" else "false",
        "RAYON_NUM_THREADS": str(processes),
    }  # fmt: skip
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{stage} ended with exit code {ran.returncode}:\n{ran.stderr[-2000:]}")
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def make_model(folder: Path, data: Path) -> None:
    """A tokenizer of 8,000 tokens trained on some rows; there is no model to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    with data.open(encoding="utf-8") as lines:
        some = [json.loads(line)["completion"] for line in islice(lines, 2000)]
    raw.train_from_iterator(some, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")


def starts(folder: Path) -> tuple[float, float]:
    """Seconds of `--help`, and of an audit of 1,000 rows, whole processes; medians."""
    data = folder / "thousand.jsonl"
    made_up(1000, data)
    return _seconds("--help"), _seconds("audit", str(data))


def _seconds(*arguments: str) -> float:
    times = []
    for _ in range(STARTS):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments], capture_output=True, check=True
        )
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def section(sizes: Sequence[int], processes: int, ranked: str | None) -> Iterator[str]:
    """The section, line by line."""
    yield "## Data\n"
    yield f"    python benchmarks/data_throughput.py --rows {','.join(map(str, sizes))}\n"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {stage: [] for stage in STAGES}  # type: dict[str, list[dict[str, float]]]
        for size in sizes:
            data = folder / f"{size}.jsonl"
            made_up(size, data)
            if not (folder / "model").exists():
                make_model(folder / "model", data)
            for stage in ("load", "audit", "near", "audited", "mix", "mimic", "render", "bare"):
                took = apart(stage, data, str(folder / "model"), processes)
                if stage in found:
                    found[stage].append(took)
        yield from table(found, sizes, processes)
        yield from goals(found, sizes, *starts(folder))
        if ranked:
            seconds = apart("ranking", data, ranked, processes)["seconds"]
            yield f"\nModel-based audit by gradient ({ranked}): {RANKED / seconds:,.1f} rows/s."


def table(
    found: dict[str, list[dict[str, float]]], sizes: Sequence[int], processes: int
) -> Iterator[str]:
    """Rates, the curve of cost, memory."""
    yield (
        f"{processes} processes where there are many rows (`load` is one). "
        "Exponent: of seconds over rows; 1 is linear. Memory: bytes a row by which the peak of "
        "the largest process grows from the last size but one to the last.\n"
    )
    rates = " | ".join(f"{size:,} rows: rows/s" for size in sizes)
    yield f"| stage | {rates} | to bare tokenisation | exponent | bytes a row | peak MiB |"
    yield "|---|" + "---|" * (len(sizes) + 4)
    for stage, label in STAGES.items():
        runs = found[stage]
        speeds = " | ".join(
            f"{n / run['seconds']:,.0f}" for n, run in zip(sizes, runs, strict=True)
        )
        ratio = runs[-1]["seconds"] / found["bare"][-1]["seconds"]
        yield (
            f"| {label} | {speeds} | {ratio:.2f} | {exponent(runs, sizes)} | "
            f"{_bytes(growth(runs, sizes))} | {runs[-1]['peak'] / 2**20:,.0f} |"
        )
    yield ""


def _bytes(grown: float | None) -> str:
    return "–" if grown is None else f"{grown:,.0f}"


def exponent(runs: Sequence[dict[str, float]], sizes: Sequence[int]) -> str:
    """Slope of log seconds over log rows, from the smallest to the largest size."""
    if len(sizes) < 2:
        return "–"
    more = math.log(runs[-1]["seconds"] / runs[0]["seconds"])
    return f"{more / math.log(sizes[-1] / sizes[0]):.2f}"


def growth(runs: Sequence[dict[str, float]], sizes: Sequence[int]) -> float | None:
    """Bytes of peak memory a row between the two largest sizes; None: there is only one."""
    if len(sizes) < 2:
        return None
    return (runs[-1]["peak"] - runs[-2]["peak"]) / (sizes[-1] - sizes[-2])


def goals(
    found: dict[str, list[dict[str, float]]], sizes: Sequence[int], helped: float, audited: float
) -> Iterator[str]:
    """Each goal with what was measured, met or not, and what limits it."""
    last = {stage: runs[-1]["seconds"] for stage, runs in found.items()}
    ratios = {stage: last[stage] / last["bare"] for stage in COMPARED}
    grown = {stage: growth(runs, sizes) for stage, runs in found.items() if stage != "bare"}
    memory = {stage: number for stage, number in grown.items() if number is not None}
    most = max(memory, key=lambda stage: memory[stage], default=None)
    yield "| goal | measured | met | what limits it |\n|---|---|---|---|"
    each = (
        (f"{stage} ≤ {RATIO} × bare tokenisation", f"{ratio:.2f}", ratio <= RATIO, COMPARED[stage])
        for stage, ratio in ratios.items()
    )
    for goal, shown, met, limit in (
        *each,
        (f"all five together ≤ {RATIO} × bare tokenisation", f"{sum(ratios.values()):.2f}",
         sum(ratios.values()) <= RATIO, "rendering tokenises the same text; the rest comes on top"),
        *(() if most is None else [
            (f"peak memory ≤ {BYTES} bytes a row", f"{memory[most]:,.0f} ({STAGES[most]})",
             memory[most] <= BYTES,
             "buffers of fixed size, full at 100,000 rows; what is spilled, mapped"),
        ]),
        (f"`--help` ≤ {HELP_S} s", f"{helped:.2f} s", helped <= HELP_S, "imports"),
        (f"`audit` of 1,000 rows ≤ {AUDIT_S} s", f"{audited:.2f} s", audited <= AUDIT_S,
         "imports, a third of them the command line's, then regular expressions"),
    ):  # fmt: skip
        yield f"| {goal} | {shown} | {'yes' if met else 'no'} | {limit} |"


def main() -> None:
    """Measure one stage, or all of them and print the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", help="also rank rows by this model")
    parser.add_argument("--stage", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measured(args.stage, args.data, args.model)))
        return
    for line in section([int(n) for n in args.rows.split(",")], args.processes, args.model):
        print(line, flush=True)


if __name__ == "__main__":
    main()
