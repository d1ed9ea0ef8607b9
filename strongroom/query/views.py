"""The SQL of the views: one a source, `events` across sources, `entries` and `segments` from the catalog. Pure.

A source's view has the typed columns of today's schema, whatever the segments were sealed with: columns a segment does
not have are NULL, columns the schema no longer has are left out (they are still in `raw`). A source without segments
is an empty view with the right types.

`raw` and `context` are stored as bytes. Investigators read and search them as text (`raw->>'$.userIdentity.arn'`), and
a record that is not valid UTF-8 must neither fail their query nor vanish from it. So the views split the two uses:

    raw         VARCHAR  the record as text; bytes that are not valid UTF-8 are shown as U+FFFD (decoding.py)
    raw_bytes   BLOB     NULL where `raw` is exact; the record's exact bytes where it is not

The exact record is `coalesce(raw_bytes, encode(raw))`, always; the same for `context`. (Where the index knows that all
of a segment is valid UTF-8, nothing of this is computed, which saves a sixth to a third of the time of a search through
the records.)

Every row carries its address: `_segment`, the name of its segment, and `_row`, its row in it from 0, which is its
position in the segment's Merkle tree. The proof of a record follows from the two.

A question that also asks for what is not sealed yet (query/unsealed.py) has one column more in every view, `_sealed`.
Where it is false there is no address and no proof: `_segment` and `_row` are NULL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from strongroom.archive.rebuilding import ABSENT, SEPARATOR, Form
from strongroom.query import decoding
from strongroom.query.holdings.catalog import ENTRIES_SCHEMA, SEGMENTS_SCHEMA

ENTRIES, SEGMENTS, EVENTS = "entries", "segments", "events"
MARK = "_sealed"
_NAMES = re.compile(r"[a-z_][a-z0-9_]*")

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
    "raw": "the record as text; U+FFFD for bytes that are not valid UTF-8",
    "raw_bytes": "the record's exact bytes where `raw` is not exact (not valid UTF-8), NULL elsewhere",
    "context": "what surrounded the record when it arrived: an envelope, a header line",
    "context_bytes": "as raw_bytes, for `context`",
    "_segment": "name of the segment the row is in",
    "_row": "row in that segment, from 0",
    "_sealed": "whether it is sealed; false: acknowledged, but not yet in the log",
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


def columns_of(source: ViewSource, *, marked: bool = False) -> list[Column]:
    """The columns of a source's view, in order. `marked`: with `_sealed`."""
    typed = [Column(field.name, sql_type(field.type)) for field in source.schema]
    names = ["raw", "raw_bytes", "context", "context_bytes", "received_at", "sequence", "position", "_segment", "_row"]
    types = ["VARCHAR", "BLOB", "VARCHAR", "BLOB", "TIMESTAMP WITH TIME ZONE", "BIGINT", "BIGINT", "VARCHAR", "BIGINT"]
    first = Column("event_time", "TIMESTAMP WITH TIME ZONE", _DESCRIPTIONS["event_time"])
    return [first, *typed, *(Column(n, t, _DESCRIPTIONS[n]) for n, t in zip(names, types, strict=True)), *_mark(marked)]


def event_columns(*, marked: bool = False) -> list[Column]:
    """The columns of `events`, in order. `marked`: with `_sealed`."""
    return [
        Column("source", "VARCHAR", "view that has the record with all its columns"),
        Column("event_time", "TIMESTAMP WITH TIME ZONE", _DESCRIPTIONS["event_time"]),
        *(Column(name, "VARCHAR", text) for name, text in EVENT_COLUMNS.items()),
        *(Column(name, "VARCHAR" if name != "_row" else "BIGINT", _DESCRIPTIONS[name])
          for name in ("raw", "_segment", "_row")),
        *_mark(marked),
    ]  # fmt: skip


def _mark(marked: bool) -> list[Column]:
    return [Column(MARK, "BOOLEAN", _DESCRIPTIONS[MARK])] if marked else []


def catalog_columns(view: str) -> list[Column]:
    """The columns of `entries` or `segments`."""
    schema = ENTRIES_SCHEMA if view == ENTRIES else SEGMENTS_SCHEMA
    return [Column(field.name, sql_type(field.type)) for field in schema]


# Names and types below come from our own schemas, quoted; nothing of a question is pasted into SQL.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class Files:
    """Segments' files that read alike: they have the same `columns`, and leave out the same records.

    `text`: all their records and contexts are known to be valid UTF-8. `sealed`: they are segments. `folded`: each of
    them holds the rows of several segments, with their addresses.
    """

    columns: frozenset[str]
    forms: Sequence[Form]
    paths: Sequence[Path]
    text: bool = False
    sealed: bool = True
    folded: bool = False


def source_view(
    source: ViewSource,
    groups: Sequence[Files],
    root: Path,
    needed: Collection[str] | None = None,
    *,
    marked: bool = False,
) -> str:
    """CREATE VIEW for one source over its segments' files, all of them under `root` (the folder of object names), and
    folds, which may be anywhere.

    Of a group of files DuckDB opens one to know the view, not all. Where they leave out records that their columns
    give back, the view makes them by the same forms (archive/rebuilding.py). `needed`: columns to have, by default all;
    a view has at least one. `marked`: with `_sealed`.
    """
    every = columns_of(source, marked=marked)
    wanted = [column for column in every if needed is None or column.name in needed]
    wanted = wanted or [column for column in every if column.name == "_row"]
    if not groups:
        return f"{_create(source.name)} {_nothing(wanted)}"
    names = {column.name for column in wanted}
    times = {column.name for column in every if column.type.startswith("TIMESTAMP")}
    rows = []
    for group in groups:
        columns = ", ".join(_stored(column, group, times, root) for column in wanted)
        rows.append(f"SELECT {columns} FROM {_files(group, names)}")
    return f"{_create(source.name)} {' UNION ALL '.join(rows)}"


