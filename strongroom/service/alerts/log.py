"""Alerts in the service's own log: the sink that is always there."""

from __future__ import annotations

import structlog

from strongroom.service.alerts.alert import Alert

log = structlog.get_logger("strongroom.alert")

_METHODS = {"critical": "critical", "error": "error", "warning": "warning", "info": "info"}
_SHOWN = 20


class LogSink:
    """One line an alert."""

    name = "log"

    async def send(self, alert: Alert) -> None:
        found = [f"{finding['code']} {finding['object']}" for finding in alert.findings[:_SHOWN]]
        getattr(log, _METHODS[alert.severity])(
            alert.title,
            kind=alert.kind,
            level=alert.level,
            verdict=alert.verdict,
            detail=alert.text,
            run=alert.run,
            entry=alert.entry,
            findings=found,
        )
