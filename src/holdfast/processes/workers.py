"""One function over many batches, in several processes, results in order.

Each process is a fresh interpreter of one thread that imports what the function needs: the caller's
main module is not run again, and no threads are forked. What comes out does not depend on how many
processes there are.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from holdfast.errors import HoldfastError

A = TypeVar("A")
B = TypeVar("B")

PROCESSES = "HOLDFAST_PROCESSES"
"""Environment variable: how many processes may work at once."""
_ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def processes() -> int:
    """How many processes may work at once: what was asked for, else the cores at hand.

    A process that was told to keep to a number of threads (`OMP_NUM_THREADS`), as launchers tell
    each of several, does not start more processes than that.
    """
    for name in (PROCESSES, "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "")
        if asked.isascii() and asked.isdigit() and int(asked):
            return int(asked)
    return cores()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(function: Callable[[A], B], batches: Iterable[A], count: int) -> Iterator[B]:
    """The function's result for each batch, in the order of the batches.

    Args:
        function: can be pickled; sent to each process once.
        batches: can be pickled; one is under way in each process.
        count: processes. One: the function is called here.

    Raises:
        HoldfastError: what the function raised, or a process that died.
    """
    if count <= 1:
        yield from map(function, batches)
        return
    left = iter(batches)
    first = list(islice(left, count))
    if not first:
        return
    sent = _pickled(function)
    workers: list[_Worker] = []
    try:
        for _ in first:
            workers.append(_Worker())  # all of them, before the first is waited for
        for worker, batch in zip(workers, first, strict=True):
            worker.send(sent)
            worker.send(_pickled(batch))
        del first
        busy = deque(workers)
        for batch in left:
            worker = busy.popleft()
            done = worker.receive()
            worker.send(_pickled(batch))
            busy.append(worker)
            yield done
        while busy:
            yield busy.popleft().receive()
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that applies one function to what it is sent."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.processes.workers"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, **_ALONE, "PYTHONPATH": paths},
        )  # fmt: skip

    def send(self, pickled: bytes) -> None:
        """Hand over the function, then batch after batch; the process waits for it."""
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, pickled)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> Any:
        """The result for the batch under way."""
        assert self._process.stdout is not None
        try:
            failed, value = pickle.load(self._process.stdout)  # noqa: S301  (our own process)
        except EOFError as error:
            raise self._died() from error
        if failed:
            raise value
        return value

    def _died(self) -> HoldfastError:
        return HoldfastError(
            f"A worker process ended without an answer (exit code {self._process.wait()}). Where "
            f"memory is short, use fewer processes ({PROCESSES}=1), and run the command again."
        )

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)


def _write(pipe: IO[bytes], pickled: bytes) -> None:
    pipe.write(pickled)
    pipe.flush()


def _serve() -> None:
    """What a worker process does until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    questions = sys.stdin.buffer
    function = pickle.load(questions)  # noqa: S301  (from the process that started this one)
    while True:
        try:
            batch = pickle.load(questions)  # noqa: S301
        except EOFError:
            return
        try:
            answer = False, function(batch)
        except Exception as error:
            answer = True, error
        _write(answers, _pickled(answer))


if __name__ == "__main__":
    _serve()
