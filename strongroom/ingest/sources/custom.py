"""Sources that an operator declares in a TOML file, without code. docs/sources/custom.md is the guide.

    [[source]]
    name = "payments"
    description = "Audit log of the payment service"
    recognise = ["txn.id", "merchant"]              # JSON: members that every record has
    container = "events"                            # where documents keep their records, if they do
    time = "when"                                   # or { path = "when", format = "%d.%m.%Y %H:%M:%S" }
    natural_id = "txn"

    [source.columns]
    txn = "txn.id"
    user = ["user.name", "user.login"]              # the first that has a value
    amount = { path = "amount.value", type = "number" }

    [source.events]
    actor = "user"
    outcome = { column = "state", success = ["settled"], denied = ["refused"] }

With `pattern`, a regular expression, it is a source of lines: a line that does not match from its beginning is broken,
paths are names of groups, and a body is recognised when half of its first lines match (`recognise = []` for never).

A declaration is code all the same: what it makes of a record must not change, or segments sealed before would not be
what it gives. So each carries a fingerprint of what it derives, and so do its segments; verification compares columns
where the two are the same, and says so where not. Declared otherwise, a source better gets another name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources.declared import NORMALISED, JsonSource, LineSource, events
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import Convert, Field, field
from strongroom.ingest.sources.source import TEXT, TEXTS, TIME, Source

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN = frozenset({"events", "entries", "segments", "auto"})
_TAKEN_PREFIX = "ocsf_"
_TAKEN_COLUMNS = frozenset(
    {"event_time", "received_at", "sequence", "position", "raw", "raw_bytes", "context", "context_bytes", "source"}
)
_TYPES: Mapping[str, pa.DataType] = {
    "text": TEXT,
    "texts": TEXTS,
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": TIME,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeclarationError(ValueError):
    """A declaration that can't be used; the message begins with the key that is wrong."""


class _Column(msgspec.Struct, forbid_unknown_fields=True):
    path: str | list[str]
    type: str = "text"
    format: str = ""


class _Outcome(msgspec.Struct, forbid_unknown_fields=True):
    column: str
    success: list[str] = []
    failure: list[str] = []
    denied: list[str] = []


