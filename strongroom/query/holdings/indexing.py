"""Keeps the entity index behind the log: in the background, newest segments first, in a process that may only read.

A segment is indexed once its file is here and was checked: in a local store that is every segment, with a remote one
those that a query fetched. What can't be indexed (it is damaged, or too large for the process) is left out and stays a
segment that can hold anything; the queries that need it will say what is wrong with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.query.errors import QueryFailed
from strongroom.query.holdings.cache import SegmentCache
from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.index import EntityIndex
from strongroom.query.holdings.segments import Segment, bits_of, numbers_of
from strongroom.query.process import frames
from strongroom.query.process.pool import Worker, WorkerPool
from strongroom.query.views import ViewSource

BATCH_SEGMENTS, BATCH_BYTES = 64, 64 << 20
LOOK_AT = 4_096
PAUSE_SECONDS = 2.0
"""Between looks at the log. Segments that came meanwhile become one run of the index, not a run each."""

log = structlog.get_logger(__name__)


class Indexer:
    """Indexes what is not indexed. `run` until cancelled, on the event loop of `pool`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        cache: SegmentCache,
        pool: WorkerPool,
        index: EntityIndex,
        sources: Sequence[ViewSource],
        everything: bool,
    ) -> None:
        """`everything`: whether all segments' files are here; else those that `fetched` names."""
        self._catalog, self._cache, self._pool, self._index = catalog, cache, pool, index
        self._kinds = {item.name: {kind: list(names) for kind, names in item.entities.items()} for item in sources}
        self._everything = everything
        self._here = 0
        self._left_out = 0
        self._suspects = 0  # of a batch that failed: to be indexed one by one

    def fetched(self, choice: int) -> None:
        """The files of these segments are here now."""
        self._here |= choice

    async def run(self) -> None:
        """Take in what an earlier process indexed, then go on with what is missing, as long as nobody cancels."""
        await asyncio.to_thread(self._index.load)
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.catch_up()
            except (StrongroomError, OSError) as error:
                log.warning("indexing failed", detail=str(error))

    async def catch_up(self) -> None:
        """Index everything that can be indexed now. Raises StrongroomError, OSError."""
        batch = self._next()
        if not batch:
            return
        worker = await self._pool.acquire()
        clean = False
        try:
            while batch:
                clean = False
                if not await self._add(worker, batch):
                    return
                clean = True
                self._pool.renew(worker)
                batch = self._next()
        finally:
            self._pool.release(worker, clean=clean)

    def _next(self) -> dict[int, Segment]:
        """The newest segments of one source that are not indexed, by number; none when the index is full."""
        known = (1 << len(self._catalog.table)) - 1
        missing = (known if self._everything else known & self._here) & ~self._index.covered & ~self._left_out
        if not missing or self._index.full:
            return {}
        batch: dict[int, Segment] = {}
        size = 0
        start = max(missing.bit_length() - LOOK_AT, 0)
        for number in reversed(numbers_of(missing >> start)):
            segment = self._catalog.table[start + number]
            if segment.source != next(iter(batch.values()), segment).source:
                continue
            size += segment.bytes
            if batch and (len(batch) == BATCH_SEGMENTS or size > BATCH_BYTES or self._suspects):
                break
            batch[start + number] = segment
        return batch

    async def _add(self, worker: Worker, batch: Mapping[int, Segment]) -> bool:
        """Index a batch; when that fails, leave out what it was. Returns whether the process is still fit."""
        segments = list(batch.values())
        source = segments[0].source
        kinds = self._kinds.get(source)
        if kinds is None:  # of a source that is not declared any more: no view reads it
            self._left_out |= bits_of(batch)
            return True
        try:
            with self._cache.holding(segments):
                files = await asyncio.to_thread(self._cache.ensure, segments)
                listed = [(file.as_posix(), number) for file, number in zip(files, batch, strict=True)]
                words = await self._asked(worker, frames.Index(listed, kinds, int(self._pool.limits.seconds) + 5))
        except StrongroomError as error:
            if len(batch) > 1:
                self._suspects |= bits_of(batch)
            else:
                self._left_out |= bits_of(batch)
                log.info("a segment is not indexed", segment=segments[0].key, detail=str(error))
            self._suspects &= ~self._left_out
            return not isinstance(error, QueryFailed)
        self._suspects &= ~bits_of(batch)
        await asyncio.to_thread(self._index.add, dict.fromkeys(batch, source), [words])
        return True

    async def _asked(self, worker: Worker, request: frames.Index) -> bytes:
        """Raises QueryFailed when the process ends or fails over it."""
        assert worker.watch is not None
        await worker.send(request)
        worker.watch.counting = True
        try:
            reply = await worker.receive()
        finally:
            worker.watch.counting = False
        if not isinstance(reply, frames.Words):
            raise QueryFailed(reply.message if isinstance(reply, frames.Failure) else "it broke its protocol")
        return reply.content
