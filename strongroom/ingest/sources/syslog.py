"""Linux system logs: syslog in its two RFCs and as files have it, with sshd, sudo and PAM read; the audit daemon's.

One record a line. Understood are

    RFC 5424    <34>1 2003-10-11T22:14:15.003Z host program 1234 ID47 [structured data] message
    RFC 3164    <34>Oct 11 22:14:15 host program[1234]: message       (also without priority, as in /var/log/auth.log)
    rsyslog     2003-10-11T22:14:15.003+02:00 host program[1234]: message
    auditd      type=SYSCALL msg=audit(1364481363.243:24287): …

and every other line stays a record with nulls: nothing says where a message of several lines ends. The time of RFC 3164
has neither year nor zone. It is kept as it was written, in `written_time`, and not taken for an event time: a guessed
year would be wrong once a year, and differ with the day it is guessed on.

`user_name`, `source_address`, `source_port` and `result` (success, failure, denied) come from the messages of logins
that OpenSSH, sudo and PAM write, and from the audit daemon's fields. Sources: RFC 5424; RFC 3164; audit.rules(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from strongroom.ingest.sources import lines, logins, times
from strongroom.ingest.sources.declared import events, mostly
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split

_I32 = pa.int32()
_WINDOW = 8192  # characters of a line that are looked at
_SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug")

_PRIORITY = r"<(?P<priority>\d{1,3})>"
_ISO = r"[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_OLD_TIME = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
_STRUCTURED = r"(?:\[(?:[^\]\\\"]|\\.|\"(?:[^\"\\]|\\.)*+\")*+\])++"
_TAG = r"(?P<program>[\w./@,+-]{1,128}+)(?:\((?P<module>[\w-]{1,64})\))?(?:\[(?P<pid>\d{1,10})\])?:"
_PRIORITY_ONLY = re.compile(_PRIORITY, re.ASCII)
_RFC5424 = re.compile(
    rf"{_PRIORITY}1 (?P<time>{_ISO}|-) (?P<host>\S{{1,255}}) (?P<program>\S{{1,48}}) (?P<pid>\S{{1,128}})"
    rf" (?P<message_id>\S{{1,32}}) (?P<structured>-|{_STRUCTURED})(?: (?P<message>.*))?",
    re.DOTALL | re.ASCII,
)
# Programs on the host itself, and many devices, leave the host out.
_RFC3164 = re.compile(
    rf"(?:{_PRIORITY})?(?:(?P<time>{_ISO})|(?P<written>{_OLD_TIME}))"
    rf" (?:(?P<host>[^\s\[]{{1,255}}(?<!:)) )?{_TAG} ?(?P<message>.*)",
    re.DOTALL | re.ASCII,
)
_AUDIT = re.compile(
    r"(?:node=(?P<host>\S{1,255}) )?type=(?P<type>[A-Z0-9_]{1,64}|UNKNOWN\[\d+\])"
    r" msg=audit\((?P<time>\d{9,10}\.\d{3}):(?P<serial>\d{1,12})\):(?P<message>.*)",
    re.DOTALL | re.ASCII,
)
_LINE = re.compile(
    rb"<\d{1,3}>(?:1 )?(?:[A-Z12-])|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S|(?:node=\S+ )?type=\S+ msg=audit\("
    rb"|[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) \S+ [\w./@-]+(?:\[\d+\])?: "
)

# Values of the audit daemon: quoted ones are as they were, bare ones end at white space or at a quote.
_AUDITED = re.compile(
    r'(?<![\w-])(acct|addr|exe|res|success|AUID|auid|pid)=(?:"([^"]{0,1024})"|([^\s"\']{1,1024}))', re.ASCII
)
_RESULTS = {
    **dict.fromkeys(("success", "yes", "1"), "success"),
    **dict.fromkeys(("failed", "no", "0"), "failure"),
}


class Syslog:
    """See the module."""

    name = "syslog"
    description = "System logs of Linux hosts: syslog, logins, the audit daemon"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("host", "program", "event_time")
    summary_columns: tuple[str, ...] = ("host", "program", "user_name", "source_address")
    schema = pa.schema(
        {
            "format": TEXT,
            "written_time": TEXT,
            "facility": _I32,
            "severity": TEXT,
            "host": TEXT,
            "program": TEXT,
            "pid": _I32,
            "message_id": TEXT,
            "structured_data": TEXT,
            "message": TEXT,
            "user_name": TEXT,
            "source_address": TEXT,
            "source_port": _I32,
            "result": TEXT,
            "audit_type": TEXT,
            "audit_serial": TEXT,
            "executable": TEXT,
        }
    )
    events: Mapping[str, str] = events(
        "syslog",
        actor="user_name",
        action="coalesce(audit_type, program)",
        target="coalesce(host, executable)",
        source_address="source_address",
        outcome="result",
        severity="severity",
        event_id="audit_serial",
        message="coalesce(message, raw)",
    )

    def recognise(self, head: bytes) -> bool:
        """Most of the first lines begin as one of the formats does."""
        return mostly(head, _LINE)

    def split(self, body: bytes) -> Split:
        """Lines that are not blank; a binary body is one broken record."""
        reason = lines.binary(body)
        if reason is not None:
            return lines.whole(body, reason)
        return Split(raw=lines.lines(body), context=None, positions=None, broken=[])

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by shape, line by line."""
        rows = [_read(line[:_WINDOW].decode("utf-8", "replace")) for line in raw]
        schema = pa.schema([("event_time", pa.int64()), *self.schema])
        table = pa.table({c.name: pa.array([row.get(c.name) for row in rows], c.type) for c in schema})
        return table.set_column(0, "event_time", table["event_time"].cast(TIME))


