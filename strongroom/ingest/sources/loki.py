"""Streams as clients push them to Grafana Loki: lines under labels, as JSON or as protobuf.

A record is one entry of a stream, byte for byte: `["1795518005749274834", "the line", {…}]` in JSON, the message
EntryAdapter in protobuf. Its context is the push request with everything else cut out, so the stream's labels, in the
encoding they came in. `line` is the line, `labels` and `metadata` are JSON text. Source: Grafana Loki, "Loki HTTP API",
and logproto's push.proto (PushRequest, StreamAdapter, EntryAdapter). Its protobuf comes as one raw snappy block, which
the intake has undone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import fields, lenient, lines, outline, protobuf
from strongroom.ingest.sources.declared import CONTEXT, events, surroundings
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.nested import Nest
from strongroom.ingest.sources.protobuf import LENGTH, Malformed
from strongroom.ingest.sources.source import TIME, Contexts, Found, Split

_NEST = Nest(("streams", "values"), ord("["))
_MESSAGE = b"\x0a"
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

_FIELDS = (
    field("event_time", "time", type=TIME),
    field("line", "line"),
    field("severity", "metadata.level", "metadata.detected_level", *((CONTEXT, n) for n in ("level", "severity"))),
    field("host", *((CONTEXT, name) for name in ("host", "hostname", "instance", "node_name"))),
    field("program", *((CONTEXT, name) for name in ("app", "service_name", "service", "job", "container"))),
    field("labels", (CONTEXT, "^labels")),
    field("metadata", "^metadata"),
)


class Loki:
    """See the module."""

    name = "loki"
    description = "Lines under labels, as clients push them to Grafana Loki"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("program", "host", "event_time")
    summary_columns: tuple[str, ...] = ("program", "host")
    schema = fields.schema(_FIELDS)
    events: Mapping[str, str] = events(
        "loki", action="program", target="coalesce(host, program)", severity="lower(severity)", message="line"
    )

    def recognise(self, head: bytes) -> bool:
        """By the members of a stream; protobuf is not recognised."""
        return outline.has(head, ("streams.stream", "streams.values"))

    def split(self, body: bytes) -> Split:
        """Every entry of every stream."""
        if body.startswith(_MESSAGE):
            try:
                return _split(body)
            except Malformed:
                pass
        if body.lstrip()[:1] == b"{":
            return _NEST.split(body)
        return lines.whole(body, "no Loki push request") if body else Found().split()

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns of the entry and of the labels around it."""
        around = surroundings(context, len(raw), _around)
        return fields.table(_FIELDS, [{**_entry(r), CONTEXT: labels} for r, labels in zip(raw, around, strict=True)])


def _around(stream: bytes) -> Mapping[str, Any]:
    labels = _labels(stream)
    return {**labels, "^labels": msgspec.json.encode(labels).decode()}


def _split(body: bytes) -> Split:
    """The entries of a protobuf request. Raises Malformed."""
    found = Found()
    top = list(protobuf.fields(body))
    rest = b"".join(body[f.tag_start : f.end] for f in top if f.number != 1 or f.wire != LENGTH)
    for stream in (f for f in top if f.number == 1 and f.wire == LENGTH):
        inner = list(protobuf.fields(body, stream.start, stream.end))
        around = b"".join(body[f.tag_start : f.end] for f in inner if f.number != 2 or f.wire != LENGTH)
        entries = [body[f.start : f.end] for f in inner if f.number == 2 and f.wire == LENGTH]
        if entries:
            found.extend(entries, protobuf.encode(1, around) + rest)
        else:
            found.damaged(body[stream.tag_start : stream.end], "holds no entries")
    # Without an entry, there is none to carry what surrounds the streams.
    split = found.split()
    return split if split.raw else lines.whole(body, "holds no entries")


def _entry(record: bytes) -> dict[str, Any]:
    if record[:1] == b"[":
        values = lenient.plain(record)
        values = values if isinstance(values, list) else []
        time, line, metadata = (*values, None, None, None)[:3]
    else:
        try:
            time, line, metadata = _message(record)
        except Malformed:
            return {}
    metadata = metadata if isinstance(metadata, dict) else {}
    text = msgspec.json.encode(metadata).decode() if metadata else None
    return {"time": time, "line": line if isinstance(line, str) else None, "metadata": metadata, "^metadata": text}


def _message(record: bytes) -> tuple[int | None, str | None, dict[str, str]]:
    """(microseconds, line, structured metadata) of an EntryAdapter."""
    micros: int | None = None
    line = None
    metadata: dict[str, str] = {}
    for f in protobuf.fields(record):
        if f.wire != LENGTH:
            continue
        if f.number == 1:
            part = {g.number: protobuf.number(record, g) for g in protobuf.fields(record, f.start, f.end)}
            micros = part.get(1, 0) * 1_000_000 + part.get(2, 0) // 1000
        elif f.number == 2:
            line = protobuf.text(record, f)
        elif f.number == 3:
            pair = {g.number: protobuf.text(record, g) for g in protobuf.fields(record, f.start, f.end)}
            metadata[pair.get(1, "")] = pair.get(2, "")
    return micros, line, metadata


def _labels(context: bytes) -> dict[str, Any]:
    """The stream's labels."""
    if context[:1] == b"{":
        streams = lenient.record(context).get("streams")
        stream = streams[0] if isinstance(streams, list) and streams else None
        labels = stream.get("stream") if isinstance(stream, dict) else None
        return {k: v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, dict) else {}
    try:
        for f in protobuf.fields(context):
            if f.number == 1 and f.wire == LENGTH:
                for g in protobuf.fields(context, f.start, f.end):
                    if g.number == 1 and g.wire == LENGTH:
                        found = _LABEL.findall(protobuf.text(context, g))
                        return {name: _ESCAPE.sub(r"\1", value) for name, value in found}
    except Malformed:
        pass
    return {}


SOURCE = Loki()
