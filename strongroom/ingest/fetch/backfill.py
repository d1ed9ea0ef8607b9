"""Backfill: what a bucket holds already, fetched as if it had been announced; and what of it is sealed.

A prefix is walked down its folders, so that accounts, regions and days are listed side by side and days outside the
wanted range are never listed. Every object version found has the idempotency key that a notification would have given
it, and the log's details name the keys of all that is sealed. So

* a backfill can be stopped and repeated: what the log names is left out before it is fetched, what is spooled by this
  writer is known by its key;
* a reconciliation needs no fetch: an object whose key no entry names is missing.

Listing and fetching run at once, with a bounded number of found objects between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Set
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Protocol

from strongroom.archive.details import BatchFacts
from strongroom.archive.log import Log
from strongroom.ingest.batches import facts_of
from strongroom.ingest.errors import DeliveryRefused, ObjectGone, PullError
from strongroom.ingest.fetch import awslogs
from strongroom.ingest.fetch.buckets import Page
from strongroom.ingest.fetch.fetching import Fetcher
from strongroom.ingest.fetch.objects import S3Object

_LISTERS = 4
_WAITING_PAGES = 10  # of up to 1000 objects each
NAMED = 1000
"""Missing and refused objects that a summary names; all are counted."""


class Listing(Protocol):
    """What a backfill needs of buckets (buckets.Buckets)."""

    def pages(self, bucket: str, prefix: str, *, below: bool = True) -> Iterator[Page]:
        """Pages of every object version below a prefix."""
        ...


class Progress(Protocol):
    """Is told how a backfill goes on."""

    def found(self, objects: int, size: int) -> None:
        """So many more objects, of so many bytes, are to be fetched."""
        ...

    def found_all(self) -> None:
        """The listing has ended."""
        ...

    def read(self, size: int) -> None:
        """So many more bytes came (negative: they come again)."""
        ...

    def done(self) -> None:
        """One more object was dealt with."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a bucket: keys that begin with `prefix`, of the days since … until (both included; None: open)."""

    bucket: str
    prefix: str = ""
    since: date | None = None
    until: date | None = None

    def includes(self, name: S3Object) -> bool:
        """Whether an object's own key says that it is of the wanted days, or says nothing of days."""
        return awslogs.is_within(name.key, self.since, self.until)


@dataclass(slots=True)
class Summary:
    """What became of the objects listed. listed = empty + known + taken + duplicates + gone + refused.

    `known`: named by the log before; `duplicates`: found to be known when fetched; `bytes` as fetched.
    """

    listed: int = 0
    empty: int = 0
    known: int = 0
    taken: int = 0
    duplicates: int = 0
    gone: int = 0
    refused: int = 0
    bytes: int = 0
    reasons: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(slots=True)
class Reconciliation:
    """Which of the objects listed are sealed. listed = empty + sealed + missing; `names`: of the first missing."""

    listed: int = 0
    empty: int = 0
    sealed: int = 0
    missing: int = 0
    bytes_missing: int = 0
    names: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def sealed_batches(log: Log, start: int = 0) -> Iterator[BatchFacts]:
    """The batches that the entries from `start` on seal, as their details say."""
    for entry in log.entries(start):
        yield from facts_of(entry, log.contents)


def sealed_keys(log: Log, wanted: Wanted) -> set[bytes]:
    """The idempotency keys (SHA-256) of everything sealed below a prefix: 32 bytes an object, and Python's own."""
    below = f"s3://{wanted.bucket}/{wanted.prefix}"
    return {bytes.fromhex(facts.key) for facts in sealed_batches(log) if facts.key and facts.name.startswith(below)}


