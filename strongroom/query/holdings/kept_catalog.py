"""The catalog on disk between two runs: derived, checked before it is believed, rebuilt from the log when missing.

One file: SHA-256 of the rest, then the length of a header and the header, then two Arrow files, the segments' columns
and the rows of the entries. The header names the tree size and root that it was written at: since entries never
change, it is about this log exactly when this log's root at that size is the same.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import pyarrow as pa

from strongroom.query.holdings.segments import SegmentTable

FORMAT = "strongroom/catalog/1"
_LENGTH_BYTES, _DIGEST_BYTES = 8, 32


class _Header(msgspec.Struct, frozen=True):
    format: str
    size: int
    root: str
    problems: tuple[str, ...]
    segments_bytes: int


_headers = msgspec.json.Decoder(_Header)


@dataclass(frozen=True, slots=True)
class Kept:
    """A catalog at one tree size."""

    size: int
    root: str
    entries: pa.Table
    segments: SegmentTable
    problems: tuple[str, ...]


def save(path: Path, kept: Kept) -> None:
    """Write `kept` to `path`, whole or not at all. Raises OSError."""
    segments, entries = _encoded(kept.segments.table()), _encoded(kept.entries)
    header = msgspec.json.encode(_Header(FORMAT, kept.size, kept.root, kept.problems, segments.size))
    body = [len(header).to_bytes(_LENGTH_BYTES), header, segments, entries]
    digest = sha256()
    for part in body:
        digest.update(part)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in (digest.digest(), *body):
                file.write(part)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def load(path: Path) -> Kept | None:
    """What `save` wrote; None when there is nothing, or something else."""
    with suppress(OSError, msgspec.DecodeError, pa.ArrowException, KeyError, ValueError):
        content = memoryview(path.read_bytes())
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if sha256(body).digest() != digest:
            return None
        length = int.from_bytes(body[:_LENGTH_BYTES])
        header = _headers.decode(body[_LENGTH_BYTES : _LENGTH_BYTES + length])
        tables = body[_LENGTH_BYTES + length :]
        if header.format != FORMAT:
            return None
        segments = SegmentTable.restore(_decoded(tables[: header.segments_bytes]))
        entries = _decoded(tables[header.segments_bytes :]).combine_chunks()
        return Kept(header.size, header.root, entries, segments, header.problems)
    return None


def _encoded(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _decoded(content: memoryview) -> pa.Table:
    with pa.ipc.open_file(pa.py_buffer(content)) as reader:
        return reader.read_all()
