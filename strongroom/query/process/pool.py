"""Processes that run queries, ready before they are needed, watched while they work, killed when they must be.

A worker is started as a new program (never a fork of the server: it inherits no memory, no descriptors but its two
pipes, and an environment made from nothing). A few stand ready. One that ended its query in an ordinary way may serve
again, REUSES times at most; after anything else it is killed, and a killed worker is replaced. Nobody but its own
query notices.

The watch is a thread of its own, so that a busy event loop does not lengthen anybody's time limit. Every TICK seconds
it adds to the running time of the workers whose query is waited for (time in which the reader of the answer is slow
does not count) and reads their private resident memory, less often what they have on the disk (spill.py), and sends
SIGKILL beyond a limit. It needs no cooperation from the worker: expressions are known that ignore DuckDB's own memory
limit, timeout and interrupt. Memory can overshoot by what one tick allows, about 100 MiB; RLIMIT_DATA in the worker
bounds it in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

import strongroom
from strongroom.query.errors import QueryFailed
from strongroom.query.limits import QueryLimits
from strongroom.query.process import frames, sandbox, spill
from strongroom.query.process.incoming import Incoming
from strongroom.query.process.spill import SpillFolder

REUSES = 100
TICK = 0.02
SPILL_TICKS = 10
"""Looks at a worker for one at its folder."""
START_SECONDS = 30.0
PART_BYTES = 1 << 19
"""Of an answer are read at once. More would cost more: the allocator gives long pieces back to the system each time."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
log = structlog.get_logger(__name__)

Verdict = Literal["", "time", "memory", "disk"]


class Watch:
    """What one query has used, and whether it was killed for it. Written by the watch thread and by `counting`."""

    def __init__(self, seconds: float, memory_bytes: int, spill_bytes: int) -> None:
        self.seconds, self.memory_bytes, self.spill_bytes = seconds, memory_bytes, spill_bytes
        self.counting = False
        self.used_seconds = 0.0
        self.peak_bytes = 0
        self.verdict: Verdict = ""

    def look(self, elapsed: float, resident: int, spilt: int = 0) -> Verdict:
        """Take one look; says which limit is passed, if one is."""
        self.peak_bytes = max(self.peak_bytes, resident)
        if self.counting:
            self.used_seconds += elapsed
        if resident > self.memory_bytes:
            self.verdict = "memory"
        elif spilt > self.spill_bytes:
            self.verdict = "disk"
        elif self.used_seconds > self.seconds:
            self.verdict = "time"
        return self.verdict


class Worker:
    """One process, the two pipes to it, and the folder it may write to, if any."""

    def __init__(self, process: asyncio.subprocess.Process, incoming: Incoming, folder: Path | None = None) -> None:
        self.process, self._incoming, self._folder = process, incoming, folder
        self._announced = 0  # bytes of the answer that come next
        self.sandbox: dict[str, str] = {}
        self.served = 0
        self.owner = ""  # whom it served last
        self.watch: Watch | None = None
        # A pid can come to mean another process, this can't; None once closed, for its number can.
        self._handle: int | None = os.pidfd_open(process.pid)
        self._lock = threading.Lock()

    async def send(self, message: frames.Request) -> None:
        """Write one message. Raises QueryFailed when the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(frames.encode(message))
            await self.process.stdin.drain()
        except (ConnectionError, RuntimeError):  # RuntimeError: uvloop's word for a pipe it has closed
            raise QueryFailed("the query's process ended unexpectedly", hint="try again") from None

    async def receive(self) -> frames.Reply | bytes:
        """Read one message or, of a Data message, some of the bytes that it announces, PART_BYTES at most.

        Raises QueryFailed when the process is gone or talks nonsense.
        """
        try:
            if not self._announced:
                length = int.from_bytes(await self._incoming.exactly(frames.LENGTH_BYTES))
                if length > frames.MAX_FRAME:
                    raise QueryFailed("the query's process broke its protocol")
                reply = frames.decode_reply(await self._incoming.exactly(length))
                if not isinstance(reply, frames.Data):
                    return reply
                self._announced = reply.size
            await asyncio.sleep(0)  # a process that writes faster than it is read can't keep the event loop for itself
            part = await self._incoming.some(min(self._announced, PART_BYTES))
            self._announced -= len(part)
            return part
        except EOFError:
            raise QueryFailed("the query's process ended unexpectedly", hint="try again") from None
        except msgspec.DecodeError:
            raise QueryFailed("the query's process broke its protocol") from None

    def resident(self) -> int:
        """Private resident memory in bytes; 0 when the process is gone."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        except (OSError, ValueError):
            return 0
        return (int(resident) - int(shared)) * _PAGE

    def spilt(self) -> int:
        """Bytes that it has on the disk."""
        return 0 if self._folder is None else spill.size(self._folder)

    def kill(self) -> None:
        """SIGKILL, from any thread, any number of times."""
        with self._lock:
            if self._handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def ended(self) -> None:
        """Kill the process and wait until it is reaped. Any number of times."""
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._incoming.close()
        await self.process.wait()
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
        if self._folder is not None:
            await asyncio.to_thread(spill.remove, self._folder)


