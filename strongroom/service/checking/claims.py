"""Who verifies: decided by the log's order, so that replicas need no lock server and no clock in common. Pure.

A run is announced by a `report` entry with state `started` before it begins, and closed by one with `finished` or
`failed`. From these entries alone:

* Of several claims for one level and one `due` time, that with the lowest index holds; the others stand down.
* While a run of a level is open, no other node starts one of that level. A claim whose node died stays open; after its
  level's lease it no longer counts. Clocks matter only there, and a wrong one costs a run done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from strongroom.archive.entry import Entry, parse_timestamp
from strongroom.archive.errors import FormatError


@dataclass(frozen=True, slots=True)
class Claim:
    """One announced run."""

    index: int
    report: str
    level: str
    by: str
    due: str
    written_at: datetime


@dataclass(slots=True)
class Claims:
    """What the `report` entries seen so far say. `leases`: seconds an open run of a level counts."""

    leases: Callable[[str], float]
    _slots: dict[tuple[str, str], Claim] = field(default_factory=dict)
    _open: dict[str, Claim] = field(default_factory=dict)
    _last: dict[str, Claim] = field(default_factory=dict)

    def follow(self, entry: Entry) -> None:
        """Take the next entry in order; others than announcements and closings change nothing."""
        facts = _facts(entry)
        if facts is None:
            return
        report, level, state, by, due = facts
        if state != "started":
            self._open.pop(report, None)
            return
        claim = Claim(entry.index, report, level, by, due, parse_timestamp(entry.written_at))
        if due and (level, due) in self._slots:
            return  # lost the race for this time
        if due:
            self._slots[level, due] = claim
        self._open[report] = claim
        self._last[level] = claim

    def holds(self, report: str) -> bool:
        """Whether this run was announced, did not lose its time to another, and is not closed."""
        return report in self._open

    def refusal(self, level: str, due: str, by: str, now: datetime) -> str:
        """Why `by` should not announce a run of `level` for `due` now, "" when it may."""
        if due and (taken := self._slots.get((level, due))) is not None:
            return f"{taken.by} has run {taken.report} for {due}"
        lease = timedelta(seconds=self.leases(level))
        for claim in self._open.values():
            if claim.level == level and claim.by != by and abs(now - claim.written_at) < lease:
                return f"{claim.by} is running {claim.report}"
        return ""

    def last(self, level: str) -> datetime | None:
        """When a run of `level` was last announced, None when none was."""
        claim = self._last.get(level)
        return claim.written_at if claim else None


def _facts(entry: Entry) -> tuple[str, str, str, str, str] | None:
    """(report, level, state, by, due) of a `report` entry, None for other entries and malformed ones."""
    if entry.kind != "report":
        return None
    data: Mapping[str, Any] = entry.data
    values = tuple(data.get(name, "") for name in ("report", "level", "state", "by", "due"))
    if not all(isinstance(value, str) for value in values):
        return None
    try:
        if values[4]:
            parse_timestamp(values[4])
    except FormatError:
        return None
    return values
