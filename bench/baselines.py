"""What sealing is held against: the same files, the same columns, by plain pyarrow, and keeping no proof of anything.

`columns` is what a careful engineer writes in an afternoon: decompress, `pyarrow.json` or `pyarrow.csv` with an
explicit schema of the fields that Strongroom makes columns of, one Parquet file, zstd level 3, the same row groups.
It keeps no record's exact bytes. `columns_and_raw` keeps them too, beside the columns, which is the nearest thing to
the same work. `gunzip` only decompresses, with the library that Strongroom uses: nothing that reads these files can be
faster.

All use one thread. None checks, sorts, splits by date, hashes, reads back or syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from isal import isal_zlib
from pyarrow import csv, json

from bench.measure import Runs
from strongroom.ingest import builders

_ROW_GROUP = 65_536
_GZIP = 31
_TEXT, _INT = pa.string(), pa.int64()

_EVENT = pa.struct(
    {
        **dict.fromkeys(
            (
                *("eventTime", "eventVersion", "eventID", "eventName", "eventSource", "eventType", "eventCategory"),
                *("awsRegion", "recipientAccountId", "sourceIPAddress", "userAgent", "errorCode", "errorMessage"),
                *("requestID", "sharedEventID", "vpcEndpointId"),
            ),
            _TEXT,
        ),
        "readOnly": pa.bool_(),
        "managementEvent": pa.bool_(),
        "userIdentity": pa.struct(
            {
                **dict.fromkeys(
                    ("type", "principalId", "arn", "accountId", "accessKeyId", "userName", "invokedBy"), _TEXT
                ),
                "sessionContext": pa.struct(
                    {
                        "sessionIssuer": pa.struct({"arn": _TEXT, "userName": _TEXT}),
                        "attributes": pa.struct({"mfaAuthenticated": _TEXT}),
                        "sourceIdentity": _TEXT,
                    }
                ),
            }
        ),
        "requestParameters": pa.struct({"bucketName": _TEXT}),
        "additionalEventData": pa.struct({"MFAUsed": _TEXT}),
        "tlsDetails": pa.struct({"tlsVersion": _TEXT}),
        "resources": pa.list_(pa.struct({"ARN": _TEXT})),
    }
)
_NUMBERS = frozenset({"version", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "tcp-flags"})


class _File(msgspec.Struct):
    Records: list[msgspec.Raw]


Outcome = tuple[int, int]
"""Records written and bytes of the Parquet file."""


def columns(source: str, files: Sequence[Path], target: Path) -> Runs:
    """Typed columns only."""
    read = {"cloudtrail": _events, "vpcflow": _flows}[source]
    return _writing(read, files, target)


def columns_and_raw(source: str, files: Sequence[Path], target: Path) -> Runs:
    """Typed columns, and each record's exact bytes."""
    read = {"cloudtrail": _events_and_raw, "vpcflow": _flows_and_raw}[source]
    return _writing(read, files, target)


def gunzip(files: Sequence[Path]) -> Runs:
    """Decompressing alone; gives the decoded bytes."""
    bodies = _bodies(files)
    return repeat(lambda: sum(len(isal_zlib.decompress(body, wbits=_GZIP)) for body in bodies))


def _bodies(files: Sequence[Path]) -> list[bytes]:
    builders.keep_memory()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    return [file.read_bytes() for file in files]


def _writing(read: Callable[[bytes], pa.Table], files: Sequence[Path], target: Path) -> Runs:
    bodies = _bodies(files)

    def run() -> Outcome:
        tables = [read(isal_zlib.decompress(body, wbits=_GZIP)) for body in bodies]
        table = pa.concat_tables(tables, promote_options="default")
        pq.write_table(table, target, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP)
        return table.num_rows, target.stat().st_size

    return repeat(run)


def _events(content: bytes) -> pa.Table:
    """The whole file is one JSON document, so pyarrow sees one row with a list of events."""
    table = _read_json(content, pa.schema({"Records": pa.list_(_EVENT)}))
    return _flattened(table.column("Records").combine_chunks().flatten())


def _events_and_raw(content: bytes) -> pa.Table:
    raws = [bytes(raw) for raw in msgspec.json.decode(content, type=_File).Records]
    table = _read_json(b"\n".join(raws), pa.schema(list(_EVENT)))
    events = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in table.columns], fields=list(table.schema)
    )
    return _flattened(events).append_column("raw", pa.array(raws, pa.binary()))


def _read_json(content: bytes, schema: pa.Schema) -> pa.Table:
    return json.read_json(
        pa.BufferReader(content),
        read_options=json.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _flattened(events: pa.Array) -> pa.Table:
    """One column a leaf, event time as a timestamp."""
    found: dict[str, Any] = {}

    def walk(array: pa.Array, name: str) -> None:
        if pa.types.is_struct(array.type):
            for field, child in zip(array.type, array.flatten(), strict=True):
                walk(child, f"{name}_{field.name}" if name else field.name)
        else:
            found[name] = array

    walk(events, "")
    found["eventTime"] = pc.strptime(found["eventTime"], "%Y-%m-%dT%H:%M:%SZ", "us")
    return pa.table(found)


def _flows(content: bytes) -> pa.Table:
    names = content[: content.index(b"\n")].decode().split(" ")
    return csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=csv.ConvertOptions(
            column_types={name: _INT if name in _NUMBERS else _TEXT for name in names},
            null_values=["-"],
            strings_can_be_null=True,
        ),
    )


def _flows_and_raw(content: bytes) -> pa.Table:
    lines = content.rstrip(b"\n").split(b"\n")[1:]
    return _flows(content).append_column("raw", pa.array(lines, pa.binary()))
