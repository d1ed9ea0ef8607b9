"""The intake: the face of `ingest`. A delivery goes in; a durable batch with a signed receipt comes out.

`receive` answers only when the batch is fsynced and indexed, so whoever got an `Accepted` may forget the bytes. What it
raises says whether sending again can help (`IngestError.transient`), and is raised only after the body was drained.
Counting, sealing and waiting for the seal go by batch id and work across restarts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from strongroom.archive import canonical
from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.archive.log import Log
from strongroom.archive.note import NoteSigner
from strongroom.archive.stores.store import ObjectStore
from strongroom.ingest import receipts, unsealed
from strongroom.ingest.batches import BatchState, Counters, spooled_state
from strongroom.ingest.build import carries_natural_ids
from strongroom.ingest.builders import Builders, WorkerDied
from strongroom.ingest.commit import Committer
from strongroom.ingest.decode import Decoded
from strongroom.ingest.delivery import Body, Memory, Upload
from strongroom.ingest.diskless import USUAL, BucketRules
from strongroom.ingest.errors import IntakeStopped, IntakeUnavailable, UnknownSource
from strongroom.ingest.frames import EPOCH, BatchHeader
from strongroom.ingest.recovery import Opening, State, open_state
from strongroom.ingest.sealer import Sealer
from strongroom.ingest.sources import BUILT_IN, Registry
from strongroom.ingest.turns import Turns
from strongroom.ingest.unsealed import Spooled, Unsealed

_QUARANTINE = "quarantine"
_OWN = frozenset({_QUARANTINE, "audit"})
"""Sources that only this service writes: a sender must not be able to pose as its audit."""
_MAX_ORIGIN_TEXT = 1024
_PARSE_HERE_BYTES = 4 << 20
"""Content up to this size is parsed for natural ids in a thread, more in a worker process."""

__all__ = ["Accepted", "BatchState", "Counters", "Intake", "IntakeLimits", "Origin"]

Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds, in bytes and seconds. `workers`: processes that build segments (0: a thread of this process).
    `unsealed_bytes`: content of unsealed batches that one question may read.

    `diskless`: batches are spooled in the bucket. Then, every `takeover_seconds`, what other lives left there is looked
    for; a writer is taken for gone after `abandoned_seconds` without an entry (0: never).
    """

    max_body_bytes: int = 64 << 20
    max_expanded_bytes: int = 160 << 20
    max_inflight_bytes: int = 256 << 20
    spool_bytes: int = 4 << 30
    seal_bytes: int = 64 << 20
    seal_age_seconds: float = 30.0
    heartbeat_seconds: float = 300.0
    unsealed_bytes: int = 64 << 20
    workers: int = 1
    diskless: bool = False
    takeover_seconds: float = 60.0
    abandoned_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a delivery comes from: the forwarder's name, protocol, network address, file or object name."""

    forwarder: str
    protocol: str
    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The acknowledgement. For a duplicate everything but `duplicate` is the first delivery's.

    `sha256` and `bytes` are of the decoded content; `receipt` is a signed note (ingest/receipts.py).
    """

    batch: str
    sequence: int
    source: str
    duplicate: bool
    flags: tuple[str, ...]
    received_at: datetime
    sha256: str
    bytes: int
    receipt: str


class Intake:
    """Takes deliveries for one archive. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        log: Log,
        directory: Path,
        writer_id: str,
        receipt_signer: NoteSigner,
        sign_checkpoint: Callable[[], object],
        limits: IntakeLimits | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        registry: Registry = BUILT_IN,
        rules: BucketRules = USUAL,
    ) -> None:
        """`directory`: this writer's own state, outside the archive. `rules`: how batches are spooled in the bucket.

        Nothing is touched before `start`.
        """
        self._registry = registry
        self._rules = rules
        self._store = store
        self._log = log
        self._directory = directory
        self._writer_id = writer_id
        self._receipt_signer = receipt_signer
        self._sign_checkpoint = sign_checkpoint
        self._limits = limits or IntakeLimits()
        self._clock = clock
        self._memory = Memory(self._limits.max_inflight_bytes)
        self._turns = Turns()
        self._deliveries: set[asyncio.Task[Any]] = set()
        self._previews: Builders | None = None  # started when somebody asks for what is not sealed
        self._open: State | None = None
        self._stopping = False

    # -- life

    async def start(self) -> None:
        """Recover what a crash left, then run the sealer.

        Raises SpoolLocked, SpoolDamaged, SpoolUnavailable, StoreUnavailable.
        """
        opening = Opening(
            directory=self._directory,
            writer_id=self._writer_id,
            log=self._log,
            limit_bytes=self._limits.spool_bytes,
            max_expanded_bytes=self._limits.max_expanded_bytes,
            clock=self._clock,
            diskless=self._limits.diskless,
            rules=self._rules,
            registry=self._registry,
        )
        state = await asyncio.to_thread(open_state, opening)
        await asyncio.to_thread(unsealed.clear, self.unsealed_folder)
        self._builders = Builders(self._limits.workers)
        self._sealer = Sealer(
            spool=state.spool,
            cuts=state.cuts,
            writer=state.writer,
            log=self._log,
            batches=state.batches,
            committer=Committer(self._store, self._log, state.writer, self._clock, state.batches),
            builders=self._builders,
            sign_checkpoint=self._sign_checkpoint,
            limits=self._limits,
            clock=self._clock,
            work=state.work,
            registry=self._registry,
        )
        self._sealing = asyncio.create_task(self._sealer.run(), name="sealer")
        self._taking_over = asyncio.create_task(self._take_over(state), name="takeover")
        self._open, self._stopping = state, False

    async def stop(self) -> None:
        """Refuse new deliveries, finish those under way, seal everything, close.

        Raises what kept the last batches from being sealed; they are durable in the spool and are sealed at the next
        start.
        """
        if self._open is None:
            return
        self._stopping = True
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        try:
            await self.seal()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Close without sealing: what a crash would do, but tidier."""
        state, self._open = self._open, None
        if state is None:
            return
        work = (self._sealing, self._taking_over)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for builders in filter(None, (self._builders, self._previews)):
            await asyncio.to_thread(builders.close)
        self._previews = None
        await asyncio.to_thread(state.close)

    @property
    def problem(self) -> StrongroomError | str | None:
        """What keeps deliveries from being accepted or sealed now, None while all is well."""
        if self._open is None:
            return "not started"
        return self._open.spool.problem or self._sealer.problem

    @property
    def oldest_pending_seconds(self) -> float:
        """Age of the oldest acknowledged batch that is not sealed, 0 when there is none."""
        received = self._state().spool.received_at(self._sealer.sealed + 1)
        return 0.0 if received is None else max(0.0, (self._clock() - EPOCH).total_seconds() - received / 1e6)

    # -- deliveries

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        source: str,
        coding: str,
        origin: Origin,
        idempotency_key: str | None = None,
        quarantine_undecodable: bool = False,
        refuse_expanding: bool = False,
    ) -> Accepted:
        """Accept one body. `source`: a source's name or "auto"; `coding`: a Content-Encoding value or "auto".

        `quarantine_undecodable`: keep what can't be decoded, but, with `refuse_expanding`, no bombs.

        Raises DeliveryRefused and IntakeUnavailable (their subclasses say why), both after draining the body.
        """
        upload = Upload(
            coding,
            memory=self._memory,
            max_body=self._limits.max_body_bytes,
            max_expanded=self._limits.max_expanded_bytes,
            keep_undecodable=quarantine_undecodable,
            refuse_expanding=refuse_expanding,
        )
        try:
            body = await upload.receive(chunks)
            if source != "auto":
                self._must_be_source(source, but=_OWN)
            return await self._deliver(body, source, origin, idempotency_key)
        finally:
            upload.close()

    async def append(self, content: bytes, *, source: str, origin: Origin) -> BatchState:
        """Accept a small batch of this service's own making, such as audit records; never taken for a duplicate.

        There is no receipt: nobody would keep it, and signing it takes a part of every question.
        """
        self._must_be_source(source, but={_QUARANTINE})
        decoded = Decoded("identity", sha256(content).hexdigest(), content, len(content))
        header = self._header(Body([content], len(content), decoded, None), source, origin, "", ())
        return await self._shielded(self._spool(header, [content]))

    async def seal(self) -> int:
        """Seal what is spooled now; returns the log's size. Raises what keeps it from being sealed."""
        await self._sealer.seal_through(self._state().spool.next - 1)
        return self._log.size

    async def wait_sealed(self, batch: str, timeout: float) -> BatchState:  # noqa: ASYNC109  # part of the interface
        """The batch once it is sealed. Raises UnknownBatch, TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while True:
                changed = self._sealer.progress
                state = self.batch(batch)
                if state.state == "sealed":
                    return state
                await changed.wait()

    def batch(self, batch: str) -> BatchState:
        """Where a batch stands. Raises UnknownBatch."""
        return self._state().batches.get(batch)

    def batch_at(self, epoch: int, sequence: int) -> BatchState | None:
        """This writer's batch at that place, None when there is none."""
        return self._state().batches.at(epoch, sequence)

    @property
    def sealed(self) -> int:
        """Sequence number up to which every batch of this epoch is sealed, -1 when none is."""
        self._state()
        return self._sealer.sealed

    @property
    def unsealed_folder(self) -> Path:
        """Where the files of `unsealed` lie."""
        return self._directory / "unsealed"

    async def unsealed(self) -> Unsealed:
        """What is acknowledged and not sealed, with the snapshot that it is beyond. To be closed.

        Raises SpoolUnavailable, SpoolDamaged, StoreUnavailable.
        """
        state, limits = self._state(), self._limits
        if self._previews is None:
            self._previews = Builders(min(limits.workers, 1), unsealed.DEADLINE_SECONDS)
        spooled = Spooled(
            state.spool,
            state.writer,
            self._log,
            state.batches,
            self._previews,
            self._registry,
            limits.max_expanded_bytes,
        )
        return await asyncio.to_thread(unsealed.beyond, spooled, self.unsealed_folder, limits.unsealed_bytes)

    def receipt(self, batch: str) -> str:
        """The receipt of a batch, signed again: its text is a function of the batch alone. Raises UnknownBatch."""
        return self._accepted(self.batch(batch), duplicate=False).receipt

    def counters(self) -> Counters:
        """Exact totals of this writer since its first batch."""
        return self._state().batches.counters()

    # -- inside

    def _state(self) -> State:
        if self._open is None:
            raise IntakeStopped("the intake is not running", hint="send again in a few seconds")
        return self._open

    async def _deliver(self, body: Body, source: str, origin: Origin, idempotency_key: str | None) -> Accepted:
        if self._stopping:
            raise IntakeStopped("the intake is stopping", hint="send again in a few seconds")
        self._must_lead()
        intended = source
        if body.refusal is not None:
            source = _QUARANTINE
        elif source == "auto":
            source = self._registry.recognise(body.decoded.head).name
        key = "" if idempotency_key is None else sha256(idempotency_key.encode()).hexdigest()
        return await self._shielded(self._decide(body, source, intended, origin, key))

    async def _shielded(self, delivery: Coroutine[None, None, Taken]) -> Taken:
        # A sender that hangs up must not interrupt the step from spool to index: its next try would be stored twice.
        task = asyncio.create_task(delivery)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return await asyncio.shield(task)

    async def _decide(self, body: Body, source: str, intended: str, origin: Origin, key: str) -> Accepted:
        """Store the delivery unless it repeats a known one. One at a time for what may be the same delivery."""
        batches, digest = self._state().batches, body.decoded.sha256
        names: list[tuple[str, ...]] = [("content", source, digest)]
        if key:
            names.append(("key", source, origin.forwarder, key))
        async with self._turns.take(*names):
            match = batches.find(source=source, forwarder=origin.forwarder, key=key, sha256=digest)
            known = match.duplicate
            if known is None and match.perhaps is not None and await self._says_nothing_new(body, source):
                known = match.perhaps
            if known is not None:
                await asyncio.to_thread(batches.repeated, known.batch)
                return self._accepted(known, duplicate=True)
            flags = tuple(flag for flag in (match.flag,) if flag)
            if body.refusal is not None:
                flags = (*flags, "undecodable")
            header = self._header(body, source, origin, key, flags, intended)
            return self._accepted(await self._spool(header, body.chunks), duplicate=False)

    async def _says_nothing_new(self, body: Body, source: str) -> bool:
        """Whether a body whose content is known may be dropped: all its records carry their own ids."""
        if self._registry.sources[source].natural_id is None:
            return False
        arguments = (
            b"".join(body.chunks),
            body.decoded.coding,
            source,
            self._limits.max_expanded_bytes,
            self._registry,
        )
        if body.decoded.bytes <= _PARSE_HERE_BYTES:
            return await asyncio.to_thread(carries_natural_ids, *arguments)
        try:
            return await self._builders.run(carries_natural_ids, *arguments)
        except WorkerDied:
            return False

    def _header(
        self, body: Body, source: str, origin: Origin, key: str, flags: tuple[str, ...], intended: str = ""
    ) -> BatchHeader:
        decoded, now = body.decoded, self._clock()
        # A delivery without a key gets a random one, so that equal contents are different batches.
        identity = [origin.forwarder, source, key or secrets.token_hex(32), decoded.sha256]
        return BatchHeader(
            batch=sha256(canonical.encode(identity)).hexdigest(),
            source=source,
            coding=decoded.coding,
            sha256=decoded.sha256,
            bytes=decoded.bytes,
            received_at=(now - EPOCH) // timedelta(microseconds=1),
            forwarder=origin.forwarder,
            protocol=origin.protocol,
            address=_sendable(origin.address),
            name=_sendable(origin.name),
            key=key,
            flags=flags,
            intended=intended if body.refusal else "",
            reason=body.refusal.message if body.refusal else "",
        )

    async def _spool(self, header: BatchHeader, chunks: list[bytes]) -> BatchState:
        state = self._state()
        sequence = await asyncio.wrap_future(state.spool.append(header, chunks))
        self._sealer.noticed()
        return spooled_state(header, state.writer.id, state.writer.epoch, sequence)

    def _must_lead(self) -> None:
        # Sealing would fail. What was acknowledged before the log was seen to say so is taken over by the other one.
        writer = self._state().writer
        known = self._log.next_of(writer.id)
        if known is not None and known[0] > writer.epoch:
            raise IntakeStopped("another instance took over this writer's id", hint="send again: to the other one")

    async def follow(self) -> None:
        """Learn what other writers sealed, as far as the log has been read, so that a repetition of it is recognised.

        Raises StoreUnavailable.
        """
        await asyncio.to_thread(self._state().batches.follow, self._log)

    async def _take_over(self, state: State) -> None:
        """Look, as long as this runs, for batches that other lives left in the bucket."""
        while self._limits.diskless:
            await asyncio.sleep(self._limits.takeover_seconds)
            with suppress(StoreUnavailable, IntakeUnavailable):  # the next round tries again
                taken = await asyncio.to_thread(state.takeover.own)
                if self._limits.abandoned_seconds:
                    taken += await asyncio.to_thread(state.takeover.abandoned, self._limits.abandoned_seconds)
                if taken:
                    self._sealer.noticed()

    def _must_be_source(self, name: str, *, but: Set[str]) -> None:
        allowed = set(self._registry.sources) - but
        if name not in allowed:
            raise UnknownSource(f"no source {name!r} to send to", hint=f"one of: auto, {', '.join(sorted(allowed))}")

    def _accepted(self, state: BatchState, *, duplicate: bool) -> Accepted:
        receipt = receipts.Receipt(
            origin=self._log.origin,
            batch=state.batch,
            source=state.source,
            sha256=state.sha256,
            bytes=state.bytes,
            received_at=state.received_at,
            writer=state.writer,
            epoch=state.epoch,
            sequence=state.sequence,
        )
        return Accepted(
            batch=state.batch,
            sequence=state.sequence,
            source=state.source,
            duplicate=duplicate,
            flags=state.flags,
            received_at=state.received_at,
            sha256=state.sha256,
            bytes=state.bytes,
            receipt=receipts.sign(receipt, self._receipt_signer),
        )


def _sendable(text: str) -> str:
    """What a sender says of itself, made storable: bounded, and without the half characters file names may have."""
    return text[:_MAX_ORIGIN_TEXT].encode("utf-8", "replace").decode()
