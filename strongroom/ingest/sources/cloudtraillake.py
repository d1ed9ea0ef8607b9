"""Results of CloudTrail Lake queries: events as rows, with the columns that a query asked for.

Lake writes results to S3 as CSV (`…/CloudTrail-Lake/Query/…/result_1.csv.gz`); its API answers `QueryResultRows`, an
array of rows, each an array of `{column: value}`; tools make of either a JSON object a row. A record is one row as it
stands; the header line, or the answer around the rows, is its context.

What is an object in an event is one text here, `{type=AssumedRole, principalid=…, sessioncontext={…}}`, with names in
small letters. It is read as far as it can be told apart, put together as the event it was, and given to cloudtrail.py:
both sources have the same columns. `selected` names the columns of the query, because an event whose error was not
asked for is not one that succeeded. Where `eventJson` was asked for, everything is taken from there.

Source: AWS CloudTrail user guide, "Find your CloudTrail Lake saved query results", "CloudTrail Lake event schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import cloudtrail, csvsplit, jsonsplit, lenient, lines
from strongroom.ingest.sources.nested import Nest
from strongroom.ingest.sources.source import TEXTS, Contexts, Split

_NEST = Nest(("QueryResultRows",), ord("["))
_ANSWER = re.compile(rb'\s*\{\s*"(?:QueryResultRows|QueryStatus|QueryStatistics|NextToken)"')
_OBJECT_ROW = re.compile(rb'"userIdentity"\s*:\s*"\{', re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][\w.$]*", re.ASCII)
# A header of three or more of Lake's own columns is Lake's.
_KNOWN = frozenset(name.lower() for name in cloudtrail.Event.__struct_fields__) | {
    *("eventjson", "responseelements", "serviceeventdetails", "addendum", "apiversion", "edgedevicedetails")
}
_HEADER_BYTES = 16_384
_DEEPEST = 12
_WINDOW = 1 << 18

# A value in Lake's notation: a name before its value, and where a bare value ends.
_MEMBER = re.compile(r"([A-Za-z_][\w.:$/-]*)=")
_END = re.compile(r", (?=[A-Za-z_][\w.:$/-]*=)|[}\]]|, (?=\{)")


class CloudTrailLake:
    """See the module."""

    name = "cloudtraillake"
    description = "Events out of CloudTrail Lake: what its queries exported"
    natural_id: str | None = "event_id"
    sort: tuple[str, ...] = cloudtrail.SOURCE.sort
    summary_columns: tuple[str, ...] = cloudtrail.SOURCE.summary_columns
    schema = cloudtrail.SOURCE.schema.append(pa.field("selected", TEXTS))
    events: Mapping[str, str] = {
        **cloudtrail.SOURCE.events,
        "source": "'cloudtraillake'",
        "outcome": f"""CASE WHEN list_contains(selected, 'errorcode') OR list_contains(selected, 'eventjson')
            OR error_code IS NOT NULL THEN {cloudtrail.SOURCE.events["outcome"]} END""",
    }

    def recognise(self, head: bytes) -> bool:
        """A header line with Lake's columns, the API's answer, or JSON rows whose identity is text."""
        if _is_json(head):
            return bool(b'"QueryResultRows"' in head if _ANSWER.match(head) else _OBJECT_ROW.search(head))
        names = [name.lower() for name in _header(head)]
        return names == ["eventjson"] or (
            len(names) > 1 and sum(name in _KNOWN for name in names) >= min(3, len(names))
        )

    def split(self, body: bytes) -> Split:
        """Every row."""
        if _ANSWER.match(body):
            return _NEST.split(body)
        if _is_json(body):
            return jsonsplit.split(body)
        if body.strip() and not _header(body):
            return lines.whole(body, lines.binary(body) or "no header line that names columns")
        return csvsplit.split(body)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """The columns of the events that the rows are of."""
        contexts = [None] * len(raw) if context is None else context
        headers = {around: csvsplit.fields(around or b"") for around in set(contexts)}
        rows = [_row(record, headers[around]) for record, around in zip(raw, contexts, strict=True)]
        table = cloudtrail.SOURCE.derive([_event(row) for row in rows], None)
        selected = pa.array([sorted(row) or None for row in rows], TEXTS)
        return table.append_column(pa.field("selected", TEXTS), selected)


def _is_json(body: bytes) -> bool:
    return body[:_HEADER_BYTES].removeprefix(lines.BOM).lstrip()[:1] in (b"{", b"[")


def _header(body: bytes) -> list[str]:
    """The names in the first line; none when it is not a line of names."""
    line = body[:_HEADER_BYTES].removeprefix(lines.BOM).lstrip().partition(b"\n")[0]
    names = csvsplit.fields(line.rstrip())
    return names if all(map(_NAME.fullmatch, names)) else []


def _row(record: bytes, header: list[str]) -> dict[str, Any]:
    """Column in small letters → value; columns without a value are there with None."""
    if record[:1] == b"{":
        return {name.lower(): value for name, value in lenient.record(record).items()}
    if record[:1] == b"[":
        cells = lenient.plain(record)
        cells = cells if isinstance(cells, list) else []
        return {name.lower(): value for cell in cells if isinstance(cell, dict) for name, value in cell.items()}
    return {name.lower(): value or None for name, value in zip(header, csvsplit.fields(record), strict=False)}


def _event(row: Mapping[str, Any]) -> bytes:
    """The event a row is of, as far as its columns tell."""
    whole = row.get("eventjson")
    if isinstance(whole, str) and whole:
        return whole.encode("utf-8", "replace")
    nested: dict[str, Any] = {}
    for column, value in row.items():
        *outer, last = column.split(".")
        node = nested
        for name in outer:
            inner = node.setdefault(name, {})
            node = inner if isinstance(inner, dict) else {}
        node.setdefault(last, read(value) if isinstance(value, str) else value)
    return msgspec.json.encode(_renamed(nested, cloudtrail.Event))


def _renamed(value: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """With the names that CloudTrail gives its fields, those of columns alone."""
    named: dict[str, Any] = {}
    for name, (lower, inner) in _spellings(kind).items():
        found = value.get(lower)
        if inner is not None and isinstance(found, dict):
            found = _renamed(found, inner)
        elif inner is not None and isinstance(found, list):
            found = [_renamed(item, inner) for item in found if isinstance(item, dict)]
        if found is not None:
            named[name] = found
    return named


@cache
def _spellings(kind: type[msgspec.Struct]) -> dict[str, tuple[str, type[msgspec.Struct] | None]]:
    """Field → (its name in small letters, the Struct in it if any)."""
    found: dict[str, tuple[str, type[msgspec.Struct] | None]] = {}
    for name, expected in get_type_hints(kind).items():
        choices = [choice for outer in get_args(expected) for choice in (outer, *get_args(outer))]
        inner = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, msgspec.Struct)]
        found[name] = (name.lower(), inner[0] if inner else None)
    return found


# -- Lake's notation


def read(text: str) -> Any:
    """An object or array in Lake's notation, or in JSON, names in small letters; any other text as it is."""
    if text[:1] not in ("{", "[") or len(text) > _WINDOW:
        return text
    plain = lenient.plain(text.encode("utf-8", "replace"))
    if plain is not None:
        return _lowered(plain)
    try:
        value, end = _value(text, 0, 0)
    except _Unreadable:
        return text
    return value if end == len(text) else text


