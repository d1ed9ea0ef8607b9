"""CloudTrail's own evidence, held against the archive day by day while the service runs.

At each time of `verify_cloudtrail` the period since the last attestation (a day, when there is none; at most MOST) is
verified against `cloudtrail_digests`, attested in the archive, and told like any other verification. A period is left
out when an attestation, of whichever node, has judged it to its end. So a day whose digests never came is a finding of
the next run, and one that no run has looked at shows as an age in the metrics.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from strongroom.archive.entry import parse_timestamp
from strongroom.archive.errors import StrongroomError
from strongroom.archive.log import Log
from strongroom.service.alerts.alert import about_failure
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.checking import attestations, source_verification
from strongroom.service.checking.cron import Cron
from strongroom.service.checking.source_verification import Asked, SourceReport
from strongroom.service.settings import Settings

log = structlog.get_logger(__name__)

LEVEL = "cloudtrail"
MOST = timedelta(days=31)
_LOOK_SECONDS = 5.0


class SourceWatch:
    """Verifies and attests when it is due."""

    def __init__(self, settings: Settings, log: Log, sign: Callable[[], object], by: str, alerts: Alerts) -> None:
        """`sign` publishes a checkpoint; `by`: this node's name in the log."""
        self._settings, self._log, self._sign, self._by, self._alerts = settings, log, sign, by, alerts
        self.last: SourceReport | None = None
        self.failures = 0

    async def run(self) -> None:
        """Follow the schedule until cancelled."""
        cron = Cron(self._settings.verify_cloudtrail)
        while True:
            due = cron.after(datetime.now(UTC))
            wait = timedelta(seconds=random.uniform(0, self._settings.verify_jitter_seconds))  # noqa: S311
            await _until(due + wait)
            await self.once(datetime.now(UTC))

    async def once(self, now: datetime) -> SourceReport | None:
        """Verify what is due at `now`; None when it could not be, or another node has."""
        origin = self._log.origin
        try:
            report = await asyncio.to_thread(self._verify, now)
        except StrongroomError as error:
            self.failures += 1
            log.error("cloudtrail could not be verified", code=error.code, reason=str(error))
            await self._alerts.tell(about_failure(origin, LEVEL, "", error.message, now))
            return None
        if report is not None:
            self.last = report
            log.info("cloudtrail verified", verdict=report.verdict, findings=len(report.findings))
            verdict = "sound" if report.sound else report.verdict
            told = {**report.to_json(), "level": LEVEL, "origin": origin, "verdict": verdict}
            await self._alerts.report(told, report.attested[0] if report.attested else None, now)
        return report

    def numbers(self) -> dict[str, tuple[str, float]]:
        """For the metrics: name -> (help, value)."""
        found = {"cloudtrail_failures": ("Verifications of CloudTrail that could not run", float(self.failures))}
        if self.last is not None:
            age = (datetime.now(UTC) - self.last.asked.until).total_seconds()
            found["cloudtrail_verified_age_seconds"] = ("Seconds since the end of the period last verified", age)
            found["cloudtrail_findings"] = ("Findings of the last verification", float(len(self.last.findings)))
        return found

    def _verify(self, now: datetime) -> SourceReport | None:
        _, until = source_verification.period(None, None, now)
        self._log.refresh()
        place = self._settings.cloudtrail_digests
        done = [
            parse_timestamp(document["until"])
            for document in attestations.read(self._log)
            if document["digests_from"] == place and document["verdict"] != "incomplete check"
        ]
        since = max([until - MOST, *done]) if done else until - timedelta(days=1)
        if since >= until - timedelta(hours=1):
            return None
        asked = Asked(since, until, digests=place)
        report = source_verification.verify(self._settings, asked, lambda *_: None)
        source_verification.attest(report, self._log, self._sign, self._by)
        return report


async def _until(moment: datetime) -> None:
    """Wait for a time of the wall clock, which may be set meanwhile."""
    while True:
        remaining = (moment - datetime.now(UTC)).total_seconds()
        if remaining <= 0:
            return
        await asyncio.sleep(min(remaining, _LOOK_SECONDS))
