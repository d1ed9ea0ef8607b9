"""Sources that are declarations: a JSON source is its columns' paths, a line source is one regular expression.

Most logs need no code of their own. What they have in common is here: recognition by members that all records have,
splitting by the one JSON splitter or by lines, columns by path or by named group, an identity joined of columns.

A path that begins with `^` goes into the record's context instead of the record: `^.logGroup` is the log group of the
envelope a log event came in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pyarrow as pa

from strongroom.ingest.sources import fields, jsonsplit, lenient, lines, outline
from strongroom.ingest.sources.documents import Container
from strongroom.ingest.sources.fields import Field
from strongroom.ingest.sources.source import TEXT, Contexts, Found, Split

CONTEXT = "^"
NORMALISED = (
    *("account", "region", "actor", "action", "target", "source_address", "outcome", "severity", "event_id", "message"),
)
_LINES_LOOKED_AT = 20


def events(source: str, **columns: str) -> Mapping[str, str]:
    """The mapping to the view `events`: what is not given is NULL."""
    assert columns.keys() <= set(NORMALISED)
    given = {name: columns.get(name, "NULL::VARCHAR") for name in NORMALISED}
    return {"source": f"'{source}'", "event_time": "event_time", **given}


def surroundings(
    context: Contexts, count: int, read: Callable[[bytes], Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """What surrounded each of `count` records, by `read`: once for each context; nothing where there is none."""
    known: dict[bytes | None, Mapping[str, Any]] = {None: {}}
    for document in repeat(None, count) if context is None else context:
        if document is not None and document not in known:
            known[document] = read(document)
        yield known[document]


@dataclass(eq=False)
class JsonSource:
    """JSON records, columns by path."""

    name: str
    description: str
    columns: tuple[Field, ...]
    """`event_time` among them."""
    events: Mapping[str, str]
    sort: tuple[str, ...]
    summary_columns: tuple[str, ...]
    marks: tuple[tuple[str, ...], ...] = ()
    """Members, `a` or `a.b`: a body whose records have all of one of these is recognised."""
    foreign: tuple[str, ...] = ()
    """Members that records of another source with the same marks have."""
    containers: tuple[Container, ...] = ()
    natural_id: str | None = None
    identity: tuple[str, ...] = ()
    """Columns that make up `natural_id` together, where no single one does."""
    fingerprint: str = ""
    """Of a declaration that is not in this program, and may change: see custom.py."""
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        joined = [pa.field(self.natural_id, TEXT)] if self.natural_id and self.identity else []
        self.schema = pa.schema([*fields.schema(self.columns), *joined])
        self._around = any(path[0] == CONTEXT for column in self.columns for path in column.paths)

    def recognise(self, head: bytes) -> bool:
        """By the members that its records have."""
        return any(outline.has(head, mark, self.foreign) for mark in self.marks)

    def split(self, body: bytes) -> Split:
        """Objects, out of this source's containers."""
        return jsonsplit.split(body, self.containers)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by path."""
        table = fields.table(self.columns, self.records(raw, context))
        if self.natural_id and self.identity:
            table = table.append_column(self.natural_id, fields.joined(table, *self.identity))
        return table

    def records(self, raw: Sequence[bytes], context: Contexts) -> list[Mapping[str, Any]]:
        """The records as mappings, with their context as the member `^` where columns come from there."""
        records: list[Mapping[str, Any]] = [lenient.record(r) for r in raw]
        if not self._around:
            return records
        around = surroundings(context, len(raw), lenient.record)
        return [{**record, CONTEXT: document} for record, document in zip(records, around, strict=True)]


@dataclass(eq=False)
class LineSource:
    """Lines that one regular expression describes, columns by its named groups."""

    name: str
    description: str
    pattern: re.Pattern[bytes]
    """Matches a line from its beginning. A line it does not match is broken."""
    columns: tuple[Field, ...]
    """Paths are names of groups."""
    events: Mapping[str, str]
    sort: tuple[str, ...]
    summary_columns: tuple[str, ...]
    natural_id: str | None = None
    recognised: bool = True
    """Whether content alone can tell."""
    fingerprint: str = ""
    """As a JsonSource's."""
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        self.schema = fields.schema(self.columns)

    def recognise(self, head: bytes) -> bool:
        """Half of the first lines or more match."""
        return self.recognised and mostly(head, self.pattern)

    def split(self, body: bytes) -> Split:
        """Lines that match."""
        return matching(body, self.pattern, f"not a line of {self.name}")

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by group; a group that took no part, and an empty one, is null."""
        return fields.table(self.columns, [self._groups(line) for line in raw])

    def _groups(self, line: bytes) -> Mapping[str, Any]:
        match = self.pattern.match(line)
        groups = match.groupdict() if match else {}
        return {name: value.decode("utf-8", "replace") for name, value in groups.items() if value is not None}


def mostly(head: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Whether most of the lines at the beginning match. The last may be cut off by the end of `head`."""
    first = lines.lines(head)[:_LINES_LOOKED_AT]
    found = sum(pattern.match(line) is not None for line in first)
    return 0 < len(first) <= 2 * found


def matching(body: bytes, pattern: re.Pattern[bytes], reason: str) -> Split:
    """The lines of a body that match; the others are broken, for `reason`."""
    binary = lines.binary(body)
    if binary is not None:
        return lines.whole(body, binary)
    found = Found()
    for line in lines.lines(body):
        if pattern.match(line):
            found.record(line)
        else:
            found.damaged(line, reason)
    return found.split()
