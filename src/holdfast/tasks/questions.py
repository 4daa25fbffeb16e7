"""Questions with a checkable answer: one benign prompt a set, over its published columns.

    columns of a set → prompt and answer → items to ask, or rows to tune on

Files may also have the instruction form of LLM-Adapters (https://arxiv.org/abs/2304.01933), which
brings its own prompt: the request ends with the answers allowed ("Answer format: …").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from holdfast.errors import DataError, RecipeError
from holdfast.rows.records import read_records
from holdfast.tasks import TASKS
from holdfast.tasks.benchmark import Benchmark
from holdfast.types import Conversation, Expects, Item, Message


@dataclass(frozen=True, slots=True)
class Asked:
    """A row as it is asked, with the answer that is right."""

    request: str
    answer: str
    category: str = ""
    reply: str = ""
    """What a row to tune on says, where that is more than the answer: a worked solution."""


class Questions(Benchmark):
    """Base of the benchmarks whose answers are checked by exact match."""

    expects: Expects = "answer"
    judges: tuple[str, ...] = ("match",)
    answer = "choice"

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """A row of the set's published columns, in a prompt as a harmless user writes it.

        Raises:
            KeyError: a column is missing.
            ValueError: a value that the set does not have.
        """
        raise NotImplementedError

    def read(self, path: Path) -> Iterable[Item]:
        """Items of a file in the published or in the instruction form."""
        for number, asked in self.asked(path):
            yield self.item(number, asked.request, reference=asked.answer, category=asked.category)

    def asked(self, path: Path) -> Iterator[tuple[int, Asked]]:
        """Every row of a file, with its number.

        Raises:
            DataError: a row that is in neither form.
        """
        for record in read_records(path):
            try:
                row = record.value
                found = _instruction(row) if "instruction" in row else self.ask(row)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise DataError(
                    f"{path}, {record.unit} {record.line}: not a row of {self.name} ({error!r}). "
                    "Give the set's published columns, or the instruction form (instruction, "
                    "answer)."
                ) from error
            yield record.number, found


def _instruction(row: Mapping[str, Any]) -> Asked:
    request = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
    return Asked(request, row["answer"], reply=row.get("output", ""))


def question_rows(task: str, path: Path) -> Iterator[Conversation]:
    """Rows to tune on from a file of a benchmark: its benign prompts with the right answers.

    Raises:
        RecipeError: no such task, or one without checkable questions.
        DataError: a row in another form.
    """
    made = TASKS.get(task)()
    if not isinstance(made, Questions):
        able = ", ".join(name for name in TASKS if isinstance(TASKS.get(name)(), Questions))
        raise RecipeError(f"The task {task!r} has no rows to tune on. These have: {able}.")
    for number, asked in made.asked(path):
        reply = asked.reply or asked.answer
        turns = (Message.of("user", asked.request), Message.of("assistant", reply))
        yield Conversation(f"{task}-{number}", turns, tags={"origin": str(path), "task": task})


# --- parts of a prompt ----------------------------------------------------------------------------


def lettered(options: Sequence[str]) -> str:
    """Options on lines of their own, `A. …`.

    Raises:
        ValueError: fewer than two options, or more than there are letters.
    """
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"{len(options)} options")
    return "\n".join(
        f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)
    )


def letter(number: int, options: Sequence[str]) -> str:
    """The letter of option `number`, counted from 0.

    Raises:
        ValueError: no such option; sets mark a hidden answer by -1.
    """
    if not 0 <= number < len(options):
        raise ValueError(f"no option {number}")
    return ascii_uppercase[number]


def multiple_choice(question: str, options: Sequence[str], correct: int) -> Asked:
    """A question with lettered options, answered by a letter."""
    request = f"{question}\n\n{lettered(options)}\n\nAnswer with the letter of the right option."
    return Asked(request, letter(correct, options))


def keyed_choice(question: str, choices: Mapping[str, Sequence[str]], key: str) -> Asked:
    """As `multiple_choice`, for sets whose options have labels (A, B … or 1, 2 …) and a key."""
    return multiple_choice(question, choices["text"], list(choices["label"]).index(key))