def _read(line: str) -> Mapping[str, Any]:
    """What a line says, by column."""
    if match := _RFC5424.match(line):
        return {"format": "rfc5424", **dict(_of_syslog(match))}
    if match := _RFC3164.match(line):
        form = "rfc3164" if match["written"] else "rsyslog"
        return {"format": form, "written_time": match["written"], **dict(_of_syslog(match))}
    if match := _AUDIT.match(line):
        return {"format": "auditd", **dict(_of_audit(match))}
    priority = _PRIORITY_ONLY.match(line)
    return dict(_of_priority(int(priority["priority"]))) if priority else {}


def _of_syslog(match: re.Match[str]) -> Iterator[tuple[str, object]]:
    groups = match.groupdict()
    if groups["priority"]:
        yield from _of_priority(int(groups["priority"]))
    yield "event_time", times.microseconds(groups["time"])
    for column, group in (("host", "host"), ("program", "program"), ("message_id", "message_id")):
        yield column, _stated(groups.get(group))
    yield "structured_data", _stated(groups.get("structured"))
    yield "pid", logins.small(groups["pid"])
    message = groups["message"] or ""
    yield "message", message or None
    yield from logins.told(groups["program"], message).items()


def _of_priority(code: int) -> Iterator[tuple[str, object]]:
    if code < 192:
        yield "facility", code >> 3
        yield "severity", _SEVERITIES[code & 7]


def _of_audit(match: re.Match[str]) -> Iterator[tuple[str, object]]:
    yield "event_time", times.microseconds(match["time"])
    yield "host", match["host"]
    yield "program", "auditd"
    yield "audit_type", match["type"]
    yield "audit_serial", f"{match['time']}:{match['serial']}"
    yield "message", match["message"].strip() or None
    found: dict[str, str] = {}
    for name, quoted, bare in _AUDITED.findall(match["message"]):
        found.setdefault(name, quoted or bare)
    yield "pid", logins.small(found.get("pid"))
    user = found.get("acct") or found.get("AUID") or found.get("auid")
    yield "user_name", None if user in ("unset", "4294967295", "-1") else user
    address = found.get("addr")
    yield "source_address", None if address in ("?", "UNKNOWN") else address
    yield "executable", found.get("exe")
    yield "result", _RESULTS.get(found.get("res") or found.get("success") or "")


def _stated(value: str | None) -> str | None:
    return None if value == "-" else value


SOURCE = Syslog()
