"""Keeps the indexes behind the log: in the background, newest segments first, in a process that may only read.

A segment is read once for its entities (index.py) and its texts (texts.py), as soon as its file is here and was
checked: in a local store that is every segment, with a remote one those that a query fetched. What can't be indexed (it
is damaged, or too large for the process) is left out and stays a segment that can hold anything; the queries that need
it will say what is wrong with it. Processes that share the folder of the indexes take turns, and take in each other's
runs (runs.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.archive.locks import attempted
from strongroom.query.errors import QueryFailed
from strongroom.query.holdings.cache import SegmentCache
from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.index import EntityIndex
from strongroom.query.holdings.segments import Segment, bits_of, numbers_of
from strongroom.query.holdings.texts import TextIndex
from strongroom.query.process import frames
from strongroom.query.process.pool import Worker, WorkerPool
from strongroom.query.views import ViewSource

BATCH_SEGMENTS, BATCH_BYTES = 64, 32 << 20
LOOK_AT = 4_096
TURN = ".turn"
"""The lock of whoever writes in the folder of the indexes."""
PAUSE_SECONDS = 2.0
"""Between looks at the log. Segments that came meanwhile become one run of the index, not a run each."""

log = structlog.get_logger(__name__)


class Indexer:
    """Indexes what is not indexed. `run` until cancelled, on the event loop of `pool`."""

    def __init__(
        self,
        *,
        folder: Path,
        catalog: Catalog,
        cache: SegmentCache,
        pool: WorkerPool,
        index: EntityIndex,
        texts: TextIndex,
        max_bytes: int,
        sources: Sequence[ViewSource],
        here: Callable[[], int],
    ) -> None:
        """`folder`: that of both indexes. `max_bytes`: of both. `here`: segments whose files are here, as a choice."""
        self._folder, self._turn = folder, asyncio.Lock()
        self._catalog, self._cache, self._pool = catalog, cache, pool
        self._index, self._texts, self._max_bytes = index, texts, max_bytes
        self._kinds = {item.name: {kind: list(names) for kind, names in item.entities.items()} for item in sources}
        self._here = here
        self._left_out = 0
        self._suspects = 0  # of a batch that failed: to be indexed one by one

    async def run(self) -> None:
        """Take in what an earlier process indexed, then go on with what is missing, as long as nobody cancels."""
        async with self._turn:
            await asyncio.to_thread(self.load)
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.catch_up()
            except (StrongroomError, OSError) as error:
                log.warning("indexing failed", detail=str(error))

    def load(self, *, tidy: bool = False) -> None:
        """Take in what other processes indexed. Raises OSError."""
        self._index.load(tidy=tidy)
        self._texts.load(tidy=tidy)

    async def catch_up(self) -> bool:
        """Index everything that can be indexed now. False: another process is at it; what it has done is taken in.

        Raises StrongroomError, OSError.
        """
        async with self._turn:
            with attempted(self._folder / TURN) as mine:
                await asyncio.to_thread(self.load, tidy=mine)
                if mine:
                    await self._index_all()
                return mine

    async def _index_all(self) -> None:
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
        """The newest segments of one source that lack the same indexes, by number; none when there is no more room."""
        indexed = self._index.covered & self._texts.covered
        missing = self._here() & ~indexed & ~self._left_out
        if not missing or self._index.size + self._texts.size >= self._max_bytes:
            return {}
        batch: dict[int, Segment] = {}
        alike: tuple[str, bool, bool] | None = None
        size = 0
        start = max(missing.bit_length() - LOOK_AT, 0)
        for number in reversed(numbers_of(missing >> start)):
            segment = self._catalog.table[start + number]
            kind = (segment.source, *self._lacks(start + number))
            if alike is not None and kind != alike:
                continue
            alike = kind
            size += segment.bytes
            if batch and (len(batch) == BATCH_SEGMENTS or size > BATCH_BYTES or self._suspects):
                break
            batch[start + number] = segment
        return batch

    def _lacks(self, number: int) -> tuple[bool, bool]:
        """Whether a segment is still to be indexed by its entities, and by its texts."""
        return not self._index.covered >> number & 1, not self._texts.covered >> number & 1

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
                paths = await asyncio.to_thread(self._cache.ensure, segments)
                files = [
                    frames.Indexable(path.as_posix(), number, segment.bytes, self._fields(segment))
                    for path, (number, segment) in zip(paths, batch.items(), strict=True)
                ]
                seconds = int(self._pool.limits.seconds) + 5
                indexed = await self._asked(worker, frames.Index(files, kinds, seconds))
        except StrongroomError as error:
            if len(batch) > 1:
                self._suspects |= bits_of(batch)
            else:
                self._left_out |= bits_of(batch)
                log.info("a segment is not indexed", segment=segments[0].key, detail=str(error))
            self._suspects &= ~self._left_out
            return not isinstance(error, QueryFailed)
        self._suspects &= ~bits_of(batch)
        entities, texts = self._lacks(next(iter(batch)))
        if entities:
            await asyncio.to_thread(self._index.add, dict.fromkeys(batch, source), [indexed.words])
        if texts:
            await asyncio.to_thread(self._texts.add, dict(zip(batch, indexed.filters, strict=True)))
        return True

    def _fields(self, segment: Segment) -> list[str]:
        """The columns that its records are rebuilt from."""
        return list(dict.fromkeys(name for form in self._cache.shape(segment).forms for name in form.columns))

    async def _asked(self, worker: Worker, request: frames.Index) -> frames.Indexed:
        """Raises QueryFailed when the process ends or fails over it."""
        assert worker.watch is not None
        await worker.send(request)
        worker.watch.counting = True
        try:
            reply = await worker.receive()
        finally:
            worker.watch.counting = False
        if isinstance(reply, frames.Indexed) and len(reply.filters) == len(request.files):
            return reply
        raise QueryFailed(reply.message if isinstance(reply, frames.Failure) else "it broke its protocol")
