"""Answers as JSON, NDJSON, CSV, an Arrow stream or Parquet, encoded batch by batch from Arrow record batches. Pure.

Formats:

    json    {"snapshot": {"size", "root"}, "columns": [{"name", "type"}…], "rows": [[…]…], "row_count", "truncated"}
            rows are arrays in column order; `truncated` is null, or "rows" or "bytes": the limit that cut the answer
    ndjson  an object a row; cut answers end with one more line, {"$truncated": "rows"}
    csv     a header line, RFC 4180; NULL is an empty field, an empty string is ""; cut answers end with a line
            "# truncated: rows"
    arrow   Arrow IPC stream; schema metadata `strongroom.snapshot.size` and `.root`; cut answers end with an empty
            batch whose metadata has `strongroom.truncated`
    parquet one Parquet file, zstd; the same facts as file metadata: `strongroom.snapshot.size`, `.root`, `.truncated`

Values, where JSON and CSV have no exact form of their own:

    integers    numbers up to 2^53 in size, strings beyond (any width, HUGEINT included)
    DECIMAL     numbers up to 15 digits of precision, strings beyond
    DOUBLE      numbers; "NaN", "Infinity", "-Infinity" as strings
    TIMESTAMPTZ ISO 8601 in UTC, six decimals, "Z"; TIMESTAMP the same without "Z"; endless ones "infinity", "-infinity"
    BLOB        {"base64": "…"} in JSON, "base64:…" in CSV: always: a type has one form (`raw` is text: views.py)
    JSON        its text, as a string
    lists, structs        arrays, objects;  maps: objects when keys are text, else arrays of [key, value]
    INTERVAL, BIT, TIMETZ, BIGNUM, VARIANT, UNION …    the text DuckDB casts them to

In Arrow and Parquet, types stay what they are, except that HUGEINT becomes DECIMAL(38, 0) and types they lack become
text.
Two columns of one name are told apart as `name`, `name_1`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CONTENT_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
ROW_GROUP_BYTES = 8 << 20
EXACT_IN_JSON = 1 << 53
_INT64_MAX, _INT32_MAX = (1 << 63) - 1, (1 << 31) - 1

Snapshot = tuple[int, str]
Parts = list[Any]
"""Of `bytes` and Arrow's buffers: one after the other, bytes of an answer. Whoever writes them need not join them."""
_json = msgspec.json.Encoder(decimal_format="number")
_Read = Callable[[pa.Array], list[Any]]


class Encoder(Protocol):
    """Turns record batches into the bytes of one answer: `begin`, `rows` for each batch, `end`."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts: ...
    def rows(self, batch: pa.RecordBatch) -> Parts: ...
    def end(self, rows: int, truncated: str) -> Parts: ...


def encoder(format: str) -> Encoder:
    """A new encoder for one of CONTENT_TYPES' names."""
    kinds: dict[str, type[Encoder]] = {
        "json": JsonEncoder,
        "ndjson": NdjsonEncoder,
        "csv": CsvEncoder,
        "arrow": ArrowEncoder,
        "parquet": ParquetEncoder,
    }
    return kinds[format]()


def unique(names: Sequence[str]) -> list[str]:
    """Names made distinct: the second `a` is `a_1`, or the next that is free."""
    taken = set(names)
    seen: set[str] = set()
    result = []
    for name in names:
        chosen, number = name, 0
        while chosen in seen:
            number += 1
            candidate = f"{name}_{number}"
            chosen = candidate if candidate not in taken else chosen
        seen.add(chosen)
        result.append(chosen)
    return result


class JsonEncoder:
    """One JSON object."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts:
        self._reads = _readers(schema, types)
        self._first = True
        columns = [{"name": name, "type": kind} for name, kind in zip(schema.names, types, strict=True)]
        head = _json.encode({"snapshot": {"size": snapshot[0], "root": snapshot[1]}, "columns": columns})
        return [head[:-1], b',"rows":[']

    def rows(self, batch: pa.RecordBatch) -> Parts:
        body = _json.encode(_rows(batch, self._reads))[1:-1]
        first, self._first = self._first, False
        return [body] if first else [b",", body]

    def end(self, rows: int, truncated: str) -> Parts:
        return [b"],", _json.encode({"row_count": rows, "truncated": truncated or None})[1:]]


class NdjsonEncoder:
    """One JSON object a line."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts:
        self._reads = _readers(schema, types)
        self._names = schema.names
        return []

    def rows(self, batch: pa.RecordBatch) -> Parts:
        names = self._names
        return [_json.encode_lines([dict(zip(names, row, strict=True)) for row in _rows(batch, self._reads)])]

    def end(self, rows: int, truncated: str) -> Parts:
        return [_json.encode_lines([{"$truncated": truncated}])] if truncated else []


