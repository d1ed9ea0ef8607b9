"""Who does verification's work: threads for hashing, processes for parsing.

`hashlib` and reading let go of the interpreter lock, parsing records does not; so *deep* goes to processes of its own,
spawned (no inherited locks), at the parent's priority, ending with it. A hostile or broken file may kill native code:
then that process is lost and not the verification, and the objects it may have been are only hashed.

Work is handed out a bounded number of objects ahead and taken back in order, which bounds memory and makes "all up to
here" a fact that can be kept.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.verification.examination import Examiner, Outcome
from strongroom.archive.verification.findings import Level
from strongroom.archive.verification.safeguards import Expected

_AHEAD = 4  # objects handed out per worker
_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """One object to be looked at, at a level (in *sampled*, the objects not drawn are looked at less closely)."""

    entry: Entry
    reference: SegmentRef | ObjectRef
    level: Level
    expected: Expected = field(default_factory=Expected)


class Workers:
    """Examines objects in `threads`, and those whose records are looked at in `processes`, if there are to be any."""

    def __init__(self, examiner: Examiner, threads: int, processes: int) -> None:
        self._examiner, self._processes = examiner, processes
        self._count = max(threads, processes)
        self._threads = ThreadPoolExecutor(threads, "verify")
        self._apart: ProcessPoolExecutor | None = None
        self._pending: deque[tuple[Task, Future[Outcome]]] = deque()

    @contextmanager
    def at_work(self) -> Iterator[Workers]:
        """Let them work; what is unfinished when the context ends is given up."""
        try:
            yield self
        finally:
            for executor in (self._threads, self._apart):
                if executor is not None:
                    executor.shutdown(wait=True, cancel_futures=True)

    @property
    def full(self) -> bool:
        """Whether the oldest outcome should be taken before more is given."""
        return len(self._pending) >= self._count * _AHEAD

    @property
    def oldest(self) -> int | None:
        """Index of the entry of the oldest object not taken back, None when all were."""
        return self._pending[0][0].entry.index if self._pending else None

    def give(self, task: Task) -> None:
        """Hand out one object."""
        arguments = (task.entry, task.reference, task.level, task.expected)
        if not self._processes or task.level != "deep":
            future = self._threads.submit(self._examiner.examine, *arguments)
        else:
            try:
                future = self._started().submit(_examine, *arguments)
            except BrokenProcessPool:
                self._apart = None
                future = self._started().submit(_examine, *arguments)
        self._pending.append((task, future))

    def take(self) -> tuple[Task, Outcome]:
        """The oldest object handed out, and what it gave; waits for it."""
        task, future = self._pending.popleft()
        try:
            return task, future.result()
        except BrokenProcessPool:
            # This object, or one handed out with it, killed a worker. Its hash can be had without parsing it.
            outcome = self._examiner.examine(task.entry, task.reference, "complete", task.expected)
            if not outcome.findings and not outcome.unread:
                outcome.unread = (
                    f"{task.reference.key}: a process died while records were looked at; bytes are as sealed"
                )
            return task, outcome

    def drop(self) -> None:
        """Give up what was handed out and not taken back."""
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()

    def _started(self) -> ProcessPoolExecutor:
        if self._apart is None:
            context = multiprocessing.get_context("spawn")
            self._apart = ProcessPoolExecutor(self._processes, context, _prepare, (self._examiner, os.getpid()))
        return self._apart


_own: Examiner


def _prepare(examiner: Examiner, parent: int) -> None:
    global _own
    _own = examiner
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    pa.set_cpu_count(1)
    leave_with(parent)


def leave_with(parent: int) -> None:
    """End this process soon after `parent` has ended: nobody would read what it finds."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _examine(entry: Entry, reference: SegmentRef | ObjectRef, level: Level, expected: Expected) -> Outcome:
    return _own.examine(entry, reference, level, expected)
