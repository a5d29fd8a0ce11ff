"""Work ahead in threads: while a model looks at one batch, the next is decoded."""

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

_log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 128 << 20
LEAVE_S = 5.0  # that leaving waits for what is under way: an interrupt must not hang on a decoder
_MOST_THREADS = 4  # each may decode a picture of gigabytes

Item = TypeVar("Item")
Result = TypeVar("Result")
Tasks = SimpleQueue[tuple[Item, Future[Result]] | None]  # None ends one thread


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """Whoever takes was told to go no further."""


class Stalled(Exception):  # noqa: N818 - reads as what happened
    """The work on `item` does not end, in a thread that cannot be stopped, only left."""

    def __init__(self, item: Any) -> None:  # noqa: ANN401 - an exception cannot be generic
        super().__init__(item)
        self.item = item


def read_ahead(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    size_bytes: Callable[[Item], int],
    count: int,
    *,
    threads: int | None = None,
    timeout_s: float | None = None,
    stop: Future[None] | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with what `work` makes of it, in order; what that raises is raised here.

    Items are drawn in the thread of who takes. At most `count` wait, and fewer where they are
    large: one more than fits 128 MiB. Closing the generator ends the threads (default: as many as
    processors, 4 at most). Raises Stalled where a result is not there after `timeout_s` of waiting,
    and Stopped where one would be waited for after `stop` is done.
    """
    crew_size = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    tasks: Tasks[Item, Result] = SimpleQueue()
    openmp = _openmp("torch" in sys.modules)
    # not an executor's threads: Python would wait at its exit for one that hangs
    crew = [
        Thread(target=_serve, args=(tasks, work, openmp), name=f"read_ahead-{n}", daemon=True)
        for n in range(crew_size)
    ]
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    held, is_stuck = 0, False
    for thread in crew:
        thread.start()
    try:
        for item in items:
            waiting.append((item, Future()))
            tasks.put(waiting[-1])
            held += size_bytes(item)
            while len(waiting) > count or held > MAX_WAITING_BYTES:
                held -= size_bytes(waiting[0][0])
                yield _take(waiting, timeout_s, stop)
        while waiting:
            yield _take(waiting, timeout_s, stop)
    except (Stalled, KeyboardInterrupt, SystemExit):
        is_stuck = timeout_s is not None  # who waits for a thread that hangs would hang too
        raise
    finally:
        for _, future in waiting:
            future.cancel()
        for _ in crew:
            tasks.put(None)
        until = time.monotonic() + LEAVE_S
        for thread in () if is_stuck else crew:
            thread.join(max(0, until - time.monotonic()))


def load_batches(
    items: Iterable[Item],
    load: Callable[[Item], Result | str],
    size: int,
    left_out: Counter[str],
    size_bytes: Callable[[Item], int] = lambda _: 0,
) -> Iterator[tuple[list[Item], list[Result]]]:
    """Load `size` items at a time, and as many ahead; count those that come to a reason instead."""
    batch: list[Item] = []
    batch_loaded: list[Result] = []
    for item, loaded in read_ahead(items, load, size_bytes, size):
        if isinstance(loaded, str):
            left_out[loaded] += 1
            continue
        batch.append(item)
        batch_loaded.append(loaded)
        if len(batch) == size:
            yield batch, batch_loaded
            batch, batch_loaded = [], []
    if batch:
        yield batch, batch_loaded


def _take(
    waiting: deque[tuple[Item, Future[Result]]],
    timeout_s: float | None,
    stop: Future[None] | None,
) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    if not future.done():
        ends: list[Future[Any]] = [future] if stop is None else [future, stop]
        if not wait(ends, timeout_s, FIRST_COMPLETED).done:  # a TimeoutError may be the work's own
            raise Stalled(item)
    if not future.done():
        raise Stopped
    return item, future.result()


def _serve(
    tasks: Tasks[Item, Result], work: Callable[[Item], Result], openmp: ThreadpoolController
) -> None:
    _compute_alone(openmp)
    while (task := tasks.get()) is not None:
        item, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(item))
            except BaseException as error:  # it is raised where the result is taken
                future.set_exception(error)
        del task, item, future  # a thread that waits holds no picture


@cache
def _openmp(with_torch: bool) -> ThreadpoolController:  # noqa: ARG001 - looked for again
    """Find the OpenMP libraries that are loaded, which takes milliseconds."""
    return ThreadpoolController().select(user_api="openmp")


def _compute_alone(openmp: ThreadpoolController) -> None:
    """Let the calling thread, which is one of several, open no OpenMP threads of its own.

    torch opens them for a single picture, and they then spin for the next: a sixth of the rate.
    """
    try:
        if "torch" in sys.modules:
            import torch  # which waits for a thread that is about to import it

            torch.get_num_threads()  # or torch would set its number when this thread computes
        openmp.limit(limits=1)  # which OpenMP keeps for each thread
    except Exception:  # who takes would wait for a thread that ends here
        _log.warning("threads that decode may open others of OpenMP", exc_info=True)
