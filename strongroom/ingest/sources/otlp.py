"""OpenTelemetry logs as OTLP/HTTP sends them: one ExportLogsServiceRequest, as protobuf or as JSON.

A record is one LogRecord, byte for byte as it was sent. Its context is the request with everything else cut out: the
resource and the scope it belongs to, exact, in the encoding it came in; still an ExportLogsServiceRequest. Both
encodings give the same columns. `attributes`, `resource_attributes` and a structured `body` are JSON text, so that
protobuf, too, can be asked by path: `attributes->>'$."http.route"'`.

Source: opentelemetry-proto, logs/v1 and common/v1; OTLP specification, "JSON Protobuf Encoding" (ids are hexadecimal,
64-bit integers are strings or numbers).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import fields, lenient, lines, outline, protobuf
from strongroom.ingest.sources.declared import CONTEXT, events, surroundings
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.nested import Nest
from strongroom.ingest.sources.protobuf import LENGTH, Field, Malformed
from strongroom.ingest.sources.source import TIME, Contexts, Found, Split

_OBJECT = ord("{")
_NEST = Nest(("resourceLogs", "scopeLogs", "logRecords"), _OBJECT)
_MESSAGE = b"\x0a"
"""How a request begins in protobuf: the tag of resource_logs. In JSON it would be a line feed."""
_INSIDE = (1, 2, 2)
"""Numbers of the fields with the next deeper message: resource_logs, scope_logs, log_records."""
_DEEPEST = 24
_SEVERITIES = ("trace", "debug", "info", "warn", "error", "fatal")

_FIELDS = (
    field("event_time", "timeUnixNano", "observedTimeUnixNano", type=TIME),
    field("observed_time", "observedTimeUnixNano", type=TIME),
    field("severity", "severityText", "severityName"),
    field("severity_number", "severityNumber", type=pa.int64()),
    field("body", "body"),
    field("event_name", "eventName"),
    field("trace_id", "traceId"),
    field("span_id", "spanId"),
    field("attributes", "attributes"),
    field("service", (CONTEXT, "service.name")),
    field("host", (CONTEXT, "host.name")),
    field("account", (CONTEXT, "cloud.account.id")),
    field("region", (CONTEXT, "cloud.region")),
    field("scope", (CONTEXT, "^scope")),
    field("resource_attributes", (CONTEXT, "^attributes")),
)


class Otlp:
    """See the module."""

    name = "otlp"
    description = "OpenTelemetry log records, as OTLP/HTTP sends them"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("service", "event_time")
    summary_columns: tuple[str, ...] = ("service", "host", "account")
    schema = fields.schema(_FIELDS)
    events: Mapping[str, str] = events(
        "otlp",
        account="account",
        region="region",
        action="coalesce(event_name, scope)",
        target="coalesce(service, host)",
        severity="lower(severity)",
        event_id="trace_id",
        message="body",
    )

    def recognise(self, head: bytes) -> bool:
        """By the outermost member; protobuf is not recognised."""
        return outline.has(head, ("resourceLogs",))

    def split(self, body: bytes) -> Split:
        """Every LogRecord."""
        if body.startswith(_MESSAGE):
            try:
                return _split(body)
            except Malformed:
                pass
        if body.lstrip()[:1] == b"{":
            return _NEST.split(body)
        return lines.whole(body, "no OTLP request") if body else Found().split()

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns of the record and of the resource and scope around it."""
        around = surroundings(context, len(raw), _around)
        return fields.table(_FIELDS, [{**_record(r), CONTEXT: told} for r, told in zip(raw, around, strict=True)])


# -- the records of a protobuf request


def _split(body: bytes) -> Split:
    found = Found()
    for record, around in _records(body, Field(0, LENGTH, 0, 0, len(body)), 0):
        if record is None:
            found.damaged(around, "holds no records")
        else:
            found.record(record, around)
    # Without a record, there is none to carry what surrounds the branches.
    split = found.split()
    return split if split.raw else lines.whole(body, "holds no records")


def _records(body: bytes, message: Field, depth: int) -> list[tuple[bytes | None, bytes]]:
    """(record, the message around it with the other branches cut out); (None, its bytes) for a branch without any."""
    inner = list(protobuf.fields(body, message.start, message.end))
    rest = b"".join(body[f.tag_start : f.end] for f in inner if not _is(f, _INSIDE[depth]))
    found: list[tuple[bytes | None, bytes]] = []
    for branch in (f for f in inner if _is(f, _INSIDE[depth])):
        if depth == len(_INSIDE) - 1:
            found.append((body[branch.start : branch.end], rest))
            continue
        below = _records(body, branch, depth + 1)
        if all(record is None for record, _ in below):
            found.append((None, body[branch.tag_start : branch.end]))
            continue
        for record, around in below:
            told = around if record is None else rest + protobuf.encode(_INSIDE[depth], around)
            found.append((record, told))
    return found


def _is(field: Field, number: int) -> bool:
    return field.number == number and field.wire == LENGTH


# -- columns


