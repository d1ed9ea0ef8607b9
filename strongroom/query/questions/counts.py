"""The counts per source and hour that the log commits to, read once and kept in memory: 28 bytes a segment's hour.

Each commit's details are checked against the hash its entry states. Where details are missing, damaged, or do not add
up to the segment's records, the counts from there on answer nothing (`of` gives None), and records are counted instead.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Collection
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import details
from strongroom.archive.entry import Entry
from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.archive.log import Log
from strongroom.query.questions.timeline import Counts, hour_of

_UNTIMED = -(1 << 62)


class HourlyCounts:
    """The counts of one log. Thread-safe. Nothing is read before the first question."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._size = 0
        self._broken_at: int | None = None
        self._names: list[str] = []
        self._entry, self._source, self._hour, self._records = array("q"), array("i"), array("q"), array("q")

    def of(self, size: int, sources: Collection[str]) -> Counts | None:
        """Counts of the sources at tree size `size`; None when the log's details do not carry them."""
        with self._lock:
            if size > self._size and self._broken_at is None:
                self._follow(size)
            if self._broken_at is not None and self._broken_at < size:
                return None
            columns = {"entry": self._entry, "source": self._source, "hour": self._hour, "records": self._records}
            table = pa.table({name: pa.array(memoryview(values)) for name, values in columns.items()})
            names = list(self._names)
        wanted = pa.array([number for number, name in enumerate(names) if name in sources], pa.int32())
        chosen = pc.and_(pc.less(table["entry"], size), pc.is_in(table["source"], wanted))
        summed = table.filter(chosen).group_by(["source", "hour"]).aggregate([("records", "sum")])
        return {
            (names[source], None if hour == _UNTIMED else hour): records
            for source, hour, records in zip(
                *(summed[name].to_pylist() for name in ("source", "hour", "records_sum")), strict=True
            )
        }

    def _follow(self, size: int) -> None:
        for entry in self._log.entries(self._size, size):
            if not self._take(entry):
                self._broken_at = entry.index
                return
            self._size = entry.index + 1

    def _take(self, entry: Entry) -> bool:
        """The counts of one entry; False when they can't be relied on."""
        if not entry.segments:
            return True
        if entry.details is None:
            return False
        try:
            content = self._log.contents.read(entry.details)
            stated = {summary.key: summary for summary in details.decode(content).segments}
        except StoreUnavailable:
            raise
        except StrongroomError:
            return False  # damaged, or gone
        rows: list[tuple[str, int, int]] = []
        for segment in entry.segments:
            summary = stated.get(segment.key)
            if summary is None or sum(summary.hours.values()) != segment.records:
                return False
            try:
                rows += [(summary.source, _hour(text), records) for text, records in summary.hours.items()]
            except ValueError:
                return False
        for source, hour, records in rows:
            if source not in self._names:
                self._names.append(source)
            self._entry.append(entry.index)
            self._source.append(self._names.index(source))
            self._hour.append(hour)
            self._records.append(records)
        return True


def _hour(text: str) -> int:
    """`2023-07-10T11` as hours since the epoch; "" is no time. Raises ValueError."""
    if not text:
        return _UNTIMED
    return hour_of(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC))
