"""When verifications run by themselves: a cron expression a level, checked against the log so that none goes missing.

* Times are UTC. Each level waits for its next time plus a random delay, so that replicas and archives don't all begin
  at once; the first to announce the run in the log does it (service/checking/claims.py), the others stand down.
* Times that passed while a run of the level was going on, or while the clock jumped, are not made up for.
* A run that was due and that no node has begun is itself an alert: also when this node was down, as it sees on
  starting. It is then run at once. That a level never ran at all is no alert: the archive may be new.

The wall clock says when a run is due, and may be set: it is looked at every few seconds. How long one has been waiting
is measured on the monotonic clock, so that a clock set forward alerts nobody.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.archive.verification.findings import Level
from strongroom.service.alerts.alert import about_missed
from strongroom.service.checking.cron import Cron
from strongroom.service.checking.verifier import Verifier
from strongroom.service.errors import StoodDown

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
_PATIENCE = timedelta(hours=1)


def overdue(cron: Cron, last: datetime | None, now: datetime) -> datetime | None:
    """The time at which a run should have begun after `last` and, with patience, has not; None when all is well."""
    if last is None:
        return None
    due = cron.after(last)
    return due if now > due + min(cron.after(due) - due, _PATIENCE) else None


class Schedule:
    """Runs the levels of one node when they are due."""

    def __init__(self, verifier: Verifier, crons: Mapping[Level, Cron], jitter_seconds: float, origin: str) -> None:
        self._verifier, self._crons, self._jitter, self._origin = verifier, crons, jitter_seconds, origin
        self.due: dict[str, datetime] = {}

    async def run(self) -> None:
        """Follow the schedule until cancelled."""
        await asyncio.gather(*(self._follow(level, cron) for level, cron in self._crons.items()))

    async def _follow(self, level: Level, cron: Cron) -> None:
        await self._catch_up(level, cron)
        while True:
            due = cron.after(datetime.now(UTC))
            self.due[level] = due
            if await self._wait(level, cron, due + timedelta(seconds=random.uniform(0, self._jitter))):  # noqa: S311
                await self._verify(level, cron, due)

    async def _wait(self, level: Level, cron: Cron, moment: datetime) -> bool:
        """Until `moment`; False when the clock was set so that another time comes before."""
        longest = (moment - datetime.now(UTC)).total_seconds()
        while (remaining := (moment - datetime.now(UTC)).total_seconds()) > 0:
            if remaining > longest + _LOOK_SECONDS:
                return False  # the clock was set back
            await asyncio.sleep(min(remaining, _LOOK_SECONDS))
        return True

    async def _catch_up(self, level: Level, cron: Cron) -> None:
        """What should have run while no node was there."""
        last = await self._last(level)
        due = overdue(cron, last, datetime.now(UTC))
        if due is not None:
            await self._verifier.alerts.tell(about_missed(self._origin, level, due, datetime.now(UTC)))
            await self._verify(level, cron, due)

    async def _verify(self, level: Level, cron: Cron, due: datetime) -> None:
        waited = time.monotonic()
        try:
            await self._verifier.run(level, "schedule", due, wait=True)
        except StoodDown as error:
            log.info("another node verifies", level=level, detail=error.message)
            await self._see_to_it(level, cron)
        except StrongroomError as error:
            log.error("a scheduled verification failed", level=level, code=error.code, detail=error.message)
        except OSError as error:
            log.error("a scheduled verification could not be kept", level=level, detail=str(error))
        else:
            log.info("verified", level=level, seconds=round(time.monotonic() - waited, 3))

    async def _see_to_it(self, level: Level, cron: Cron) -> None:
        """Another node has begun a run. If that was long ago, it has died with it."""
        now = datetime.now(UTC)
        due = overdue(cron, await self._last(level), now)
        if due is not None:
            await self._verifier.alerts.tell(about_missed(self._origin, level, due, now))

    async def _last(self, level: Level) -> datetime | None:
        try:
            return await asyncio.to_thread(self._verifier.reports.last, level)
        except StrongroomError as error:
            log.error("the log can't be followed", code=error.code, detail=error.message)
            return None
