"""Documents of Elasticsearch bulk requests: pairs of an action line and a document line.

A record is the document as it was sent, its context the action line before it (operation, index, id). A `delete` has no
document: its action line is the record. Nothing is ever updated or deleted here; what a client asked for is what is
kept. Blank lines between pairs, and a missing last line feed, are taken (rsyslog sends the first, others the second).
Columns follow the Elastic Common Schema, where shippers do. Source: Elasticsearch, "Bulk API".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from strongroom.ingest.sources.declared import CONTEXT, JsonSource, events
from strongroom.ingest.sources.documents import MALFORMED
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.lines import BOM
from strongroom.ingest.sources.source import TIME, Found, Split

OPERATIONS = ("index", "create", "update", "delete")
_ACTION = re.compile(rb'\s*\{\s*"(index|create|update|delete)"\s*:\s*\{')
_JSON: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)
_BLANK = b" \t\r\n"


def pairs(body: bytes) -> Iterator[tuple[str, bytes, bytes | None, bytes]]:
    """(operation, action line, document line, both as they stand) of a body; operation "" for a line out of order.

    Lines are without white space around them; a document is None after `delete` and where the body ends too early.
    """
    at, end = (len(BOM) if body.startswith(BOM) else 0), len(body)
    while at < end:
        start, stop, at = _line(body, at, end)
        action = body[start:stop]
        if not action:
            continue
        known = _ACTION.match(action)
        if known is None:
            yield "", action, None, action
            continue
        operation = known[1].decode()
        first, last, after = stop, stop, at
        while operation != "delete" and first == last and after < end:
            first, last, after = _line(body, after, end)
        if operation == "delete" or first == last:
            yield operation, action, None, action
        else:
            yield operation, action, body[first:last], body[start:last]
            at = after


def _line(body: bytes, at: int, end: int) -> tuple[int, int, int]:
    """(start, stop, next line) of the line at `at`, white space around it left out."""
    stop = body.find(b"\n", at)
    after = end if stop < 0 else stop + 1
    stop = end if stop < 0 else stop
    while at < stop and body[at] in _BLANK:
        at += 1
    while stop > at and body[stop - 1] in _BLANK:
        stop -= 1
    return at, stop, after


class Bulk(JsonSource):
    """See the module."""

    def recognise(self, head: bytes) -> bool:
        """Begins with an action line."""
        return _ACTION.match(head) is not None

    def split(self, body: bytes) -> Split:
        """Every document."""
        found = Found()
        for operation, action, document, both in pairs(body):
            if operation == "delete" and _sound(action):
                found.record(action)
            elif document is not None and _sound(document) and _sound(action):
                found.record(document, action)
            else:
                found.damaged(both, "not an action with its document" if operation else "not an action line")
        return found.split()


def _sound(line: bytes) -> bool:
    try:
        return memoryview(_JSON.decode(line))[0] == ord("{")
    except MALFORMED:
        # Lone surrogates are refused by the decoder and no fault of the line: what else is wrong, columns will show.
        return line[:1] == b"{" and line[-1:] == b"}"


SOURCE = Bulk(
    name="bulk",
    description="Documents of Elasticsearch bulk requests, as Beats, Logstash, rsyslog and others send them",
    columns=(
        field("event_time", "@timestamp", "timestamp", "time", type=TIME),
        *(
            field(name, *(f"{CONTEXT}.{operation}.{member}" for operation in OPERATIONS), *more)
            for name, member, more in (("index", "_index", ()), ("document_id", "_id", ()))
        ),
        field("host", "host.name", "host.hostname", ("host.name",), "host", "HOST", "hostname"),
        field("program", "process.name", "program", "PROGRAM", "service.name", "agent.type"),
        field("severity", "log.level", ("log.level",), "level", "severity", "PRIORITY"),
        field("actor", "user.name", "user"),
        field("action", "event.action", "event.code"),
        field("source_address", "source.ip", "client.ip", "fromhost-ip", "SOURCEIP"),
        field("outcome", "event.outcome"),
        field("event_id", "event.id"),
        field("message", "message", "MESSAGE", "msg", "log"),
    ),
    events=events(
        "bulk",
        actor="actor",
        action="coalesce(action, program)",
        target="coalesce(host, index)",
        source_address="source_address",
        outcome="CASE WHEN outcome IN ('success', 'failure') THEN outcome END",
        severity="lower(severity)",
        event_id="coalesce(event_id, document_id)",
        message="message",
    ),
    sort=("index", "host", "event_time"),
    summary_columns=("index", "host", "program", "source_address"),
)
