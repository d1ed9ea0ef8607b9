"""The service's own log: every query and every administrative act is a record of source `audit`, sealed like the rest.

Rules:

1. A query is recorded before it runs; when that fails, the query does not run. What became of it is a second record.
2. What the command line left (service/acts.py) is taken in by the next writer on its state folder, which removes each
   file after its record is durable. A crash between the two records an act twice, with the same id, never not.
3. Nobody can push to source `audit` (tokens.INTERNAL_SOURCES): what stands there, the service wrote.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from strongroom.ingest.intake import Intake, Origin
from strongroom.service import acts
from strongroom.service.acts import Act

log = structlog.get_logger(__name__)


class Audit:
    """Writes acts into the archive."""

    def __init__(self, intake: Intake, folder: Path) -> None:
        self._intake = intake
        self._folder = folder
        self._pending: set[asyncio.Task[None]] = set()

    async def record(self, done: Act) -> str:
        """Durably record an act; the id of its batch. Raises what the intake raises: the caller then must not act."""
        origin = Origin(forwarder=done.actor, protocol="audit", address=done.address)
        return (await self._intake.append(done.encode(), source="audit", origin=origin)).batch

    def record_soon(self, done: Act) -> None:
        """Record an act from where waiting is impossible, such as a request whose client has left."""
        task = asyncio.create_task(self._record_or_report(done))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def settle(self) -> None:
        """Wait for what `record_soon` began."""
        await asyncio.gather(*self._pending)

    async def collect(self) -> int:
        """Take in the acts the command line left. Returns how many."""
        waiting = await asyncio.to_thread(acts.left, self._folder)
        for path, done in waiting:
            if done is None:
                log.error("an act left by the command line can't be read", path=str(path))
                continue
            await self.record(done)
            path.unlink(missing_ok=True)
        return len(waiting)

    async def _record_or_report(self, done: Act) -> None:
        try:
            await self.record(done)
        except Exception:
            # Its first record is durable; the missing second one shows as an act without an outcome.
            log.exception("the outcome of an act could not be recorded", act=done.id, action=done.action)
