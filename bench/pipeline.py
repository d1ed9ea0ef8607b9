"""The whole way, on one core: files through the intake, durable, sealed into the archive, signed.

Everything runs as it does in the service and in `strongroom ingest`: receiving with a receipt for each file, group
commits, the sealer's own process, putting into a directory store with its syncs, the entry, the signer's check of what
it signs. All processes share one core. What is timed ends when the log has an entry for the last file and a checkpoint
for the entry. Wall time: this waits for disks.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from bench import baselines
from bench.generate import Kind
from bench.measure import Contestant, Runs, Spread, contest, cores
from bench.report import Ratio, Row, Section
from bench.seal import RAW
from strongroom.ingest.intake import Intake, Origin
from strongroom.service.node import ArchiveWriter, intake_limits
from strongroom.service.settings import Settings

_AT_ONCE = 8  # as `strongroom ingest` does
_WARM = {"warm": b'[{"n": 1}]'}


def archiving(files: Sequence[Path], folder: Path) -> Runs:
    """Takes the files into an archive, a fresh one every time; gives the records sealed."""
    bodies = {file.name: file.read_bytes() for file in files}
    with asyncio.Runner() as runner:
        while True:
            settings = Settings(archive=folder / "archive", state=folder / "state")
            writer = ArchiveWriter(settings, intake_limits(settings))
            runner.run(_open(writer))
            try:
                yield partial(_take_all, runner, writer, bodies)
            finally:
                runner.run(writer.stop())
                shutil.rmtree(folder)


def _take_all(runner: asyncio.Runner, writer: ArchiveWriter, bodies: dict[str, bytes]) -> int:
    return runner.run(_take(writer, bodies))


async def _open(writer: ArchiveWriter) -> None:
    await writer.start()
    # The builder process is up before the first file comes, as in a service.
    await _deliver(writer.intake, _WARM, "json")
    await writer.intake.seal()


async def _take(writer: ArchiveWriter, bodies: dict[str, bytes]) -> int:
    before = writer.intake.counters().sealed_records
    await _deliver(writer.intake, bodies, "auto")
    size = await writer.intake.seal()
    if writer.signed is None or writer.signed.size < size:
        raise RuntimeError(f"the log has {size} entries and they are not all signed")
    return writer.intake.counters().sealed_records - before


async def _deliver(intake: Intake, bodies: dict[str, bytes], source: str) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, body: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield body

        async with gate:
            await intake.receive(chunks(), source=source, coding="auto", origin=Origin("bench", "file", "", name))

    await asyncio.gather(*(one(name, body) for name, body in bodies.items()))


def measure(
    kinds: Sequence[tuple[str, Sequence[Path], Kind]], folder: Path, rounds: int, progress: Callable[[str], None]
) -> Section:
    """Both sources, each into archives of its own. Raises RuntimeError when a record is missing."""
    core, _ = cores()
    folder.mkdir(parents=True)
    rows, facts = [], {}
    for name, files, kind in kinds:
        entered = [
            Contestant(name, archiving, (files, folder / name), core),
            Contestant(RAW, baselines.columns_and_raw, (name, files, folder / f"{name}.parquet"), core),
        ]
        samples = contest(entered, rounds=rounds, progress=progress)
        mine = samples[name]
        if mine.result != kind.records:
            raise RuntimeError(f"{name}: {kind.records} records went in, {mine.result} were sealed")
        rates = {rival: Spread.rate(kind.records, sample.wall) for rival, sample in samples.items()}
        ratio = Ratio(f"{RAW} ({rates[RAW].median:,.0f})", rates[name].median / rates[RAW].median)
        rows.append(Row(f"{name}, received to signed", rates[name], "records/s", (ratio,)))
        rows.append(Row("the same as decoded log", Spread.rate(kind.bytes / 1e6, mine.wall), "MB/s"))
        facts[name] = {rival: sample.facts() for rival, sample in samples.items()}
    return Section("the whole way on one core: receive, spool, seal, put, sign", tuple(rows), facts)
