"""Text, one record a line: anything that is no JSON and has no source of its own.

The line itself is in `raw` and is not stored a second time. Columns come from the shapes most lines have: a syslog
priority, host and program (RFC 5424; RFC 3164 as programs write it), and a time, wherever it stands among the first
words. The time of RFC 3164 has no year and no zone, so it is not taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import lines, times
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split

_I32 = pa.int32()
_WINDOW = 512  # bytes of a line that are looked at

_PRIORITY = re.compile(r"<(\d{1,3})>")
_RFC5424 = re.compile(r"1 \S+ (?P<host>\S+) (?P<program>\S+) \S+ ")
_RFC3164 = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?P<host>[\w.:-]+) (?P<program>[\w./-]+)(?:\[\d+\])?:")
_ISO = re.compile(r"(?<![\d-])[12]\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\d)", re.ASCII)
_CLF = re.compile(r"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]", re.ASCII)
_AUDITD = re.compile(r"msg=audit\((\d{9,10}\.\d{3}):\d+\)", re.ASCII)
_SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")


class Text:
    """See the module."""

    name = "text"
    description = "Lines of text of any other kind"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("host", "event_time")
    summary_columns: tuple[str, ...] = ("host", "program")
    schema = pa.schema({"facility": _I32, "severity": TEXT, "host": TEXT, "program": TEXT})

    events: Mapping[str, str] = {
        "source": "'text'",
        "event_time": "event_time",
        "account": "NULL::VARCHAR",
        "region": "NULL::VARCHAR",
        "actor": "NULL::VARCHAR",
        "action": "program",
        "target": "host",
        "source_address": "NULL::VARCHAR",
        "outcome": "NULL::VARCHAR",
        "severity": "severity",
        "event_id": "NULL::VARCHAR",
        # As its view shows it: text, with U+FFFD for bytes that are no UTF-8.
        "message": "raw",
    }

    def recognise(self, head: bytes) -> bool:
        """Anything: the last resort."""
        return True

    def split(self, body: bytes) -> Split:
        """Lines that are not blank; a binary body is one broken record."""
        reason = lines.binary(body)
        if reason is not None:
            return lines.whole(body, reason)
        return Split(raw=lines.lines(body), context=None, positions=None, broken=[])

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by shape, line by line."""
        starts = [line[:_WINDOW].decode("utf-8", "replace") for line in raw]
        found = [_syslog(start) for start in starts]
        columns: dict[str, pa.Array] = {
            "event_time": pa.array([_time(start) for start in starts], pa.int64()).cast(TIME),
            "facility": pa.array([f for f, _, _, _ in found], _I32),
            "severity": pa.array([s for _, s, _, _ in found], TEXT),
            "host": pa.array([h for _, _, h, _ in found], TEXT),
            "program": pa.array([p for _, _, _, p in found], TEXT),
        }
        return pa.table(columns)


def _syslog(start: str) -> tuple[int | None, str | None, str | None, str | None]:
    """(facility, severity, host, program)."""
    priority = _PRIORITY.match(start)
    rest = start[priority.end() :] if priority else start
    shape = (_RFC5424.match(rest) if priority else None) or _RFC3164.match(rest)
    host, program = (shape["host"], shape["program"]) if shape else (None, None)
    code = int(priority[1]) if priority else 999
    facility, severity = (code >> 3, _SEVERITIES[code & 7]) if code < 192 else (None, None)
    return facility, severity, _stated(host), _stated(program)


def _stated(value: str | None) -> str | None:
    return None if value == "-" else value


def _time(start: str) -> int | None:
    iso = _ISO.search(start)
    if iso:
        return times.microseconds(iso.group())
    clf = _CLF.search(start)
    if clf:
        return times.common_log(clf[1])
    audit = _AUDITD.search(start)
    return times.microseconds(audit[1]) if audit else None


SOURCE = Text()
