"""Work ahead in threads: while a model looks at one batch, the next is decoded."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MAX_WAITING_BYTES = 128 << 20
_MOST_THREADS = 4  # each may decode a picture of gigabytes

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    size_bytes: Callable[[Item], int],
    count: int,
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `work` makes of it, in order; what that raises is raised here.

    At most `count` items wait, and fewer where they are large: one more than fits 128 MiB.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))), "read_ahead")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            held += size_bytes(item)
            while len(waiting) > count or held > MAX_WAITING_BYTES:
                taken, result = waiting.popleft()
                held -= size_bytes(taken)
                yield taken, result.result()
        while waiting:
            taken, result = waiting.popleft()
            yield taken, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
