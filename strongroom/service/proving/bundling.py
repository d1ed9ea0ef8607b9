"""Writing and checking a bundle in a process of its own.

A million records are a minute of one core. That minute must not take the interpreter lock from acknowledging
deliveries, so it is spent by a worker (ingest/builders.py: low priority, bounded memory, gone when the parent is),
started for one bundle. It gets what the bundle needs of the log and no more: reading a long log anew would take longer
than most bundles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from strongroom.archive import evidence
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence import Summary, Verdict
from strongroom.archive.evidence.selection import stored_entry
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint
from strongroom.archive.stores.store import ObjectStore
from strongroom.ingest.builders import Builders, WorkerDied
from strongroom.service.errors import EvidenceFailed, EvidenceTooLarge
from strongroom.service.proving.evidence import Anchor

Picks = Sequence[tuple[tuple[int, int], Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a bundle needs of a log, with the methods by which evidence.write asks a Log: one head, some entries."""

    head: Checkpoint
    entries: Mapping[int, tuple[bytes, list[bytes]]]
    contents: Contents

    @classmethod
    def of(cls, log: Log, head: Checkpoint, indices: set[int]) -> Excerpt:
        """The excerpt with these entries. Raises ObjectMissing, FormatError when one is not what was signed."""
        return cls(head, {index: stored_entry(log, index, head) for index in indices}, log.contents)

    @property
    def origin(self) -> str:
        return self.head.origin

    @property
    def size(self) -> int:
        return self.head.size

    def root(self, size: int) -> bytes:
        assert size == self.head.size
        return self.head.root

    def entry_bytes(self, index: int) -> bytes:
        return self.entries[index][0]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        assert size == self.head.size
        return self.entries[index][1]


@dataclass(frozen=True, slots=True)
class Job:
    """A bundle to be written to `path`, of at most `limit_bytes`."""

    path: Path
    store: ObjectStore
    excerpt: Excerpt
    anchor: Anchor
    picks: Picks
    custody: Mapping[str, Any]
    limit_bytes: int


async def write_apart(job: Job) -> Summary:
    """Write and check a bundle in a worker. Raises what `write` raises, EvidenceFailed when the worker died."""
    workers = Builders(1)
    try:
        return await workers.run(write, job)
    except WorkerDied as error:
        raise EvidenceFailed(f"the bundle was not made: {error}", hint="ask again, for fewer records") from None
    finally:
        await asyncio.to_thread(workers.close)


def write(job: Job) -> Summary:
    """Write and check a bundle here. Raises EvidenceTooLarge, ObjectMissing, FormatError."""
    with job.path.open("xb") as file:
        summary = evidence.write(
            cast(BinaryIO, Bounded(file, job.limit_bytes)),
            store=job.store,
            log=cast(Log, job.excerpt),
            checkpoint=job.anchor.note,
            policy=job.anchor.policy,
            picks=job.picks,
            custody=job.custody,
            now=datetime.now(UTC),
            timestamps=job.anchor.timestamps,
        )
    must_hold(evidence.check(job.path, job.anchor.checked_policy))
    return summary


def must_hold(verdict: Verdict) -> None:
    """What does not convince ourselves is not sent. Raises FormatError."""
    if verdict.status != "proven":
        raise FormatError(
            f"the evidence made does not hold: {'; '.join(verdict.problems)}", hint="run `strongroom verify`"
        )


class Bounded:
    """An output that refuses to grow beyond a limit."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left, self._limit = file, limit, limit

    def write(self, data: bytes) -> int:
        """Append. Raises EvidenceTooLarge."""
        self._left -= len(data)
        if self._left < 0:
            raise EvidenceTooLarge(
                f"the bundle would be larger than {self._limit} bytes",
                hint="choose fewer records, raise evidence_bytes, or use `strongroom evidence export`",
            )
        return self._file.write(data)

    def flush(self) -> None:
        """Pass on what the file holds back."""
        self._file.flush()
