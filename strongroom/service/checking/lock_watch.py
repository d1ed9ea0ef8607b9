"""Watching over the store's locks: the canary at every start and every so often, told, measured, and recorded.

A store that lets go of what it locked is said at once and loudly: in the service's log, as an alert, in the metrics
and the status, and in an audit record. With the setting `production` the service does not start on it, nor on anything
else that production must not lack. A folder has no locks; there is nothing to try, and that is said too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.store import ObjectStore
from strongroom.service import acts
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.audit import Audit
from strongroom.service.checking import canary
from strongroom.service.checking.canary import Trial
from strongroom.service.errors import NotForProduction
from strongroom.service.keeping.storage import promises
from strongroom.service.settings import Settings

log = structlog.get_logger(__name__)


class LockWatch:
    """Tries the locks of one node's store."""

    def __init__(self, store: ObjectStore, audit: Audit, alerts: Alerts, origin: str) -> None:
        self._store = store if isinstance(store, S3Store) else None
        self._audit, self._alerts, self._origin = audit, alerts, origin
        self.trials: list[Trial] = []
        self.tried: datetime | None = None
        self._told = True  # whether the last trials are known to people

    async def must_be_fit(self, settings: Settings) -> None:
        """Try the locks, and raise NotForProduction with everything that production must not lack."""
        if self._store is not None:
            await self._try()
        reasons = [*unfit(settings, self._store)]
        if self._store is not None and not canary.holds(self.trials):
            reasons += [
                f"lock not seen to hold: {trial.what}: {trial.found}" for trial in self.trials if not trial.held
            ]
        if reasons:
            raise NotForProduction("; ".join(reasons), hint="docs/operators/bucket.md says what production needs")

    async def run(self, seconds: float) -> None:
        """Try until cancelled; at once, unless that was just done."""
        while self._store is not None:
            if self._told:
                await self._try()
            try:
                await self._tell()
            except (StrongroomError, OSError) as error:
                log.error("a canary could not be recorded", detail=str(error))
            await asyncio.sleep(seconds)

    def standing(self) -> dict[str, Any] | None:
        """For the status; None where there is nothing to try."""
        if self.tried is None:
            return None
        failed = [trial.to_json() for trial in self.trials if not trial.held]
        return {"held": canary.holds(self.trials), "tried": self.tried, "not_held": failed}

    def numbers(self) -> dict[str, tuple[str, float]]:
        """For the metrics."""
        if self.tried is None:
            return {}
        age = max(0.0, (datetime.now(UTC) - self.tried).total_seconds())
        return {
            "locks_held": ("1 while the store was seen to enforce its locks", float(canary.holds(self.trials))),
            "locks_tried_age_seconds": ("Seconds since the store's locks were tried", age),
        }

    async def _try(self) -> None:
        assert self._store is not None
        self.trials = await asyncio.to_thread(canary.try_locks, self._store)
        self.tried, self._told = datetime.now(UTC), False

    async def _tell(self) -> None:
        held = canary.holds(self.trials)
        for trial in self.trials:
            if not trial.held:
                log.error("THE STORE DOES NOT KEEP ITS LOCKS", tried=trial.what, found=trial.found)
        told = canary.alert(self._origin, self.trials, datetime.now(UTC))
        await self._alerts.about_locks(told)
        facts = [trial.to_json() for trial in self.trials]
        outcome = "success" if held else "failure"
        done = acts.act("locks.try", actor="service", role="service", address="", outcome=outcome, trials=facts)
        await self._audit.record(done)
        self._told = True


def unfit(settings: Settings, store: S3Store | None) -> Iterator[str]:
    """What production must not lack and these settings do."""
    if store is None:
        yield f"the archive {settings.archive} is a folder, which its administrator can change"
    else:
        rule = promises(settings, store).strictest
        if rule is None or rule.mode != "COMPLIANCE":
            yield f"retention is {rule or 'not set'}: COMPLIANCE is needed, in the bucket's default or in the settings"
    if not settings.loopback and settings.tls_certificate is None:
        yield f"listening on {settings.listen} without TLS: set tls_certificate and tls_key"
