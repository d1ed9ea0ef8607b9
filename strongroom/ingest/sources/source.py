"""What a log source is: it recognises its format, finds the exact records in a body, and derives columns from them.

Rules every source keeps, because verification depends on them:

    1. A record is bytes, never a value that was parsed and written again. `split` returns slices of what arrived:
       duplicate keys, huge numbers, odd white space and invalid UTF-8 survive. Where the format leaves a record no
       bytes of its own (rows of a Parquet file), records are written out, and the whole file is attached.
    2. `split` never raises and never drops content. What cannot be a record of this source comes back as `Broken`,
       with a reason; one broken record never costs its neighbours. A record with missing or odd *fields* is not
       broken: it stays in its source with nulls.
    3. `derive` is a pure function of (record, context), row by row. No row's columns depend on its neighbours, on
       the clock or on the order, so that deep verification gets the same columns from any grouping of rows.
    4. Columns carry no authority; the raw bytes do. When in doubt a column is null.

The context of a record is what surrounded it and is needed to understand it: the header line of a flow log, the
EventBridge envelope of a finding with the finding cut out. It is null where there was nothing around the record but
brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

from strongroom.archive.rebuilding import Form

TIME = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
TEXTS = pa.list_(pa.string())

Contexts = Sequence[bytes | None] | None


@dataclass(frozen=True)
class Broken:
    """Bytes that are no record of the source they were sent to."""

    position: int
    """Ordinal among all records of the batch, broken ones included."""
    raw: bytes
    reason: str
    """What is wrong, for a person; low in variety, so that reasons can be counted."""


@dataclass(frozen=True)
class Attached:
    """The file that written-out records were taken from, whole."""

    position: int
    """Ordinal among all records of the batch."""
    raw: bytes
    format: str


@dataclass(frozen=True)
class Split:
    """The records of one batch, in the order of their appearance."""

    raw: list[bytes]
    context: list[bytes | None] | None
    """Parallel to `raw`; None: no record has a context."""
    positions: list[int] | None
    """Parallel to `raw`; None: 0 … n-1, nothing was broken."""
    broken: list[Broken]
    attached: tuple[Attached, ...] = ()

    @property
    def records(self) -> int:
        """All records of the batch: good, broken and attached."""
        return len(self.raw) + len(self.broken) + len(self.attached)


class Source(Protocol):
    """One kind of log. Implementations hold no state; one instance serves all threads."""

    name: str
    description: str
    schema: pa.Schema
    """The typed columns (the universal ones, event_time among them, are not repeated here)."""
    natural_id: str | None
    """The typed column that carries the record's own identity, so that a second delivery can be told."""
    sort: tuple[str, ...]
    """Row order in a segment, chosen for pruning and compression; may name `event_time`."""
    summary_columns: tuple[str, ...]
    """String columns whose smallest and largest value per segment are worth a place in the catalogue."""
    events: Mapping[str, str]
    """Normalised column → DuckDB expression over this source's columns and `raw` (as text), for the view `events`.

    Empty: not part of it. All are VARCHAR but event_time.
    """

    def recognise(self, head: bytes) -> bool:
        """Does a body that begins with `head` (at most 64 KiB, decoded) look like this source?"""
        ...

    def split(self, body: bytes) -> Split:
        """Every record of a decoded body. Never raises."""
        ...

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """`event_time` and the typed columns, one row a record. Never raises for what a record holds."""
        ...


@runtime_checkable
class Rebuildable(Source, Protocol):
    """A source whose records are lines that their columns mostly give back, so that they need not be stored twice."""

    def form(self, context: bytes | None) -> Form | None:
        """How a record with this context is made of its columns, None when it can't be."""
        ...


class Found:
    """Collects what a splitter finds, in order, and becomes a `Split`."""

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._context: list[bytes | None] = []
        self._positions: list[int] = []
        self._broken: list[Broken] = []
        self._attached: list[Attached] = []

    @property
    def count(self) -> int:
        """Records found so far, broken ones included: the position of the next."""
        return len(self._raw) + len(self._broken) + len(self._attached)

    def record(self, raw: bytes, context: bytes | None = None) -> None:
        """The next record of the batch."""
        self._positions.append(self.count)
        self._raw.append(raw)
        self._context.append(context)

    def extend(self, raw: Sequence[bytes], context: bytes | None = None) -> None:
        """The next records of the batch, which share a context."""
        self._positions.extend(range(self.count, self.count + len(raw)))
        self._raw.extend(raw)
        self._context.extend([context] * len(raw))

    def damaged(self, raw: bytes, reason: str) -> None:
        """The next record of the batch, which is broken."""
        self._broken.append(Broken(self.count, raw, reason))

    def attach(self, raw: bytes, format: str) -> None:
        """The file that the records were written out from. After them, so that their positions are its rows."""
        self._attached.append(Attached(self.count, raw, format))

    def split(self) -> Split:
        """The result, in its shortest form."""
        return Split(
            raw=self._raw,
            context=None if all(c is None for c in self._context) else self._context,
            positions=self._positions if self._broken else None,
            broken=self._broken,
            attached=tuple(self._attached),
        )