async def listed(executor: Executor, listing: Listing, wanted: Wanted) -> AsyncIterator[list[S3Object]]:
    """The wanted objects, a page at a time, in no order. Raises OutsidePerimeter, BucketRefused, BucketUnavailable."""
    found: asyncio.Queue[list[S3Object] | None] = asyncio.Queue(_WAITING_PAGES)
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_LISTERS)

    async def walk(folder: str) -> None:
        below: list[str] = []
        async with gate:
            pages = listing.pages(wanted.bucket, folder, below=awslogs.is_leaf(folder))
            while (page := await loop.run_in_executor(executor, next, pages, None)) is not None:
                below += [name for name in page.folders if awslogs.is_within(name, wanted.since, wanted.until)]
                if objects := [item for item in page.objects if wanted.includes(item)]:
                    await found.put(objects)
        async with asyncio.TaskGroup() as group:
            for name in below:
                group.create_task(walk(name))

    async def walk_all() -> None:
        try:
            await walk(wanted.prefix)
        finally:
            await found.put(None)

    walking = asyncio.create_task(walk_all())
    try:
        while (objects := await found.get()) is not None:
            yield objects
        await walking
    except ExceptionGroup as group:
        raise _first(group) from None
    finally:
        walking.cancel()


async def reconcile(executor: Executor, listing: Listing, wanted: Wanted, sealed: Set[bytes]) -> Reconciliation:
    """Hold what the bucket has against the keys of what is sealed (`sealed_keys`)."""
    result = Reconciliation()
    async for page in listed(executor, listing, wanted):
        for item in page:
            result.listed += 1
            if item.holds_nothing:
                result.empty += 1
            elif bytes.fromhex(item.hashed_key) in sealed:
                result.sealed += 1
            else:
                result.missing += 1
                result.bytes_missing += item.size or 0
                if len(result.names) < NAMED:
                    result.names.append(item.name)
    return result


async def backfill(
    fetcher: Fetcher,
    listing: Listing,
    wanted: Wanted,
    sealed: Set[bytes],
    *,
    concurrency: int,
    progress: Progress,
    summary: Summary,
) -> None:
    """Fetch what of the wanted objects is not sealed, `concurrency` at once. What was taken is durable, not yet sealed.

    `summary` is counted up meanwhile. Raises what listing raises; an object that can't be had is counted and named.
    """
    work: asyncio.Queue[S3Object | None] = asyncio.Queue(concurrency)

    async def worker() -> None:
        while (wanted_object := await work.get()) is not None:
            await _take(fetcher, wanted_object, summary, progress)

    async def give() -> None:
        async for page in listed(fetcher.executor, listing, wanted):
            fresh = [item for item in page if _is_fresh(item, sealed, summary)]
            progress.found(len(fresh), sum(item.size or 0 for item in fresh))
            for item in fresh:
                await work.put(item)
        progress.found_all()
        for _ in range(concurrency):
            await work.put(None)

    try:
        async with asyncio.TaskGroup() as group:
            for step in (give, *(worker for _ in range(concurrency))):
                group.create_task(step())
    except ExceptionGroup as errors:
        raise _first(errors) from None


def _is_fresh(item: S3Object, sealed: Set[bytes], summary: Summary) -> bool:
    """Count an object; whether it is to be fetched."""
    summary.listed += 1
    if item.holds_nothing:
        summary.empty += 1
        return False
    if bytes.fromhex(item.hashed_key) in sealed:
        summary.known += 1
        return False
    return True


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """What went wrong first; the rest of a group was cancelled by it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


async def _take(fetcher: Fetcher, wanted: S3Object, summary: Summary, progress: Progress) -> None:
    try:
        taken = await fetcher.take(wanted, progress.read)
    except ObjectGone:
        summary.gone += 1
    except (PullError, DeliveryRefused) as error:
        summary.refused += 1
        if len(summary.reasons) < NAMED:
            summary.reasons.append({"object": wanted.name, "code": error.code, "reason": error.message})
    else:
        summary.bytes += taken.bytes
        summary.duplicates += taken.accepted.duplicate
        summary.taken += not taken.accepted.duplicate
    progress.done()