class _Declaration(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str
    columns: dict[str, str | list[str] | _Column]
    time: str | list[str] | _Column | None = None
    recognise: list[str] | None = None
    container: str = ""
    pattern: str = ""
    natural_id: str = ""
    sort: list[str] | None = None
    summary: list[str] | None = None
    events: dict[str, str | _Outcome] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    source: list[_Declaration]


def parse(text: str, built_in: Collection[str]) -> tuple[Source, ...]:
    """The sources that a file's text declares. Raises DeclarationError."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(f"not TOML: {error}") from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise DeclarationError(f"{where.strip('.`') or 'the file'}: {what[:1].lower()}{what[1:]}") from None
    sources: list[Source] = []
    for number, declared in enumerate(file.source):
        key = f"source[{number}]"
        _require(_NAME.fullmatch(declared.name), f"{key}.name", f"{declared.name!r} must match {_NAME.pattern}")
        taken = {*built_in, *_TAKEN, *(source.name for source in sources)}
        free = declared.name not in taken and not declared.name.startswith(_TAKEN_PREFIX)
        _require(free, f"{key}.name", f"{declared.name!r} is taken")
        sources.append(_source(declared, f"{key} ({declared.name})"))
    return tuple(sources)


def fingerprint(source: Source) -> str:
    """Of what a declared source derives from a record; "" for other sources."""
    return source.fingerprint if isinstance(source, JsonSource | LineSource) else ""


def _source(declared: _Declaration, key: str) -> Source:
    columns = tuple(_columns(declared, key))
    types = {column.name: column.type for column in columns}
    for name in (declared.natural_id and [declared.natural_id]) or []:
        _require(types.get(name) == TEXT, f"{key}.natural_id", f"{name!r} is no text column")
    for option, names in (("sort", declared.sort or []), ("summary", declared.summary or [])):
        for name in names:
            known = name in types and (option == "sort" or types[name] == TEXT) and types[name] != TEXTS
            _require(known, f"{key}.{option}", f"{name!r} is no column to use here")
    summary = declared.summary if declared.summary is not None else [n for n, t in types.items() if t == TEXT][:6]
    common: dict[str, Any] = {
        "name": declared.name,
        "description": declared.description,
        "columns": columns,
        "events": _events(declared, types, key),
        "sort": tuple(declared.sort or ["event_time"]),
        "summary_columns": tuple(summary),
        "natural_id": declared.natural_id or None,
        "fingerprint": _fingerprint(declared),
    }
    if declared.pattern:
        _require(not declared.container, f"{key}.container", "lines have none")
        _require(not declared.recognise, f"{key}.recognise", "with a pattern, leave it out, or [] for never")
        pattern = _pattern(declared.pattern, columns, key)
        return LineSource(**common, pattern=pattern, recognised=declared.recognise is None)
    for path in declared.recognise or []:
        _require(1 <= len(path.split(".")) <= 2 and path, f"{key}.recognise", f"{path!r} must be `a` or `a.b`")
    marks = (tuple(declared.recognise),) if declared.recognise else ()
    containers = (container(declared.container),) if declared.container else ()
    return JsonSource(**common, marks=marks, containers=containers)


def _columns(declared: _Declaration, key: str) -> Iterator[Field]:
    time = declared.time
    if isinstance(time, _Column):
        _require(time.type in ("text", "time"), f"{key}.time.type", "is always time")
        yield _column("event_time", _Column(time.path, "time", time.format), f"{key}.time")
    else:
        yield _column("event_time", _Column([] if time is None else time, "time"), f"{key}.time")
    _require(declared.columns, f"{key}.columns", "declares none")
    for name, column in declared.columns.items():
        _require(_NAME.fullmatch(name), f"{key}.columns.{name}", f"a name must match {_NAME.pattern}")
        _require(name not in _TAKEN_COLUMNS, f"{key}.columns.{name}", "every source has a column of this name")
        yield _column(name, column if isinstance(column, _Column) else _Column(column), f"{key}.columns.{name}")


def _column(name: str, column: _Column, key: str) -> Field:
    paths = [column.path] if isinstance(column.path, str) else column.path
    _require(all(path and all(path.split(".")) for path in paths), f"{key}.path", "has an empty name in it")
    _require(column.type in _TYPES, f"{key}.type", f"{column.type!r} is none of {', '.join(_TYPES)}")
    _require(not column.format or column.type == "time", f"{key}.format", "only times have one")
    return field(name, *paths, type=_TYPES[column.type], convert=_time(column.format, key) if column.format else None)


def _time(format: str, key: str) -> Convert:
    """A conversion of text in a format of strptime; without a zone in it, UTC."""
    dated = any(part in format for part in ("%Y", "%y", "%G"))
    _require(dated, f"{key}.format", "has no year: such a time is better kept as text")
    try:
        datetime.strptime(datetime(2001, 2, 3, tzinfo=UTC).strftime(format), format)
    except ValueError as error:
        raise DeclarationError(f"{key}.format: {error}") from None

    def convert(value: Any) -> int | None:
        try:
            moment = datetime.strptime(value, format)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(microseconds=1)
        except (TypeError, ValueError, OverflowError):
            return None

    return convert


def _pattern(text: str, columns: Sequence[Field], key: str) -> re.Pattern[bytes]:
    try:
        pattern = re.compile(text.encode())
    except (re.error, RecursionError, OverflowError) as error:
        raise DeclarationError(f"{key}.pattern: {error}") from None
    for column in columns:
        for path in column.paths:
            known = ".".join(path) in pattern.groupindex
            _require(known, f"{key}.columns.{column.name}", f"the pattern has no group {'.'.join(path)!r}")
    return pattern


def _events(declared: _Declaration, types: Mapping[str, pa.DataType], key: str) -> Mapping[str, str]:
    """Column names, quoted, as the SQL of the view `events`."""
    if not declared.events:
        return {}
    mapped: dict[str, str] = {}
    for name, value in declared.events.items():
        where = f"{key}.events.{name}"
        _require(name in NORMALISED, where, f"is none of {', '.join(NORMALISED)}")
        column = value.column if isinstance(value, _Outcome) else value
        _require(column in types, where, f"{column!r} is no column")
        if isinstance(value, _Outcome):
            _require(name == "outcome", where, "only an outcome has words to translate")
            mapped[name] = _outcome(value)
        else:
            mapped[name] = f'CAST("{column}" AS VARCHAR)'
    return events(declared.name, **mapped)


def _outcome(value: _Outcome) -> str:
    words = {"success": value.success, "failure": value.failure, "denied": value.denied}
    whens = [f"WHEN {_quoted(word)} THEN '{outcome}'" for outcome, listed in words.items() for word in listed] or [
        "WHEN NULL THEN NULL"
    ]
    return f'CASE CAST("{value.column}" AS VARCHAR) {" ".join(whens)} END'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _fingerprint(declared: _Declaration) -> str:
    deriving = [declared.columns, declared.time, declared.pattern]
    return sha256(msgspec.json.encode(deriving, order="deterministic")).hexdigest()


def _require(condition: object, key: str, problem: str) -> None:
    if not condition:
        raise DeclarationError(f"{key}: {problem}")