def _stored(column: Column, group: Files, times: Collection[str], root: Path) -> str:
    """One column of a view, out of files; `times` are the columns of the source that hold times."""
    name = quoted(column.name)
    if column.name == MARK:
        return f"{'true' if group.sealed else 'false'} AS {name}"
    if column.name in ("_segment", "_row") and not group.sealed:
        return f"CAST(NULL AS {column.type}) AS {name}"
    if column.name in ("_segment", "_row") and group.folded:
        return name
    if column.name == "_segment":
        return f"substr(_file, {len(root.as_posix()) + 2}) AS _segment"
    if column.name == "_row":
        return "CAST(file_row_number AS BIGINT) AS _row"
    if column.name in ("raw", "context"):
        ways = [name] if group.text else [decoding.exact(name), decoding.tolerant(name)]
        ways += [_rebuilt(group, times)] if column.name == "raw" and group.forms else []
        return f"{'coalesce' if len(ways) > 1 else ''}({', '.join(ways)}) AS {name}"
    if column.name in ("raw_bytes", "context_bytes"):
        whole = column.name.removesuffix("_bytes")
        odd = f"CASE WHEN {whole} IS NOT NULL AND {decoding.exact(whole)} IS NULL THEN {whole} END"
        return f"{'CAST(NULL AS BLOB)' if group.text else odd} AS {name}"
    return f"CAST({name if column.name in group.columns else 'NULL'} AS {column.type}) AS {name}"


def _rebuilt(group: Files, times: Collection[str]) -> str:
    """The records that files leave out, made of their columns."""
    cases = []
    for form in group.forms:
        context = "NULL" if form.context is None else f"unhex('{form.context.hex()}')"
        if group.text and form.context is not None:
            if not _is_text(form.context):
                continue  # no such context in these files
            context = f"decode({context})"
        cases.append(f"WHEN context IS NOT DISTINCT FROM {context} THEN {_line(form, times)}")
    return f"CASE {' '.join(cases)} END" if cases else "NULL"


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _create(view: str) -> str:
    return f"CREATE OR REPLACE TEMP VIEW {quoted(view)} AS"


def _nothing(columns: Sequence[Column]) -> str:
    """A SELECT of no rows that have these columns."""
    return f"SELECT {', '.join(f'CAST(NULL AS {c.type}) AS {quoted(c.name)}' for c in columns)} WHERE false"


def _line(form: Form, times: Collection[str]) -> str:
    fields = []
    for name in form.columns:
        value = quoted(name)
        if name in times:
            value = f"epoch_us({value}) // 1000000"
        fields.append(f"coalesce(CAST({value} AS VARCHAR), '{ABSENT}')")
    return f"concat_ws('{SEPARATOR}', {', '.join(fields)})"


def _files(group: Files, columns: Collection[str]) -> str:
    listed = ", ".join(literal(path.as_posix()) for path in group.paths)
    options = ", binary_as_string = true" if group.text else ""
    options += ", filename = '_file'" if "_segment" in columns and not group.folded else ""
    options += ", file_row_number = true" if "_row" in columns and not group.folded else ""
    return f"read_parquet([{listed}], hive_partitioning = false{options})"


def events_view(sources: Sequence[ViewSource], needed: Collection[str] | None = None, *, marked: bool = False) -> str:
    """CREATE VIEW events over the views of `sources`, with the columns `needed` (by default all; at least one)."""
    every = event_columns(marked=marked)
    wanted = [column for column in every if needed is None or column.name in needed]
    wanted = wanted or [column for column in every if column.name == "_row"]
    rows = [_event_rows(source, wanted) for source in sources if source.events] or [_nothing(wanted)]
    return f"{_create(EVENTS)} {' UNION ALL '.join(rows)}"


def _event_rows(source: ViewSource, wanted: Sequence[Column]) -> str:
    values = {column.name: quoted(column.name) for column in wanted}
    values |= {name: f"({source.events.get(name, 'NULL')})" for name in EVENT_COLUMNS if name in values}
    values["source"] = literal(source.name)
    values["event_time"] = f"({source.events.get('event_time', 'event_time')})"
    columns = [f"CAST({values[column.name]} AS {column.type}) AS {quoted(column.name)}" for column in wanted]
    return f"SELECT {', '.join(columns)} FROM {quoted(source.name)}"


def read_by_events(source: ViewSource, needed: Collection[str] | None) -> set[str] | None:
    """The names that `events` mentions for its columns `needed`, the source's columns among them; None for all."""
    if needed is None:
        return None
    expressions = [source.events.get(name, "") for name in (*EVENT_COLUMNS, "event_time") if name in needed]
    return {*_NAMES.findall(" ".join(expressions)), *needed}


_PLAIN = {
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


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB type an Arrow type is read as. Raises ValueError for one no segment should have."""
    if kind in _PLAIN:
        return _PLAIN[kind]
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


def quoted(name: str) -> str:
    """A name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as it stands in SQL."""
    return "'" + value.replace("'", "''") + "'"
