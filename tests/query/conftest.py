"""A real archive with two sources, and an engine over it, shared by the tests of this package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from strongroom.archive import details, keys, layout, segment
from strongroom.archive.details import Details, SegmentSummary
from strongroom.archive.entry import Draft, Entry, ObjectRef, SegmentRef, WriterRange
from strongroom.archive.log import Log
from strongroom.query.engine import Answer, Outcome, QueryEngine
from strongroom.query.limits import QueryLimits
from strongroom.query.views import ViewSource
from tests import buckets
from tests.segments import write_segment

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGIN = "logs.example.org/query"

APP = ViewSource(
    "app",
    pa.schema([("name", pa.string()), ("number", pa.int64()), ("tags", pa.list_(pa.string()))]),
    {"actor": "name", "action": "'act ' || number", "outcome": "CASE WHEN number = 0 THEN 'denied' END"},
    "what applications said",
)
FLOW = ViewSource("flow", pa.schema([("bytes", pa.int64()), ("added_later", pa.float64())]), {}, "flows")
EMPTY = ViewSource("quiet", pa.schema([("words", pa.string())]), {"message": "words"}, "a source nobody sends")
VIEWS = (APP, FLOW, EMPTY)

LIMITS = QueryLimits(
    seconds=2.0,
    memory_bytes=512 << 20,
    bytes=20 << 20,
    concurrency=3,
    per_user=2,
    queue_seconds=0.3,
    stall_seconds=1,
)


@dataclass
class Archive:
    """One writer's archive. `seal` commits one batch of raw records of one source."""

    root: Path
    signers: list[keys.LocalSigner] = field(default_factory=lambda: keys.generate(ORIGIN))

    def __post_init__(self) -> None:
        self.store = buckets.store_at(self.root)
        self.folder, self.root = self.root.parent, buckets.files_of(self.root)
        self.log = Log.create(self.store, ORIGIN, [signer.key.vkey() for signer in self.signers], NOW)
        self.sequence = 0

    def seal(self, source: str, raws: list[bytes], columns: dict[str, pa.Array], start: datetime = NOW) -> Entry:
        number, count = self.sequence, len(raws)
        self.sequence += 1
        times = [start + timedelta(seconds=row) for row in range(count)]
        universal = [
            pa.array(times, pa.timestamp("us", tz="UTC")),
            pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            pa.array([number] * count, pa.int64()),
            pa.array(range(count), pa.int64()),
            pa.nulls(count, pa.binary()),
            pa.array(raws, pa.binary()),
        ]
        table = pa.table(universal, schema=segment.UNIVERSAL)
        for name, values in columns.items():
            table = table.append_column(name, values)
        key = layout.segment_key(source, date(2026, 11, 24), "w", 1, number, number)
        built = self.folder / f"build-{number}.parquet"
        facts = write_segment(built, table, secret=sha256(key.encode()).digest(), metadata={"source": source})
        self.store.create(key, built)
        writer = WriterRange("w", 1, number, number)
        micros = [int(time.timestamp() * 1_000_000) for time in times]
        summary = SegmentSummary(key, source, "2026-11-24", count, min(micros), max(micros))
        stated = details.encode(Details("00" * 32, writer, (), (summary,)))
        details_key = layout.details_key("w", 1, number, number)
        self.store.create(details_key, stated)
        reference = SegmentRef(key, "", facts.bytes, facts.sha256, facts.records, facts.root, facts.groups)
        stored = ObjectRef(details_key, "", len(stated), sha256(stated).hexdigest())
        draft = Draft("segment", NOW, writer=writer, segments=(reference,), details=stored)
        return self.log.append(draft)

    def seal_app(self, count: int = 3) -> Entry:
        """A batch of `app`, records numbered from 0."""
        batch = self.sequence
        raws = [json.dumps({"name": f"n{batch}", "number": number, "ä": "ü"}).encode() for number in range(count)]
        columns = {
            "name": pa.array([f"n{batch}"] * count),
            "number": pa.array(range(count), pa.int64()),
            "tags": pa.array([["a", None], None, []] * count, pa.list_(pa.string())).slice(0, count),
        }
        return self.seal("app", raws, columns)

    def path(self, key: str) -> Path:
        """The file behind an object, made writable: what an insider does first."""
        path = self.root / key
        path.chmod(0o640)
        return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Genesis; app, app, flow (sealed before `added_later` was a column), flow with invalid UTF-8."""
    archive = Archive(tmp_path_factory.mktemp("query") / "archive")
    archive.seal_app()
    archive.seal_app(4)
    archive.seal("flow", [b"1 2 3", b"4 5 6"], {"bytes": pa.array([10, 20], pa.int64())})
    archive.seal("flow", [b"7 \xff 9"], {"bytes": pa.array([30], pa.int64()), "added_later": pa.array([0.5])})
    return archive


class Bench:
    """An engine on an event loop of its own, driven from plain test functions."""

    def __init__(self, archive: Archive, directory: Path, limits: QueryLimits = LIMITS) -> None:
        self.runner = asyncio.Runner()
        self.archive, self.limits = archive, limits
        self.engine = QueryEngine(store=archive.store, log=archive.log, views=VIEWS, directory=directory, limits=limits)
        self.run(self.engine.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def answer(self, sql: str, parameters: Any = None, **options: Any) -> tuple[Answer, bytes, Outcome]:
        return self.run(collect(self.engine, sql, parameters, **options))  # type: ignore[no-any-return]

    def rows(self, sql: str, parameters: Any = None, **options: Any) -> list[list[Any]]:
        _, body, _ = self.answer(sql, parameters, **options)
        return json.loads(body)["rows"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self.run(self.engine.stop())
        self.runner.close()


async def collect(
    engine: QueryEngine, sql: str, parameters: Any = None, **options: Any
) -> tuple[Answer, bytes, Outcome]:
    answer = await engine.run(sql, parameters, **options)
    body = b"".join([piece async for piece in answer.body])
    return answer, body, await answer.finished


@pytest.fixture(scope="module")
def bench(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(archive, tmp_path_factory.mktemp("cache"))
    yield bench
    bench.close()


@pytest.fixture
def own_bench(tmp_path: Path) -> Iterator[Callable[[Archive], Bench]]:
    """Engines over archives of the test's own, which it may damage."""
    benches: list[Bench] = []

    def make(archive: Archive, limits: QueryLimits = LIMITS) -> Bench:
        benches.append(Bench(archive, tmp_path / f"cache-{len(benches)}", limits))
        return benches[-1]

    yield make
    for made in benches:
        made.close()
