"""Workers: a few long-lived processes that work on orders, together on no more than the cores.

Each imports the heavy libraries once and computes on its own share of the cores. A worker's
messages go to `messages.log`; it ends when the process that started it ends, however that happens.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, StorageError
from holdfast.job.cost import Cost
from holdfast.progress import say
from holdfast.reproduce.orders import Order

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOG = "messages.log"


class Workers:
    """A pool of processes over one shared store."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def work(self, orders: Sequence[Order]) -> Iterator[tuple[Order, dict[str, Any], float]]:
        """Work on orders; yields each with what it brought and its seconds, as they finish.

        An order that cannot be worked on brings `error`; the others go on.

        Raises:
            StorageError: the disk, or a worker that was killed; everything finished is kept.
        """
        waiting: dict[Future[tuple[dict[str, Any], float]], Order] = {
            self._pool.submit(_work, order): order for order in orders
        }
        while waiting:
            for done in wait(waiting, return_when="FIRST_COMPLETED").done:
                order = waiting.pop(done)
                brought, seconds = _result(done)
                yield order, brought, seconds

    def costs(self, orders: Sequence[Order]) -> list[Cost | None]:
        """What each order will take; None where that is not known."""
        return [_result(one) for one in [self._pool.submit(_cost, order) for order in orders]]


@contextmanager
def workers(output: Path, processes: int, threads: int) -> Iterator[Workers]:
    """A pool of workers on the store in `output`.

    Args:
        output: the folder of all of it.
        processes: workers.
        threads: of each.
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # read when a worker imports numpy
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin, initargs=(output, threads)
    )
    try:
        yield Workers(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _result(done: Future[Any]) -> Any:
    try:
        return done.result()
    except BrokenProcessPool:
        raise StorageError(
            "A worker process was killed, most often for lack of memory. Everything finished is "
            "kept: run the same command again, with a smaller --jobs if memory is short."
        ) from None


# --- inside a worker ------------------------------------------------------------------------------

_STORE: list[Any] = []


def _begin(output: Path, threads: int) -> None:
    from holdfast.sweep.store import SharedStages

    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends us
    sys.stderr = (output / LOG).open("a", encoding="utf-8", buffering=1)
    import torch

    torch.set_num_threads(threads)
    _STORE.append(SharedStages(output / "store", alone=False))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(order: Order) -> tuple[dict[str, Any], float]:
    from holdfast.reproduce.training import work

    started, used = time.monotonic(), time.process_time()
    try:
        brought = work(order, _STORE[0])
    except StorageError:
        raise
    except HoldfastError as error:
        brought = {"error": str(error)}
    say(f"{order.name}: {time.process_time() - used:.1f} s of CPU")
    return brought, time.monotonic() - started


def _cost(order: Order) -> Cost | None:
    from holdfast.reproduce.training import cost

    try:
        return cost(order, _STORE[0])
    except StorageError:
        raise
    except HoldfastError:
        return None  # its own turn will say why
