"""Reading lines of AWS access logs: fields between spaces, some in quotes, one in brackets, new ones at the end.

A quoted field may hold spaces and backslash escapes; what comes in quotes was sent by strangers, and a service that
forgets to escape a quote in it must not shift the fields behind. A quote with no partner is a character like any other.
AWS adds fields at the end of its formats; those nobody knows here yet are kept together, in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import times
from strongroom.ingest.sources.source import TEXT, TEXTS, TIME

_WINDOW = 65_536  # bytes of a line that are looked at
# Outside of quotes, too, a backslash takes the next character with it: both ways of reading then see the same quotes,
# so a line of nothing but backslashes and quotes is read once, not once for each of them.
_FIELD = re.compile(r'\[[^\]\s]+ [+-]\d{4}\](?!\S)|(?:"(?:[^"\\]|\\.)*+"|\\.|\S)+', re.DOTALL)

Cell = str | int | float | None
Convert = Callable[[str], Cell]


def fields(line: bytes) -> list[str]:
    """The fields of a line; quotes and brackets around a whole field are taken off."""
    return [_bare(part) for part in _FIELD.findall(line[:_WINDOW].decode("utf-8", "replace"))]


def _bare(part: str) -> str:
    enclosed = len(part) > 1 and (part[0], part[-1]) in {('"', '"'), ("[", "]")} and '","' not in part
    return part[1:-1] if enclosed else part


def stated(value: str) -> str | None:
    """Text; `-` is how these logs write that there is none."""
    return value if value not in ("-", "") else None


def integer(value: str) -> int | None:
    """A whole number, -1 included: load balancers write it for a time that was not measured."""
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def number(value: str) -> float | None:
    """A number; one that is not finite is none."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < 1e300 else None


def address(value: str) -> str | None:
    """The address in `address:port`."""
    return stated(value.rpartition(":")[0].strip("[]") or value)


def port(value: str) -> int | None:
    """The port in `address:port`."""
    return integer(value.rpartition(":")[2]) if ":" in value else None


def request(part: int) -> Convert:
    """The method (0), the URL (1) or the protocol (2) of a request line."""

    def convert(value: str) -> str | None:
        method, _, rest = value.partition(" ")
        url, _, protocol = rest.rpartition(" ")
        return stated((method, url, protocol)[part])

    return convert


CONVERT: Mapping[pa.DataType, Convert] = {
    TEXT: stated,
    pa.int64(): integer,
    pa.float64(): number,
    TIME: times.microseconds,
}
"""What a type reads when its column says nothing else."""

EXTRA = pa.field("extra", TEXTS)
"""Column for the fields behind the last one known."""


def table(schema: pa.Schema, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """`event_time` and the columns of `schema`, null where a row has none. Times are microseconds."""
    columns = {}
    for column in pa.schema([("event_time", TIME), *schema]):
        stored = pa.int64() if column.type == TIME else column.type
        columns[column.name] = pa.array([row.get(column.name) for row in rows], stored).cast(column.type)
    return pa.table(columns)
