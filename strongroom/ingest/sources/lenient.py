"""Reading a record that may be odd: what can be understood is, the rest is null.

The fast way is msgspec into a Struct, where a wrong type anywhere refuses the whole record. The slow way, taken only
then, reads the record into plain values (bytes that are not UTF-8 and lone surrogates become U+FFFD) and fills the
Struct field by field, so that a mistyped field costs itself and not its neighbours. Where both ways work they agree:
of duplicate keys the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def plain(raw: bytes) -> Any:
    """The value of a record as plain Python values; None when there is no way to read it."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # parse_int: Python refuses integers of more than 4,300 digits; as a float they are merely infinite.
        return _scrubbed(json.loads(raw.decode("utf-8", "replace"), strict=False, parse_int=_number))
    except (ValueError, RecursionError):
        return None


def record(raw: bytes) -> Mapping[str, Any]:
    """The record as a mapping; empty when it is not an object or cannot be read."""
    value = plain(raw)
    return value if isinstance(value, dict) else {}


def struct(decoder: msgspec.json.Decoder[S], kind: type[S], raw: bytes) -> S:
    """The record as a Struct whose fields all have defaults; fields of a wrong type keep their default."""
    try:
        return decoder.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _filled(kind, record(raw))


def structs(decoder: msgspec.json.Decoder[S], kind: type[S], raws: Sequence[bytes]) -> list[S]:
    """`struct` of each record, without a call of Python's own for the ordinary ones."""
    found: list[S] = []
    rest = iter(raws)
    while len(found) < len(raws):
        try:
            found.extend(map(decoder.decode, rest))
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The list has all up to the odd record, the iterator is behind it.
            found.append(_filled(kind, record(raws[len(found)])))
    return found


def _filled(kind: type[S], values: Mapping[str, Any]) -> S:
    fields: dict[str, Any] = {}
    for name, (expected, nested) in _fields(kind).items():
        value = values.get(name)
        if nested is not None and isinstance(value, dict):
            fields[name] = _filled(nested, value)
        elif value is not None:
            try:
                fields[name] = msgspec.convert(value, expected)
            except msgspec.ValidationError:
                continue
    return kind(**fields)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, tuple[Any, type[msgspec.Struct] | None]]:
    """Field → (its type, the Struct in it if any)."""
    found: dict[str, tuple[Any, type[msgspec.Struct] | None]] = {}
    for name, expected in get_type_hints(kind).items():
        choices = get_args(expected) if isinstance(expected, UnionType) else (expected,)
        nested = [c for c in choices if isinstance(c, type) and issubclass(c, msgspec.Struct)]
        found[name] = (expected, nested[0] if nested else None)
    return found


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _scrubbed(value: Any) -> Any:
    """Without lone surrogates, which no UTF-8 can carry."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    return value