class CsvEncoder:
    """RFC 4180 with LF line ends."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts:
        self._reads = _readers(schema, types)
        return [self._line(schema.names)]

    def rows(self, batch: pa.RecordBatch) -> Parts:
        return [b"".join(self._line(row) for row in _rows(batch, self._reads))]

    def end(self, rows: int, truncated: str) -> Parts:
        return [f"# truncated: {truncated}\n".encode()] if truncated else []

    @staticmethod
    def _line(row: Sequence[Any]) -> bytes:
        return (",".join(map(_field, row)) + "\n").encode()


class ArrowEncoder:
    """An Arrow IPC stream, cut into pieces at batch ends: the columns themselves, not copies of them."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts:
        metadata = {"strongroom.snapshot.size": str(snapshot[0]), "strongroom.snapshot.root": snapshot[1]}
        self._schema = schema.with_metadata(metadata)
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), self._schema)
        return self._sink.take()

    def rows(self, batch: pa.RecordBatch) -> Parts:
        self._writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))
        return self._sink.take()

    def end(self, rows: int, truncated: str) -> Parts:
        if truncated:
            nothing = [pa.array([], field.type) for field in self._schema]
            empty = pa.RecordBatch.from_arrays(nothing, schema=self._schema)
            self._writer.write_batch(empty, custom_metadata={"strongroom.truncated": truncated})
        self._writer.close()
        return self._sink.take()


class ParquetEncoder:
    """A Parquet file, cut into pieces at row groups of about ROW_GROUP_BYTES in memory."""

    def begin(self, schema: pa.Schema, types: Sequence[str], snapshot: Snapshot) -> Parts:
        # DuckDB's names of the types: what a column was, where Parquet has no such type.
        self._schema = schema.with_metadata({"strongroom.types": _json.encode(list(types)).decode()})
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd")
        size, root = snapshot
        self._writer.add_key_value_metadata({"strongroom.snapshot.size": str(size), "strongroom.snapshot.root": root})
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        return []

    def rows(self, batch: pa.RecordBatch) -> Parts:
        self._waiting.append(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))
        self._waiting_bytes += batch.nbytes
        return self._group() if self._waiting_bytes >= ROW_GROUP_BYTES else []

    def end(self, rows: int, truncated: str) -> Parts:
        last = self._group()
        self._writer.add_key_value_metadata({"strongroom.truncated": truncated} if truncated else {})
        self._writer.close()
        return last + self._sink.take()

    def _group(self) -> Parts:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting, self._waiting_bytes = [], 0
        return self._sink.take()


class _Sink:
    """A file that keeps what is written as it is given, until it is taken, and knows its length even then: a Parquet
    footer states offsets."""

    closed = False

    def __init__(self) -> None:
        self._parts: Parts = []
        self._length = 0

    def write(self, content: Any) -> int:
        self._parts.append(content)
        self._length += len(content)
        return len(content)

    def tell(self) -> int:
        return self._length

    def take(self) -> Parts:
        parts, self._parts = self._parts, []
        return parts

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def _rows(batch: pa.RecordBatch, reads: Sequence[_Read]) -> list[tuple[Any, ...]]:
    columns = [read(column) for read, column in zip(reads, batch.columns, strict=True)]
    return list(zip(*columns, strict=True)) if columns else [()] * batch.num_rows


