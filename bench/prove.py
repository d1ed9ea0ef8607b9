"""What integrity costs: hashing leaves, verifying an archive, proving one record, bundling ten thousand.

Verification is held against `sha256sum` of the same files in the same rounds: *complete* can at best be as fast, *deep*
does what nothing else does. One core, CPU time; proofs and bundles wall time, on warm files.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from bench.measure import Contestant, Runs, Spread, contest, cores
from bench.report import Ratio, Row, Section
from strongroom.archive import evidence, layout, policy, segment
from strongroom.archive.log import Log
from strongroom.archive.merkle import root_of
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import Level
from strongroom.archive.verification.verify import verify
from strongroom.ingest.sources.registry import BUILT_IN
from strongroom.service.checking.verification import Rederive

_BUNDLED = 10_000
_PROOFS = 20


def verifying(archive: Path, trust: Path, level: Level) -> Runs:
    """Verifies the archive; gives the number of findings, which must be 0."""
    store = DirectoryStore(archive)
    trusted = Trust(policy.parse(trust.read_text()))
    while True:
        yield lambda: len(verify(store, trusted, level, rederive=Rederive(BUILT_IN), threads=1).findings)


def summing(archive: Path) -> Runs:
    """`sha256sum` over the segments and details; gives the bytes read."""
    files = _objects(archive)
    size = sum(file.stat().st_size for file in files)

    def run() -> int:
        subprocess.run(["sha256sum", *map(str, files)], check=True, stdout=subprocess.DEVNULL)
        return size

    while True:
        yield run


def hashing(archive: Path) -> Runs:
    """Leaf hashes and records roots of all segments; gives the records."""
    groups = [raws for file in _objects(archive) if file.suffix == ".parquet" for raws in _groups(file)]

    def run() -> int:
        for raws in groups:
            root_of(segment.leaf_hashes(raws, bytes(segment.SECRET_BYTES), 0))
        return sum(len(raws) for raws in groups)

    while True:
        yield run


def plain_hashing(archive: Path) -> Runs:
    """One SHA-256 a record, with no nonce and no tree; gives the records."""
    groups = [raws for file in _objects(archive) if file.suffix == ".parquet" for raws in _groups(file)]

    def run() -> int:
        for raws in groups:
            for raw in raws:
                hashlib.sha256(raw).digest()
        return sum(len(raws) for raws in groups)

    while True:
        yield run


def proving(archive: Path) -> Runs:
    """Proofs of single records, chosen at random from all; gives how many."""
    store = DirectoryStore(archive)
    log = Log.open(store)
    picks = _picks(log, _PROOFS)

    def run() -> int:
        for entry, position, row in picks:
            evidence.prove_record(store, log, log.size, entry, position, row)
        return len(picks)

    while True:
        yield run


def bundling(archive: Path, trust: Path, folder: Path) -> Runs:
    """A bundle of ten thousand records from all over the archive; gives its bytes."""
    store = DirectoryStore(archive)
    log = Log.open(store)
    trusted = policy.parse(trust.read_text())
    checkpoint = store.get(layout.checkpoint_key(log.size))
    rows: dict[tuple[int, int], list[int]] = {}
    for entry, position, row in _picks(log, _BUNDLED):
        rows.setdefault((entry, position), []).append(row)
    picks = [((entry, position), sorted(set(found))) for (entry, position), found in sorted(rows.items())]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "bundle.zip"

    def run() -> int:
        target.unlink(missing_ok=True)
        evidence.write(
            target,
            store=store,
            log=log,
            checkpoint=checkpoint,
            policy=trusted,
            picks=picks,
            custody={"who": "bench"},
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )
        return target.stat().st_size

    while True:
        yield run


def measure(archive: Path, state: Path, folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """The costs of one archive, which must be sound."""
    core, _ = cores()
    trust = state / "verifier" / "policy"
    levels: tuple[Level, ...] = ("complete", "deep")
    entered = [
        Contestant("sha256sum", summing, (archive,), core),
        Contestant("leaves", hashing, (archive,), core),
        Contestant("plain", plain_hashing, (archive,), core),
        Contestant("proof", proving, (archive,), core),
        Contestant("bundle", bundling, (archive, trust, folder), core),
        *(Contestant(level, verifying, (archive, trust, level), core) for level in levels),
    ]
    samples = contest(entered, rounds=rounds, progress=progress)
    for level in levels:
        if samples[level].result:
            raise RuntimeError(f"{level} verification of the bench's own archive has findings")
    size, records = samples["sha256sum"].result, samples["leaves"].result
    summed = Spread.rate(size / 1e6, samples["sha256sum"].wall)
    plain = Spread.rate(records, samples["plain"].cpu)
    leaves = Spread.rate(records, samples["leaves"].cpu)
    rows = [
        Row(
            "leaf hashes and trees", leaves, "records/s", (Ratio("one SHA-256 a record", leaves.median / plain.median),)
        ),
        Row("sha256sum of all objects", summed, "MB/s"),
    ]
    for level in levels:
        spread = Spread.rate(size / 1e6, samples[level].wall)
        rows.append(Row(f"verify {level}", spread, "MB/s", (Ratio("sha256sum", spread.median / summed.median),)))
    proof = Spread.of([1e3 * seconds / _PROOFS for seconds in samples["proof"].wall])
    rows.append(Row("proof of one record", proof, "ms"))
    bundle = Spread.of([1e3 * seconds for seconds in samples["bundle"].wall])
    note = f"{samples['bundle'].result / _BUNDLED:.0f} bytes a record"
    rows.append(Row(f"evidence bundle of {_BUNDLED:,} records", bundle, "ms", note=note))
    facts = {name: sample.facts() for name, sample in samples.items()} | {"bytes": size, "records": records}
    return Section("what integrity costs, in one core", tuple(rows), facts)


def _objects(archive: Path) -> list[Path]:
    return sorted(
        file for name in (layout.SEGMENTS, layout.DETAILS) for file in (archive / name).rglob("*") if file.is_file()
    )


def _groups(file: Path) -> list[list[bytes]]:
    with pq.ParquetFile(file) as opened:
        groups = range(opened.metadata.num_row_groups)
        return [opened.read_row_group(group, columns=["raw"]).column("raw").to_pylist() for group in groups]


def _picks(log: Log, count: int) -> list[tuple[int, int, int]]:
    """Records at random, the same each time: entry, segment's position in it, row."""
    chance = random.Random(7)
    segments = [(e.index, place, ref.records) for e in log.entries() for place, ref in enumerate(e.segments)]
    weights = [records for *_, records in segments]
    drawn = chance.choices(segments, weights, k=count)
    return [(entry, place, chance.randrange(records)) for entry, place, records in drawn]
