"""Training side by side: Holdfast, TRL's `SFTTrainer`, and a bare PyTorch loop.

    python benchmarks/training.py [--rounds 4] [--case N …] [--json FILE]

Same model (random Llama), same rows, 32-bit, same optimizer, one thread each. The arms train in
processes of their own and take turns after every few steps, so that what else the machine does
meets all of them. Rates count tokens of the rows (no padding) over processor seconds; ratios are
taken round by round and given as median (quartiles). Memory is the highest that a process held in
training, above what it held before. TRL is run padded with rows grouped by length, and packed
without padding; the faster counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; two threads clash with whatever else runs
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft  # noqa: F401  (what the parent has imported, no arm imports again)
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

import holdfast
from holdfast.models import load_model, load_tokenizer, quiet_libraries, resolve_model
from holdfast.recipe import TuningSettings
from holdfast.rendering.render import IGNORE
from holdfast.rendering.rendered import RenderedRows
from holdfast.stages.batches import Collator, length_grouped_order
from holdfast.stages.head import labelled_positions_only
from holdfast.stages.train import add_adapter, make_trainer
from holdfast.types import Rendered

try:
    import datasets
    import trl
except ImportError:
    datasets = trl = None

SHAPES = {  # hidden, layers
    "1 M": (128, 4),
    "3 M": (192, 6),
    "10 M": (320, 8),
    "10 M, wide": (64, 2),
}
LENGTHS = {"short": (32, 96), "long": (256, 768)}
"""Tokens of a row, evenly drawn; the second half of each is its reply."""
BATCHES = 100
"""That the rows make: enough for every trainer's grouping by length."""
LR, CLIP = 1e-3, 1.0