def _field(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            text = value
            if text and not any(special in text for special in '",\n\r') and not text.startswith("#"):
                return text
        case {"base64": encoded, **others} if not others and isinstance(encoded, str):
            return f"base64:{encoded}"
        case int() | float() | Decimal():
            return str(value)
        case _:
            text = _json.encode(value).decode()
    return '"' + text.replace('"', '""') + '"'


def _readers(schema: pa.Schema, types: Sequence[str]) -> list[_Read]:
    """A reader a column; `types` are DuckDB's, for what a kept answer (convert.py) has in another type's clothes."""
    huge = [
        kind in ("HUGEINT", "UHUGEINT") and pa.types.is_decimal(field.type)
        for field, kind in zip(schema, types, strict=True)
    ]
    return [_whole if whole else _reader(field.type) for field, whole in zip(schema, huge, strict=True)]


def _whole(array: pa.Array) -> list[Any]:
    return _integers([None if value is None else int(value) for value in array.to_pylist()])


def _reader(kind: pa.DataType) -> _Read:
    """A function from an array of `kind` to its values in JSON's terms."""
    types = pa.types
    if types.is_int64(kind) or types.is_uint64(kind):
        return lambda array: _integers(array.to_pylist())
    if types.is_floating(kind):
        return _floats
    if types.is_decimal(kind):
        return _as_is if kind.precision <= 15 else lambda array: _each(array, str)
    if types.is_timestamp(kind):
        return lambda array: _instants(array, kind)
    if types.is_date32(kind):
        return lambda array: _endless(array.view(pa.int32()), pc.cast(array, pa.string()), _INT32_MAX)
    if types.is_time(kind):
        return lambda array: list(pc.cast(array, pa.string()).to_pylist())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda array: _each(array, lambda value: {"base64": b64encode(value).decode()})
    if types.is_dictionary(kind):
        read = _reader(kind.value_type)
        return lambda array: read(array.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(kind)
    if types.is_map(kind):
        return _map(kind)
    if types.is_fixed_size_list(kind):
        plain = pa.list_(kind.value_field)
        read = _reader(plain)
        return lambda array: read(array.cast(plain))
    if types.is_list(kind) or types.is_large_list(kind):
        read = _reader(kind.value_type)
        return lambda array: _split(array, read(array.values))
    if types.is_struct(kind):
        return _struct(kind)
    return _as_is


def _as_is(array: pa.Array) -> list[Any]:
    return list(array.to_pylist())


def _each(array: pa.Array, convert: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else convert(value) for value in array.to_pylist()]


def _integers(values: list[int | None]) -> list[Any]:
    return [str(value) if value is not None and abs(value) > EXACT_IN_JSON else value for value in values]


def _floats(array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    if pc.all(pc.is_finite(array)).as_py() is not False:
        return values
    odd = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return [value if value is None else odd.get(str(value), value) for value in values]


def _instants(array: pa.Array, kind: pa.TimestampType) -> list[Any]:
    text = pc.cast(array.view(pa.timestamp(kind.unit)), pa.string())
    text = pc.replace_substring(text, " ", "T", max_replacements=1)
    return _endless(array.view(pa.int64()), text, _INT64_MAX, "Z" if kind.tz else "")


def _endless(numbers: pa.Array, text: pa.Array, largest: int, suffix: str = "") -> list[Any]:
    """Texts of times, with DuckDB's two infinite ones put into words. They are the largest number and its negative."""
    values: list[Any] = text.to_pylist()
    if suffix:
        values = [None if value is None else value + suffix for value in values]
    bounds = pc.min_max(numbers)
    if bounds["max"].as_py() == largest or bounds["min"].as_py() == -largest:
        words = {largest: "infinity", -largest: "-infinity"}
        values = [words.get(number, value) for number, value in zip(numbers.to_pylist(), values, strict=True)]
    return values


def _extension(kind: pa.BaseExtensionType) -> _Read:
    name = getattr(kind, "type_name", kind.extension_name)
    if name in ("hugeint", "uhugeint"):
        signed = name == "hugeint"
        return lambda array: _integers(
            [None if v is None else int.from_bytes(v, "little", signed=signed) for v in array.storage.to_pylist()]
        )
    if name == "arrow.bool8":
        return lambda array: _each(array.storage, bool)
    if name == "arrow.uuid":
        return lambda array: _each(array.storage, lambda value: str(UUID(bytes=value)))
    read = _reader(kind.storage_type)
    return lambda array: read(array.storage)


def _split(array: pa.Array, values: list[Any]) -> list[Any]:
    offsets, valid = array.offsets.to_pylist(), array.is_valid().to_pylist()
    return [values[offsets[i] : offsets[i + 1]] if valid[i] else None for i in range(len(array))]


def _struct(kind: pa.StructType) -> _Read:
    names = [field.name for field in kind]
    reads = [_reader(field.type) for field in kind]

    def read(array: pa.Array) -> list[Any]:
        columns = [read(child) for read, child in zip(reads, array.flatten(), strict=True)]
        rows = zip(array.is_valid().to_pylist(), *columns, strict=True)
        return [dict(zip(names, row[1:], strict=True)) if row[0] else None for row in rows]

    return read


def _map(kind: pa.MapType) -> _Read:
    keys, items = _reader(kind.key_type), _reader(kind.item_type)
    text = pa.types.is_string(kind.key_type)

    def read(array: pa.Array) -> list[Any]:
        pairs = list(zip(keys(array.keys), items(array.items), strict=True))
        return [entry if entry is None else dict(entry) if text else entry for entry in _split(array, pairs)]

    return read
