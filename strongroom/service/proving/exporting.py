"""Evidence for people over HTTP: bundles and proofs, made beside the archive's daily work.

The order of effects in an export: its act is recorded, the question is asked, the act is **sealed**, the bundle is made
and checked, it is sent. So no bundle exists whose export the log does not show, and custody.json can name the batch and
the entry that do. A crash in between leaves an act without an outcome, and a file that the next start removes.

A bundle waits in the state folder while it is sent. Only so many wait at once, each of a greatest size, and one that is
not fetched any further is given up.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.archive import canonical, evidence, policy
from strongroom.archive.errors import ObjectMissing
from strongroom.archive.evidence import Summary
from strongroom.archive.log import Log
from strongroom.archive.policy import Policy
from strongroom.archive.stores.store import ObjectStore
from strongroom.ingest.intake import Intake
from strongroom.query.engine import QueryEngine
from strongroom.service.acts import Act
from strongroom.service.errors import EvidenceBusy, TrustMissing
from strongroom.service.proving.bundling import Excerpt, Job, must_hold, write_apart
from strongroom.service.proving.evidence import Anchor, Selection, anchor, custody

AT_ONCE = 2
STALL_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of one record, encoded, and where it leads."""

    content: bytes
    entry: int
    position: int
    size: int
    witnessed: bool


class Exporter:
    """Makes evidence for one node. `folder` is its own, for bundles on their way; `limit_bytes` is of one bundle."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        log: Log,
        engine: QueryEngine,
        intake: Intake,
        policy_file: Path,
        folder: Path,
        limit_bytes: int,
        writer: str,
    ) -> None:
        self._store, self._log, self._engine, self._intake = store, log, engine, intake
        self._policy_file, self._folder, self._limit_bytes, self._writer = policy_file, folder, limit_bytes, writer
        self._places = asyncio.Semaphore(AT_ONCE)

    def start(self) -> None:
        """Remove what a crash left."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def proof(self, segment: str, row: int) -> Proof:
        """The proof of one record, by its address, checked before it is given.

        Raises ObjectMissing for no such segment or row, NotSignedYet, FormatError when the archive is damaged.
        """
        await self._engine.refresh()
        entry, position = self._place(segment)
        return await asyncio.to_thread(self._prove, entry, position, row)

    async def proof_at(self, entry: int, segment: str, row: int) -> Proof:
        """As `proof`; the segment by its position in an entry, or by its name."""
        await self._engine.refresh()
        position = int(segment) if segment.isascii() and segment.isdigit() and len(segment) < 9 else None
        if position is None:
            found, position = self._place(segment)
            if found != entry:
                raise ObjectMissing(f"entry {entry} names no segment {segment}", hint=f"entry {found} does")
        if entry >= self._log.size:
            raise ObjectMissing(f"no entry {entry}: the log has {self._log.size}")
        return await asyncio.to_thread(self._prove, entry, position, row)

    async def bundle(
        self, selection: Selection, act: Act, batch: str, *, case: str, purpose: str, size: int | None = None
    ) -> Bundle:
        """A bundle of the selected records; to be sent or discarded by the caller. `batch`: the act's own record.

        Raises ObjectMissing for records that are not in the log, NotSignedYet, EvidenceTooLarge, EvidenceBusy,
        EvidenceFailed, FormatError when the archive is damaged, and what keeps the act from being sealed.
        """
        if not selection.records:
            raise ObjectMissing("no record was chosen", hint="ask the question as a query first")
        if self._places.locked():
            raise EvidenceBusy(f"{AT_ONCE} bundles are being made or fetched", hint="ask again")
        # A client that hangs up must not free the place while the worker still works for it.
        making = asyncio.ensure_future(self._bundle(selection, act, batch, case, purpose, size))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise

    def anchor(self, covering: int, size: int | None = None) -> Anchor:
        """The checkpoint for proofs about entries below `covering`. Raises as evidence.anchor, TrustMissing."""
        return anchor(self._store, self._log, self._policy(), covering=covering, size=size)

    def _place(self, segment: str) -> tuple[int, int]:
        place = self._engine.place(segment)
        if place is None:
            raise ObjectMissing(f"no entry names the segment {segment!r}", hint="take _segment from a query's answer")
        return place

    def _policy(self) -> Policy:
        try:
            return policy.parse(self._policy_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TrustMissing(
                f"policy {self._policy_file}: {error}", hint="restore it with the state folder"
            ) from None

    def _prove(self, entry: int, position: int, row: int) -> Proof:
        found = self.anchor(entry + 1)
        made = evidence.prove_record(
            self._store, self._log, found.head.size, entry, position, row, cosignatures=found.cosignatures
        )
        content = canonical.encode(made)
        must_hold(evidence.check_proof(content, found.checked_policy))
        return Proof(content, entry, position, found.head.size, found.witnessed)

    async def _bundle(
        self, selection: Selection, act: Act, batch: str, case: str, purpose: str, size: int | None
    ) -> Bundle:
        await self._places.acquire()
        with ExitStack() as held:
            held.callback(self._places.release)
            await self._intake.seal()
            await self._engine.refresh()
            recorded = {"batch": batch, "entry": self._intake.batch(batch).entry}
            stated = custody(selection, act, case=case, purpose=purpose, writer=self._writer, audit=recorded)
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            job = await asyncio.to_thread(self._job, folder / "bundle.zip", selection, stated, size)
            summary = await write_apart(job)
            return Bundle(job.path, summary, job.anchor, held.pop_all())

    def _job(self, path: Path, selection: Selection, stated: dict[str, Any], size: int | None) -> Job:
        places = {segment: self._place(segment) for segment, _ in selection.picks}
        entries = {entry for entry, _ in places.values()}
        found = self.anchor(1 + max(entries, default=0), size)
        excerpt = Excerpt.of(self._log, found.head, entries)
        return Job(path, self._store, excerpt, found, selection.placed(places), stated, self._limit_bytes)


class Bundle:
    """A bundle on its way. Iterate `chunks` to the end, or `discard`; left untouched too long, it discards itself."""

    def __init__(self, path: Path, summary: Summary, found: Anchor, held: ExitStack) -> None:
        self.summary, self.anchor = summary, found
        self._held = held
        self._file = path.open("rb")
        self._loop = asyncio.get_running_loop()
        self._stall = self._loop.call_later(STALL_SECONDS, self.discard)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bundle's bytes. Raises ValueError when it was given up in between."""
        left = self.summary.bytes
        try:
            # Ends with the last byte, without looking for more: a client that has them all hangs up at once.
            while left and (chunk := await asyncio.to_thread(self._file.read, _CHUNK_BYTES)):
                left -= len(chunk)
                self._stall.cancel()
                self._stall = self._loop.call_later(STALL_SECONDS, self.discard)
                yield chunk
        finally:
            self.discard()

    def discard(self) -> None:
        """Free its place. Safe to call more than once."""
        self._stall.cancel()
        self._file.close()
        self._held.close()


def _discard(making: asyncio.Future[Bundle]) -> None:
    """Nobody waits for this bundle any more."""
    if not making.cancelled() and making.exception() is None:
        making.result().discard()
