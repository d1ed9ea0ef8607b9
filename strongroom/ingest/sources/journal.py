"""The systemd journal in its export format, as systemd-journal-upload sends it.

A record is one entry: `NAME=value` lines, or for values with control bytes `NAME`, a line feed, the length as 64 bits
little-endian, the value and a line feed; a blank line ends it and is not part of it. `__CURSOR` is the entry's
identity, so that what is sent again from an old cursor can be told. Of a field given twice, the first counts in
columns. What messages say of logins is read as in syslog.py, of the program that the journal itself saw (`_COMM`), not
of one that somebody claims to be. Source: systemd.io, "Journal Export Formats".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from strongroom.ingest.sources import fields, logins
from strongroom.ingest.sources.declared import events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TIME, Contexts, Found, Split

_LENGTH_BYTES = 8
_WINDOW = 8192  # characters of a message that are looked at
_CURSOR = b"__CURSOR="
_OURS = b"^"
"""Begins the names of what is read out of fields; no field of the journal's does."""
_SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")

_FIELDS = (
    field("event_time", "_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP", type=TIME),
    field("cursor", "__CURSOR"),
    field("host", "_HOSTNAME"),
    field("unit", "_SYSTEMD_UNIT", "UNIT", "_SYSTEMD_USER_UNIT"),
    field("program", "SYSLOG_IDENTIFIER", "_COMM"),
    field("pid", "_PID", "SYSLOG_PID", type=pa.int64()),
    field("uid", "_UID", type=pa.int64()),
    field("audit_loginuid", "_AUDIT_LOGINUID", type=pa.int64()),
    field("severity", "^severity"),
    field("transport", "_TRANSPORT"),
    field("boot_id", "_BOOT_ID"),
    field("machine_id", "_MACHINE_ID"),
    field("message", "MESSAGE"),
    field("user_name", "^user_name"),
    field("source_address", "^source_address"),
    field("source_port", "^source_port", type=pa.int64()),
    field("result", "^result"),
)


class Journal:
    """See the module."""

    name = "journal"
    description = "Entries of the systemd journal, in its export format"
    natural_id: str | None = "cursor"
    sort: tuple[str, ...] = ("host", "unit", "event_time")
    summary_columns: tuple[str, ...] = ("host", "unit", "program", "user_name", "source_address")
    schema = fields.schema(_FIELDS)
    events: Mapping[str, str] = events(
        "journal",
        actor="coalesce(user_name, CASE WHEN uid IS NOT NULL THEN 'uid ' || uid END)",
        action="coalesce(unit, program)",
        target="host",
        source_address="source_address",
        outcome="result",
        severity="severity",
        event_id="cursor",
        message="message",
    )

    def recognise(self, head: bytes) -> bool:
        """Begins with a cursor."""
        return head.startswith(_CURSOR)

    def split(self, body: bytes) -> Split:
        """Every entry."""
        found = Found()
        at = 0
        while at < len(body):
            end, state = entry_end(body, at)
            entry = body[at : end - 1] if state == "ended" else body[at:end]
            if state == "broken":
                found.damaged(entry, "not an entry in the journal's export format")
            elif entry:
                found.record(entry.removesuffix(b"\n"))
            at = end
        return found.split()

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by field name."""
        return fields.table(_FIELDS, [_values(entry) for entry in raw])


def entry_end(body: bytes | bytearray, at: int) -> tuple[int, Literal["ended", "open", "broken"]]:
    """Where the entry at `at` ends, its blank line included; "open": the body ends before it, "broken": inside a value.

    What is broken goes as far as the body, because nothing tells where a binary value that is wrong would have ended.
    """
    return advance(body, at)[1:]


def advance(body: bytes | bytearray, at: int) -> tuple[int, int, Literal["ended", "open", "broken"]]:
    """The same, and before it where the last whole field ends: who waits for more of the body goes on from there."""
    size = len(body)
    while at < size:
        stop = body.find(b"\n", at)
        if stop == at:
            return at, at + 1, "ended"
        line = body[at : size if stop < 0 else stop]
        if b"=" in line:
            if stop < 0:
                break
            at = stop + 1
            continue
        value = stop + 1 + _LENGTH_BYTES
        if stop < 0 or value > size:
            return at, size, "broken"
        end = value + int.from_bytes(body[stop + 1 : value], "little")
        if end >= size or body[end] != ord("\n"):
            return at, size, "broken"
        at = end + 1
    return at, size, "open"


def _values(entry: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    at, size = 0, len(entry)
    while at < size:
        stop = entry.find(b"\n", at)
        stop = size if stop < 0 else stop
        name, equals, value = entry[at:stop].partition(b"=")
        if not equals:
            start = stop + 1 + _LENGTH_BYTES
            length = int.from_bytes(entry[stop + 1 : start], "little")
            value, stop = entry[start : start + length], start + length
        if not name.startswith(_OURS):
            values.setdefault(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
        at = stop + 1
    priority = values.get("PRIORITY", "")
    if len(priority) == 1 and priority in "01234567":
        values["^severity"] = _SEVERITIES[int(priority)]
    program = values.get("_COMM") or values.get("SYSLOG_IDENTIFIER", "")
    login = logins.told(program, values.get("MESSAGE", "")[:_WINDOW])
    return values | {f"^{name}": value for name, value in login.items()}


SOURCE = Journal()
