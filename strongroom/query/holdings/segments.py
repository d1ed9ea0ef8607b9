"""What is known of every segment of a log, in columns: a million of them are looked through in milliseconds.

Segments are numbered in log order, and the numbers never change, because the log only grows. Columns are kept in
memory that Arrow reads in place: what was appended stays where it is, so readers see a prefix that nobody writes to
while one writer goes on. A choice of segments is the bits of one Python integer; AND and OR of choices are its own.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as its entry names it, at `position` among that entry's segments.

    Times: event times in microseconds since the epoch, None when unknown.
    """

    key: str
    source: str
    date: str
    entry: int
    sealed_at: datetime
    records: int
    bytes: int
    sha256: str
    root: str
    min_time: int | None
    max_time: int | None
    position: int = 0
    version: str = ""


class SegmentTable:
    """All segments read so far. One thread appends; any number read what was there when they began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._sources: dict[str, int] = {}
        self._key, self._version, self._date, self._sha256, self._root = (_Texts() for _ in range(5))
        self._source, self._entry, self._position = _Integers(), _Integers(), _Integers()
        self._sealed_at, self._records, self._bytes = _Integers(), _Integers(), _Integers()
        self._min_time, self._max_time = _Integers(), _Integers()
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Segment:
        if not 0 <= number < self._count:
            raise IndexError(number)
        source = self._source[number]
        low, high = self._min_time[number], self._max_time[number]
        return Segment(
            key=self._key[number],
            source=next(name for name, known in self._sources.items() if known == source),
            date=self._date[number],
            entry=self._entry[number],
            sealed_at=_EPOCH + timedelta(microseconds=self._sealed_at[number]),
            records=self._records[number],
            bytes=self._bytes[number],
            sha256=self._sha256[number],
            root=self._root[number],
            min_time=None if low == _LEAST else low,
            max_time=None if high == _MOST else high,
            position=self._position[number],
            version=self._version[number],
        )

    def append(self, segments: Iterable[Segment]) -> None:
        """The next segments, in log order."""
        with self._lock:
            for segment in segments:
                known = segment.min_time is not None and segment.max_time is not None
                self._source.append(self._sources.setdefault(segment.source, len(self._sources)))
                self._entry.append(segment.entry)
                self._position.append(segment.position)
                self._sealed_at.append((segment.sealed_at - _EPOCH) // timedelta(microseconds=1))
                self._records.append(segment.records)
                self._bytes.append(segment.bytes)
                self._min_time.append(segment.min_time if known and segment.min_time is not None else _LEAST)
                self._max_time.append(segment.max_time if known and segment.max_time is not None else _MOST)
                for column, text in (
                    (self._key, segment.key),
                    (self._version, segment.version),
                    (self._date, segment.date),
                    (self._sha256, segment.sha256),
                    (self._root, segment.root),
                ):
                    column.append(text)
                self._count += 1

    def upto(self, size: int) -> int:
        """The segments that the first `size` entries name."""
        return (1 << bisect_left(self._entry.cells, size, 0, self._count)) - 1  # in log order: a prefix

    def sources(self) -> frozenset[str]:
        """The sources that have any."""
        return frozenset(self._sources)

    def of_sources(self, sources: Collection[str]) -> int:
        """The segments of these sources."""
        column, chosen = self._source.array(self._count), 0
        for name in sources:
            if (number := self._sources.get(name)) is not None:
                chosen |= _bits(pc.equal(column, number))
        return chosen

    def within(self, low: int | None, high: int | None) -> int:
        """The segments that can hold an event time in [low, high], microseconds; those of unknown times can."""
        chosen = (1 << self._count) - 1
        if low is not None:
            chosen &= _bits(pc.greater_equal(self._max_time.array(self._count), _clamped(low)))
        if high is not None:
            chosen &= _bits(pc.less_equal(self._min_time.array(self._count), _clamped(high)))
        return chosen

    def chosen(self, bits: int) -> list[Segment]:
        """The segments of a choice, in log order."""
        return [self[number] for number in numbers_of(bits)]

    def totals(self, bits: int) -> tuple[int, int]:
        """Records and bytes of a choice."""
        numbers = pa.array(numbers_of(bits), pa.int64())
        columns = (self._records.array(self._count), self._bytes.array(self._count))
        records, size = (pc.sum(column.take(numbers)).as_py() or 0 for column in columns)
        return records, size

    def span(self, bits: int) -> tuple[int | None, int | None]:
        """The earliest and the latest event time in a choice, as far as times are known."""
        numbers = pa.array(numbers_of(bits), pa.int64())
        low, high = (column.array(self._count).take(numbers) for column in (self._min_time, self._max_time))
        known = pc.not_equal(low, _LEAST)
        return pc.min(low.filter(known)).as_py(), pc.max(high.filter(known)).as_py()

    def digests(self, numbers: Sequence[int]) -> list[str] | None:
        """SHA-256 of these segments, None when there is one that is not known."""
        if numbers and max(numbers) >= self._count:
            return None
        return [self._sha256[number] for number in numbers]

    def number(self, key: str) -> int | None:
        """The number of the segment of this name, None when none has it."""
        with self._lock:
            for number in range(len(self._numbers), self._count):
                self._numbers[self._key[number]] = number
            return self._numbers.get(key)

    def table(self) -> pa.Table:
        """Every column, to be kept; `restore` takes it back."""
        names = {known: name for name, known in self._sources.items()}
        sources = pa.array([names[number] for number in range(len(names))], pa.string())
        numbers = self._source.array(self._count).cast(pa.int32())
        columns: dict[str, pa.Array] = {"source": pa.DictionaryArray.from_arrays(numbers, sources)}
        for name, column in self._columns():
            columns[name] = column.array(self._count)
        return pa.table(columns)

    @classmethod
    def restore(cls, table: pa.Table) -> SegmentTable:
        """What `table` gave. Raises KeyError, ArrowException for what it did not give."""
        made = cls()
        source = table.column("source").combine_chunks()
        made._sources = {name: number for number, name in enumerate(source.dictionary.to_pylist())}
        made._source.extend(source.indices.cast(pa.int64()))
        for name, column in made._columns():
            column.extend(table.column(name).combine_chunks())
        made._count = table.num_rows
        return made

    def _columns(self) -> Iterator[tuple[str, _Integers | _Texts]]:
        yield from (("key", self._key), ("version", self._version), ("date", self._date))
        yield from (("sha256", self._sha256), ("root", self._root))
        yield from (
            ("entry", self._entry),
            ("position", self._position),
            ("sealed_at", self._sealed_at),
            ("records", self._records),
        )
        yield from (("bytes", self._bytes), ("min_time", self._min_time), ("max_time", self._max_time))


class _Integers:
    """A growing column of 64-bit integers; `cells` has room for more than there are."""

    def __init__(self) -> None:
        self._length = 0
        self._buffer = pa.allocate_buffer(0)
        self.cells: memoryview = memoryview(self._buffer).cast("B").cast("q")
        self._reserve(1024)

    def __getitem__(self, number: int) -> int:
        value: int = self.cells[number]
        return value

    def append(self, value: int) -> None:
        if self._length == len(self.cells):
            self._reserve(2 * self._length)
        self.cells[self._length] = value
        self._length += 1

    def extend(self, values: pa.Array) -> None:
        self._reserve(self._length + max(1024, len(values)))
        fresh = memoryview(values.buffers()[1] or b"").cast("B").cast("q")[values.offset : values.offset + len(values)]
        self.cells[self._length : self._length + len(values)] = fresh
        self._length += len(values)

    def array(self, length: int) -> pa.Array:
        return pa.Array.from_buffers(pa.int64(), length, [None, self._buffer])

    def _reserve(self, cells: int) -> None:
        """Room for more, elsewhere: arrays over the old place stay as they are."""
        buffer = pa.allocate_buffer(8 * cells)
        fresh = memoryview(buffer).cast("B").cast("q")
        if self._length:
            fresh[: self._length] = self.cells[: self._length]
        self._buffer, self.cells = buffer, fresh


class _Texts:
    """A growing column of texts, end to end."""

    def __init__(self) -> None:
        self._ends = _Integers()
        self._ends.append(0)
        self._length = 0
        self._buffer = pa.allocate_buffer(0)
        self._bytes: memoryview = memoryview(self._buffer).cast("B")
        self._reserve(1 << 16)

    def __getitem__(self, number: int) -> str:
        return str(self._bytes[self._ends[number] : self._ends[number + 1]], "utf-8")

    def append(self, text: str) -> None:
        self._write(text.encode())
        self._ends.append(self._length)

    def extend(self, values: pa.Array) -> None:
        values = values.cast(pa.large_string())
        offsets = pa.Array.from_buffers(pa.int64(), len(values) + 1, [None, values.buffers()[1]], offset=values.offset)
        first = offsets[0].as_py() if len(values) else 0
        start = self._length
        if values.buffers()[2] is not None and len(values):
            self._write(memoryview(values.buffers()[2]).cast("B")[first : offsets[-1].as_py()])
        self._ends.extend(pc.add(offsets.slice(1), start - first))

    def array(self, length: int) -> pa.Array:
        buffers = [None, self._ends.array(length + 1).buffers()[1], self._buffer]
        return pa.Array.from_buffers(pa.large_string(), length, buffers)

    def _write(self, content: bytes | memoryview) -> None:
        while self._length + len(content) > len(self._bytes):
            self._reserve(max(2 * len(self._bytes), self._length + len(content)))
        self._bytes[self._length : self._length + len(content)] = content
        self._length += len(content)

    def _reserve(self, size: int) -> None:
        buffer = pa.allocate_buffer(size)
        fresh = memoryview(buffer).cast("B")
        if self._length:
            fresh[: self._length] = self._bytes[: self._length]
        self._buffer, self._bytes = buffer, fresh


def bits_of(numbers: Iterable[int]) -> int:
    """A set of numbers as the bits of one."""
    listed = list(numbers)
    filled = bytearray(max(listed, default=0) // 8 + 1)
    for number in listed:
        filled[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(filled, "little")


def numbers_of(bits: int) -> list[int]:
    """The numbers in a set of bits, ascending."""
    length = (bits.bit_length() + 7) // 8
    filled = pa.py_buffer(bits.to_bytes(length, "little"))
    flags = pa.Array.from_buffers(pa.bool_(), 8 * length, [None, filled])
    listed: list[int] = pc.indices_nonzero(flags).to_pylist()
    return listed


def _bits(flags: pa.Array) -> int:
    """An array of booleans, none of them null, as the bits of one integer."""
    if not len(flags):
        return 0
    filled = flags.buffers()[1]
    whole: int = int.from_bytes(filled, "little")
    mask: int = (1 << len(flags)) - 1
    return (whole >> int(flags.offset)) & mask


def _clamped(microseconds: int) -> int:
    return min(max(microseconds, _LEAST + 1), _MOST - 1)
