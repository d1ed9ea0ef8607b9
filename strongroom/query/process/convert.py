"""A kept answer in another format: `python -m strongroom.query.process.convert <settings>`, Parquet in, any format out.

Answers are kept as Parquet files (service/answers/jobs.py) that came from a process which ran a stranger's SQL. So they
are read again only behind the same walls: this process stands in the sandbox before it looks at the file, which is its
standard input, and can open no other.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.query import results
from strongroom.query.errors import QueryFailed
from strongroom.query.process import sandbox
from strongroom.query.process.pool import library_folders, worker_environment

BATCH_ROWS, WIDE_BATCH_ROWS = 2048, 16_384
"""Rows encoded at once, as in worker.py: of text, and of Arrow. Never more than a row group (results.py) has."""
PIECE_BYTES = 1 << 19
MEMORY_BYTES = 1 << 30


class Settings(msgspec.Struct, frozen=True):
    """What the server tells the process on its command line, as JSON."""

    format: str
    snapshot: tuple[int, str]
    truncated: str
    parent: int


async def converted(file: Path, format: str, snapshot: tuple[int, str], truncated: str) -> AsyncIterator[bytes]:
    """The answer in `file` in another format. Raises QueryFailed when the process does not come to its end."""
    settings = Settings(format, snapshot, truncated, os.getpid())
    with file.open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-B", "-P", "-m", "strongroom.query.process.convert", msgspec.json.encode(settings).decode()),
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            limit=PIECE_BYTES,  # else it comes in crumbs
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=worker_environment(),
        )
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(PIECE_BYTES):
            yield piece
        if await process.wait() != 0:
            raise QueryFailed("the kept answer could not be converted", hint="download it as Parquet, or ask again")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    """Write the answer to standard output."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not belong into the answer
    sandbox.enter(readable=library_folders(), memory_bytes=MEMORY_BYTES, parent=settings.parent)
    with os.fdopen(0, "rb") as kept:
        for piece in pieces(kept, settings):
            outgoing.write(piece)
    outgoing.close()


def pieces(kept: BinaryIO, settings: Settings) -> Iterator[Any]:
    """The answer that is kept in a Parquet file, encoded anew, as bytes and buffers (results.Parts)."""
    encoder, rows = results.encoder(settings.format), 0
    with pq.ParquetFile(pa.PythonFile(kept, mode="r")) as answer:
        schema = answer.schema_arrow
        types = msgspec.json.decode(schema.metadata[b"strongroom.types"], type=list[str])
        yield from encoder.begin(schema.remove_metadata(), types, settings.snapshot)
        step = WIDE_BATCH_ROWS if settings.format == "arrow" else BATCH_ROWS
        for batch in answer.iter_batches(step, use_threads=False):
            rows += batch.num_rows
            yield from encoder.rows(batch.replace_schema_metadata(None))
    yield from encoder.end(rows, settings.truncated)


if __name__ == "__main__":
    main()
