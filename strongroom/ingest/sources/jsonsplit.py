"""Finding the exact records in a JSON body, whatever contains them.

One splitter serves every JSON source. A body is a stream of documents: one pretty-printed document, one a line,
several without any separator (as Firehose writes them), or one array of documents. What a document holds is told by
documents.py.

msgspec checks the structure and yields the slices (about 1 GB/s); it does not look into strings, so bytes that are not
UTF-8 pass and stay. Two things need care:

  * It refuses lone surrogate escapes (`\\ud800`), which JSON's grammar allows. They are overwritten in a copy of the
    same length, the *shape*; structure is read from the shape, records are cut from the body at the same offsets.
  * It refuses a whole body for one damaged byte. Such bodies go to repair.py, which finds what is sound around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from strongroom.ingest.sources import lines, repair
from strongroom.ingest.sources.documents import ARRAY, MALFORMED, OBJECT, Container, cut, elements, expand, open_whole
from strongroom.ingest.sources.source import Found, Split

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_DOCUMENTS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.Raw)
_RAW: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)


def split(body: bytes, containers: Sequence[Container] = ()) -> Split:
    """Every record of a JSON body. Never raises; what is no JSON object is broken."""
    reason = lines.binary(body)
    if reason is not None:
        return lines.whole(body, reason)
    body = body.removeprefix(lines.BOM)
    try:
        return _sound(body, body, containers)
    except MALFORMED:
        shape = _SURROGATE.sub(rb"\\u0041", body)
    if shape != body:
        try:
            return _sound(body, shape, containers)
        except MALFORMED:
            pass
    return repair.split(body, shape, containers)


def readable(body: bytes) -> bytes | None:
    """The shape of a body that is one sound document: the body itself if it can be; None when there is none."""
    for shape in (body, _SURROGATE.sub(rb"\\u0041", body)):
        try:
            _RAW.decode(shape)
        except MALFORMED:
            continue
        return shape
    return None


def _sound(body: bytes, shape: bytes, containers: Sequence[Container]) -> Split:
    """The records of a sound body. Raises one of MALFORMED for any other."""
    found = Found()
    first = shape.lstrip()[:1]
    if not first:
        return found.split()
    if first[0] == OBJECT:
        try:
            if open_whole(body, shape, containers, found):
                return found.split()
        except MALFORMED:
            pass  # several documents, or damage: reading it as a stream tells
    present = [c for c in containers if c.needle in shape]
    for document, document_shape in cut(body, shape, _documents(shape, first[0])):
        expand(document, document_shape, present, found)
    return found.split()


def _documents(shape: bytes, first: int) -> list[msgspec.Raw]:
    if first == ARRAY:
        try:
            return elements(shape)
        except MALFORMED:
            pass  # several arrays, perhaps
    return _DOCUMENTS.decode_lines(shape)
