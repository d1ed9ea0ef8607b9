"""From a question to an answer: snapshot, check, verified files, a process of its own, a stream.

    run ── slot ── snapshot ── worker: which views, which rows? ── pruner: which segments can hold such rows?
                            ── cache: are they what was sealed? ── worker: answer

What holds for every answer: it was computed on one snapshot, over all segments that snapshot names for the sources the
statement asks but those that can't hold a row it wants, each of them checked against its entry; and its statement
passed the guard. When one of these fails there is no answer but an error that says which. The same statement `as_of`
the same snapshot gives the same rows (of statements that use neither the clock nor chance, and order their rows).

Who asks for it also gets what is acknowledged and not sealed yet (unsealed.py), beside the snapshot and marked: none of
this is said of it.

A query occupies its slot until its answer is read to the end, closed, or left untouched for `stall_seconds`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from strongroom.archive import layout
from strongroom.archive.log import Log
from strongroom.archive.stores.store import ObjectStore
from strongroom.query import errors, normalised, results, views
from strongroom.query.holdings.at_hand import AtHand, Provider
from strongroom.query.holdings.cache import SegmentCache
from strongroom.query.holdings.catalog import Catalog, Snapshot
from strongroom.query.holdings.folding import Folder
from strongroom.query.holdings.folds import Folds
from strongroom.query.holdings.index import EntityIndex
from strongroom.query.holdings.indexing import Indexer
from strongroom.query.holdings.narrowing import Narrowing
from strongroom.query.holdings.pruning import Pruner
from strongroom.query.holdings.texts import TextIndex
from strongroom.query.limits import QueryLimits
from strongroom.query.normalised import NormalisedView
from strongroom.query.overview import overview
from strongroom.query.process import frames, setup
from strongroom.query.process.pool import WorkerPool
from strongroom.query.running import AnswerBody, Outcome, Run
from strongroom.query.slots import Slots
from strongroom.query.unsealed import Unsealed, files_of
from strongroom.query.views import Files, ViewSource

__all__ = ["Answer", "Outcome", "QueryEngine", "Reading"]

KEEP_EVERY = 100
"""Entries that the kept catalog may lack: fewer are as quickly read from the log."""
INDEXED_SECONDS = 0.2
"""Between looks at what another process, whose turn it is, has indexed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a statement reads: of `total` segments of its sources `read`, which have so many records and bytes."""

    total: int
    read: int
    records: int
    bytes: int

    @property
    def pruned(self) -> int:
        """Segments that hold no row it wants."""
        return self.total - self.read

    def explained(self) -> list[tuple[str, str]]:
        """The same as rows of an EXPLAIN."""
        facts = {"total": self.total, "read": self.read, "pruned": self.pruned}
        told = {f"segments_{name}": count for name, count in facts.items()}
        told |= {"records_read": self.records, "bytes_read": self.bytes}
        return [(name, str(count)) for name, count in told.items()]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer on its way. Read `body` to the end, or `await body.aclose()`; `finished` tells how it ended.

    `segments` are those that were read.
    """

    snapshot: Snapshot
    segments: tuple[str, ...]
    reading: Reading
    content_type: str
    body: AnswerBody
    finished: asyncio.Future[Outcome]


