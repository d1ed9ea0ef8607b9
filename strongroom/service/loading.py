"""`strongroom ingest PATH…`: files and folders straight into an archive, through the same intake as the service.

Each file is one batch, read as a stream. It can be stopped and repeated: a file's absolute path is its idempotency key,
so the same file with the same content is not taken twice, and what was taken before is durable. A running service is no
obstacle: this is one more writer of the same log, under a name of its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from strongroom.ingest.errors import DeliveryRefused, IntakeUnavailable, SpoolLocked
from strongroom.ingest.intake import Accepted, Origin
from strongroom.service.acts import local_user
from strongroom.service.node import ArchiveWriter, intake_limits
from strongroom.service.settings import Settings

_CHUNK = 1 << 20
_AT_ONCE = 8  # files in flight share one fsync
_WRITERS = 16
_RETRY_SECONDS = 0.2

# Told how many more bytes were read (negative: to be read again).
Advance = Callable[[int], None]


@dataclass(slots=True)
class Summary:
    """What became of the files. records = accepted + quarantined; duplicates were taken before and not stored again."""

    files: int = 0
    batches: int = 0
    duplicates: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    bytes: int = 0
    records: int = 0
    accepted: int = 0
    quarantined: int = 0
    log_size: int = 0

    @property
    def clean(self) -> bool:
        """Whether every file was taken and nothing was quarantined."""
        return not self.refused and not self.quarantined

    def to_json(self) -> dict[str, Any]:
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


async def load(settings: Settings, files: Sequence[Path], source: str, advance: Advance) -> Summary:
    """Take in `files` as batches of `source`, seal, and count. Raises what opening the archive raises."""
    writer = await start_writer(settings)
    summary = Summary(files=len(files))
    try:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(path: Path) -> Accepted | None:
            async with gate:
                try:
                    accepted = await _deliver(writer, path, source, advance)
                except (DeliveryRefused, OSError) as error:
                    summary.refused.append({"file": str(path), "reason": str(error)})
                    return None
                summary.bytes += accepted.bytes
                return accepted

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(path)) for path in files]
        taken = [accepted for task in tasks if (accepted := task.result()) is not None]
        summary.log_size = await writer.intake.seal()
        for accepted in taken:
            if accepted.duplicate:
                summary.duplicates += 1
                continue
            state = writer.intake.batch(accepted.batch)
            summary.batches += 1
            summary.records += state.records or 0
            summary.accepted += state.accepted or 0
            summary.quarantined += state.quarantined or 0
    finally:
        await writer.stop()
    return summary


async def _deliver(writer: ArchiveWriter, path: Path, source: str, advance: Advance) -> Accepted:
    origin = Origin(f"{local_user()}@{socket.gethostname()}", "file", "", str(path))
    while True:
        read = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal read
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    read += len(chunk)
                    advance(len(chunk))
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
            advance(-read)
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
