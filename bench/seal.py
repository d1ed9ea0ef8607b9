"""How fast are records sealed on one core, and in how many bytes?

What is timed is `ingest.build.build`, all that a builder process does for a cut: read the spool, decompress, check
the digest, split into exact records, derive columns, sort, write Parquet, hash every record into the tree, and read the
finished file back. Putting and signing are a few milliseconds a cut and are in pipeline.py.

Cuts are built in as many processes as there are cores: `measure_cores` holds two builders against one, over the same
cuts, in wall time. On a machine with other work that row says little.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from pathlib import Path

import pyarrow as pa
from isal import isal_zlib

from bench import baselines
from bench.generate import Kind
from bench.measure import Contestant, Runs, Sample, Spread, contest, cores
from bench.report import Ratio, Row, Section
from strongroom.ingest import builders
from strongroom.ingest.build import Job, build
from strongroom.ingest.cuts import new_cut
from strongroom.ingest.frames import BatchHeader
from strongroom.ingest.intake import IntakeLimits
from strongroom.ingest.sealer import CONTENT_FACTOR
from strongroom.ingest.spool import Spool
from strongroom.ingest.writer import Writer

_GZIP = 31
_RECEIVED = 1_767_400_000_000_000
ONE, TWO = "one builder", "two builders"
SEALED, RAW, COLUMNS, GUNZIP = "sealed", "pyarrow, columns + raw", "pyarrow, columns only", "gunzip alone"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the segments hold and weigh."""

    records: int
    quarantined: int
    bytes: int


def spooled(source: str, files: Sequence[Path], folder: Path, most: int = 0) -> list[Job]:
    """The files as batches in a spool below `folder`, in cuts such as the sealer would make: of at most `most` bytes of
    content, or what the settings say."""
    spool = Spool(folder / "spool", epoch=1, limit_bytes=1 << 40, on_durable=lambda _: None)
    limits = IntakeLimits()
    most = most or CONTENT_FACTOR * limits.seal_bytes
    starts, size = [0], 0
    for number, file in enumerate(files):
        body = file.read_bytes()
        content = isal_zlib.decompress(body, wbits=_GZIP)
        header = BatchHeader(
            batch=sha256(body).hexdigest(),
            source=source,
            coding="gzip",
            sha256=sha256(content).hexdigest(),
            bytes=len(content),
            received_at=_RECEIVED,
            forwarder="bench",
            protocol="file",
            address="",
        )
        spool.append(header, [body]).result()
        if size and size + len(content) > most:
            starts.append(number)
            size = 0
        size += len(content)
    stops = [*starts[1:], len(files)]
    jobs = [
        Job(
            new_cut(start, stop - 1),
            Writer("bench", 1),
            tuple(spool.frames(start, stop - 1)),
            limits.max_expanded_bytes,
            str(folder / "work" / str(start)),
        )
        for start, stop in zip(starts, stops, strict=True)
    ]
    spool.close()
    return jobs


def sealing(source: str, files: Sequence[Path], folder: Path) -> Runs:
    """The sealer's own build function, over all cuts."""
    builders.keep_memory()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    jobs = spooled(source, files, folder)

    def run() -> Sealed:
        built = [build(job) for job in jobs]
        return Sealed(
            records=sum(batch.accepted for cut in built for batch in cut.batches),
            quarantined=sum(batch.quarantined for cut in built for batch in cut.batches),
            bytes=sum(item.facts.bytes for cut in built for item in cut.segments),
        )

    return repeat(run)


def measure(
    source: str, files: Sequence[Path], kind: Kind, folder: Path, rounds: int, progress: Callable[[str], None]
) -> Section:
    """The contest of one source. Raises RuntimeError when a contestant did not do its work."""
    core, _ = cores()
    folder.mkdir(parents=True)
    entered = [
        Contestant(SEALED, sealing, (source, files, folder / "sealed"), core),
        Contestant(RAW, baselines.columns_and_raw, (source, files, folder / "raw.parquet"), core),
        Contestant(COLUMNS, baselines.columns, (source, files, folder / "columns.parquet"), core),
        Contestant(GUNZIP, baselines.gunzip, (files,), core),
    ]
    samples = contest(entered, rounds=rounds, again=RAW, progress=progress)
    _check(source, kind, samples)
    return Section(
        f"{source}: sealing {kind.records:,} records from {kind.files} gzip files, per second of one core",
        (*_speeds(kind, samples), _memory(samples), _size(kind, samples)),
        {name: sample.facts() for name, sample in samples.items()},
    )