class QueryEngine:
    """Runs queries over one archive. Use from one event loop; `start` first, `stop` at the end."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        log: Log,
        views: Sequence[ViewSource],
        normalised: Sequence[NormalisedView] = (),
        directory: Path,
        limits: QueryLimits | None = None,
        beside: Sequence[Path] = (),
    ) -> None:
        """`directory` is for what is derived: verified copies of remote segments, the index, the catalog.

        `beside`: folders with files of what is not sealed (unsealed.py); there before `start`.
        """
        self.limits = limits or QueryLimits()
        self._log = log
        self._views = tuple(views)
        self._normalised = tuple(normalised)
        self._kept = directory / "catalog"
        self._catalog = Catalog(store, log)
        self._catalog.recall(self._kept)
        self._kept_size = self._catalog.size
        self._asked: set[str] = set()  # sources, by queries of this process
        self._ahead_of = 0
        self._cache = SegmentCache(
            store,
            directory,
            fetch=log.contents.fetch,
            max_bytes=self.limits.cache_bytes,
            threads=self.limits.cache_threads,
            check=self.limits.cache_check,
            in_place=not log.contents.encryption.keys,
        )
        self._folds = Folds(
            directory,
            max_bytes=self.limits.fold_bytes,
            check=self.limits.cache_check,
            digests=self._catalog.table.digests,
        )
        folds = [self._folds.root] if self.limits.fold_bytes else []
        self._pool = WorkerPool(
            readable=[*self._cache.roots, *folds, *beside], spill_to=directory / "spill", limits=self.limits
        )
        self._slots = Slots(self.limits)
        self._index = EntityIndex(
            directory / "index",
            digests=self._catalog.table.digests,
            columns={view.name: view.entities for view in views},
        )
        everything = store.local_path(layout.SEGMENTS.rstrip("/")) is not None and not log.contents.encryption.keys
        texts = TextIndex(directory / "index", digests=self._catalog.table.digests)
        self._pruner = Pruner(self._catalog.table, self._index, texts, self._views, self._normalised)
        self._provider = Provider(self._catalog, self._cache, self._folds, self._index.text, everything=everything)
        self._indexer = Indexer(
            folder=directory / "index",
            catalog=self._catalog,
            cache=self._cache,
            pool=self._pool,
            index=self._index,
            texts=texts,
            max_bytes=self.limits.index_bytes,
            sources=self._views,
            here=self._provider.here,
        )
        self._folder = Folder(
            catalog=self._catalog,
            cache=self._cache,
            folds=self._folds,
            indexed=lambda: self._index.covered,
            text=self._index.text,
            here=self._provider.here,
        )
        self._indexing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the log and start workers. Raises QueryFailed when workers can't run here."""
        await self.refresh()
        await self._pool.start()
        self._indexing = asyncio.create_task(self._indexer.run())
        if self.limits.fold_bytes or self._folds.directory.exists():
            self._folder.start()

    async def stop(self) -> None:
        """End all workers; answers still being read break off."""
        if self._indexing is not None:
            self._indexing.cancel()
            await asyncio.gather(self._indexing, return_exceptions=True)
        await self._folder.stop()
        await self._pool.stop()
        self._folds.close()
        self._cache.close()
        if self._catalog.size - self._kept_size >= KEEP_EVERY:
            with suppress(OSError):
                await asyncio.to_thread(self._keep)

    @property
    def sandbox(self) -> dict[str, str]:
        """Which of the operating system's walls stand around queries here."""
        return dict(self._pool.sandbox)

    async def refresh(self) -> int:
        """Follow the log, entries of other writers included. Returns the tree size."""
        await asyncio.to_thread(self._log.refresh)
        size = (await self._snapshot(None)).size
        self._read_ahead()
        if size - self._kept_size >= 10 * KEEP_EVERY:
            with suppress(OSError):
                await asyncio.to_thread(self._keep)
        return size

    def _read_ahead(self) -> None:
        """Fetch what was sealed since into the sources that somebody asks about: the next question is likely for it."""
        table, start = self._catalog.table, self._ahead_of
        self._ahead_of = len(table)
        if self._asked:
            fresh = (table[number] for number in range(start, len(table)))
            self._cache.ahead([segment for segment in fresh if segment.source in self._asked])

    def _keep(self) -> None:
        self._kept_size = self._catalog.size
        self._catalog.keep(self._kept)

    async def indexed(self) -> None:
        """Index now what would be indexed in the background. Raises StrongroomError, OSError."""
        while not await self._indexer.catch_up():  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(INDEXED_SECONDS)

    async def folded(self) -> None:
        """Fold now what would be folded in the background. Raises StrongroomError, OSError."""
        await self._folder.catch_up()

    async def run(
        self,
        sql: str,
        parameters: list[Any] | dict[str, Any] | None = None,
        *,
        format: str = "json",
        user: str = "",
        limit: int | None = None,
        as_of: int | None = None,
        narrowing: Narrowing | None = None,
        seconds: float | None = None,
        unsealed: Unsealed | None = None,
    ) -> Answer:
        """Start a query; returns when its first rows are there (or it is known that there are none).

        `limit` bounds the rows (by default and at most as `limits` say). `narrowing` says which rows are of interest:
        segments without any are not read. `seconds` it may run, when not as long as `limits` say. `unsealed`: what to
        read beside the snapshot `as_of`, closed at the end. Raises the errors of errors.py, StoreUnavailable when
        segments can't be fetched, and what `unsealed` raises.
        """
        if format not in results.CONTENT_TYPES:
            raise errors.QueryRefused(f"there is no format {format!r}", hint=f"use {', '.join(results.CONTENT_TYPES)}")
        try:
            sql.encode()
        except UnicodeEncodeError:
            raise errors.QueryRefused("the statement is not valid Unicode text") from None
        started = time.monotonic()
        with ExitStack() as stack:
            if unsealed is not None:
                stack.callback(unsealed.close)
                if unsealed.size != as_of:
                    raise errors.QueryRefused("what is not sealed is only read beside the snapshot it is beyond")
            stack.enter_context(await self._slots.take(user))
            snapshot = await self._snapshot(as_of)
            worker = await self._pool.acquire(user)
            seconds = self.limits.seconds if seconds is None else seconds
            assert worker.watch is not None
            worker.watch.seconds = seconds
            run = Run(self._pool, worker, sql)
            stack.callback(run.abandon)
            rows = min(self.limits.default_rows if limit is None else max(limit, 0), self.limits.rows)
            named = await run.ask(self._ask(user, sql, parameters, format, rows, snapshot, seconds), frames.Tables)
            reading, chosen = await asyncio.to_thread(self._choose, named, snapshot, narrowing)
            self._must_be_within_budget(reading)
            segments = self._catalog.table.chosen(chosen)
            self._asked.update(segment.source for segment in segments)
            provided = await self._provider.provide(chosen, segments, stack)
            fresh = None if unsealed is None else await files_of(unsealed, self._sources(named.views))
            explained = reading.explained()
            await run.begin(
                partial(self._grant, provided=provided, snapshot=snapshot, fresh=fresh, explained=explained), named
            )
            body = AnswerBody(run, stack.pop_all(), self.limits.stall_seconds, started)
        keys = tuple(segment.key for segment in segments)
        return Answer(snapshot, keys, reading, results.CONTENT_TYPES[format], body, body.finished)

    async def estimate(
        self,
        sql: str,
        parameters: list[Any] | dict[str, Any] | None = None,
        *,
        user: str = "",
        as_of: int | None = None,
        narrowing: Narrowing | None = None,
    ) -> Reading:
        """What `run` would read at most, without reading it. Raises the errors of errors.py."""
        with ExitStack() as stack:
            stack.enter_context(await self._slots.take(user))
            snapshot = await self._snapshot(as_of)
            run = Run(self._pool, await self._pool.acquire(user), sql)
            stack.callback(run.abandon)
            request = self._ask(user, sql, parameters, "json", 0, snapshot, self.limits.seconds)
            named = await run.ask(request, frames.Tables)
            await run.drop()
            reading, _ = await asyncio.to_thread(self._choose, named, snapshot, narrowing)
        return reading

    async def _snapshot(self, as_of: int | None) -> Snapshot:
        """What is asked: all that this process knows of the log, or the first `as_of` entries."""
        if self._catalog.behind:
            await asyncio.to_thread(self._catalog.follow)
        return self._catalog.snapshot(as_of)

    def _choose(self, named: frames.Tables, snapshot: Snapshot, narrowing: Narrowing | None) -> tuple[Reading, int]:
        """The segments to read, as a choice of segments.py, and what that comes to."""
        sources = [source.name for source in self._sources(named.views)]
        conditions = {view: named.conditions.get(view) for view in named.views}
        total, chosen = self._pruner.choose(snapshot.size, sources, conditions, narrowing)
        gone = self._catalog.gone(snapshot.size)
        total, chosen = total & ~gone, chosen & ~gone
        return Reading(total.bit_count(), chosen.bit_count(), *self._catalog.table.totals(chosen)), chosen

    def within_budget(self, reading: Reading) -> bool:
        """Whether `run` lets a query read that much."""
        return not 0 < self.limits.read_bytes < reading.bytes

    def _must_be_within_budget(self, reading: Reading) -> None:
        if not self.within_budget(reading):
            raise errors.QueryTooLarge(
                f"the query would read {reading.read} segments of {reading.total}, {reading.bytes} bytes; "
                f"one query may read {self.limits.read_bytes} bytes",
                hint="narrow it by event_time, account, or an address, principal, access key or resource",
            )

    @property
    def sources(self) -> frozenset[str]:
        """Sources that have segments, as far as the log was followed."""
        return self._catalog.table.sources()

    def place(self, segment: str) -> tuple[int, int] | None:
        """Entry index of a segment and its position among that entry's segments, None when no entry names it."""
        return self._catalog.place(segment)

    def catalog(self) -> dict[str, Any]:
        """What can be asked: views with their columns, ranges and counts, on the newest snapshot."""
        return overview(self._catalog, self._views, self._normalised)

    def _ask(
        self,
        owner: str,
        sql: str,
        parameters: list[Any] | dict[str, Any] | None,
        format: str,
        rows: int,
        snapshot: Snapshot,
        seconds: float,
    ) -> frames.Ask:
        limits = self.limits
        return frames.Ask(
            owner=owner,
            sql=sql,
            parameters=parameters,
            views=[*views.view_names(self._views), *(view.name for view in self._normalised)],
            format=format,
            rows=rows,
            bytes=limits.bytes,
            cpu_seconds=int(seconds * limits.threads) + 5,
            snapshot=(snapshot.size, snapshot.root),
        )

    def _sources(self, named: Sequence[str]) -> list[ViewSource]:
        """The sources whose segments the named views read."""
        return views.sources_of({*named, *normalised.sources_read(named, self._normalised)}, self._views)

    def _grant(
        self,
        named: frames.Tables,
        provided: AtHand,
        snapshot: Snapshot,
        fresh: Mapping[str, Files] | None,
        explained: list[tuple[str, str]],
    ) -> frames.Grant:
        of_source = dict(provided.files)
        for source, beside in (fresh or {}).items():
            of_source[source] = [*of_source.get(source, ()), beside]
        made = setup.statements(
            named.views,
            named.columns,
            of_source,
            provided.root,
            self._views,
            self._normalised,
            marked=fresh is not None,
        )
        tables = {}
        if views.ENTRIES in named.views:
            tables[views.ENTRIES] = _stream(self._catalog.entries_table(snapshot.size))
        if views.SEGMENTS in named.views:
            tables[views.SEGMENTS] = _stream(self._catalog.segments_table(snapshot.size))
        return frames.Grant(made, tables, explained)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
