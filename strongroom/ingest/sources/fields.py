"""Typed columns declared as paths into a JSON record.

For sources whose records are read into plain values: each column names its Arrow type and one or more paths, of which
the first that leads to a usable value counts. A name in a path also matches with its first letter in the other case,
since AWS writes the same finding as `accountId` (S3 export, EventBridge) and `AccountId` (API). `*` walks all elements
of an array. Values are converted where nothing is lost (a number to text, "true" to true, ISO text to a time); what
does not fit becomes null. A column may bring a conversion of its own, such as the account out of an ARN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.ingest.sources import times
from strongroom.ingest.sources.source import TEXT, TEXTS, TIME

Path = tuple[str, ...]
Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Field:
    """One column: `paths` are written with dots, `service.action.actionType`."""

    name: str
    type: pa.DataType
    paths: tuple[Path, ...]
    convert: Convert | None = None


def field(name: str, *paths: str | Path, type: pa.DataType = TEXT, convert: Convert | None = None) -> Field:
    """A column read from the first of `paths` that has a value.

    A path with a dot in a name is given as a tuple. `convert` takes a JSON value to one of `type`, or to None.
    """
    walked = tuple(tuple(path.split(".")) if isinstance(path, str) else path for path in paths)
    return Field(name, type, walked, convert)


def schema(fields: Sequence[Field]) -> pa.Schema:
    """The Arrow schema of the columns, without `event_time`."""
    return pa.schema([pa.field(f.name, f.type) for f in fields if f.name != "event_time"])


def table(fields: Sequence[Field], records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One row a record, the columns in the order of `fields`."""
    return pa.table({f.name: pa.array([value(f, r) for r in records], f.type) for f in fields})


def value(field: Field, record: Mapping[str, Any]) -> Any:
    """One cell: the first path with a value that fits the column's type, else None."""
    convert = field.convert or _CONVERTERS[field.type]
    for path in field.paths:
        found = _walk(record, path)
        converted = convert(found) if found is not None else None
        if converted is not None:
            return converted
    return None


def _walk(node: Any, path: Path) -> Any:
    for depth, name in enumerate(path):
        if name == "*":
            return list(_each(node, path[depth + 1 :]))
        if isinstance(node, list):
            node = node[0] if node else None
        if not isinstance(node, dict):
            return None
        node = node[name] if name in node else node.get(_other_case(name))
    return node


def _each(node: Any, rest: Path) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            found = _walk(item, rest)
            if found is not None:
                yield found


def _other_case(name: str) -> str:
    return name[:1].swapcase() + name[1:]


def text(value: Any) -> str | None:
    """Text, or what JSON would write for a number or a boolean; of an array the first element; of an object nothing."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return text(value[0]) if isinstance(value, list) and value else None


def _texts(value: Any) -> list[str] | None:
    found = [text(v) for v in value] if isinstance(value, list) else [text(value)]
    return [v for v in found if v is not None] or None


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        return None
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def truth(value: Any) -> bool | None:
    """A boolean, also where it was written as text: AWS writes "true", "Yes" and true."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _TRUTHS.get(value.lower())
    return None


_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}

_CONVERTERS: dict[pa.DataType, Callable[[Any], Any]] = {
    TEXT: text,
    TEXTS: _texts,
    TIME: times.microseconds,
    pa.int64(): _integer,
    pa.float64(): _number,
    pa.bool_(): truth,
}


def of_arn(part: int) -> Convert:
    """A conversion to one part of an ARN: 3 is the region, 4 the account. None where the ARN leaves it empty."""

    def convert(value: Any) -> str | None:
        name = text(value)
        parts = name.split(":", 5) if name else []
        return parts[part] or None if len(parts) == 6 and parts[0] == "arn" else None

    return convert


REGION_OF_ARN, ACCOUNT_OF_ARN = of_arn(3), of_arn(4)


def joined(table: pa.Table, *columns: str) -> pa.Array:
    """`<identity>@<moment in microseconds>`: columns as one identity, such as that of one version of something that is
    updated. Null where one of them is."""
    parts = [table[c].cast(pa.int64()).cast(TEXT) if table[c].type == TIME else table[c].cast(TEXT) for c in columns]
    joined = pc.binary_join_element_wise(*parts, "@")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
