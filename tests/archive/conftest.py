"""Real archives in temporary folders, built with the archive package alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
from strongroom.archive.policy import Policy
from strongroom.archive.retention import rules as retention
from strongroom.archive.retention.rules import Retention
from strongroom.archive.signer import Signer
from strongroom.archive.trust import Trust
from strongroom.archive.verification.holdings import summarise_times
from tests import buckets
from tests.segments import write_segment

VECTORS = Path(__file__).parents[1] / "vectors"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGIN = "logs.example.org/test"


def records_table(raws: list[bytes], start: datetime = NOW) -> pa.Table:
    """The universal columns and one typed column, `name`, which each record's JSON gives."""
    count = len(raws)
    times = [start + timedelta(seconds=number) for number in range(count)]
    universal = pa.table(
        [
            pa.array(times, pa.timestamp("us", tz="UTC")),
            pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            pa.array([0] * count, pa.int64()),
            pa.array(range(count), pa.int64()),
            pa.nulls(count, pa.binary()),
            pa.array(raws, pa.binary()),
        ],
        schema=segment.UNIVERSAL,
    )
    return universal.append_column("name", pa.array([json.loads(raw)["name"] for raw in raws]))


def rederive(source: str, stored: pa.Table) -> pa.Table | None:
    """What a parser would give deep verification for these records."""
    if source != "test":
        return None
    return pa.table({"name": [json.loads(raw)["name"] for raw in stored.column("raw").to_pylist()]})


@dataclass
class Archive:
    """A writer and a signer over one archive; every commit has one segment and one details object."""

    root: Path
    memory: Path
    signers: list[keys.LocalSigner] = field(default_factory=lambda: keys.generate(ORIGIN))
    store: Any = None
    rules: Retention = Retention()  # noqa: RUF009 (frozen)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.store = self.store or buckets.store_at(self.root)
        self.folder, self.root = self.root.parent, buckets.files_of(self.root)
        self.log = Log.create(self.store, ORIGIN, [signer.key.vkey() for signer in self.signers], self.now)
        self.log.retention = self.rules
        self.signer = Signer(self.store, self.signers, self.memory)
        self.sequence = 0

    @property
    def trust(self) -> Trust:
        """A verifier's trust that remembers nothing."""
        return Trust(Policy(tuple(signer.key for signer in self.signers)))

    def commit(self, count: int = 3, sign: bool = True, day: date = date(2026, 11, 24)) -> Entry:
        """Seal `count` records as the writer's next batch."""
        number = self.sequence
        raws = [json.dumps({"name": f"batch {number} record {row}"}).encode() for row in range(count)]
        table = records_table(raws)
        key = layout.segment_key("test", day, "w1", 1, number, number)
        built = self.folder / f"build-{number}.parquet"
        facts = write_segment(built, table, secret=sha256(key.encode()).digest(), metadata={"source": "test"})
        assert segment.read_back(built) == facts
        promise = self.rules.promise(key, self.now)
        stored = self.store.create(key, built, retain_until=promise.until if promise else None)
        writer = WriterRange("w1", 1, number, number)
        total, smallest, largest, hours = summarise_times(table.column("event_time"))
        summary = SegmentSummary(key, "test", str(day), total, smallest, largest, hours)
        stated = details.encode(Details("00" * 32, writer, (), (summary,)))
        details_key = layout.details_key("w1", 1, number, number)
        kept = self.rules.promise(details_key, self.now)
        stored_details = self.store.create(details_key, stated, retain_until=kept.until if kept else None)
        entry = self.log.append(
            Draft(
                "segment",
                self.now + timedelta(minutes=number),
                writer=writer,
                retain_until=kept.until if kept else None,
                segments=(
                    SegmentRef(key, stored.version, facts.bytes, facts.sha256, facts.records, facts.root, facts.groups),
                ),
                details=ObjectRef(details_key, stored_details.version, len(stated), sha256(stated).hexdigest()),
                data={retention.MEMBER: retention.stated({"test": promise})} if promise else {},
            )
        )
        self.sequence += 1
        if sign:
            self.signer.sign()
        return entry

    def path(self, key: str) -> Path:
        """The file behind an object, made writable: what an insider with root does first."""
        path = self.root / key
        path.chmod(0o640)
        return path


@pytest.fixture
def new_archive(tmp_path: Path) -> Iterator[Callable[[], Archive]]:
    """Makes archives in folders of their own."""
    made = iter(range(100))

    def make() -> Archive:
        folder = tmp_path / f"archive-{next(made)}"
        folder.mkdir()
        return Archive(folder / "archive", folder / "signer.json")

    yield make


@pytest.fixture
def archive(new_archive: Callable[[], Archive]) -> Archive:
    """Genesis and five commits, all signed."""
    made = new_archive()
    made.signer.sign()
    for _ in range(5):
        made.commit()
    return made
