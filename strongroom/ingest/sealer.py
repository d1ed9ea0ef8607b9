"""The sealer: decides when to cut, has the cut built, committed and signed, then releases the spool.

For each cut, in this order; a crash between two steps resumes at the first one whose effect is missing:

    decide the cut (durable)    ingest/cuts.py
    build the segments          ingest/build.py, in a worker process
    put objects, append entry   ingest/commit.py; the entry is the seal
    sign a checkpoint           the signer catches up if this is missed
    note the batches as sealed  ingest/batches.py reads it from the log
    release the spool files     repeated at the next start if missed

Cuts are due by size, by age, or because somebody asks. Building runs ahead on as many cuts as there are workers;
committing is in order, one at a time. While the store can't be reached the sealer tries again, ever more slowly, and
acknowledging goes on until the spool is full. A cut that can't be built (its worker died, ran out of memory, or failed
in a way nobody foresaw) is tried again, then halved until the batch that does it is alone, and that one is quarantined
whole. Anything else that fails (the signer refuses, the log holds something that this spool did not write, the spool is
damaged) stops the sealer for good: going on could only make it worse, and the batches are safe where they are.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.archive.log import Log
from strongroom.ingest.batches import Batches
from strongroom.ingest.build import Built, Job, build
from strongroom.ingest.builders import Builders
from strongroom.ingest.commit import Committer
from strongroom.ingest.cuts import Cut, Cuts, new_cut
from strongroom.ingest.errors import SealedElsewhere, SealFailed, SpoolDamaged
from strongroom.ingest.frames import EPOCH
from strongroom.ingest.sources import Registry
from strongroom.ingest.spool import Spool
from strongroom.ingest.writer import Writer

CUT_BATCHES = 10_000
CONTENT_FACTOR = 2
"""A cut ends at seal_bytes as stored or at this many times as much content, whichever comes first: it bounds the memory
a worker needs."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_TRIES = 2


class SealLimits(Protocol):
    """The limits the sealer reads (intake.IntakeLimits)."""

    @property
    def max_expanded_bytes(self) -> int: ...
    @property
    def seal_bytes(self) -> int: ...
    @property
    def seal_age_seconds(self) -> float: ...
    @property
    def heartbeat_seconds(self) -> float: ...
    @property
    def workers(self) -> int: ...


@dataclass(slots=True)
class _Filling:
    """The batches after the last decided cut, as far as they have been counted."""

    first: int
    next: int
    stored: int = 0
    content: int = 0


