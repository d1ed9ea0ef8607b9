"""Reading many things from a store that answers slowly: several at once, results in order.

A bucket answers in tens of milliseconds, whatever is asked; one thing after the other, ten thousand entries take
minutes. A window bounds what is read and not yet taken, and with it memory. The first error is raised where its result
was due, so whoever reads in order sees exactly what it would have seen reading one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

REMOTE_THREADS = 16
"""Requests to a remote store at once, where nothing says otherwise."""


def in_order(read: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """`read` of each item, in the order of the items; at most `threads` at once and 2 × `threads` ahead of the taker.

    Raises what `read` raises. `threads` ≤ 1 reads one by one, in the caller's thread.
    """
    if threads <= 1:
        yield from map(read, items)
        return
    waiting = iter(items)
    pool = ThreadPoolExecutor(threads, "readahead")
    try:
        under_way: deque[Future[Result]] = deque(pool.submit(read, item) for item in islice(waiting, 2 * threads))
        while under_way:
            result = under_way.popleft().result()
            under_way.extend(pool.submit(read, item) for item in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