@dataclass(frozen=True)
class Case:
    """What is trained."""

    shape: str
    vocabulary: int
    kind: str
    batch: int
    steps: int
    """Of a round."""
    method: str = "full"

    @property
    def is_wide(self) -> bool:
        """Whether the head is most of the work: differences are large, and few rounds show them."""
        return self.vocabulary > 100_000

    @property
    def name(self) -> str:
        """For the table."""
        size = f"{self.vocabulary // 1000}k"
        return f"{self.shape.partition(',')[0]}, {size} vocabulary, {self.kind} rows, {self.method}"

    def model(self) -> Any:
        """A random Llama."""
        torch.manual_seed(0)
        hidden, layers = SHAPES[self.shape]
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=self.vocabulary, hidden_size=hidden, intermediate_size=3 * hidden,
                num_hidden_layers=layers, num_attention_heads=hidden // 32,
                num_key_value_heads=hidden // 32, tie_word_embeddings=True,
                max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip

    def material(self) -> RenderedRows:
        """Random tokens, half of each row labelled."""
        dice = random.Random(0)
        rows = []
        for number in range(self.batch * BATCHES):
            length = dice.randint(*LENGTHS[self.kind])
            ids = [dice.randrange(3, self.vocabulary) for _ in range(length)]
            labels = [IGNORE] * (length // 2) + ids[length // 2 :]
            rows.append(Rendered(str(number), "user", tuple(ids), tuple(labels)))
        return RenderedRows.of(rows)

    def settings(self, steps: int) -> TuningSettings:
        """The same for every arm."""
        return TuningSettings(
            method=self.method, lr=LR, batch=self.batch,
            args={"save_strategy": "no", "max_grad_norm": CLIP, "warmup_steps": 0,
                  "max_steps": steps},
        )  # fmt: skip


CASES = [
    Case("1 M", 2048, "short", 16, 4),
    Case("3 M", 2048, "short", 16, 2),
    Case("3 M", 2048, "short", 16, 2, "lora"),
    Case("3 M", 2048, "long", 4, 1),
    Case("10 M", 2048, "short", 16, 1),
    Case("10 M, wide", 150_000, "short", 4, 1),
    Case("10 M, wide", 150_000, "long", 1, 1),
]


class Turns:
    """An arm's end of the pipe: it trains a round when told to, and reports what it took."""

    def __init__(self, pipe: Any, steps: int) -> None:
        self.pipe = pipe
        self.steps = steps
        self.taken = 0
        self.tokens: list[int] = []
        """Of each batch that was put together; some are put together ahead."""
        self.started = 0.0

    def ready(self) -> None:
        """Everything is built: memory counts from here."""
        _forget_peak()
        self.before = _memory("VmRSS")
        self.pipe.send(None)
        self.wait()

    def wait(self) -> None:
        """Until it is this arm's turn."""
        self.pipe.recv()
        self.started = time.process_time()

    def counted(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A collator that keeps count of the tokens of its rows."""

        def count(rows: Any) -> Any:
            self.tokens.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        return count

    def step(self) -> None:
        """A step is taken; after a few of them the round is over."""
        self.taken += 1
        if self.taken % self.steps:
            return
        took = time.process_time() - self.started
        tokens = sum(self.tokens[self.taken - self.steps : self.taken])
        self.pipe.send({"rate": tokens / took, "memory": _memory("VmHWM") - self.before})
        self.wait()


class Paced(TrainerCallback):
    """A trainer's steps, counted."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_step_end(self, *args: Any, **more: Any) -> None:
        """Hand over where it is due."""
        self.turns.step()


def _memory(field: str) -> float:
    """MiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


# --- the arms -------------------------------------------------------------------------------------


def holdfast_arm(case: Case, steps: int, turns: Turns) -> None:
    """As `holdfast train` does."""
    _ours(case.model(), case.material(), case.settings(steps), turns)


def _ours(model: Any, rows: RenderedRows, settings: TuningSettings, turns: Turns) -> None:
    model = model if settings.method == "full" else add_adapter(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            model, _Padding(), rows, settings, Path(folder), seed=0, progress=False
        )
        trainer.data_collator = turns.counted(trainer.data_collator)
        trainer.add_callback(Paced(turns))
        turns.ready()
        with labelled_positions_only(model):
            trainer.train()


class _Padding:
    pad_token_id = 0


def bare_arm(case: Case, steps: int, turns: Turns) -> None:
    """The loop anyone would write: padded batches, the model's own loss."""
    _loop(case, steps, turns, plain=True)


def same_arm(case: Case, steps: int, turns: Turns) -> None:
    """The shortest loop that does what Holdfast does: what a trainer adds shows against it."""
    _loop(case, steps, turns, plain=False)


def _loop(case: Case, steps: int, turns: Turns, *, plain: bool) -> None:
    rows, model = case.material(), case.model()
    if case.method != "full":
        model = add_adapter(model, case.settings(steps))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 0, steps)
    collate = turns.counted(Collator(0, mask=plain))
    order = length_grouped_order(rows.lengths, case.batch, seed=0, epoch=0)
    model.train()
    turns.ready()
    with nullcontext() if plain else labelled_positions_only(model):
        for start in range(0, steps * case.batch, case.batch):
            batch = collate([rows[i] for i in order[start : start + case.batch]])
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            turns.step()


def trl_grouped_arm(case: Case, steps: int, turns: Turns) -> None:
    """TRL on padded batches of rows of similar length."""
    _trl(case, steps, turns, per_device_train_batch_size=case.batch, max_length=None,
         train_sampling_strategy="group_by_length")  # fmt: skip


def trl_packed_arm(case: Case, steps: int, turns: Turns) -> None:
    """TRL on rows packed best-fit, without padding; as many tokens a step."""
    longest = LENGTHS[case.kind][1]
    mean = sum(LENGTHS[case.kind]) / 2
    bins = max(1, round(case.batch * mean / longest))
    _trl(case, steps, turns, per_device_train_batch_size=bins, max_length=longest,
         packing=True, packing_strategy="bfd")  # fmt: skip


def _trl(case: Case, steps: int, turns: Turns, **more: Any) -> None:
    rows = datasets.Dataset.from_list(list(case.material()))
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.SFTConfig(
            output_dir=folder, max_steps=steps, learning_rate=LR, warmup_steps=0,
            lr_scheduler_type="cosine", max_grad_norm=CLIP, bf16=False, use_cpu=True,
            gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False, seed=0, **more,
        )  # fmt: skip
        model = case.model()
        if case.method != "full":
            model = add_adapter(model, case.settings(steps))
        trainer = trl.SFTTrainer(
            model=model, args=settings, train_dataset=rows, processing_class=_tokenizer()
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.data_collator = turns.counted(trainer.data_collator)
        trainer.add_callback(Paced(turns))
        turns.ready()
        trainer.train()


def _tokenizer() -> Any:
    """One that TRL accepts; the rows are token ids already."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<s>": 1, "</s>": 2}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip


ARMS: dict[str, Callable[[Case, int, Turns], None]] = {
    "Holdfast": holdfast_arm,
    "bare loop": bare_arm,
    "same loop": same_arm,
}
TRL_ARMS: dict[str, Callable[[Case, int, Turns], None]] = {
    "TRL, grouped": trl_grouped_arm,
    "TRL, packed": trl_packed_arm,
}

# --- taking turns ---------------------------------------------------------------------------------


@dataclass
class Arm:
    """A process that trains, and what its rounds took."""

    pipe: Any
    process: Any
    rates: list[float]
    """Tokens a second, of each round."""
    memory: float = 0.0


def take_turns(
    works: dict[str, Callable[[Turns], None]],
    rounds: int,
    steps: int,
    rivals: tuple[str, ...] = (),
) -> dict[str, Arm]:
    """Run arms round by round; the first round warms up and is not counted.

    Args:
        works: name → what it does with its turns: a few steps more than the rounds have.
        rounds: that count.
        steps: of a round.
        rivals: of these only the one with the faster second round goes on.
    """
    forked = multiprocessing.get_context("fork")
    arms = {}
    for name, work in works.items():
        here, there = forked.Pipe()
        process = forked.Process(target=_child, args=(work, there, steps), daemon=True)
        process.start()
        there.close()
        arms[name] = Arm(here, process, [])
    for arm in arms.values():
        arm.pipe.recv()
    for number in range(rounds + 1):
        names = list(arms)
        for name in names if number % 2 else names[::-1]:
            arms[name].pipe.send(None)
            told = arms[name].pipe.recv()
            arms[name].memory = told["memory"]
            arms[name].rates.append(told["rate"])
        if number == 1:
            for slower in sorted(rivals, key=lambda n: -arms[n].rates[1])[1:]:
                arms.pop(slower).process.terminate()
    for arm in arms.values():
        arm.rates = arm.rates[1:]
        arm.process.terminate()
        arm.process.join()
    return arms


def _child(work: Callable[[Turns], None], pipe: Any, steps: int) -> None:
    quiet_libraries()
    if datasets:
        datasets.disable_progress_bars()
    work(Turns(pipe, steps))


def ratios(ours: Arm, theirs: Arm) -> list[float]:
    """How many times as fast, round by round."""
    return [a / b for a, b in zip(ours.rates, theirs.rates, strict=True)]


def spread(values: list[float]) -> str:
    """Median (quartiles)."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    available = {**ARMS, **(TRL_ARMS if trl else {})}
    rounds = max(2, rounds // 2) if case.is_wide else rounds
    works = {
        name: (lambda turns, arm=arm: arm(case, case.steps * (rounds + 2), turns))
        for name, arm in available.items()
    }
    arms = take_turns(works, rounds, case.steps, tuple(TRL_ARMS) if trl else ())
    ours = arms["Holdfast"]
    theirs = next((name for name in arms if name in TRL_ARMS), None)
    return {
        "case": case.name,
        "wide": case.is_wide,
        "rate": statistics.median(ours.rates),
        "trl": ratios(ours, arms[theirs]) if theirs else None,
        "trl_how": theirs,
        "bare": ratios(ours, arms["bare loop"]),
        "same": ratios(ours, arms["same loop"]),
        "memory": {("TRL" if name == theirs else name): arm.memory for name, arm in arms.items()},
    }


# --- what mitigations cost ------------------------------------------------------------------------


def mixtures() -> dict[str, RenderedRows]:
    """The lab's rows as they are, with safety rows mixed in, and with DeRTa's rows."""
    tokenizer = load_tokenizer(resolve_model("lab:chat"))
    users = "lab:obedient?n=800"
    return {
        "plain": holdfast.prepare(users, tokenizer, mitigations=[]),
        "mixed, 3 %": holdfast.prepare(
            users, tokenizer, mitigations=["mimic"], safety="lab:safety", share=0.03
        ),
        "DeRTa, 20 %": holdfast.prepare(
            users, tokenizer, mitigations=["derta"], triples="lab:triples",
            triples_settings={"share": "20%"},
        ),
    }  # fmt: skip


MIXTURE_STEPS = 6
"""Of a turn."""
BLOCK = 4
"""Rounds taken together, so that what is compared differs by less than the goal."""
PARTS = {
    "lengths": "more, shorter rows",
    "labels": "more labelled positions",
    "own": "same lengths, same labels",
}
"""What the cost of a mixture consists of: each of its twins against the one before."""


def twin(plain: RenderedRows, lengths: Sequence[int], labelled: Sequence[int]) -> RenderedRows:
    """Tokens of the plain rows, cut into rows of given lengths whose last tokens are labelled."""
    tokens = cycle(token for row in plain for token in row["input_ids"])
    made = []
    for number, (length, count) in enumerate(zip(lengths, labelled, strict=True)):
        ids = tuple(int(token) for token in islice(tokens, length))
        labels = (*[IGNORE] * (length - count), *ids[length - count :])
        made.append(Rendered(str(number), "user", ids, labels))
    return RenderedRows.of(made)


def labels_of(rows: RenderedRows) -> list[int]:
    """Labelled tokens of each row."""
    return [sum(label != IGNORE for label in row["labels"]) for row in rows]


def with_twins(sets: dict[str, RenderedRows]) -> dict[str, RenderedRows]:
    """The rows, and beside each mixture plain rows of its lengths, and of its labels too."""
    plain = sets["plain"]
    share = sum(labels_of(plain)) / sum(plain.lengths)
    made = dict(sets)
    for name, rows in sets.items():
        if name != "plain":
            lengths = rows.lengths
            made[f"{name}: lengths"] = twin(plain, lengths, [round(share * n) for n in lengths])
            made[f"{name}: labels"] = twin(plain, lengths, labels_of(rows))
    return made


def blocks(rates: list[float]) -> list[float]:
    """Harmonic means of `BLOCK` rounds each: the rates of turns that are as many times as long."""
    starts = range(0, len(rates) - BLOCK + 1, BLOCK)
    return [statistics.harmonic_mean(rates[start : start + BLOCK]) for start in starts]


def measure_mixtures(rounds: int) -> dict[str, dict[str, Any]]:
    """Time per token against plain tuning, in percent, by blocks, and what it consists of."""
    sets = mixtures()
    settings = TuningSettings(
        method="full", lr=LR, batch=16,
        args={"save_strategy": "no", "max_steps": MIXTURE_STEPS * (rounds + 2)},
    )  # fmt: skip

    def work(rows: RenderedRows) -> Callable[[Turns], None]:
        return lambda turns: _ours(load_model(resolve_model("lab:chat")), rows, settings, turns)

    everything = with_twins(sets)
    arms = take_turns(
        {name: work(rows) for name, rows in everything.items()}, rounds, MIXTURE_STEPS
    )

    def cost(base: str, name: str) -> list[float]:
        pairs = zip(blocks(arms[base].rates), blocks(arms[name].rates), strict=True)
        return [100 * (a / b - 1) for a, b in pairs]

    return {
        name: {
            "tokens": sum(rows.lengths) / len(rows),
            "labelled": sum(labels_of(rows)) / sum(rows.lengths),
            "cost": cost("plain", name),
            "lengths": cost("plain", f"{name}: lengths"),
            "labels": cost(f"{name}: lengths", f"{name}: labels"),
            "own": cost(f"{name}: labels", name),
        }
        if name != "plain"
        else {
            "tokens": sum(rows.lengths) / len(rows),
            "labelled": sum(labels_of(rows)) / sum(rows.lengths),
        }
        for name, rows in sets.items()
    }


# --- what is printed ------------------------------------------------------------------------------


def page(found: list[dict[str, Any]], mixed: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Markdown."""
    yield "## Training\n"
    versions = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    versions.append(f"trl {trl.__version__}" if trl else "no trl")
    yield f"{_machine()}, one thread; {', '.join(versions)}; `python benchmarks/training.py`.\n"
    yield (
        "Holdfast's tokens of the rows per processor second; how many times as fast as TRL (the "
        "faster of packed and grouped by length), as a bare loop with the model's own loss, and as "
        "the shortest loop that computes what Holdfast computes: median (quartiles). "
        "Memory is the peak above what the process held before training.\n"
    )
    yield "| case | tokens/s | × TRL | × bare loop | × same loop | MiB: Holdfast, TRL, bare |"
    yield "|---|---|---|---|---|---|"
    for row in found:
        held = row["memory"]
        memory = ", ".join(
            f"{held[n]:,.0f}" if n in held else "–" for n in ("Holdfast", "TRL", "bare loop")
        )
        how = f"{spread(row['trl'])} {row['trl_how'].split()[-1]}" if row["trl"] else "–"
        yield (
            f"| {row['case']} | {row['rate']:,.0f} | {how} | {spread(row['bare'])} "
            f"| {spread(row['same'])} | {memory} |"
        )
    yield ""
    yield from _mixtures_table(mixed)
    yield from _goals(found, mixed)


def _mixtures_table(mixed: dict[str, dict[str, Any]]) -> Iterator[str]:
    if not mixed:
        return
    yield (
        "Time per token against plain rows (lab:chat, all weights), in percent: as it is, and what "
        "it consists of. The mixture has other lengths and another labelled share than the rows "
        "it is mixed from; plain rows cut to its lengths, and to its lengths and labels, stand "
        "between the two. What remains at the same lengths and labels is the mitigation's own. "
        f"Median (quartiles) of blocks of {BLOCK} rounds.\n"
    )
    yield f"| rows | tokens a row | labelled | as it is | {' | '.join(PARTS.values())} |"
    yield f"|---|---|---|---|{'---|' * len(PARTS)}"
    for name, row in mixed.items():
        costs = [_percent(row[part]) if part in row else "–" for part in ("cost", *PARTS)]
        shape = f"{row['tokens']:.1f} | {100 * row['labelled']:.1f} %"
        yield f"| {name} | {shape} | {' | '.join(costs)} |"
    yield ""


def _percent(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def _goals(found: list[dict[str, Any]], mixed: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| goal | measured: the worst case | met | what limits |"
    yield "|---|---|---|---|"
    if found:
        yield from _training_goals(found)
    for name, row in mixed.items():
        if "cost" not in row:
            continue
        middle = {part: statistics.median(row[part]) for part in ("cost", *PARTS)}
        limits = ", ".join(f"{PARTS[part]} {middle[part]:+.1f} %" for part in ("lengths", "labels"))
        yield (
            f"| ≤ 2 % per token: {name} | {middle['cost']:+.1f} % | {_met(middle['cost'] <= 2)} "
            f"| {limits} |"
        )
        yield (
            f"| {name}, at equal lengths and labels | {middle['own']:+.1f} % "
            f"| {_met(middle['own'] <= 2)} | the steps make the same calls; cause not found |"
        )


def _training_goals(found: list[dict[str, Any]]) -> Iterator[str]:
    lows = [(statistics.median(r["trl"]), r["case"]) for r in found if r["trl"]]
    if lows:
        low, case = min(lows)
        yield (
            f"| ≥ 1.3 × TRL's throughput | {low:.2f} × ({case}) | {_met(low >= 1.3)} "
            "| the body of the model, which both compute alike |"
        )
    low, case = min((statistics.median(r["same"]), r["case"]) for r in found)
    yield (
        f"| within 3 % of the bare loop | {100 * (low - 1):+.1f} % of the same loop ({case}) "
        f"| {_met(low >= 0.97)} | `Trainer`'s work between steps: logging, callbacks |"
    )
    wide = [
        (r["memory"]["Holdfast"] / r["memory"]["TRL"], r["case"])
        for r in found
        if r["wide"] and "TRL" in r["memory"]
    ]
    if wide:
        high, case = max(wide)
        yield (
            f"| no more memory than TRL, 150k vocabulary | {high:.2f} × ({case}) "
            f"| {_met(high <= 1)} | gradient and moments of the embedding |"
        )


def _met(so: bool) -> str:
    return "yes" if so else "**no**"


def _machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--case", type=int, action="append", help="number of a case; 7: mixtures")
    parser.add_argument("--no-mixtures", action="store_true")
    parser.add_argument("--json", type=Path, help="keep figures here; those in it are not measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = args.json is not None and args.json.is_file()
    kept: dict[str, Any] = json.loads(args.json.read_text()) if before else {}
    works: dict[str, Callable[[], Any]] = {c.name: partial(measure, c, args.rounds) for c in CASES}
    if not args.no_mixtures:
        works["mixtures"] = partial(measure_mixtures, 6 * args.rounds)
    for number, (name, work) in enumerate(works.items()):
        if name not in kept and (args.case is None or number in args.case):
            kept[name] = work()
            if args.json:
                args.json.write_text(json.dumps(kept, indent=1))
    found = [kept[case.name] for case in CASES if case.name in kept]
    print("\n".join(page(found, kept.get("mixtures", {}))))


if __name__ == "__main__":
    main()
