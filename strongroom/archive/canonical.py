"""The one JSON encoding of the archive format: JCS (RFC 8785) restricted to what needs no choices. Pure.

Values are objects with ASCII keys, arrays, strings, booleans and integers of magnitude below 2^53. No floats, no
null: with those two gone, sorted keys and minimal separators *are* the JCS form. What is hashed and signed are always
the exact stored bytes; `decode` therefore refuses bytes that `encode` would not have written, so that one value has
one encoding and a reader and a verifier can never disagree about a document.
"""

from __future__ import annotations

import json
from typing import Any

from strongroom.archive.errors import FormatError

_LARGEST = 2**53 - 1


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`. Raises FormatError for values outside the restricted form."""
    _check(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Any:
    """The value of canonical `data`. Raises FormatError for anything that is not exactly canonical."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"not canonical JSON: {error}") from None
    if encode(value) != data:
        raise FormatError("not canonical JSON: the same value has another, canonical encoding")
    return value


def _check(value: Any, path: str) -> None:
    match value:
        case bool():
            return
        case int():
            if abs(value) > _LARGEST:
                raise FormatError(f"{path}: integer beyond 2^53")
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise FormatError(f"{path}: lone surrogate in a string") from None
        case list() | tuple():
            for position, element in enumerate(value):
                _check(element, f"{path}[{position}]")
        case dict():
            for key, element in value.items():
                if not isinstance(key, str) or not key.isascii():
                    raise FormatError(f"{path}: key {key!r} is not an ASCII string")
                _check(element, f"{path}.{key}")
        case _:
            raise FormatError(f"{path}: {type(value).__name__} has no canonical form")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _no_float(text: str) -> Any:
    raise ValueError(f"number {text} is not an integer")