class WorkerPool:
    """Ready workers. Use from one event loop."""

    def __init__(self, *, readable: Sequence[Path], spill_to: Path, limits: QueryLimits) -> None:
        """`readable`: all that SQL may read. `spill_to`: the folder for what does not fit into memory (spill.py)."""
        self._spill: SpillFolder | None = SpillFolder(spill_to) if limits.spill_bytes else None
        self._folders = [str(folder) for folder in readable]
        self._readable = [*self._folders, *map(str, library_folders())]
        self.limits = limits
        self._spares: list[Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._watched: set[Worker] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.sandbox: dict[str, str] = {}

    async def start(self) -> None:
        """Start the watch and the first worker. Raises QueryFailed when workers can't run here."""
        if self._spill is not None:
            try:
                await asyncio.to_thread(self._spill.open)
            except OSError as error:
                log.warning("queries can't spill to the disk", detail=str(error))
                self._spill = None
        self._thread = threading.Thread(target=self._look_after, name="query-watch", daemon=True)
        self._thread.start()
        self._spares.append(await self._started())
        self._refill()

    async def stop(self) -> None:
        """End every worker, running ones too."""
        self._stopping = True
        self._wake.set()
        for task in list(self._tasks):
            with contextlib.suppress(QueryFailed, asyncio.CancelledError):
                await task
        for worker in [*self._spares, *self._watched]:
            await worker.ended()
        self._spares.clear()
        if self._spill is not None:
            await asyncio.to_thread(self._spill.close)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def acquire(self, owner: str = "") -> Worker:
        """A worker for one query, under watch from now on. Give it to `release` afterwards, whatever happened.

        The one that served `owner` last and has a database for him; or the one that has rested longest, for it has had
        time to open its next.
        """
        self._spares.sort(key=lambda spare: spare.owner != owner or not owner)
        worker = self._spare() or await self._started()
        self._refill()
        worker.served += 1
        worker.owner = owner
        self.renew(worker)
        self._watched.add(worker)
        self._wake.set()
        return worker

    def _spare(self) -> Worker | None:
        """A worker that stands ready; those that somebody ended while they rested are passed over."""
        while self._spares:
            worker = self._spares.pop(0)
            if worker.process.returncode is None:
                return worker
            self._spawn(worker.ended())
        return None

    def renew(self, worker: Worker) -> None:
        """What an acquired worker is asked next has the limits of a query of its own."""
        worker.watch = Watch(self.limits.seconds, self.limits.memory_bytes, self.limits.spill_bytes)

    def release(self, worker: Worker, *, clean: bool) -> None:
        """Take a worker back. `clean`: its query ended in an ordinary way and it waits for the next."""
        self._watched.discard(worker)
        fit = clean and worker.served < REUSES and worker.resident() < self.limits.memory_bytes // 2
        # As many as ran at once stay: starting one costs more than most queries.
        if fit and not self._stopping and len(self._spares) < max(self.limits.spare_workers, self.limits.concurrency):
            self._spares.append(worker)
        else:
            self._spawn(worker.ended())
            self._refill()

    def _refill(self) -> None:
        while not self._stopping and len(self._spares) + self._starting < self.limits.spare_workers:
            self._starting += 1
            self._spawn(self._add_spare())

    async def _add_spare(self) -> None:
        try:
            self._spares.append(await self._started())
        finally:
            self._starting -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a spare that did not start shows when the next query starts its own

    async def _folder(self) -> Path | None:
        """For what one process can't hold in memory, where there is room for it."""
        with contextlib.suppress(OSError):
            return None if self._spill is None else await asyncio.to_thread(self._spill.new)
        return None

    async def _started(self) -> Worker:
        folder = await self._folder()
        settings = {
            "spill": "" if folder is None else str(folder),
            "spill_bytes": self.limits.spill_bytes,
            "readable": self._readable,
            "folders": self._folders,
            "memory_bytes": self.limits.memory_bytes,
            "threads": self.limits.threads,
            "sql_bytes": self.limits.sql_bytes,
            "parent": os.getpid(),
        }
        here, there = os.pipe()
        incoming = Incoming(here)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-B",
                "-P",
                "-m",
                "strongroom.query.process.worker",
                msgspec.json.encode(settings).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=there,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env=worker_environment(),
            )
        except BaseException:
            incoming.close()
            raise
        finally:
            os.close(there)
        sandbox.stand_back(process.pid, os.getpid())  # while it starts, too, which takes more than most queries
        worker = Worker(process, incoming, folder)
        try:
            reply = await asyncio.wait_for(worker.receive(), START_SECONDS)
            if not isinstance(reply, frames.Ready):
                said = reply.message if isinstance(reply, frames.Failure) else "it broke its protocol"
                raise QueryFailed(f"a query process did not start: {said}")
        except BaseException as error:
            await worker.ended()
            if isinstance(error, TimeoutError):
                late = f"a query process did not start within {START_SECONDS:g} seconds"
                raise QueryFailed(late, hint="try again when the machine has less to do") from None
            raise
        worker.sandbox = self.sandbox = reply.sandbox
        return worker

    def _look_after(self) -> None:
        last, looks = time.monotonic(), 0
        while not self._stopping:
            if not self._watched:
                self._wake.wait(1.0)
                self._wake.clear()
                last = time.monotonic()
            time.sleep(TICK)
            now, looks = time.monotonic(), looks + 1
            for worker in list(self._watched):
                spilt = worker.spilt() if looks % SPILL_TICKS == 0 else 0
                if worker.watch is not None and worker.watch.look(now - last, worker.resident(), spilt):
                    worker.kill()
            last = now


def worker_environment() -> dict[str, str]:
    """The environment of a process in the sandbox: made from nothing."""
    return {
        "PYTHONPATH": str(Path(strongroom.__file__).parents[1]),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "MALLOC_ARENA_MAX": "2",
        # Arrow's allocator would start a thread on import, before the sandbox binds the process.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        # So would the algebra library of numpy, which Arrow and DuckDB import where it is installed.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }


def library_folders() -> list[Path]:
    """Where Python and its libraries are, so that a worker can still import what it imports late. No configuration."""
    paths = sysconfig.get_paths()
    python = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"]
    # DuckDB looks there for the container's memory limit when a database is opened, and fails when it may not.
    system += ["/proc/self/cgroup", "/sys/fs/cgroup"]
    found = [str(Path(strongroom.__file__).parent), *python, *system]
    return [Path(path) for path in dict.fromkeys(found) if Path(path).exists()]
