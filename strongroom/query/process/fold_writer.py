"""The process that makes folds: `python -m strongroom.query.process.fold_writer <settings>`, started by fold_maker.py.

It stands behind the walls of a query's process (sandbox.py), for it parses the same files: it can read them and write
nothing but its output, and the server that receives it gives it a place. DuckDB reads, which opens small files several
times faster than Arrow does, a row group is held at a time, and Arrow writes it. It has the lowest priority there is:
queries and the intake go first.

    server -> process   a Job each, as JSON, with its length before it
    process -> server   the file in pieces, each with its length before it; a piece of length 0 ends the file

It ends with its input, and when it can't make a fold: half a file is never taken for a whole one.

Chosen by measuring (500 segments of 200 events and of 1,000 flows each): zstd 1 against lz4 scans as fast within noise
and takes half the disk; row groups of 122,880 scan a tenth faster than of 65,536; the encodings of segments
(archive/segment.py) save a third on flows. No Bloom filters: single values are looked up in the index first, and what
it leaves is seldom a whole fold. Rows keep the order of their segments, which is that of time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.archive.segment import NO_DICTIONARY, encoding_of
from strongroom.query.process import sandbox

LENGTH_BYTES = 4
ROW_GROUP, LEAST_ROWS, ROW_GROUP_BYTES = 122_880, 2_048, 64 << 20
_DATABASE_MIB, _MEMORY_BYTES, _CPU_SECONDS = 256, 1 << 30, 300


class Job(msgspec.Struct, frozen=True):
    """What to make a fold of: `paths`, all of segments or all of folds.

    Of segments, `root` is the folder of object names; of folds it is "". `metadata` goes into the footer.
    """

    paths: list[str]
    root: str
    metadata: dict[str, str]


class Settings(msgspec.Struct, frozen=True):
    """What the server tells the process on its command line, as JSON."""

    readable: list[str]
    parent: int


class _Output:
    """The pipe as Arrow wants to write to it: it can say how much it was given."""

    closed = False

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._given = pipe, 0

    def write(self, content: bytes) -> int:
        if content:
            self._pipe.write(len(content).to_bytes(LENGTH_BYTES))
            self._pipe.write(content)
        self._given += len(content)
        return len(content)

    def tell(self) -> int:
        return self._given

    def flush(self) -> None:
        """The end of the file flushes."""

    def close(self) -> None:
        self.closed = True


def main() -> None:
    """Make folds until there is no next job."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    folders = [Path(path) for path in settings.readable]
    sandbox.enter(readable=folders, memory_bytes=_MEMORY_BYTES, parent=settings.parent)
    os.nice(19)
    while length := incoming.read(LENGTH_BYTES):
        job = msgspec.json.decode(incoming.read(int.from_bytes(length)), type=Job)
        sandbox.allow_processor_seconds(_CPU_SECONDS)
        write(job, outgoing)
        outgoing.write(bytes(LENGTH_BYTES))
        outgoing.flush()


def write(job: Job, output: BinaryIO) -> None:
    """The fold of `job`, a row group at a time. Raises duckdb.Error, pa.ArrowException."""
    with duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{_DATABASE_MIB}MiB",
            "threads": 1,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,
            "arrow_lossless_conversion": True,
        },
    ) as database:
        database.execute("SET TimeZone = 'UTC'")
        rows = _rows_at_once(job.paths)
        with database.sql(_rows(job)).to_arrow_reader(rows) as reader:
            schema = reader.schema.with_metadata(job.metadata)
            encodings = {field.name: encoding for field in schema if (encoding := _encoding(field))}
            with pq.ParquetWriter(
                _Output(output),
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=[name for name in schema.names if name not in NO_DICTIONARY | encodings.keys()],
                column_encoding=encodings,
            ) as writer:
                for batch in reader:
                    writer.write_batch(batch, row_group_size=rows)


def _rows(job: Job) -> str:
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in job.paths)
    if not job.root:
        return f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"  # noqa: S608
    return (
        f"SELECT * EXCLUDE (_file, file_row_number), substr(_file, {len(job.root) + 2}) AS _segment, "  # noqa: S608
        f"CAST(file_row_number AS BIGINT) AS _row "
        f"FROM read_parquet([{listed}], hive_partitioning = false, filename = '_file', file_row_number = true)"
    )


def _rows_at_once(paths: list[str]) -> int:
    """As many as make a row group, fewer where rows are long."""
    rows = size = 0
    for path in paths:
        metadata = pq.read_metadata(path)
        rows += metadata.num_rows
        size += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    fitting = ROW_GROUP_BYTES * rows // max(size, 1)
    return min(max(fitting // LEAST_ROWS, 1) * LEAST_ROWS, ROW_GROUP)


def _encoding(field: pa.Field) -> str | None:
    """As segments have it: rows are nearly in the order of time."""
    return "DELTA_BINARY_PACKED" if field.name == "_row" else encoding_of(field)


if __name__ == "__main__":
    main()