def _record(record: bytes) -> dict[str, Any]:
    """The members of one LogRecord in their JSON names, attributes and body made plain."""
    if record[:1] == b"{":
        values = dict(lenient.record(record))
        attributes, body = _json_attributes(values.get("attributes")), _json_value(values.get("body"))
        values |= {name: _integer(values.get(name)) for name in ("timeUnixNano", "observedTimeUnixNano")}
    else:
        try:
            values, attributes, body = _message(record)
        except (Malformed, RecursionError):
            return {}
    number = values.get("severityNumber")
    if isinstance(number, int) and 1 <= number <= 24:
        values["severityName"] = _SEVERITIES[(number - 1) // 4]
    values["attributes"], values["body"] = _text(attributes or None), _text(body)
    return values


def _message(record: bytes) -> tuple[dict[str, Any], dict[str, Any], Any]:
    values: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    body: Any = None
    for f in protobuf.fields(record):
        if f.number in _NUMBERS:
            values[_NUMBERS[f.number]] = protobuf.number(record, f)
        elif f.wire != LENGTH:
            continue
        elif f.number in _TEXTS:
            values[_TEXTS[f.number]] = protobuf.text(record, f)
        elif f.number in _IDS:
            values[_IDS[f.number]] = record[f.start : f.end].hex()
        elif f.number == 5:
            body = _any(record, f.start, f.end, 0)
        elif f.number == 6:
            attributes.update(_pairs(record, f.start, f.end, 0))
    return values, attributes, body


_NUMBERS = {1: "timeUnixNano", 2: "severityNumber", 11: "observedTimeUnixNano"}
_TEXTS = {3: "severityText", 12: "eventName"}
_IDS = {9: "traceId", 10: "spanId"}


def _pairs(message: bytes, start: int, end: int, depth: int) -> dict[str, Any]:
    """One KeyValue."""
    key, value = "", None
    for f in protobuf.fields(message, start, end):
        if f.wire == LENGTH and f.number == 1:
            key = protobuf.text(message, f)
        elif f.wire == LENGTH and f.number == 2:
            value = _any(message, f.start, f.end, depth)
    return {key: value}


def _any(message: bytes, start: int, end: int, depth: int) -> Any:
    """One AnyValue; what is nested deeper than anybody nests is left out."""
    if depth > _DEEPEST:
        return None
    value: Any = None
    for f in protobuf.fields(message, start, end):
        if f.number == 1 and f.wire == LENGTH:
            value = protobuf.text(message, f)
        elif f.number == 2 and f.wire == protobuf.VARINT:
            value = bool(protobuf.number(message, f))
        elif f.number == 3 and f.wire == protobuf.VARINT:
            unsigned = protobuf.number(message, f)
            value = unsigned - (1 << 64) if unsigned >> 63 else unsigned
        elif f.number == 4 and f.wire == protobuf.FIXED64:
            value = struct.unpack_from("<d", message, f.start)[0]
        elif f.number == 5 and f.wire == LENGTH:
            inner = [g for g in protobuf.fields(message, f.start, f.end) if _is(g, 1)]
            value = [_any(message, g.start, g.end, depth + 1) for g in inner]
        elif f.number == 6 and f.wire == LENGTH:
            value = {}
            for g in protobuf.fields(message, f.start, f.end):
                if _is(g, 1):
                    value.update(_pairs(message, g.start, g.end, depth + 1))
        elif f.number == 7 and f.wire == LENGTH:
            value = base64.b64encode(message[f.start : f.end]).decode()
    return value


def _json_attributes(pairs: Any, depth: int = 0) -> dict[str, Any]:
    if not isinstance(pairs, list):
        return {}
    return {
        pair["key"]: _json_value(pair.get("value"), depth + 1)
        for pair in pairs
        if isinstance(pair, dict) and isinstance(pair.get("key"), str)
    }


def _json_value(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, dict) or depth > _DEEPEST:
        return None
    for kind, inner in value.items():
        if kind == "intValue":
            return _integer(inner)
        if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
            return inner
        if kind == "arrayValue" and isinstance(inner, dict) and isinstance(inner.get("values"), list):
            return [_json_value(item, depth + 1) for item in inner["values"]]
        if kind == "kvlistValue" and isinstance(inner, dict):
            return _json_attributes(inner.get("values"), depth + 1)
    return None


def _around(context: bytes) -> dict[str, Any]:
    """The attributes of the resource; `^attributes` is their text, `^scope` the scope's name."""
    if context[:1] == b"{":
        resource, scope = _json_around(context)
    else:
        try:
            resource, scope = _proto_around(context)
        except (Malformed, RecursionError):
            return {}
    return {**resource, "^attributes": _text(resource or None), "^scope": scope}


def _json_around(context: bytes) -> tuple[dict[str, Any], str | None]:
    request = lenient.record(context)
    branch = _first(request.get("resourceLogs"))
    scope = _first(branch.get("scopeLogs")).get("scope")
    resource = branch.get("resource")
    name = scope.get("name") if isinstance(scope, dict) else None
    return _json_attributes(resource.get("attributes") if isinstance(resource, dict) else None), fields.text(name)


def _proto_around(context: bytes) -> tuple[dict[str, Any], str | None]:
    resource: dict[str, Any] = {}
    scope = None
    branch = next((f for f in protobuf.fields(context) if _is(f, 1)), None)
    for f in protobuf.fields(context, branch.start, branch.end) if branch else ():
        if _is(f, 1):
            for g in protobuf.fields(context, f.start, f.end):
                if _is(g, 1):
                    resource.update(_pairs(context, g.start, g.end, 0))
        elif _is(f, 2):
            for g in protobuf.fields(context, f.start, f.end):
                if _is(g, 1):
                    names = (h for h in protobuf.fields(context, g.start, g.end) if _is(h, 1))
                    scope = next((protobuf.text(context, h) for h in names), None)
    return resource, scope or None


def _first(items: Any) -> Mapping[str, Any]:
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


def _integer(value: Any) -> int | None:
    """A 64-bit integer as JSON carries it; 0 is OTLP's word for unknown times."""
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 21:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """A string as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


SOURCE = Otlp()
