"""VPC Flow Logs and Transit Gateway Flow Logs: one line a flow, fields named by the first line.

Any field list in any order is understood; the header line is each record's context. A body without a header is read as
version 2, AWS's default list, when its lines fit that. Fields this version of the service does not know survive by name
in the column `extra` (a map): the schema of a source must be the same for all its segments, or old and new ones could
not be one view.

`-` (not applicable) is null. NODATA and SKIPDATA lines are records like any other. A line whose number of fields does
not fit its header is broken. Field reference: Amazon VPC user guide, "Flow log records" (versions 2 to 10), and Amazon
VPC Transit Gateways, "Transit Gateway Flow Log records".

Columns come from Arrow's CSV reader, a whole batch at a time. Only what it refuses (an odd value, a double space, bytes
that are no UTF-8) is done again slowly, and gives every ordinary line the same columns.

A line that its columns give back is stored as its columns alone (`form`). AWS's own Parquet delivery becomes such
lines too: see vpcflowparquet.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from strongroom.archive.rebuilding import Form
from strongroom.ingest.sources import lines, vpcflowparquet
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Found, Split

_I16, _I32, _I64 = pa.int16(), pa.int32(), pa.int64()
_MAP = pa.map_(pa.string(), pa.string())

_DEFAULT = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
# The landing zone's usual list: the default one, and behind it these.
_LANDING_ZONE = (
    f"{_DEFAULT} vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr region az-id pkt-src-aws-service"
    " pkt-dst-aws-service flow-direction traffic-path"
)

# Fields whose column is text and has AWS's name.
_TEXT_FIELDS = (
    *("type", "vpc-id", "subnet-id", "instance-id", "az-id", "sublocation-type", "sublocation-id"),
    *("resource-id", "resource-type", "ecs-cluster-arn", "ecs-cluster-name", "ecs-container-instance-arn"),
    *("ecs-container-instance-id", "ecs-container-id", "ecs-second-container-id", "ecs-service-name"),
    *("ecs-task-definition-arn", "ecs-task-arn", "ecs-task-id", "tgw-id", "tgw-attachment-id"),
    *("tgw-pair-attachment-id", "tgw-src-vpc-account-id", "tgw-dst-vpc-account-id", "tgw-src-vpc-id"),
    *("tgw-dst-vpc-id", "tgw-src-subnet-id", "tgw-dst-subnet-id", "tgw-src-eni", "tgw-dst-eni"),
    *("tgw-src-az-id", "tgw-dst-az-id"),
)

# AWS's field name → (column, type). Columns that mean the same as elsewhere have the name they have elsewhere.
_FIELDS: dict[str, tuple[str, pa.DataType]] = {
    "version": ("version", _I16),
    "account-id": ("account", TEXT),
    "region": ("region", TEXT),
    "interface-id": ("interface_id", TEXT),
    "srcaddr": ("source_address", TEXT),
    "dstaddr": ("destination_address", TEXT),
    "srcport": ("source_port", _I32),
    "dstport": ("destination_port", _I32),
    "protocol": ("protocol", _I32),
    "packets": ("packets", _I64),
    "bytes": ("bytes", _I64),
    "start": ("start_time", TIME),
    "end": ("end_time", TIME),
    "action": ("action", TEXT),
    "log-status": ("log_status", TEXT),
    "tcp-flags": ("tcp_flags", _I32),
    "flow-direction": ("flow_direction", TEXT),
    "traffic-path": ("traffic_path", _I32),
    "pkt-srcaddr": ("packet_source_address", TEXT),
    "pkt-dstaddr": ("packet_destination_address", TEXT),
    "pkt-src-aws-service": ("packet_source_service", TEXT),
    "pkt-dst-aws-service": ("packet_destination_service", TEXT),
    "reject-reason": ("reject_reason", TEXT),
    "encryption-status": ("encryption_status", TEXT),
    "packets-lost-no-route": ("packets_lost_no_route", _I64),
    "packets-lost-blackhole": ("packets_lost_blackhole", _I64),
    "packets-lost-mtu-exceeded": ("packets_lost_mtu_exceeded", _I64),
    "packets-lost-ttl-expired": ("packets_lost_ttl_expired", _I64),
} | {name: (name.replace("-", "_"), TEXT) for name in _TEXT_FIELDS}

_STATUSES = (b"OK", b"NODATA", b"SKIPDATA")

# Parts of field names of which every useful header has one, and hardly any line of values.
_HEADER_WORDS = (b"-id", b"addr")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_ODD = (b"\t", b"\v", b"\f", b"\r", b"\x00")  # what the CSV reader or a C string might take for a boundary
_LAST_SECOND = 253_402_300_799  # the year 9999, where DuckDB's and Python's calendars end


class VpcFlow:
    """See the module."""

    name = "vpcflow"
    description = "Network flows recorded by VPC and Transit Gateway Flow Logs"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("account", "event_time")
    summary_columns: tuple[str, ...] = (
        "account",
        "region",
        "interface_id",
        "source_address",
        "destination_address",
        "action",
    )
    schema = pa.schema([*_FIELDS.values(), ("extra", _MAP)])

    events: Mapping[str, str] = {
        "source": "'vpcflow'",
        "event_time": "event_time",
        "account": "account",
        "region": "region",
        "actor": "NULL::VARCHAR",
        "action": "CASE WHEN source_address IS NOT NULL THEN 'connect' END",
        "target": "nullif(concat_ws(':', destination_address, destination_port), '')",
        "source_address": "source_address",
        "outcome": "CASE action WHEN 'ACCEPT' THEN 'success' WHEN 'REJECT' THEN 'denied' END",
        "severity": "NULL::VARCHAR",
        "event_id": "NULL::VARCHAR",
        "message": "CASE WHEN log_status <> 'OK' THEN log_status END",
    }

    def recognise(self, head: bytes) -> bool:
        """A header line, or a first line that fits the default list; or Parquet, which tells only at its end."""
        if head.startswith(vpcflowparquet.MAGIC):
            return True
        first = head.removeprefix(lines.BOM).lstrip().partition(b"\n")[0]
        return _is_header(first) or _is_default(first)

    def split(self, body: bytes) -> Split:
        """Lines, but for header lines, which become the context of those that follow."""
        if body.startswith(vpcflowparquet.MAGIC):
            return vpcflowparquet.split(body, _is_header)
        reason = lines.binary(body)
        if reason is not None:
            return lines.whole(body, reason)
        found = Found()
        start, header = 0, None
        records = lines.lines(body)
        # Several files may have been joined: a header can stand anywhere.
        for at in _headers(body, records):
            _fit(records[start:at], header, found)
            start, header = at + 1, records[at]
        _fit(records[start:], header, found)
        return found.split()

    def form(self, context: bytes | None) -> Form | None:
        """A line is its fields, if each has a column of its own."""
        names = _names(context)
        columns = tuple(_FIELDS[name][0] for name in names if name in _FIELDS)
        return Form(context, columns) if len(set(columns)) == len(names) else None

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Each run of lines under one header is read at once."""
        tables, start = [], 0
        while start < len(raw):
            header = None if context is None else context[start]
            stop = len(raw) if context is None else _run_end(context, start)
            tables.append(_columns(raw[start:stop], _names(header)))
            start = stop
        return pa.concat_tables(tables) if tables else _table(0, {}, {})


