"""How fast do many rows reach whoever asked, as Arrow? And how much memory does the way take?

Ten columns of every flow record, over HTTP from a real service: read as Arrow batches by the typed client, and by
nothing but Python's own HTTP client, which costs least. Held against DuckDB in the process of whoever asked, over the
same segments, batch by batch as well. Nobody keeps the rows; each counts them and adds up one column, and both sums
must be right. Wall time.

Memory is the most that any moment saw: of the one process, or of the client, the service and its workers together.
All who ask over HTTP ask one service, so its share is the same in both figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from bench import rivals
from bench.measure import Contestant, Runs, Spread, contest
from bench.report import Ratio, Row, Section
from bench.service import Service, serving
from strongroom.client import Client

CLIENT, SOCKET, PLAIN = "client", "HTTP alone", "DuckDB in process"
_SQL = (
    "SELECT event_time, account, interface_id, source_address, destination_address, source_port, destination_port, "
    "packets, bytes, action FROM vpcflow"
)
_BATCH_ROWS = 100_000
_LIMITS = {"query_rows": 1 << 40, "query_answer_bytes": 1 << 40, "query_seconds": 3600, "query_threads": rivals.THREADS}
Counted = tuple[int, int]
"""Rows, and the sum of `bytes`."""


def by_client(service: Service, expected: Counted) -> Runs:
    """As people read it."""
    with Client(f"http://{service.host}:{service.port}", service.token, timeout_seconds=600) as client:

        def run() -> None:
            with client.stream(_SQL, limit=expected[0] + 1) as stream:
                _check(stream, expected)

        while True:
            yield run


def by_socket(service: Service, expected: Counted) -> Runs:
    """As cheaply as it can be read."""
    headers = {
        "Authorization": f"Bearer {service.token}",
        "Content-Type": "application/json",
        "Accept": "application/vnd.apache.arrow.stream",
    }
    question = json.dumps({"sql": _SQL, "limit": expected[0] + 1}).encode()

    def run() -> None:
        connection = service.connect()
        connection.request("POST", "/v1/query", question, headers)
        with pa.ipc.open_stream(connection.getresponse()) as batches:
            _check(batches, expected)

    while True:
        yield run


def in_process(archive: Path, expected: Counted) -> Runs:
    """DuckDB's own batches."""
    connection = duckdb.connect(config={"threads": rivals.THREADS})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    connection.execute(f"CREATE VIEW vpcflow AS FROM read_parquet('{rivals.segments(archive, 'vpcflow')}')")
    while True:
        yield lambda: _check(connection.sql(_SQL).to_arrow_reader(_BATCH_ROWS), expected)


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """All flow records of the archive in `folder`."""
    archive = folder / "archive"
    ((rows_there, bytes_there),) = rivals.plain(archive)("SELECT count(*), sum(bytes) FROM vpcflow")
    expected: Counted = (int(rows_there), int(bytes_there))
    with serving(folder, **_LIMITS) as service:
        entered = [
            Contestant(CLIENT, by_client, (service, expected)),
            Contestant(SOCKET, by_socket, (service, expected)),
            Contestant(PLAIN, in_process, (archive, expected)),
        ]
        samples = contest(entered, rounds=rounds, again=SOCKET, progress=progress)
        served_bytes = service.tree_peak_bytes()
    each = {name: Spread.rate(expected[0] / 1e6, sample.wall) for name, sample in samples.items()}
    memory = {name: sample.peak_bytes + served_bytes * (name != PLAIN) for name, sample in samples.items()}
    noise = each[f"{SOCKET} (again)"].median / each[SOCKET].median
    rows = [
        Row(
            f"rows as Arrow by {name}",
            each[name],
            "M rows/s",
            (Ratio(f"{PLAIN} ({each[PLAIN].median:.1f})", each[name].median / each[PLAIN].median),),
            note=f"against itself: ×{noise:.2f}" if name == SOCKET else "",
        )
        for name in (CLIENT, SOCKET)
    ]
    rows += [
        Row(
            f"memory, by {name}",
            Spread.exactly(memory[name] / 1e6),
            "MB",
            (Ratio(f"{PLAIN} ({memory[PLAIN] / 1e6:,.0f})", memory[name] / memory[PLAIN]),),
        )
        for name in (CLIENT, SOCKET)
    ]
    facts = {name: sample.facts() | {"all_peak_bytes": memory[name]} for name, sample in samples.items()}
    return Section(f"streaming {expected[0]:,} flow records of ten columns, answers equal", tuple(rows), facts)


def _check(batches: Iterable[pa.RecordBatch], expected: Counted) -> None:
    rows = total = 0
    for batch in batches:
        rows += batch.num_rows
        total += pc.sum(batch.column("bytes")).as_py() or 0
    if (rows, total) != expected:
        raise RuntimeError(f"{rows} rows with {total} bytes, not {expected}")
