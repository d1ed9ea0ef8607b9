"""Reports of verifications in the archive: announced, stored, named by an entry, and read back.

Order, and what a crash leaves:

1. `announce`: a `report` entry says that the run begins. A crash after it: the run is gone on with at the next start.
2. `file`: the report object is created (create-only, so filing again after a crash finds it), then a `report` entry
   names it by its SHA-256. A crash between the two: the object was announced, so verification knows whose it is.
3. The next checkpoint covers the entry: that is the report's signature (docs/format.md §4.4).

Reading goes through the entries: what lies under `reports/` and no entry names is no report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

from strongroom.archive import canonical, layout
from strongroom.archive.entry import Draft, Entry, ObjectRef, timestamp
from strongroom.archive.errors import ObjectExists, ObjectMissing
from strongroom.archive.log import Log
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.checking.claims import Claims

FORMAT = "strongroom/report/1"


@dataclass(frozen=True, slots=True)
class Filed:
    """A report an entry names."""

    report: str
    level: str
    by: str
    verdict: str
    findings: int
    entry: int
    written_at: str
    object: ObjectRef

    def to_json(self) -> dict[str, Any]:
        """For lists."""
        return {
            "report": self.report,
            "level": self.level,
            "by": self.by,
            "verdict": self.verdict,
            "findings": self.findings,
            "entry": self.entry,
            "written_at": self.written_at,
            "object": self.object.key,
            "sha256": self.object.sha256,
        }


class Reports:
    """The reports of one archive. Thread-safe; every method may wait for the store."""

    def __init__(
        self, store: ObjectStore, log: Log, by: str, sign: Callable[[], object], leases: Callable[[str], float]
    ) -> None:
        """`by`: this node's writer id. `sign` publishes a checkpoint over what the log has."""
        self._store, self._log, self._by, self._sign = store, log, by, sign
        self._claims = Claims(leases)
        self._filed: dict[str, Filed] = {}
        self._seen = 0
        self._lock = threading.Lock()

    def announce(self, report: str, level: str, due: datetime | None, now: datetime) -> str:
        """Claim a run. Returns "" when it is this node's to do, else why it is not. Raises what the log raises."""
        slot = timestamp(due) if due is not None else ""
        with self._lock:
            self._follow()
            if self._claims.holds(report):
                return ""  # announced before a crash
            refusal = self._claims.refusal(level, slot, self._by, now)
            if refusal:
                return refusal
            data = {"report": report, "level": level, "state": "started", "by": self._by}
            self._log.append(Draft("report", now, data=data | ({"due": slot} if slot else {})))
            self._follow()
            if not self._claims.holds(report):
                return self._claims.refusal(level, slot, self._by, now) or "another node was faster"
        self._sign()
        return ""

    def file(self, report: str, level: str, document: bytes, verdict: str, findings: int, now: datetime) -> Filed:
        """Store a report and name it by an entry; does nothing new when that was done. Raises what log and store do."""
        with self._lock:
            self._follow()
            if report not in self._filed:
                self._log.declare_encryption(now)
                contents = self._log.contents
                key = contents.encryption.name(layout.report_key(_day_of(report, now), report))
                stored = self._put(key, contents.seal(key, document))
                reference = ObjectRef(key, "", len(stored), sha256(stored).hexdigest())
                data: dict[str, Any] = {"report": report, "level": level, "state": "finished", "by": self._by}
                data |= {"verdict": verdict, "findings": findings}
                self._log.append(Draft("report", now, details=reference, data=data))
                self._follow()
        self._sign()
        return self._filed[report]

    def close(self, report: str, level: str, reason: str, now: datetime) -> None:
        """Say that an announced run gave no report. `reason` is one word."""
        with self._lock:
            data = {"report": report, "level": level, "state": "failed", "by": self._by, "reason": reason}
            self._log.append(Draft("report", now, data=data))
            self._follow()
        self._sign()

    def list(self, limit: int = 100, before: int | None = None) -> list[Filed]:
        """The newest reports first, of entries before index `before`."""
        with self._lock:
            self._follow()
            found = [filed for filed in reversed(self._filed.values()) if before is None or filed.entry < before]
        return found[:limit]

    def read(self, report: str) -> tuple[Filed, bytes]:
        """A report and its bytes, as its entry commits to them. Raises ObjectMissing, FormatError, KeyUnavailable."""
        with self._lock:
            self._follow()
            filed = self._filed.get(report)
        if filed is None:
            raise ObjectMissing(f"no report {report}", hint="GET /v1/reports lists them")
        return filed, self._log.contents.read(filed.object)

    def last(self, level: str) -> datetime | None:
        """When a run of `level` was last announced, by any node."""
        with self._lock:
            self._follow()
            return self._claims.last(level)

    def _put(self, key: str, document: bytes) -> bytes:
        """The report's bytes as stored: an earlier try may have stored them already."""
        try:
            self._store.create(key, document)
            return document
        except ObjectExists:
            return self._store.get(key)

    def _follow(self) -> None:
        self._log.refresh()
        for entry in self._log.entries(self._seen):
            self._claims.follow(entry)
            filed = _filed(entry)
            if filed is not None:
                self._filed.setdefault(filed.report, filed)
            self._seen = entry.index + 1


def document(report: Mapping[str, Any]) -> bytes:
    """A verification's report (Report.to_json) in the form it is stored in: canonical JSON, times in milliseconds."""
    told = dict(report)
    cost = dict(told.get("cost", {}))
    cost["milliseconds"] = round(1000 * cost.pop("seconds", 0))
    return canonical.encode(plain({"format": FORMAT, **told, "cost": cost}))


def plain(value: Any) -> Any:
    """Without what canonical JSON has no form for: nulls are left out, odd numbers and texts become plain text."""
    match value:
        case bool():
            return value
        case int():
            return value if abs(value) < 2**53 else str(value)
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {plain(str(name)): plain(item) for name, item in value.items() if item is not None}
        case _:
            return str(value)


def _filed(entry: Entry) -> Filed | None:
    data = entry.data
    if entry.kind != "report" or entry.details is None or data.get("state") != "finished":
        return None
    report = layout.report_of(entry.details.key)
    if report is None or report != data.get("report"):
        return None
    words = {name: str(data.get(name, "")) for name in ("level", "by", "verdict")}
    count = data.get("findings")
    findings = count if isinstance(count, int) else 0
    return Filed(
        report, **words, findings=findings, entry=entry.index, written_at=entry.written_at, object=entry.details
    )


def _day_of(report: str, now: datetime) -> date:
    """The day a report's id begins with, so that filing again after midnight finds the same object."""
    try:
        return datetime.strptime(report[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return now.date()
