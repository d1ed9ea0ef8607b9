"""The protocol of what carries alerts to people."""

from __future__ import annotations

from typing import Protocol

from strongroom.service.alerts.alert import Alert


class AlertSink(Protocol):
    """Carries alerts somewhere. One module a sink."""

    @property
    def name(self) -> str:
        """What it is called in the log and in metrics."""
        ...

    async def send(self, alert: Alert) -> None:
        """Deliver one alert; returns when it was taken. May be given the same alert again.

        Raises AlertNotSent.
        """
        ...
