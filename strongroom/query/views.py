"""The SQL of the views: one a source, `events` across sources, `entries` and `segments` from the catalog. Pure.

A source's view has the typed columns of today's schema, whatever the segments were sealed with: columns a segment does
not have are NULL, columns the schema no longer has are left out (they are still in `raw`). A source without segments
is an empty view with the right types.

`raw` and `context` are stored as bytes. Investigators read and search them as text (`raw->>'$.userIdentity.arn'`), and
a record that is not valid UTF-8 must neither fail their query nor vanish from it. So the views split the two uses:

    raw         VARCHAR  the record as text; where the bytes are not valid UTF-8, DuckDB's escaped form ("\\xFF…")
    raw_bytes   BLOB     NULL where `raw` is exact; the record's exact bytes where it is not

The exact record is `coalesce(raw_bytes, encode(raw))`, always; the same for `context`. (`decode` fails on invalid
UTF-8; TRY turns that into NULL at no measurable cost, and both are skipped when the column is not asked for.)

Every row carries its address: `_segment`, the name of its segment, and `_row`, its row in it from 0, which is its
position in the segment's Merkle tree. The proof of a record follows from the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from strongroom.archive.rebuilding import ABSENT, SEPARATOR, Form
from strongroom.archive.segment import UNIVERSAL
from strongroom.query.catalog import ENTRIES_SCHEMA, SEGMENTS_SCHEMA

ENTRIES, SEGMENTS, EVENTS = "entries", "segments", "events"

EVENT_COLUMNS = {
    "account": "account the event belongs to",
    "region": "region or place",
    "actor": "who did it: an ARN, a user name, a principal",
    "action": "what was done",
    "target": "what it was done to",
    "source_address": "network address it came from",
    "outcome": "success, failure, denied, or NULL when the record does not say",
    "severity": "as the source states it",
    "event_id": "the source's own identifier of the record",
    "message": "one line for people",
}
_DESCRIPTIONS = {
    "event_time": "when it happened, as the record says; NULL when it does not",
    "received_at": "when its batch arrived here",
    "sequence": "number of its batch, counted by the writer",
    "position": "ordinal of the record in its batch, from 0",
    "raw": "the record as text",
    "raw_bytes": "the record's exact bytes where `raw` is not exact (not valid UTF-8), NULL elsewhere",
    "context": "what surrounded the record when it arrived: an envelope, a header line",
    "context_bytes": "as raw_bytes, for `context`",
    "_segment": "name of the segment the row is in",
    "_row": "row in that segment, from 0",
}


@dataclass(frozen=True, slots=True)
class ViewSource:
    """A source as the query engine sees it: typed columns, and how they map to `events` (column -> SQL; {} = not).

    `entities`: kind (address, principal, …) -> the columns that hold such a value; an index is kept of them.
    """

    name: str
    schema: pa.Schema
    events: Mapping[str, str]
    description: str
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view."""

    name: str
    type: str
    description: str = ""


def view_names(sources: Sequence[ViewSource]) -> list[str]:
    """Every view a query may name."""
    return [*(source.name for source in sources), EVENTS, ENTRIES, SEGMENTS]


def sources_of(views: Set[str], sources: Sequence[ViewSource]) -> list[ViewSource]:
    """The sources whose segments the named views read."""
    return [source for source in sources if source.name in views or (EVENTS in views and source.events)]


def columns_of(source: ViewSource) -> list[Column]:
    """The columns of a source's view, in order."""
    typed = [Column(field.name, sql_type(field.type)) for field in source.schema]
    names = ["raw", "raw_bytes", "context", "context_bytes", "received_at", "sequence", "position", "_segment", "_row"]
    types = ["VARCHAR", "BLOB", "VARCHAR", "BLOB", "TIMESTAMP WITH TIME ZONE", "BIGINT", "BIGINT", "VARCHAR", "BIGINT"]
    first = Column("event_time", "TIMESTAMP WITH TIME ZONE", _DESCRIPTIONS["event_time"])
    return [first, *typed, *(Column(n, t, _DESCRIPTIONS[n]) for n, t in zip(names, types, strict=True))]


def event_columns() -> list[Column]:
    """The columns of `events`, in order."""
    return [
        Column("source", "VARCHAR", "view that has the record with all its columns"),
        Column("event_time", "TIMESTAMP WITH TIME ZONE", _DESCRIPTIONS["event_time"]),
        *(Column(name, "VARCHAR", text) for name, text in EVENT_COLUMNS.items()),
        *(Column(name, "VARCHAR" if name != "_row" else "BIGINT", _DESCRIPTIONS[name])
          for name in ("raw", "_segment", "_row")),
    ]  # fmt: skip


def catalog_columns(view: str) -> list[Column]:
    """The columns of `entries` or `segments`."""
    schema = ENTRIES_SCHEMA if view == ENTRIES else SEGMENTS_SCHEMA
    return [Column(field.name, sql_type(field.type)) for field in schema]


# Names and types below come from our own schemas, quoted; nothing of a question is pasted into SQL.
# ruff: noqa: S608


