"""From an object's address to a durable batch: the one way that pull and backfill share.

The object is streamed into the intake in bounded memory, under an idempotency key that makes a second fetch a
duplicate. What may pass (bucket or network away, spool full, memory used up) is waited for, ever longer, because
giving back work that nobody else can do either helps nobody; what will not pass is raised.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.ingest.batches import BatchState
from strongroom.ingest.errors import BucketUnavailable, IngestError, IntakeStopped
from strongroom.ingest.fetch.buckets import Download
from strongroom.ingest.fetch.objects import S3Object
from strongroom.ingest.intake import Accepted, Origin

CHUNK_BYTES = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
T = TypeVar("T")


class Source(Protocol):
    """Where objects are read from (buckets.Buckets)."""

    def open(self, wanted: S3Object) -> Download:
        """Begin to read an object."""
        ...


class Taker(Protocol):
    """What is needed of an intake (intake.Intake)."""

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        source: str,
        coding: str,
        origin: Origin,
        idempotency_key: str | None = None,
        quarantine_undecodable: bool = False,
    ) -> Accepted:
        """See Intake.receive."""
        ...

    async def wait_sealed(self, batch: str, timeout: float) -> BatchState:  # noqa: ASYNC109
        """See Intake.wait_sealed."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A fetched object: as it was found, and what the intake said; `bytes` as fetched."""

    object: S3Object
    accepted: Accepted
    bytes: int


class Fetcher:
    """Fetches objects into an intake. Belongs to one event loop; blocking calls go to `executor`."""

    def __init__(
        self,
        source: Source,
        intake: Taker,
        executor: Executor,
        *,
        protocol: str,
        kind: str = "auto",
        on_trouble: Callable[[object, StrongroomError | None], None] = lambda *_: None,
    ) -> None:
        """`kind`: the source of all objects, or "auto". `on_trouble` hears which step waits for what (None: over)."""
        self._source, self._intake, self.executor = source, intake, executor
        self._protocol, self._kind, self._on_trouble = protocol, kind, on_trouble
        self.stopping = False

    async def take(self, wanted: S3Object, on_bytes: Callable[[int], None] = lambda _: None) -> Taken:
        """Make an object durable. `on_bytes` is told how many more bytes came (negative: they come again).

        Raises PullError and DeliveryRefused for what will not pass, IntakeStopped when this is stopping.
        """
        return await self.persist(lambda: self._once(wanted, on_bytes))

    async def persist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do `step` (an async function) again and again while what it needs is unavailable."""
        pause, waiting = _FIRST_PAUSE, object()
        while True:
            try:
                result = await step()
            except (IngestError, StoreUnavailable) as error:
                passing = isinstance(error, StoreUnavailable) or error.transient
                if not passing or isinstance(error, IntakeStopped) or self.stopping:
                    self._on_trouble(waiting, None)
                    raise
                self._on_trouble(waiting, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._on_trouble(waiting, None)
                return result

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """A blocking call in this fetcher's threads, which the intake's own work never waits for."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    async def _once(self, wanted: S3Object, on_bytes: Callable[[int], None]) -> Taken:
        download = await self.run(self._source.open, wanted)
        read = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal read
            while chunk := await self.run(download.read, CHUNK_BYTES):
                read += len(chunk)
                on_bytes(len(chunk))
                yield chunk

        found = download.object
        try:
            accepted = await self._intake.receive(
                chunks(),
                source=self._kind,
                coding="auto",
                origin=Origin(found.forwarder, self._protocol, "", found.name),
                idempotency_key=found.idempotency_key,
                quarantine_undecodable=True,
            )
        except (IngestError, BucketUnavailable):
            on_bytes(-read)
            raise
        finally:
            await self.run(download.close)
        return Taken(found, accepted, read)
