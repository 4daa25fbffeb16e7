"""All side-by-side measurements in one go, into `docs/benchmarks.md`.

    python benchmarks/bench.py [--only NAME …] [--take FILE …] [--remark TEXT] [--into FILE]

Runs the scripts of `SECTIONS` one after the other, so that none disturbs another, and puts what
each prints into the page under its own heading; with `--only`, the other sections stay as they
are. A script that fails leaves its section as it was, and this one ends with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = ("torch", "transformers", "trl", "peft", "tokenizers", "numpy")

OPENING = """# Benchmarks

    make bench

reruns this page but for the GPU section; it is sized for a quarter of an hour on two idle cores.
What is compared is compared side by side, in one run on one machine, by processor time (data, which
uses all cores: by the clock): ratios carry over to other machines better than rates do. A test of
the default run (`tests/test_benchmarks.py`) fails when training, evaluation or rendering falls far
behind its bare reference, or `--help` imports much more.
"""
GPU = """## GPU

Unmeasured: no GPU was at hand. On a machine with one, `python benchmarks/bench.py --only GPU`
prints this section: LoRA and full tuning of randomly initialised Llama-3-8B and Qwen-0.5B shapes
(bf16, 4,096 tokens packed) beside TRL, DeRTa rows against plain rows, and answers per second beside
the library's `generate`. The published anchor is 12,473 tokens/s (402 TFLOP/s) for LoRA of
Llama-3-8B on one H100.
"""


def script(name: str, *options: str) -> Callable[[], str]:
    """A section that a script of this folder prints."""

    def section() -> str:
        ran = subprocess.run(
            [sys.executable, str(HERE / name), *options],
            env=single_threaded(), stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if ran.returncode:
            raise RuntimeError(f"{name} ended with exit code {ran.returncode}")
        return ran.stdout.strip() + "\n"

    return section


def single_threaded() -> dict[str, str]:
    """This environment, with one thread to a process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


# --- the page -------------------------------------------------------------------------------------

SECTIONS: Mapping[str, Callable[[], str]] = {
    "Training": script("training.py"),
    "Evaluation": script("evaluation.py"),
    "Data": script("data_throughput.py", "--model", "lab:chat"),
    "Growth": script("growth.py"),
    "GPU": script("gpu.py"),
}
BUDGET_S = {"Training": 420, "Evaluation": 180, "Data": 240, "Growth": 60, "GPU": 600}
"""Seconds that a section is sized for; those that run everywhere make up the quarter of an hour."""
EVERYWHERE = [name for name in SECTIONS if name != "GPU"]


def machine() -> str:
    """Processor, memory and versions: a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [f"{name} {release}" for name in PACKAGES if (release := _version(name))]
    return (
        f"Measured on {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {', '.join(found)}.\n"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def sections_of(page: str) -> dict[str, str]:
    """Heading → section, of a page that was written before."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part for part in parts}


def write(path: Path, sections: Mapping[str, str], remark: str = "") -> None:
    """The page, its sections in their order; a remark says how quiet the machine was."""
    known = {"GPU": GPU, **sections}
    parts = [
        OPENING,
        machine(),
        *([remark] if remark else []),
        *(known[name] for name in SECTIONS if name in known),
    ]
    path.write_text("\n".join(part.rstrip("\n") + "\n" for part in parts), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is wanted, and write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="a section")
    parser.add_argument("--take", action="append", type=Path, help="a section, printed before")
    parser.add_argument("--remark", default="", help="for the page, such as what else ran")
    parser.add_argument("--into", type=Path, default=PAGE)
    wanted = parser.parse_args(argv)
    sections = sections_of(wanted.into.read_text(encoding="utf-8")) if wanted.into.exists() else {}
    for taken in wanted.take or ():
        sections |= sections_of(taken.read_text(encoding="utf-8"))
        write(wanted.into, sections, wanted.remark)
    failed, seconds = [], {}
    for name in wanted.only or ([] if wanted.take else EVERYWHERE):
        started = time.perf_counter()
        try:
            sections[name] = SECTIONS[name]()
        except (RuntimeError, subprocess.CalledProcessError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        write(wanted.into, sections, wanted.remark)
        seconds[name] = time.perf_counter() - started
        print(f"{name}: {seconds[name]:.0f} s of {BUDGET_S[name]} s", file=sys.stderr)
    print(f"together: {sum(seconds.values()):.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
