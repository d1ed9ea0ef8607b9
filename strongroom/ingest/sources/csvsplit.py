"""Finding the exact records in a CSV body: rows under a header line, which is the context of each.

RFC 4180: fields between commas, some in quotes, in which a quote is doubled and line feeds may stand. A row is cut with
its quotes and without its terminator. A row with another number of fields than the header is broken; but a stray quote
makes one row of many lines, so of such a row only the first line is, and the next one is looked at afresh. (A line is
read twice at most: what a stray quote swallows ends at the next line that has one.)
"""

from __future__ import annotations

import re

from strongroom.ingest.sources import lines
from strongroom.ingest.sources.source import Found, Split

# One row: the possessive parts never give back what they took, so that a row is read once.
_ROW = re.compile(rb'(?:[^"\n]++|"[^"]*+")*+(?=\n|\Z)')
_FIELD = re.compile(r'(?:"((?:[^"]|"")*+)"|([^,"]*+))(?:,|\Z)')


def split(body: bytes) -> Split:
    """The rows under the first line. Never raises."""
    reason = lines.binary(body)
    if reason is not None:
        return lines.whole(body, reason)
    found = Found()
    header, width, at = None, 0, len(lines.BOM) if body.startswith(lines.BOM) else 0
    while at < len(body):
        first = body.find(b"\n", at)
        first = len(body) if first < 0 else first
        match = _ROW.match(body, at)
        stop = match.end() if match else first
        row = body[at:stop].removesuffix(b"\r")
        if row.isspace() or not row:
            at = stop + 1
        elif header is None:
            header, width, at = row, len(fields(row)), stop + 1
        elif match and len(fields(row)) == width:
            found.record(row, header)
            at = stop + 1
        else:
            found.damaged(body[at:first].removesuffix(b"\r"), "not a row under the header line")
            at = first + 1
    split = found.split()
    if header is not None and not split.raw:
        return lines.whole(body, "a header line without a row that fits it")
    return split


def fields(row: bytes) -> list[str]:
    """The fields of one row, quotes undone; empty for what is no row."""
    text = row.decode("utf-8", "replace")
    values, at = [], 0
    while at <= len(text):
        match = _FIELD.match(text, at)
        if match is None:
            return []
        quoted, bare = match.groups()
        values.append(bare if quoted is None else quoted.replace('""', '"'))
        if match.end() == len(text) and not text.endswith(",", match.start(), match.end()):
            return values
        at = match.end()
    return values
