"""Sharing: several processes answer the batches of one plan, each batch once.

    parts/00012.jsonl   a batch's answers, written in one step
    parts/00012.lock    held by the process that is answering it

Nobody is told which batches are his: a process takes the next one that is neither answered nor
held. The lock of a process that dies is gone with it, so that another takes its batch, and one
that is started again goes on with what is left, in whatever number. The leading process puts the
parts together in the plan's order: the bytes are those of one process alone.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast.files import make_folder, write_jsonl
from holdfast.measuring.evaluation import read_attempts
from holdfast.processes.launch import Launch
from holdfast.types import Attempt

POLL_S = 0.1
"""Between two looks at what others are still answering."""


class PutTogether(Exception):
    """The leading process has put the parts together and removed them."""


class Parts:
    """The batches of one evaluation folder that several processes answer."""

    def __init__(self, output: Path, launch: Launch) -> None:
        """Bind a folder.

        Args:
            output: the evaluation folder.
            launch: this process among those at work.
        """
        self.folder = output / "parts"
        self._launch = launch

    def open(self, finished: Callable[[], bool]) -> None:
        """Begin, once the leading process has.

        Args:
            finished: whether everything has been put together by now.

        Raises:
            PutTogether: it has.
        """
        if self._launch.leads:
            make_folder(self.folder)
        while not self.folder.is_dir():
            if finished():
                raise PutTogether
            time.sleep(POLL_S)

    def share(
        self, batches: Mapping[int, Sequence[str]], answer: Callable[[int], Sequence[Attempt]]
    ) -> None:
        """Answer batches beside the other processes; returns once all of them are answered.

        Args:
            batches: number → ids of its attempts, in order.
            answer: the answered attempts of a batch.

        Raises:
            PutTogether: the leading process needs them no more.
        """
        left = self._from_my_own_end(list(batches))
        while left:
            left = [n for n in left if not self._settled(n, batches[n], answer)]
            if left:
                time.sleep(POLL_S)

    def read(self, number: int) -> list[Attempt]:
        """A batch's answered attempts.

        Raises:
            PutTogether: they have been put together already.
        """
        try:
            return read_attempts(self._part(number))
        except FileNotFoundError:
            raise PutTogether from None

    def remove(self) -> None:
        """Take the parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _from_my_own_end(self, numbers: list[int]) -> list[int]:
        """The numbers, each process beginning elsewhere, so that few want the same."""
        start = len(numbers) * self._launch.rank // self._launch.world
        return numbers[start:] + numbers[:start]

    def _settled(
        self, number: int, ids: Sequence[str], answer: Callable[[int], Sequence[Attempt]]
    ) -> bool:
        """Whether a batch is answered, by this process if nobody else is at it."""
        if self._answered(number, ids):
            return True
        with self._claim(number) as mine:
            if not mine:
                return False
            if not self._answered(number, ids):  # by now
                write_jsonl(self._part(number), answer(number))
            return True

    def _answered(self, number: int, ids: Sequence[str]) -> bool:
        part = self._part(number)
        return part.is_file() and [a.id for a in self.read(number)] == list(ids)

    @contextmanager
    def _claim(self, number: int) -> Iterator[bool]:
        """Hold a batch against the others; whether it could be."""
        try:
            lock = self._part(number).with_suffix(".lock").open("w")
        except FileNotFoundError:
            raise PutTogether from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:05}.jsonl"