def building(source: str, files: Sequence[Path], kind: Kind, folder: Path, workers: int) -> Runs:
    """All cuts, of an eighth of the logs each, by so many builder processes; gives the records sealed."""
    jobs = spooled(source, files, folder, most=kind.bytes // 8)
    processes = builders.Builders(workers)

    async def all_of_them() -> int:
        built = await asyncio.gather(*(processes.run(build, job) for job in jobs))
        return sum(batch.accepted for cut in built for batch in cut.batches)

    try:
        while True:
            yield lambda: asyncio.run(all_of_them())
    finally:
        processes.close()


def measure_cores(
    kinds: Sequence[tuple[str, Sequence[Path], Kind]], folder: Path, rounds: int, progress: Callable[[str], None]
) -> Section:
    """Two builders against one. Raises RuntimeError when a record is missing."""
    folder.mkdir(parents=True)
    rows, facts = [], {}
    for source, files, kind in kinds:
        entered = [
            Contestant(name, building, (source, files, kind, folder / f"{source}-{workers}", workers))
            for name, workers in ((ONE, 1), (TWO, 2))
        ]
        samples = contest(entered, rounds=rounds, progress=progress)
        if {sample.result for sample in samples.values()} != {kind.records}:
            raise RuntimeError(f"{source}: {kind.records} records went in, another number was sealed")
        one, two = (Spread.rate(kind.records, samples[name].wall) for name in (ONE, TWO))
        rows.append(
            Row(f"{source}, {TWO}", two, "records/s", (Ratio(f"{ONE} ({one.median:,.0f})", two.median / one.median),))
        )
        facts[source] = {name: sample.facts() for name, sample in samples.items()}
    return Section(f"sealing in builder processes, {len(os.sched_getaffinity(0))} cores", tuple(rows), facts)


def _check(source: str, kind: Kind, samples: dict[str, Sample]) -> None:
    """Speed counts only for work that was done."""
    found = (samples[SEALED].result.records, samples[RAW].result[0], samples[COLUMNS].result[0])
    if set(found) != {kind.records} or samples[SEALED].result.quarantined or samples[GUNZIP].result != kind.bytes:
        raise RuntimeError(f"{source}: there are {kind.records} records; sealed, raw and columns have {found}")


def _speeds(kind: Kind, samples: dict[str, Sample]) -> tuple[Row, Row]:
    rates = {name: Spread.rate(kind.records, sample.cpu) for name, sample in samples.items()}
    ratios = tuple(
        Ratio(f"{name} ({rates[name].median:,.0f})", rates[SEALED].median / rates[name].median)
        for name in (RAW, COLUMNS, GUNZIP)
    )
    noise = rates[f"{RAW} (again)"].median / rates[RAW].median
    return (
        Row("sealed records", rates[SEALED], "records/s", ratios, note=f"{RAW}, against itself: ×{noise:.2f}"),
        Row("the same as decoded log", Spread.rate(kind.bytes / 1e6, samples[SEALED].cpu), "MB/s"),
    )


def _memory(samples: dict[str, Sample]) -> Row:
    peaks = {name: sample.peak_bytes / 1e6 for name, sample in samples.items()}
    ratios = tuple(Ratio(f"{name} ({peaks[name]:,.0f})", peaks[SEALED] / peaks[name]) for name in (RAW, COLUMNS))
    return Row("peak memory of the process", Spread.exactly(peaks[SEALED]), "MB", ratios)


def _size(kind: Kind, samples: dict[str, Sample]) -> Row:
    sealed = samples[SEALED].result.bytes / kind.records
    rivals = {
        "gzip original": kind.gzip_bytes / kind.records,
        RAW: samples[RAW].result[1] / kind.records,
        COLUMNS: samples[COLUMNS].result[1] / kind.records,
    }
    ratios = tuple(Ratio(f"{name} ({each:,.1f})", sealed / each) for name, each in rivals.items())
    return Row("segment bytes a record", Spread.exactly(sealed), "B", ratios)