def source_view(source: ViewSource, groups: Iterable[tuple[Sequence[Form], Sequence[Path]]], root: Path) -> str:
    """CREATE VIEW for one source over its segments' files, all of them under `root` (the folder of object names).

    The files of a group have the same columns: DuckDB then opens one of them to know the view, not all. Where they
    leave out records that their columns give back, the view makes them by the same forms (archive/rebuilding.py).
    """
    typed = {field.name: sql_type(field.type) for field in source.schema}
    stored = {field.name: sql_type(field.type) for field in UNIVERSAL} | typed
    chosen = [
        _as("event_time", stored["event_time"]),
        *(_as(name, kind) for name, kind in typed.items()),
        *_text_and_bytes("raw"),
        *_text_and_bytes("context"),
        *(_as(name, stored[name]) for name in ("received_at", "sequence", "position")),
        f"substr(_file, {len(root.as_posix()) + 2}) AS _segment",
        "CAST(file_row_number AS BIGINT) AS _row",
    ]
    columns = stored | {"_file": "VARCHAR", "file_row_number": "BIGINT"}
    empty = f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {quoted(n)}' for n, kind in columns.items())} WHERE false"
    rows = " UNION ALL BY NAME ".join([*(_rows(forms, files, stored) for forms, files in groups), empty])
    return f"CREATE VIEW {quoted(source.name)} AS SELECT {', '.join(chosen)} FROM ({rows})"


def _rows(forms: Sequence[Form], files: Sequence[Path], types: Mapping[str, str]) -> str:
    """The rows of files, their records rebuilt where a form says how (as archive/rebuilding.py does it)."""
    if not forms:
        return f"SELECT * FROM {_files(files)}"
    cases = " ".join(
        f"WHEN context IS NOT DISTINCT FROM {_bytes(form.context)} THEN {_line(form, types)}" for form in forms
    )
    return f"SELECT * REPLACE (coalesce(raw, encode(CASE {cases} END)) AS raw) FROM {_files(files)}"


def _line(form: Form, types: Mapping[str, str]) -> str:
    fields = []
    for name in form.columns:
        value = quoted(name)
        if types.get(name, "").startswith("TIMESTAMP"):
            value = f"epoch_us({value}) // 1000000"
        fields.append(f"coalesce(CAST({value} AS VARCHAR), '{ABSENT}')")
    return f"concat_ws('{SEPARATOR}', {', '.join(fields)})"


def _bytes(value: bytes | None) -> str:
    return "NULL" if value is None else f"unhex('{value.hex()}')"


def _files(group: Sequence[Path]) -> str:
    listed = ", ".join(literal(path.as_posix()) for path in group)
    options = "filename = '_file', file_row_number = true, hive_partitioning = false"
    return f"read_parquet([{listed}], {options})"


def events_view(sources: Sequence[ViewSource]) -> str:
    """CREATE VIEW events over the views of `sources`."""
    parts = [_event_rows(source) for source in sources if source.events]
    if not parts:
        columns = ", ".join(f"CAST(NULL AS {column.type}) AS {quoted(column.name)}" for column in event_columns())
        parts = [f"SELECT {columns} WHERE false"]
    return f"CREATE VIEW {EVENTS} AS {' UNION ALL '.join(parts)}"


def _event_rows(source: ViewSource) -> str:
    mapped = [f"CAST(({source.events.get(name, 'NULL')}) AS VARCHAR) AS {quoted(name)}" for name in EVENT_COLUMNS]
    event_time = source.events.get("event_time", "event_time")
    first = [f"{literal(source.name)} AS source", f"CAST(({event_time}) AS TIMESTAMPTZ) AS event_time"]
    return f"SELECT {', '.join([*first, *mapped, 'raw', '_segment', '_row'])} FROM {quoted(source.name)}"


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB type an Arrow type is read as. Raises ValueError for one no segment should have."""
    plain = {
        pa.string(): "VARCHAR",
        pa.large_string(): "VARCHAR",
        pa.binary(): "BLOB",
        pa.bool_(): "BOOLEAN",
        pa.int8(): "TINYINT",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.uint8(): "UTINYINT",
        pa.uint16(): "USMALLINT",
        pa.uint32(): "UINTEGER",
        pa.uint64(): "UBIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.date32(): "DATE",
    }
    if kind in plain:
        return plain[kind]
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_dictionary(kind):
        return sql_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quoted(field.name)} {sql_type(field.type)}' for field in kind)})"
    raise ValueError(f"no view column can have the type {kind}")


def _text_and_bytes(column: str) -> list[str]:
    return [
        f"coalesce(TRY(decode({column})), CAST({column} AS VARCHAR)) AS {column}",
        f"CASE WHEN {column} IS NOT NULL AND TRY(decode({column})) IS NULL THEN {column} END AS {column}_bytes",
    ]


def _as(name: str, kind: str) -> str:
    return f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}"


def quoted(name: str) -> str:
    """A name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as it stands in SQL."""
    return "'" + value.replace("'", "''") + "'"
