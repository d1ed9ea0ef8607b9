"""The worker processes that build segments, apart from the process that acknowledges.

Parsing hostile bytes may take all memory or crash native code; in a process of its own that costs one try. Workers are
spawned (no inherited locks or sockets), run at a lower priority than acknowledging, may use a bounded amount of memory,
end themselves when a job passes its deadline, and leave when the parent is gone, so that a restarted service does not
meet its own past.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import pyarrow as pa

WORKER_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 8 // 10
"""Most memory a worker may use. A job takes up to 6 times its content, flow logs the most."""
NICE = 5
"""Below acknowledging, and above queries: a spool that nobody empties fills. (They stay in the service's session, whose
processes the kernel weighs against each other by this alone.)"""
DEADLINE_SECONDS = 900
_WATCH_SECONDS = 0.5
_KEEP_MS = 20_000  # longer than a job: what one step frees is what the next one needs

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class WorkerDied(Exception):
    """A worker process ended, or ran out of memory, during a job. Says nothing about which job did it."""


class Builders:
    """Runs functions in `workers` processes; with 0, in a thread of this process (command line, tests).

    A job that runs longer than `deadline_seconds` takes its process with it.
    """

    def __init__(self, workers: int, deadline_seconds: int = DEADLINE_SECONDS) -> None:
        self._workers, self._deadline = workers, deadline_seconds
        self._executor = self._start()

    async def run(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """The function's result. Raises WorkerDied, and what the function raises."""
        executor, loop = self._executor, asyncio.get_running_loop()
        try:
            if self._workers == 0:
                return await loop.run_in_executor(executor, function, *args)
            return await loop.run_in_executor(executor, _within, self._deadline, function, *args)
        except BrokenProcessPool:
            if executor is self._executor:
                self._executor = self._start()
                executor.shutdown(wait=False)
            raise WorkerDied("a worker process ended during its job") from None
        except MemoryError as error:
            raise WorkerDied(f"a worker ran out of memory: {error}") from None

    def close(self) -> None:
        """Stop the workers after what they are doing."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> Executor:
        if self._workers == 0:
            return ThreadPoolExecutor(1, "build")
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(self._workers, context, _prepare, (os.getpid(),))
        executor.submit(_nothing)  # start a process now, not when the first cut waits for it
        return executor


def _prepare(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to finish
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (WORKER_BYTES, WORKER_BYTES))
    with suppress(OSError):  # where the kernel has to choose whom to end, let it be a worker and not the parent
        Path("/proc/self/oom_score_adj").write_text("800")
    keep_memory()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    gc.disable()  # jobs make millions of bytes objects and no cycles; memory is freed by reference counts
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def keep_memory() -> None:
    """Let Arrow reuse what it freed: its usual allocator gives pages back at once, and getting them anew costs as much
    as all the work on them (sealing ran at half the speed)."""
    with suppress(NotImplementedError):  # an Arrow without jemalloc
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(_KEEP_MS)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _within(seconds: int, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
    # The kernel ends the process: no code of a job that runs wild needs to cooperate, not even with the interpreter.
    signal.alarm(seconds)
    try:
        return function(*args)
    finally:
        signal.alarm(0)


def _nothing() -> None:
    return
