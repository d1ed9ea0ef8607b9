"""Each alert to each sink: once, again after a while when the trouble stays, and until it is taken.

What was told to whom is kept in a file, written after the telling: a crash between the two tells twice, never not. A
sink that fails does not keep the others waiting; what it did not take is tried again with the next run that finds the
same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from strongroom.archive import durable
from strongroom.service.alerts.alert import RUNNING, Alert, about_report, subjects
from strongroom.service.alerts.sink import AlertSink
from strongroom.service.errors import AlertNotSent

log = structlog.get_logger(__name__)

_KEPT_FINDINGS = 1000


class _Told(msgspec.Struct):
    """Per level: the standing trouble's findings, and when which sink was told what (seconds since the epoch)."""

    findings: list[dict[str, Any]] = []
    trouble: bool = False
    times: dict[str, float] = {}


class Alerts:
    """Tells `sinks`, and remembers in `file`."""

    def __init__(self, sinks: Sequence[AlertSink], file: Path, repeat_seconds: float) -> None:
        self._sinks, self._file, self._repeat = tuple(sinks), file, repeat_seconds
        self._told = self._load()
        self._lock = asyncio.Lock()
        self.sent: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    async def report(self, report: Mapping[str, Any], entry: int | None, now: datetime) -> None:
        """Tell what a finished run found, when there is something to tell."""
        standing = self._of(str(report["level"]))
        alert = about_report(report, standing.findings, now, entry)
        if alert.kind == "recovered" and not standing.trouble:
            return
        await self.tell(alert)

    async def about_locks(self, alert: Alert) -> None:
        """Tell what trying the store's locks gave; that they hold only when they did not before."""
        standing = self._of(alert.level)
        if alert.kind != "recovered":
            await self.tell(alert)
        elif standing.trouble:
            await self.tell(replace(alert, findings=tuple(standing.findings)))

    async def tell(self, alert: Alert) -> None:
        """Give an alert to every sink that was not told the same within `repeat_seconds`. Never raises for a sink."""
        async with self._lock:
            standing = self._of(alert.level)
            now = datetime.now(UTC).timestamp()
            due = [sink for sink in self._sinks if self._is_due(standing, sink, alert, now)]
            taken = await asyncio.gather(*(self._send(sink, alert) for sink in due))
            for sink, done in zip(due, taken, strict=True):
                if done:
                    standing.times[f"{sink.name} {alert.fingerprint}"] = now
            if alert.kind == "recovered":
                # What was not told of is lost to no one: the trouble is over, and the report is in the archive.
                self._told[alert.level] = _Told()
            else:
                standing.trouble = True
                news = [dict(subject) for subject in subjects(alert)[:_KEPT_FINDINGS]]
                about_running = [old for old in standing.findings if str(old["code"]).startswith(RUNNING)]
                standing.findings = news + [old for old in about_running if old["code"] != news[0]["code"]]
            self._save()

    def _is_due(self, standing: _Told, sink: AlertSink, alert: Alert, now: float) -> bool:
        told = standing.times.get(f"{sink.name} {alert.fingerprint}")
        # A clock that went back would else silence the alert for as long as it went back.
        return told is None or not 0 <= now - told < self._repeat

    async def _send(self, sink: AlertSink, alert: Alert) -> bool:
        try:
            await sink.send(alert)
        except AlertNotSent as error:
            self.failures[sink.name] += 1
            log.error("an alert was not taken", sink=sink.name, alert=alert.title, detail=error.message)
            return False
        self.sent[sink.name] += 1
        return True

    def _of(self, level: str) -> _Told:
        return self._told.setdefault(level, _Told())

    def _load(self) -> dict[str, _Told]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Told])
        except (OSError, msgspec.DecodeError):
            return {}

    def _save(self) -> None:
        oldest = datetime.now(UTC).timestamp() - self._repeat
        for standing in self._told.values():
            standing.times = {name: told for name, told in standing.times.items() if told > oldest}
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.replace(self._file, msgspec.json.encode(self._told))
        except OSError as error:
            log.error("what was told can't be kept", path=str(self._file), detail=str(error))