def presumed(line: bytes) -> bytes | None:
    """The header that a line must have had, where none came with it: CloudWatch Logs delivers flows without.

    The default list in its order, or the landing zone's, as far as the line goes. None for a line of any other kind.
    """
    parts = line.split()
    names = _LANDING_ZONE.split()
    fits = len(_DEFAULT.split()) <= len(parts) <= len(names) and parts[0].isdigit() and len(parts[0]) <= 2
    if not fits or parts[13] not in _STATUSES or parts[12] not in (b"ACCEPT", b"REJECT", b"-"):
        return None
    return " ".join(names[: len(parts)]).encode()


def _names(header: bytes | None) -> list[str]:
    """Field names in AWS's spelling; the Parquet delivery's underscores are taken for hyphens."""
    text = _DEFAULT if header is None else header.partition(b"\n")[0].decode("utf-8", "replace")
    return [name.replace("_", "-") for name in text.split()]


def _is_header(line: bytes) -> bool:
    names = [name.decode("ascii", "replace") for name in line[:4096].split()]
    known = sum(name.replace("_", "-") in _FIELDS for name in names)
    return known >= 2 and 2 * known >= len(names) and all(map(_NAME.fullmatch, names))


def _is_default(line: bytes) -> bool:
    parts = line.split()
    return len(parts) == 14 and parts[0] == b"2" and parts[-1] in _STATUSES


def _headers(body: bytes, records: list[bytes]) -> list[int]:
    """Where header lines stand. The body is searched as a whole: lines of values cost next to nothing."""
    if not records:
        return []
    first = [0] if _is_header(records[0]) else []
    after = body.find(records[0]) + len(records[0])
    if all(body.find(word, after) < 0 for word in _HEADER_WORDS):
        return first
    rest = (i for i, line in enumerate(records[1:], 1) if any(word in line for word in _HEADER_WORDS))
    return first + [i for i in rest if _is_header(records[i])]


