"""Cron expressions: minute, hour, day of month, month, day of week; or six fields, of which the first is the second.

Always in UTC: an archive that skips a night in March, or verifies twice in one of October, would need explaining.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

_FIELDS = ("second", "minute", "hour", "day", "month", "day_of_week")


class Cron:
    """One expression. Days of the week by name, or 0 for Monday."""

    def __init__(self, expression: str) -> None:
        """Raises ValueError."""
        self.expression = expression
        fields = expression.split()
        if len(fields) not in (5, 6):
            raise ValueError(f"{expression!r} has {len(fields)} fields, not 5 (or 6, with seconds)")
        given = dict(zip(_FIELDS[-len(fields) :], fields, strict=True))
        self._trigger = CronTrigger(**({"second": "0"} | given), timezone=UTC)
        self.after(datetime.now(UTC))

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`. Raises ValueError when there is none."""
        found = self._trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
        if found is None:
            raise ValueError(f"{self.expression!r} never comes")
        return datetime.fromtimestamp(found.timestamp(), UTC)

    def before(self, moment: datetime) -> datetime:
        """The last time not later than `moment`. Raises ValueError when there was none in five years."""
        for span in (timedelta(minutes=1), *(timedelta(days=days) for days in (1, 32, 366, 5 * 366))):
            found = self.after(moment - span)
            if found <= moment:
                while (following := self.after(found)) <= moment:
                    found = following
                return found
        raise ValueError(f"{self.expression!r} did not come in five years")
