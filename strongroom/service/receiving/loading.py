"""`strongroom ingest PATH…`: files and folders straight into an archive, through the same intake as the service.

Each file is one batch, read as a stream; several are read at once and share an fsync, and segments are built in as many
processes as the settings say. It can be stopped and repeated: a file's absolute path is its idempotency key, so that
the same file with the same content is not taken twice, and what was taken before is durable. Told to stop, it reads no
further, seals what it took and says so. A running service is no obstacle: this is one more writer of the same log,
under a name of its own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from strongroom.ingest.errors import DeliveryRefused, IntakeUnavailable, SpoolLocked
from strongroom.ingest.fetch.backfill import Progress
from strongroom.ingest.intake import Accepted, Origin
from strongroom.service.acts import local_user
from strongroom.service.commands.interruption import on_signal
from strongroom.service.node import ArchiveWriter, intake_limits
from strongroom.service.settings import Settings

_CHUNK = 1 << 20
_AT_ONCE = 8  # files in flight share one fsync
_WRITERS = 16
_RETRY_SECONDS = 0.2
_NAMED = 1000  # refused files that a summary names; all are counted


@dataclass(slots=True)
class Summary:
    """What became of the files. files = batches + duplicates + refused, and those not reached when `interrupted`.

    records = accepted + quarantined, of what was sealed now; duplicates were taken before and not stored again;
    `reasons` names the first refused.
    """

    files: int = 0
    batches: int = 0
    duplicates: int = 0
    refused: int = 0
    bytes: int = 0
    records: int = 0
    accepted: int = 0
    quarantined: int = 0
    log_size: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    reasons: list[dict[str, str]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every file was taken and nothing was quarantined."""
        return not (self.refused or self.quarantined or self.interrupted)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The regular files among and below `paths`, absolute, each once, in order. Raises FileNotFoundError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(item for item in path.rglob("*") if item.is_file())
        elif path.is_file():
            below = [path]
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
        found.update((item.absolute(), None) for item in below)
    return list(found)


async def load(settings: Settings, files: Sequence[Path], source: str, progress: Progress) -> Summary:
    """Take in `files` as batches of `source`, seal, and count. Raises what opening the archive raises."""
    begun = time.monotonic()
    progress.found(len(files), sum(map(_size, files)))
    progress.found_all()
    writer = await start_writer(settings)
    summary = Summary(files=len(files))
    try:
        before = writer.intake.counters()
        working = asyncio.create_task(_take_all(writer, files, source, progress, summary))
        on_signal(working.cancel)
        with suppress(asyncio.CancelledError):
            await working
        summary.interrupted = working.cancelled()
        summary.log_size = await writer.intake.seal()
        after = writer.intake.counters()
    finally:
        await writer.stop()
    summary.accepted = after.sealed_records - before.sealed_records
    summary.quarantined = after.quarantined_records - before.quarantined_records
    summary.records = summary.accepted + summary.quarantined
    summary.seconds = round(time.monotonic() - begun, 3)
    return summary


async def _take_all(
    writer: ArchiveWriter, files: Iterable[Path], source: str, progress: Progress, summary: Summary
) -> None:
    waiting = iter(files)
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(_take_each(writer, waiting, source, progress, summary))


async def _take_each(
    writer: ArchiveWriter, waiting: Iterator[Path], source: str, progress: Progress, summary: Summary
) -> None:
    """Take file after file of those that are waiting, which others take from as well."""
    for path in waiting:
        try:
            accepted = await _deliver(writer, path, source, progress)
        except (DeliveryRefused, OSError) as error:
            summary.refused += 1
            if len(summary.reasons) < _NAMED:
                summary.reasons.append({"file": str(path), "reason": str(error)})
        else:
            summary.bytes += accepted.bytes
            summary.duplicates += accepted.duplicate
            summary.batches += not accepted.duplicate
        progress.done()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it is gone, or will be refused when it is read


async def _deliver(writer: ArchiveWriter, path: Path, source: str, progress: Progress) -> Accepted:
    origin = Origin(f"{local_user()}@{socket.gethostname()}", "file", "", str(path))
    while True:
        read = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal read
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    read += len(chunk)
                    progress.read(len(chunk))
                    yield chunk

        try:
            return await writer.intake.receive(
                chunks(),
                source=source,
                coding="auto",
                origin=origin,
                idempotency_key=str(path),
                quarantine_undecodable=True,
            )
        except IntakeUnavailable:
            # The sealer catches up; nothing of this file was taken.
            progress.read(-read)
            await asyncio.sleep(_RETRY_SECONDS)


async def start_writer(settings: Settings) -> ArchiveWriter:
    """The first free command-line writer of this state folder."""
    limits = intake_limits(settings)
    # A local file is no untrusted upload: only its content is bounded.
    largest = max(limits.max_body_bytes, limits.max_expanded_bytes)
    limits = replace(limits, max_body_bytes=largest, max_inflight_bytes=max(largest, limits.max_inflight_bytes))
    for number in range(1, _WRITERS):
        try:
            writer = ArchiveWriter(settings, limits, suffix=f"_cli{number}")
            await writer.start()
            return writer
        except SpoolLocked:
            continue
    raise SpoolLocked(f"{_WRITERS} commands ingest with this state folder already", hint="wait for one to finish")