def _fit(records: list[bytes], header: bytes | None, found: Found) -> None:
    """Tell the lines that fit their header."""
    wanted = len(_names(header))
    if header is None and not all(map(_is_default, records)):
        for line in records:
            if _is_default(line):
                found.record(line)
            else:
                found.damaged(line, "no header line, and not of the default format (version 2)")
        return
    spaces = pc.count_substring(pa.array(records, pa.binary()), " ")
    if records and pc.all(pc.equal(spaces, wanted - 1)).as_py():
        found.extend(records, header)
        return
    fits = [line.count(b" ") == wanted - 1 or len(line.split()) == wanted for line in records]
    if header is not None and not any(fits):
        found.damaged(header, "a header line without a line that fits it")  # no record carries it as its context
    for line, fitting in zip(records, fits, strict=True):
        if fitting:
            found.record(line, header)
        else:
            found.damaged(line, "the number of fields does not fit the header line")


def _run_end(context: Sequence[bytes | None], start: int) -> int:
    header = context[start]
    for at in range(start + 1, len(context)):
        if context[at] is not header and context[at] != header:
            return at
    return len(context)


def _columns(raw: Sequence[bytes], names: list[str]) -> pa.Table:
    """Typed columns of lines under one header."""
    text = b"\n".join(raw)
    types = [_FIELDS[n][1] if n in _FIELDS else TEXT for n in names]
    stored = {str(i): _I64 if t == TIME else t for i, t in enumerate(types)}
    read: dict[int, pa.Array] | None = None
    if text.isascii() and not any(odd in text for odd in _ODD):
        read = _read(text, stored)
    if read is None or any(len(column) != len(raw) for column in read.values()):
        # Normalised: single spaces, valid UTF-8; everything as text, and converted value by value where needed.
        text = b"\n".join(_normal(line, len(names)) for line in raw)
        as_text = _read(text, dict.fromkeys(stored, TEXT)) or {}
        read = {i: _converted(column, stored[str(i)]) for i, column in as_text.items()}
    typed: dict[str, pa.Array] = {}
    extra: dict[str, pa.Array] = {}
    for i, name in enumerate(names):
        column, kind = _FIELDS.get(name, (name, None))
        if kind is None or column in typed:
            extra[name if name not in extra else f"{name}#{i}"] = read[i].cast(TEXT)
        else:
            typed[column] = _time(read[i]) if kind == TIME else read[i]
    return _table(len(raw), typed, extra)


def _read(text: bytes, types: Mapping[str, pa.DataType]) -> dict[int, pa.Array] | None:
    """Arrow's CSV reader over lines of single-spaced fields; None when it refuses them."""
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(text) + 1),
            parse_options=csv.ParseOptions(
                delimiter=" ", quote_char=False, escape_char=False, ignore_empty_lines=False
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict(types),
                null_values=["-", ""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return {i: column.combine_chunks() for i, column in enumerate(table.columns)}


def _normal(line: bytes, wanted: int) -> bytes:
    parts = line.split(b" ")
    if len(parts) != wanted:
        parts = line.split()
    # Nothing may be left that the reader takes for a separator; a missing field is an empty one.
    clean = [
        part.translate(None, b"\n" + b"".join(_ODD)).decode("utf-8", "replace").encode() for part in parts[:wanted]
    ]
    return b" ".join(clean + [b"-"] * (wanted - len(clean)))


def _converted(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == TEXT:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return pa.concat_arrays([_cell(column.slice(i, 1), kind) for i in range(len(column))])


def _cell(value: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return value.cast(kind)
    except pa.ArrowInvalid:
        return pa.nulls(1, kind)


def _time(seconds: pa.Array) -> pa.Array:
    sane = pc.and_(pc.greater_equal(seconds, 0), pc.less_equal(seconds, _LAST_SECOND))
    return pc.if_else(sane, seconds, None).cast(pa.timestamp("s", tz="UTC")).cast(TIME)


def _table(rows: int, typed: Mapping[str, pa.Array], extra: Mapping[str, pa.Array]) -> pa.Table:
    columns = {"event_time": typed.get("start_time", pa.nulls(rows, TIME))}
    for field in VpcFlow.schema:
        columns[field.name] = typed.get(field.name, pa.nulls(rows, field.type))
    if extra:
        cells = {name: column.to_pylist() for name, column in extra.items()}
        rows_of = [[(n, values[row]) for n, values in cells.items() if values[row] is not None] for row in range(rows)]
        columns["extra"] = pa.array([row or None for row in rows_of], _MAP)
    return pa.table(columns)


SOURCE = VpcFlow()