class _Unreadable(ValueError):
    """Text that is not in the notation."""


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    opening = text[at : at + 1]
    if opening in ("{", "[") and depth > _DEEPEST:
        raise _Unreadable
    if opening == "{":
        return _members(text, at + 1, depth)
    if opening == "[":
        return _elements(text, at + 1, depth)
    end = _END.search(text, at)
    stop = end.start() if end else len(text)
    word = text[at:stop]
    return (None if word in ("null", "") else word), stop


def _members(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    while text[at : at + 1] != "}":
        name = _MEMBER.match(text, at)
        if name is None:
            raise _Unreadable
        members[name[1].lower()], at = _value(text, name.end(), depth + 1)
        at = _after(text, at, "}")
    return members, at + 1


def _elements(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    elements: list[Any] = []
    while text[at : at + 1] != "]":
        element, at = _value(text, at, depth + 1)
        elements.append(element)
        at = _after(text, at, "]")
    return elements, at + 1


def _after(text: str, at: int, closing: str) -> int:
    """Behind the separator, or at what closes."""
    if text.startswith(", ", at):
        return at + 2
    if text[at : at + 1] != closing:
        raise _Unreadable
    return at


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lowered(inner) for name, inner in value.items()}
    return [_lowered(item) for item in value] if isinstance(value, list) else value


SOURCE = CloudTrailLake()
