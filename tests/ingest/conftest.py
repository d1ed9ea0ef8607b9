"""A whole ingest side over a directory archive, with faults at every effect."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from strongroom.archive import details, keys, segment
from strongroom.archive.details import BatchFacts
from strongroom.archive.encryption.wrapping import NO_KEYS, WrappingKeys
from strongroom.archive.errors import StoreUnavailable
from strongroom.archive.log import Log
from strongroom.archive.note import KeyType
from strongroom.archive.policy import Policy
from strongroom.archive.signer import Signer
from strongroom.archive.stores import ObjectInfo, ObjectStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.verify import verify
from strongroom.ingest.diskless import BucketRules
from strongroom.ingest.intake import Accepted, Intake, IntakeLimits, Origin
from strongroom.ingest.sources import BUILT_IN, SOURCES, Registry
from tests import buckets

ORIGIN = "logs.example.org/ingest"
SENDER = Origin("sender", "http", "192.0.2.1")
LIMITS = IntakeLimits(workers=0, seal_age_seconds=3600, spool_bytes=64 << 20)


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test may catch it."""


class Faults:
    """Kills at the effect of a given number; counts effects."""

    def __init__(self, kill_at: int = -1) -> None:
        self.kill_at = kill_at
        self.seen: list[str] = []

    def effect(self, name: str) -> None:
        self.seen.append(name)
        if len(self.seen) - 1 == self.kill_at:
            raise Killed(name)


class FaultyStore:
    """A store that can be down, and that can die before and after each creation."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.faults = Faults()
        self.down = False

    @property
    def description(self) -> str:
        return self.inner.description

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        self._up()
        self.faults.effect(f"before {key}")
        info = self.inner.create(key, content, retain_until=retain_until)
        self.faults.effect(f"after {key}")
        return info

    def get(self, key: str, version: str = "") -> bytes:
        self._up()
        return self.inner.get(key, version)

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self._up()
        self.inner.fetch(key, path, version)

    def head(self, key: str, version: str = "") -> ObjectInfo:
        self._up()
        return self.inner.head(key, version)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        self._up()
        return self.inner.list(prefix, start_after)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    def _up(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")


@dataclass
class House:
    """One archive and one writer's state directory; `open` starts an intake as a new process would."""

    root: Path
    limits: IntakeLimits = LIMITS
    rules: BucketRules = field(default_factory=BucketRules)
    wrapping: WrappingKeys = NO_KEYS
    store: FaultyStore = field(init=False)
    files: Path = field(init=False)
    signers: list[keys.LocalSigner] = field(init=False)
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.store = FaultyStore(buckets.store_at(self.root / "archive"))
        self.files = buckets.files_of(self.root / "archive")
        self.signers = keys.load_or_create(self.root / "keys" / "log.pem", ORIGIN)
        self.receipts = keys.load_or_create(self.root / "keys" / "receipts.pem", ORIGIN, [KeyType.ED25519])[0]
        self.state = self.root / "state"
        Log.create(self.store, ORIGIN, [s.key.vkey() for s in self.signers], datetime.now(UTC))

    def intake(
        self, *, state: Path | None = None, writer_id: str = "w1", registry: Registry = BUILT_IN, **limits: float
    ) -> Intake:
        self.signer = Signer(self.store, self.signers, self.root / "memory.json")
        return Intake(
            store=self.store,
            log=Log.open(self.store, self.wrapping),
            directory=state or self.state,
            writer_id=writer_id,
            receipt_signer=self.receipts,
            sign_checkpoint=self.signer.sign,
            registry=registry,
            rules=self.rules,
            limits=replace(self.limits, **limits),  # type: ignore[arg-type]
        )

    async def open(self, **options: object) -> Intake:
        intake = self.intake(**options)  # type: ignore[arg-type]
        await intake.start()
        return intake

    # -- what the archive holds, read without the code under test

    def log(self) -> Log:
        return Log.open(self.store.inner, self.wrapping)

    def sealed(self) -> list[BatchFacts]:
        log = self.log()
        return [
            batch
            for entry in log.entries()
            if entry.details is not None
            for batch in details.decode(log.contents.read(entry.details)).batches
        ]

    def rows(self) -> pa.Table:
        """source, raw, sequence, position and event_time of every record that the log names."""
        tables = []
        log = self.log()
        for entry in log.entries():
            for reference in entry.segments:
                source = reference.key.split("source=")[1].split("/")[0]
                with log.contents.file(reference) as path:
                    for table in segment.tables(path):
                        rows = table.select(["raw", "context", "sequence", "position", "event_time"])
                        tables.append(rows.append_column("source", pa.array([source] * len(rows))))
        return pa.concat_tables(tables)

    def raws(self) -> Counter[bytes]:
        return Counter(self.rows().column("raw").to_pylist())

    def must_be_sound(self) -> None:
        trust = Trust(Policy(tuple(s.key for s in self.signers)))
        report = verify(self.store.inner, trust, "deep", rederive=rederive, keys=self.wrapping)
        assert report.sound, report.findings


def rederive(source: str, rows: pa.Table) -> pa.Table:
    return SOURCES[source].derive(rows.column("raw").to_pylist(), rows.column("context").to_pylist())


async def chunks(body: bytes, size: int = 7000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def send(
    intake: Intake,
    body: bytes,
    *,
    source: str = "json",
    coding: str = "auto",
    key: str | None = None,
    keep: bool = False,
) -> Accepted:
    return await intake.receive(
        chunks(body), source=source, coding=coding, origin=SENDER, idempotency_key=key, quarantine_undecodable=keep
    )


def records(*numbers: int, day: str = "2024-05-06") -> bytes:
    """NDJSON; one record a number, none carrying an id of its own."""
    return b"\n".join(json.dumps({"time": f"{day}T10:00:00Z", "n": n}).encode() for n in numbers)


def events(*numbers: int, day: str = "2024-05-06") -> bytes:
    """A CloudTrail file, whose records carry ids."""
    found = [
        {
            "eventVersion": "1.08",
            "eventID": f"00000000-0000-0000-0000-{n:012d}",
            "eventTime": f"{day}T10:00:00Z",
            "eventSource": "s3.amazonaws.com",
            "eventName": "GetObject",
            "awsRegion": "us-east-1",
        }
        for n in numbers
    ]
    return json.dumps({"Records": found}).encode()


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def lines(bodies: Iterable[bytes]) -> Counter[bytes]:
    return Counter(line for body in bodies for line in body.split(b"\n"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)
