"""What is acknowledged and not sealed yet, for questions that can't wait for the seal.

A writer's batches lie in its spool until an entry seals them, so a question over a snapshot and the spool could meet a
batch twice, or miss one that is sealed in between. Here is how each is met once:

1. The size of the log and how far it has this writer are read as one. That size is the snapshot of the question, and
   what the spool holds beyond is what is added to it. Where the log has some parts of a commit and waits for the rest,
   the snapshot ends before the first part.
2. What is sealed later is released from the spool, so its files are pinned under a second name. If the first batch
   wanted is gone already, the log has grown: begin again.
3. Batches that another writer had, too, and that the snapshot has from there are left out.
4. Bounded, by content and by number: the newest batches are left out then, and counted.

Parsing is done in a worker process, never the one that builds segments, and ended at a deadline. Nothing of the spool
is changed. What is found is believed to be what was acknowledged; only sealing makes it provable.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from strongroom.archive.log import Log
from strongroom.ingest import spool as spools
from strongroom.ingest.batches import Batches
from strongroom.ingest.build import Job, preview
from strongroom.ingest.builders import Builders, WorkerDied
from strongroom.ingest.cuts import new_cut
from strongroom.ingest.errors import SealFailed, SpoolDamaged, SpoolUnavailable, UnsealedUnreadable
from strongroom.ingest.sources import Registry
from strongroom.ingest.spool import FrameAt, Spool
from strongroom.ingest.writer import Writer

MOST_BATCHES = 10_000
DEADLINE_SECONDS = 60
_FROM_ANY = frozenset({"attachment", "quarantine"})  # sources whose records come in batches of others


@dataclass(frozen=True, slots=True)
class Spooled:
    """What one writer has beside the log, and who parses it. `limit_bytes`: of one batch's content."""

    spool: Spool
    writer: Writer
    log: Log
    batches: Batches
    builders: Builders
    registry: Registry
    limit_bytes: int


class Unsealed:
    """Batches that the snapshot of `size` entries lacks, kept in a folder of their own until `close`.

    `left_out`: how many newer ones there were, beyond the bound. `read`: how many `files` has read.
    """

    def __init__(
        self,
        size: int,
        left_out: int,
        places: Sequence[tuple[FrameAt, str]],
        elsewhere: frozenset[str],
        spooled: Spooled,
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        """`places`: each batch and its source. `elsewhere`: ids of those the snapshot has from another writer."""
        self.size, self.left_out, self.read = size, left_out, 0
        self._places, self._elsewhere, self._spooled, self._folder = places, elsewhere, spooled, folder

    async def files(self, sources: Collection[str]) -> Mapping[str, Path]:
        """Source -> a Parquet file of its unsealed records; of those sources only, and that have any.

        Raises UnsealedUnreadable.
        """
        wanted = frozenset(sources)
        places = [place for place, source in self._places if source in wanted or wanted & _FROM_ANY]
        self.read = len(places)
        if not places:
            return {}
        cut, spooled = new_cut(places[0].sequence, places[-1].sequence), self._spooled
        registry, limit, folder = spooled.registry, spooled.limit_bytes, self._folder.name
        job = Job(cut, spooled.writer, tuple(places), limit, folder, registry, self._elsewhere)
        try:
            found = await spooled.builders.run(preview, job, wanted)
        except (WorkerDied, SpoolDamaged, SealFailed, OSError) as error:
            raise UnsealedUnreadable(
                f"batches that are not sealed yet could not be read: {error}",
                hint="ask without `unsealed`, or again when they are sealed",
            ) from error
        return {source: Path(path) for source, path in found.items()}

    def close(self) -> None:
        """Remove the files. Any number of times."""
        self._folder.cleanup()


def beyond(spooled: Spooled, folder: Path, max_bytes: int) -> Unsealed:
    """The snapshot to ask, and what `spooled` holds beyond it: batches of up to `max_bytes` of content together.

    Blocking. Raises SpoolUnavailable, SpoolDamaged, StoreUnavailable.
    """
    with ExitStack() as opened:
        try:
            own = tempfile.TemporaryDirectory(prefix="asked-", dir=folder, ignore_cleanup_errors=True)
            opened.callback(own.cleanup)
            size, next_, pinned = _pinned(spooled, Path(own.name), max_bytes)
        except OSError as error:
            raise SpoolUnavailable(f"what is not sealed yet can't be pinned in {folder}: {error.strerror}") from error
        headers = [spools.read(place)[0] for place in pinned]
        elsewhere = _elsewhere(spooled, [header.batch for header in headers], pinned, size)
        opened.pop_all()
    left_out = next_ - 1 - pinned[-1].sequence if pinned else 0
    places = [(place, header.source) for place, header in zip(pinned, headers, strict=True)]
    return Unsealed(size, left_out, places, elsewhere, spooled, own)


def _pinned(spooled: Spooled, folder: Path, max_bytes: int) -> tuple[int, int, list[FrameAt]]:
    """Size of the snapshot, next number of the spool, and the batches between the two that are within the bound."""
    while True:
        size, standing = spooled.log.reached(spooled.writer.id, spooled.writer.epoch)
        if standing.parts:
            size = standing.parts[0].index
        first = standing.sealed + 1
        last, next_ = _bounded(spooled.spool, first, max_bytes)
        pinned = spooled.spool.pin(first, last, folder)
        if pinned is not None:
            return size, next_, pinned


def _elsewhere(spooled: Spooled, ids: Sequence[str], places: Sequence[FrameAt], size: int) -> frozenset[str]:
    """Which of these batches the snapshot has from another writer, or from an earlier life of this one."""
    if not places:
        return frozenset()
    writer, first, last = spooled.writer, places[0].sequence, places[-1].sequence
    spooled.batches.follow(spooled.log)
    return frozenset(spooled.batches.sealed_elsewhere(ids, writer.id, writer.epoch, first, last, size))


def _bounded(spool: Spool, first: int, max_bytes: int) -> tuple[int, int]:
    """(last batch within the bound, next number of the spool): at least one, if there is any."""
    last, content, next_ = first - 1, 0, max(first, spool.next)
    for sequence, _, size in spool.sizes(first):
        if sequence >= next_ or (last >= first and (content + size > max_bytes or last - first + 1 == MOST_BATCHES)):
            break
        last, content = sequence, content + size
    return last, next_


def clear(folder: Path) -> None:
    """Make the folder, or empty it of what a killed process left. Raises OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
