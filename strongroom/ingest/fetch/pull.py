"""Pull: objects that a queue announces, fetched, made durable, and acknowledged by deleting the message.

The order is the promise; a crash between two steps brings the message back, and the idempotency key makes the second
fetch a duplicate:

    receive     the message is ours for VISIBILITY_SECONDS, and kept ours while we work (`_keep`)
    fetch       each object by its version, into the intake                    a crash: fetched again
    wait        until every batch is *sealed*, not merely spooled              a crash: fetched again, known by its key
    delete      only then                                                      a crash before: as above

A message may announce several objects; it is deleted when all are done. What can't be done:

* An object that is gone (deleted, or replaced where there are no versions) will not come back: an audit record says
  that there is a gap, and the message counts as done.
* A message that is no notification, names a bucket outside the perimeter, or an object that its bucket refuses, goes
  back to the queue and is tried later. At its last try an audit record is made durable, then it is copied to the
  dead-letter queue and deleted; without such a queue it stays where it is. Nothing is ever deleted unread.
* What may pass is waited for with the messages in hand, so that an outage does not use up their tries.

Memory is bounded by the intake's own bound on bodies and by HELD_MESSAGES; fetches by `concurrency`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.ingest.errors import (
    DeliveryRefused,
    IngestError,
    IntakeStopped,
    ObjectGone,
    PullError,
)
from strongroom.ingest.fetch.fetching import Fetcher, Source, Taker
from strongroom.ingest.fetch.notifications import parse
from strongroom.ingest.fetch.queues import VISIBILITY_SECONDS, Message, Queue

HELD_MESSAGES = 2000
"""Messages in hand, most of which wait for their seal."""
_DELETE_SECONDS = 0.2
_SEAL_WAIT_SECONDS = 60.0
_LONGEST_REST_SECONDS = 900

log = structlog.get_logger(__name__)

# Makes an audit record durable: what happened, to which object or message, facts. Raises what the intake raises.
Report = Callable[[str, str, dict[str, Any]], Awaitable[object]]


@dataclass(slots=True)
class PullCounts:
    """What was pulled since the start. `bytes` as fetched; `ignored`: messages that announced nothing to fetch."""

    messages: int = 0
    objects: int = 0
    duplicates: int = 0
    empty: int = 0
    ignored: int = 0
    gone: int = 0
    retries: int = 0
    dead_letters: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Held:
    """A message in hand, and until when it is ours, on the monotonic clock."""

    message: Message
    until: float = field(default_factory=lambda: time.monotonic() + VISIBILITY_SECONDS)


class Puller:
    """Pulls from one queue into one intake. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        queue: Queue,
        source: Source,
        intake: Taker,
        report: Report,
        concurrency: int = 8,
        poll_seconds: int = 5,
        kind: str = "auto",
    ) -> None:
        """`concurrency`: fetches at once; `poll_seconds`: longest wait for a message, and so for `stop`."""
        self.counts = PullCounts()
        self._troubles: dict[object, StrongroomError] = {}
        self._queue, self._intake, self._report, self._poll = queue, intake, report, poll_seconds
        # One thread polls, one deletes, one extends; the others fetch.
        self._executor = ThreadPoolExecutor(concurrency + 3, thread_name_prefix="pull")
        self._fetcher = Fetcher(source, intake, self._executor, protocol="sqs", kind=kind, on_trouble=self._trouble)
        self._gate = asyncio.Semaphore(concurrency)
        self._held: dict[str, _Held] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._sealed: asyncio.Queue[Message] = asyncio.Queue()
        self._room = asyncio.Event()
        self._stopping = False

    @property
    def problem(self) -> StrongroomError | None:
        """What some of the work waits for, None while all is well."""
        return next(iter(self._troubles.values()), None)

    @property
    def held(self) -> int:
        """Messages in hand."""
        return len(self._held)

    async def run(self, *, until_empty: bool = False) -> None:
        """Pull until stopped; with `until_empty`, until the queue gives nothing more and all in hand is done.

        Raises BucketRefused when the queue refuses.
        """
        keepers = [asyncio.create_task(self._keep()), asyncio.create_task(self._delete())]
        try:
            while not self._stopping:
                while self.held >= HELD_MESSAGES and not self._stopping:
                    self._room.clear()
                    await self._room.wait()
                messages = await self._fetcher.persist(self._receive)
                if not messages and until_empty and not self._work:
                    break
                for message in messages:
                    self._begin(message)
            while self._work:
                await asyncio.wait(set(self._work))
            await self._sealed.join()
            await self._give_back()
        finally:
            for task in (*keepers, *self._work):
                task.cancel()
            await asyncio.gather(*keepers, *self._work, return_exceptions=True)
            self._executor.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Make `run` end when what is in hand is done."""
        self._stopping = True
        self._room.set()

    async def stop(self, seal: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
        """Make `run` end: it receives nothing more, fetches end, what is spooled is sealed, the rest is given back."""
        self._stopping = self._fetcher.stopping = True
        self._room.set()
        deadline = time.monotonic() + seconds
        while self._work and time.monotonic() < deadline:
            with suppress(IngestError, StoreUnavailable):
                await seal()
            if self._work:
                await asyncio.wait(set(self._work), timeout=0.2)
        for task in set(self._work):
            task.cancel()

    # -- one message

    async def _receive(self) -> list[Message]:
        if self._stopping:
            return []
        return await self._fetcher.run(self._queue.receive, 10, self._poll)

    def _begin(self, message: Message) -> None:
        self._held[message.handle] = _Held(message)
        if self._stopping:
            return
        self.counts.messages += 1
        task = asyncio.create_task(self._do(message))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _do(self, message: Message) -> None:
        """Whatever happens, the message leaves our hands: deleted, buried, or to come again."""
        try:
            await self._take(message)
            self._sealed.put_nowait(message)
            return
        except IntakeStopped:
            return  # `stop` gives it back
        except (PullError, DeliveryRefused) as error:
            if error.transient:
                return  # as above: only a stop ends the waiting for what may pass
            await self._fail(message, error)
        except Exception:  # the boundary of one message: the others go on, and it comes again
            log.exception("a message could not be worked on", message=message.id)
        self._let_go(message)

    async def _take(self, message: Message) -> None:
        found = parse(message.body)
        if not found.objects:
            self.counts.ignored += 1
        batches = []
        for wanted in found.objects:
            if wanted.holds_nothing:
                self.counts.empty += 1
                continue
            try:
                async with self._gate:
                    taken = await self._fetcher.take(wanted)
            except ObjectGone as error:
                facts = {"key": wanted.key, "version": wanted.version, "reason": error.message}
                await self._tell("pull.gone", wanted.name, facts)
                self.counts.gone += 1
                continue
            if taken.bytes == 0:
                self.counts.empty += 1
            self.counts.objects += 1
            self.counts.bytes += taken.bytes
            self.counts.duplicates += taken.accepted.duplicate
            batches.append(taken.accepted.batch)
        for batch in batches:
            while True:
                with suppress(TimeoutError):
                    await self._intake.wait_sealed(batch, _SEAL_WAIT_SECONDS)
                    break

    async def _fail(self, message: Message, error: StrongroomError) -> None:
        """A try failed. The audit record is durable before the message can be gone."""
        facts = {"message": message.id, "received": message.received, "code": error.code, "reason": error.message}
        log.warning("a message could not be taken", **facts)
        try:
            if message.received < self._queue.tries:
                self.counts.retries += 1
                rest = min(_LONGEST_REST_SECONDS, 15 * 2**message.received)
                await self._fetcher.run(self._queue.extend, [message], rest)
                return
            if message.received == self._queue.tries or self._queue.buries:
                await self._tell("pull.dead-letter", self._queue.name, facts | {"body": message.body[:4096]})
                self.counts.dead_letters += 1
            if self._queue.buries:
                await self._fetcher.run(self._queue.bury, message, f"{error.code}: {error.message}")
            else:
                await self._fetcher.run(self._queue.extend, [message], _LONGEST_REST_SECONDS)
        except IntakeStopped:
            return
        except (PullError, StoreUnavailable) as trouble:
            log.warning("a message comes again", message=message.id, reason=trouble.message)

    async def _tell(self, what: str, target: str, facts: dict[str, Any]) -> None:
        await self._fetcher.persist(lambda: self._report(what, target, facts))

    async def _give_back(self) -> None:
        with suppress(PullError):  # then they come again later
            await self._fetcher.run(self._queue.extend, [held.message for held in self._held.values()], 0)

    # -- what keeps messages ours, and deletes them

    async def _keep(self) -> None:
        """Extend the visibility of messages in hand before it ends."""
        while True:
            await asyncio.sleep(VISIBILITY_SECONDS / 8)
            soon = time.monotonic() + VISIBILITY_SECONDS / 2
            due = [held for held in self._held.values() if held.until < soon]
            if not due:
                continue
            with suppress(PullError):  # then they come again, and are known by their keys
                await self._fetcher.run(self._queue.extend, [held.message for held in due], VISIBILITY_SECONDS)
                for held in due:
                    held.until = time.monotonic() + VISIBILITY_SECONDS

    async def _delete(self) -> None:
        """Delete what is sealed, many messages in one request."""
        while True:
            messages = [await self._sealed.get()]
            await asyncio.sleep(_DELETE_SECONDS)
            while not self._sealed.empty():
                messages.append(self._sealed.get_nowait())
            try:
                await self._fetcher.run(self._queue.delete, messages)
            except PullError as error:
                log.warning("sealed messages come again", count=len(messages), reason=error.message)
            for message in messages:
                self._let_go(message)
                self._sealed.task_done()

    def _let_go(self, message: Message) -> None:
        self._held.pop(message.handle, None)
        self._room.set()

    def _trouble(self, step: object, error: StrongroomError | None) -> None:
        if error is None:
            self._troubles.pop(step, None)
            return
        if not self._troubles:
            log.warning("pulling waits", code=error.code, reason=error.message)
        self._troubles[step] = error
