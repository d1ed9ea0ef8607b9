"""Other engines, pointed at the same logs, with two threads each and their views open.

DuckDB, Polars, DataFusion and ClickHouse (chdb) read the sealed Parquet files in place; one more DuckDB reads the gzip
files as they were delivered.

The raw files are seen through views that take out of each record, by JSON path, what a question names and nothing
else; written any other way that we tried, DuckDB took longer (questions.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb

THREADS = 2
PLAIN, RAW_FILES = "DuckDB", "DuckDB over the raw gzip files"
MODULES = {PLAIN: "duckdb", "Polars": "polars", "DataFusion": "datafusion", "chdb": "chdb"}
Rows = list[tuple[str, ...]]
Ask = Callable[[str], Rows]

_DUCKDB_HOUR = "CAST(epoch(date_trunc('hour', event_time)) AS BIGINT)"
HOURS = {
    PLAIN: _DUCKDB_HOUR,
    RAW_FILES: _DUCKDB_HOUR,
    "Polars": "hour_of",
    "DataFusion": "CAST(date_part('epoch', date_trunc('hour', event_time)) AS BIGINT)",
    "chdb": "toUnixTimestamp(toStartOfHour(event_time))",
}
"""An engine's way to cut a time to hours."""
RECORDS = {
    PLAIN: "decode(raw)",
    RAW_FILES: "raw",
    "Polars": "raw",
    "DataFusion": "arrow_cast(raw, 'Utf8')",
    "chdb": "raw",
}
"""An engine's way to see the record as text."""
_EVENTS = """
    SELECT e->>'$.eventID' AS event_id, e->>'$.eventName' AS event_name,
           e->>'$.userIdentity.accessKeyId' AS access_key_id, e->>'$.errorCode' AS error_code,
           e->>'$.sourceIPAddress' AS source_address, CAST(e AS VARCHAR) AS raw
    FROM (SELECT unnest(json_extract(json, '$.Records[*]')) AS e
          FROM read_json_objects('{files}', format = 'unstructured', maximum_object_size = 268435456))"""
_FLOWS = """
    SELECT "account-id" AS account, "interface-id" AS interface_id, srcaddr AS source_address,
           dstaddr AS destination_address, CAST(bytes AS BIGINT) AS bytes, action,
           to_timestamp(CAST("start" AS BIGINT)) AS event_time
    FROM read_csv('{files}', delim = ' ', header = true, nullstr = '-', all_varchar = true, union_by_name = true)"""


def raw_files(data: Path) -> Ask:
    """DuckDB over the files of a generated folder."""
    connection = _connected()
    for name, view in (("cloudtrail", _EVENTS), ("vpcflow", _FLOWS)):
        connection.execute(f"CREATE VIEW {name} AS {view.format(files=data / name / '*.gz')}")
    return lambda sql: as_text(connection.execute(sql).fetchall())


def _connected() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def plain(archive: Path) -> Ask:
    """DuckDB over the segments of an archive."""
    connection = _connected()
    for name in ("cloudtrail", "vpcflow"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{segments(archive, name)}')")
    return lambda sql: as_text(connection.execute(sql).fetchall())


def _polars(archive: Path) -> Ask:
    import polars as pl

    hour = (pl.col("event_time").dt.truncate("1h").dt.epoch("s")).alias("hour_of")
    cloudtrail = pl.scan_parquet(segments(archive, "cloudtrail")).with_columns(pl.col("raw").cast(pl.String))
    flows = pl.scan_parquet(segments(archive, "vpcflow")).with_columns(hour)
    context = pl.SQLContext(cloudtrail=cloudtrail, vpcflow=flows)
    return lambda sql: as_text(context.execute(sql, eager=True).rows())


def _datafusion(archive: Path) -> Ask:
    from datafusion import SessionConfig, SessionContext

    context = SessionContext(SessionConfig().with_target_partitions(THREADS))
    for name in ("cloudtrail", "vpcflow"):
        context.register_parquet(name, str(archive / f"segments/source={name}"))

    def ask(sql: str) -> Rows:
        table = context.sql(sql).to_arrow_table()
        return as_text(zip(*(column.to_pylist() for column in table.columns), strict=True))

    return ask


def _chdb(archive: Path) -> Ask:
    from chdb import session

    untyped: Any = session
    opened = untyped.Session()
    for name in ("cloudtrail", "vpcflow"):
        opened.query(f"CREATE VIEW {name} AS SELECT * FROM file('{segments(archive, name)}', Parquet)")

    def ask(sql: str) -> Rows:
        answer = str(opened.query(f"{sql} SETTINGS max_threads = {THREADS}", "JSONCompactEachRow"))
        return as_text(json.loads(line) for line in answer.splitlines())

    return ask


OPENERS: Mapping[str, Callable[[Path], Ask]] = {
    PLAIN: plain,
    RAW_FILES: raw_files,
    "Polars": _polars,
    "DataFusion": _datafusion,
    "chdb": _chdb,
}


def segments(archive: Path, source: str) -> str:
    """The pattern of a source's segments."""
    return f"{archive}/segments/source={source}/*/*.parquet"


def as_text(rows: Iterable[Any]) -> Rows:
    """Rows as text, in an order of their own: engines differ in types and, where the question has none, in order."""
    return sorted(tuple(str(value) for value in row) for row in rows)
