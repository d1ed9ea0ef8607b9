"""`strongroom pull` and `strongroom backfill`: fetching without the service, through a writer of their own.

A running service is no obstacle: this is one more writer of the same log. An object that both fetch in the same moment
is one batch under one id, which is sealed once (ingest/commit.py).
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from strongroom.ingest.fetch import backfill
from strongroom.ingest.fetch.backfill import Progress, Reconciliation, Summary, Wanted
from strongroom.ingest.fetch.buckets import Buckets
from strongroom.ingest.fetch.fetching import Fetcher
from strongroom.ingest.fetch.objects import Perimeter
from strongroom.ingest.fetch.pull import PullCounts
from strongroom.service.commands.interruption import on_signal
from strongroom.service.keeping.storage import open_log
from strongroom.service.receiving.loading import start_writer
from strongroom.service.receiving.pulling import Pulling, access
from strongroom.service.settings import Settings


@dataclass(frozen=True, slots=True)
class Filled:
    """A backfill's result. records = accepted + quarantined, of what was taken now; `interrupted`: told to stop."""

    objects: Summary
    records: int
    accepted: int
    quarantined: int
    log_size: int
    seconds: float
    interrupted: bool = False

    @property
    def clean(self) -> bool:
        """Whether every object was taken and nothing was quarantined."""
        return not (self.objects.refused or self.objects.gone or self.quarantined or self.interrupted)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**self.objects.to_json(), **{k: v for k, v in asdict(self).items() if k != "objects"}}


async def fill(settings: Settings, wanted: Wanted, kind: str, progress: Progress) -> Filled:
    """Fetch what of `wanted` is not sealed, and seal it. Raises what opening the archive and listing raise."""
    begun = time.monotonic()
    writer = await start_writer(settings)
    summary = Summary()
    try:
        before = writer.intake.counters()
        sealed = await asyncio.to_thread(backfill.sealed_keys, writer.log, wanted)
        with ThreadPoolExecutor(settings.pull_concurrency + 8, thread_name_prefix="backfill") as executor:
            buckets = _buckets(settings, wanted)
            fetcher = Fetcher(buckets, writer.intake, executor, protocol="s3", kind=kind)
            working = asyncio.create_task(
                backfill.backfill(
                    fetcher,
                    buckets,
                    wanted,
                    sealed,
                    concurrency=settings.pull_concurrency,
                    progress=progress,
                    summary=summary,
                )
            )
            on_signal(working.cancel)
            with suppress(asyncio.CancelledError):
                await working
            interrupted = working.cancelled()
        size = await writer.intake.seal()
        after = writer.intake.counters()
    finally:
        await writer.stop()
    quarantined = after.quarantined_records - before.quarantined_records
    accepted = after.sealed_records - before.sealed_records
    return Filled(
        summary,
        records=accepted + quarantined,
        accepted=accepted,
        quarantined=quarantined,
        log_size=size,
        seconds=round(time.monotonic() - begun, 3),
        interrupted=interrupted,
    )


async def reconcile(settings: Settings, wanted: Wanted) -> Reconciliation:
    """Hold what the bucket has against what the log names. Reads, and writes nothing."""
    log = await asyncio.to_thread(open_log, settings)
    sealed = await asyncio.to_thread(backfill.sealed_keys, log, wanted)
    buckets = _buckets(settings, wanted)
    with ThreadPoolExecutor(8, thread_name_prefix="reconcile") as executor:
        return await backfill.reconcile(executor, buckets, wanted, sealed)


async def pull(settings: Settings, *, once: bool) -> PullCounts:
    """Pull until told to stop, or with `once` until the queue is empty. Raises PullError."""
    writer = await start_writer(settings)
    pulling = Pulling(settings, writer.intake, writer.audit)
    stopped = asyncio.Event()
    try:
        if once:
            on_signal(pulling.finish)
            return await pulling.once()
        on_signal(stopped.set)
        pulling.start()
        await stopped.wait()
    finally:
        await pulling.stop()
        await writer.stop()
    return pulling.counts


def _buckets(settings: Settings, wanted: Wanted) -> Buckets:
    """The bucket that was named on the command line, with the owner the settings know."""
    listed = f"{settings.pull_buckets},{wanted.bucket}"
    return Buckets(access(settings), Perimeter.parse(listed))