class Sealer:
    """Seals one spool. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        spool: Spool,
        cuts: Cuts,
        writer: Writer,
        log: Log,
        batches: Batches,
        committer: Committer,
        builders: Builders,
        sign_checkpoint: Callable[[], object],
        limits: SealLimits,
        clock: Callable[[], datetime],
        work: Path,
        registry: Registry,
    ) -> None:
        self._spool = spool
        self._cuts = cuts
        self._writer = writer
        self._log = log
        self._batches = batches
        self._committer = committer
        self._builders = builders
        self._sign = sign_checkpoint
        self._limits = limits
        self._clock = clock
        self._work = work
        self._registry = registry
        self._inherited = {cut.first for cut in cuts.pending}
        self._building: deque[tuple[Cut, Job, asyncio.Task[Built]]] = deque()
        self._jobs = 0
        self._tries: dict[int, int] = {}
        self._elsewhere: dict[int, set[str]] = {}  # by a cut's first batch: what another writer sealed of it
        self._sealed = self._released = -1
        self._filling = _Filling(0, 0)
        self._wanted = -1
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._beat_at = time.monotonic()
        self._problem: StrongroomError | None = None
        self._setback: StrongroomError | None = None

    # -- what others see

    @property
    def sealed(self) -> int:
        """Sequence number of the last sealed batch of this epoch, -1 before the first."""
        return self._sealed

    @property
    def problem(self) -> StrongroomError | None:
        """Why the sealer has stopped or is making no progress, None while all is well."""
        return self._problem or self._setback

    @property
    def progress(self) -> asyncio.Event:
        """Set once, when batches have been sealed or sealing met a problem after this was read."""
        return self._progress

    def noticed(self) -> None:
        """A batch was spooled."""
        self._wake.set()

    async def seal_through(self, sequence: int) -> None:
        """Seal the batches up to `sequence` without waiting for size or age, and release them from the spool.

        Raises the problem (StoreUnavailable among others) when a try fails; the sealer itself goes on trying.
        """
        self._wanted = max(self._wanted, sequence)
        self._wake.set()
        while self._released < sequence:
            if self._problem:
                raise self._problem
            changed = self._progress
            await changed.wait()
            if self._setback and self._released < sequence:
                raise self._setback

    # -- the loop

    async def run(self) -> None:
        """Seal until cancelled, or until a problem that trying again can't solve."""
        try:
            await self._persist(self._resume)
            while True:
                self._wake.clear()
                await self._plan()
                if self._building:
                    await self._seal(*self._building[0])
                elif self._heartbeat_due():
                    await self._persist(self._heartbeat)
                else:
                    await self._sleep()
        except Exception as error:
            self._problem = error if isinstance(error, StrongroomError) else SealFailed(f"unexpected: {error!r}")
            self._announce()
            raise
        finally:
            for *_, task in self._building:
                task.cancel()

    async def _resume(self) -> None:
        """After a start: what did the last life get done?"""
        position = await asyncio.to_thread(self._committer.position)
        self._sealed = position.sealed
        self._filling = _Filling(max(position.sealed + 1, self._spool.first), 0)
        if self._cuts.pending:
            self._filling.first = self._cuts.pending[-1].last + 1
        self._filling.next = self._filling.first
        for cut in [cut for cut in self._cuts.pending if cut.last <= position.sealed]:
            await asyncio.to_thread(self._cuts.done, cut)
        await asyncio.to_thread(self._sign)
        await asyncio.wrap_future(self._spool.rotate())
        await asyncio.to_thread(self._spool.release, self._sealed)
        self._released = self._sealed
        self._announce()

    async def _plan(self) -> None:
        """Decide the cuts that are due and start building them, as far ahead as there are workers."""
        ahead = max(1, self._limits.workers)
        for cut in self._cuts.pending[len(self._building) : ahead]:
            await self._start(cut)
        while len(self._building) < ahead and self._is_due():
            cut = new_cut(self._filling.first, self._filling.next - 1)
            await self._persist(partial(self._decide, cut))
            self._filling = _Filling(cut.last + 1, cut.last + 1)
            await self._start(cut)

    async def _decide(self, cut: Cut) -> None:
        await asyncio.to_thread(self._cuts.add, cut)

    def _is_due(self) -> bool:
        filling, limits = self._filling, self._limits
        for sequence, stored, content in self._spool.sizes(filling.next):
            if filling.next > filling.first and self._is_full(filling, stored, content):
                return True
            filling.next, filling.stored, filling.content = (
                sequence + 1,
                filling.stored + stored,
                filling.content + content,
            )
        if filling.next == filling.first:
            return False
        if self._wanted >= filling.first or self._is_full(filling, 0, 0):
            return True
        return self._age(filling.first) >= limits.seal_age_seconds

    def _is_full(self, filling: _Filling, stored: int, content: int) -> bool:
        """Whether the cut is full, or would be too full with one more batch of these sizes."""
        return (
            filling.stored + stored >= self._limits.seal_bytes
            or filling.content + content >= CONTENT_FACTOR * self._limits.seal_bytes
            or filling.next - filling.first >= CUT_BATCHES
        )

    def _age(self, sequence: int) -> float:
        received = self._spool.received_at(sequence)
        return 0.0 if received is None else (self._clock() - EPOCH).total_seconds() - received / 1e6

    async def _start(self, cut: Cut) -> None:
        await asyncio.wrap_future(self._spool.rotate())  # files can only be released whole
        frames = tuple(self._spool.frames(cut.first, cut.last))
        if len(frames) != cut.last - cut.first + 1:
            raise SpoolDamaged(
                f"the spool no longer holds all of the batches {cut.first}..{cut.last}, decided to be sealed"
            )
        self._jobs += 1
        folder = str(self._work / str(self._jobs))
        elsewhere = frozenset(self._elsewhere.get(cut.first, ()))
        job = Job(cut, self._writer, frames, self._limits.max_expanded_bytes, folder, self._registry, elsewhere)
        self._building.append((cut, job, asyncio.ensure_future(self._builders.run(build, job))))

    async def _seal(self, cut: Cut, job: Job, building: asyncio.Task[Built]) -> None:
        try:
            built = await building
        except SpoolDamaged:
            raise
        except OSError as error:
            await self._abandon_builds()
            await self._pause_after(error)
            return
        except Exception as error:  # the boundary to the worker process: whatever it was, other cuts must go on
            await self._isolate(cut, error)
            return
        try:
            await self._persist(lambda: self._commit(cut, built))
        except SealedElsewhere as error:
            self._elsewhere.setdefault(cut.first, set()).update(error.batches)
            await self._abandon_builds()
            shutil.rmtree(job.folder, ignore_errors=True)
            await self._start(cut)
            return
        self._building.popleft()
        self._tries.pop(cut.first, None)
        self._elsewhere.pop(cut.first, None)
        shutil.rmtree(job.folder, ignore_errors=True)
        self._released = cut.last
        self._announce()

    async def _commit(self, cut: Cut, built: Built) -> None:
        """Every step is safe to repeat: a try that failed half-way is followed by another of the whole."""
        if (await asyncio.to_thread(self._committer.position)).sealed < cut.last:
            await asyncio.to_thread(self._committer.commit, cut, built)
        self._beat_at = time.monotonic()
        await asyncio.to_thread(self._sign)
        await asyncio.to_thread(self._batches.follow, self._log)
        self._sealed = cut.last
        self._announce()
        await asyncio.to_thread(self._cuts.done, cut)
        await asyncio.to_thread(self._spool.release, self._sealed)

    async def _isolate(self, cut: Cut, error: Exception) -> None:
        """Building failed over this cut, or over one that was built beside it: try alone, then cut smaller."""
        await self._abandon_builds()
        tries = self._tries[cut.first] = self._tries.get(cut.first, 0) + 1
        if tries < _TRIES:
            await self._start(cut)
            return
        if cut.whole:
            raise SealFailed(
                f"batch {cut.first} can't be sealed even undecoded: {error}",
                hint="the machine may lack memory; the batch stays in the spool, restart to try again",
            )
        if cut.first in self._inherited:
            # An earlier life may have put objects of the wider cut; say so, or they look like foreign ones.
            await self._persist(lambda: asyncio.to_thread(self._committer.disown, cut))
        self._tries.pop(cut.first)
        await self._persist(lambda: asyncio.to_thread(self._cuts.replace, cut, cut.smaller()))

    async def _abandon_builds(self) -> None:
        tasks = [task for *_, task in self._building]
        self._building.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _heartbeat_due(self) -> bool:
        return time.monotonic() - self._beat_at >= self._limits.heartbeat_seconds

    async def _heartbeat(self) -> None:
        await asyncio.to_thread(self._committer.heartbeat, self._sealed + 1)
        self._beat_at = time.monotonic()
        await asyncio.to_thread(self._sign)
        await asyncio.to_thread(self._batches.follow, self._log)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step, again and again while the store or this disk is unavailable."""
        while True:
            try:
                await step()
            except (StoreUnavailable, OSError) as error:
                await self._pause_after(error)
            else:
                self._setback, self._pause = None, _FIRST_PAUSE
                return

    async def _pause_after(self, error: StrongroomError | OSError) -> None:
        self._setback = error if isinstance(error, StrongroomError) else SealFailed(f"can't seal now: {error}")
        self._announce()
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _sleep(self) -> None:
        """Until a batch arrives, or the oldest one or the heartbeat is due."""
        until = self._limits.heartbeat_seconds - (time.monotonic() - self._beat_at)
        if self._filling.next > self._filling.first:
            until = min(until, self._limits.seal_age_seconds - self._age(self._filling.first))
        try:
            async with asyncio.timeout(max(until, 0.01)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _announce(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()
