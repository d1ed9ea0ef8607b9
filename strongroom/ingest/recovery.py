"""What a start finds in the state directory, and what it makes of it.

    writer.json, spool/<epoch>/, cuts.json there    the writer goes on where it was
    new directory, writer unknown to the log        epoch 1
    new directory, writer known to the log          next epoch
    spool behind the log, or epoch superseded       next epoch; unsealed batches of the old spool move into it under
                                                    their ids, so that their receipts stay good
    batches.sqlite missing, damaged or behind       filled from the log's details and the spool
    the index knows an unsealed batch that no       its bytes are lost (a disk that lied about an fsync, a spool moved
    spool file holds                                away): an `incident` entry names it, its sender may send it again
    batches in the bucket (ingest/diskless.py)      next epoch, always; the disk may be empty. A commit of which the log
                                                    has some parts is finished first, under its own epoch; the rest is
                                                    taken over (ingest/takeover.py)

Which of the two spools is in use may change between two starts: what either holds is taken over.

Everything here may be interrupted at any point and is simply done again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from strongroom.archive.entry import Draft
from strongroom.archive.log import Log
from strongroom.ingest import diskless
from strongroom.ingest import spool as spools
from strongroom.ingest import writer as writers
from strongroom.ingest.batches import INDEX, Batches
from strongroom.ingest.build import Job, build
from strongroom.ingest.commit import Committer
from strongroom.ingest.cuts import Cuts
from strongroom.ingest.diskless import USUAL, Bucket, BucketRules
from strongroom.ingest.errors import SealedElsewhere, UnknownBatch
from strongroom.ingest.sources import BUILT_IN, Registry
from strongroom.ingest.spool import DISK, Spool
from strongroom.ingest.takeover import Takeover, disown
from strongroom.ingest.writer import DirectoryLock, Writer

_CUTS = "cuts.json"
_NAMED_LOST = 400
"""Batch ids that fit one incident entry."""


@dataclass(frozen=True, slots=True)
class State:
    """An open state directory."""

    lock: DirectoryLock
    writer: Writer
    spool: Spool
    cuts: Cuts
    batches: Batches
    takeover: Takeover
    work: Path

    def close(self) -> None:
        """Close everything; what is durable stays."""
        self.spool.close()
        self.batches.close()
        self.lock.close()


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a state directory needs to know.

    `limit_bytes`: of the spool. `max_expanded_bytes`: of one batch. `diskless`: new batches are spooled in the bucket,
    by these `rules`.
    """

    directory: Path
    writer_id: str
    log: Log
    limit_bytes: int
    max_expanded_bytes: int
    clock: Callable[[], datetime]
    diskless: bool = False
    rules: BucketRules = USUAL
    registry: Registry = BUILT_IN

    @property
    def copies(self) -> Path:
        """Where copies of spool objects lie: of this life only."""
        return self.directory / "copies"


def open_state(opening: Opening) -> State:
    """Lock and open the state directory, making good what a crash left. Blocking.

    Raises SpoolLocked, SpoolDamaged, SpoolUnavailable, StoreUnavailable.
    """
    directory, log, clock = opening.directory, opening.log, opening.clock
    with ExitStack() as opened:
        lock = DirectoryLock(directory)
        opened.callback(lock.close)
        log.refresh()
        work = directory / "work"
        for folder in (work, opening.copies):
            shutil.rmtree(folder, ignore_errors=True)
        batches = Batches(directory / INDEX, opening.writer_id)
        opened.callback(batches.close)
        batches.follow(log)
        _finish_commit(opening, batches)
        writer = _writer(opening)
        bucket = Bucket(log, writer, opening.rules, clock)
        spool = _spool(opening, writer.epoch, batches, bucket)
        known = log.next_of(writer.id)
        if known is not None and known[0] == writer.epoch and known[1] > spool.next:
            spool.close()  # the spool is behind the log: restored from a backup
            writer = writers.claim(directory, writer.id, log, clock())
            bucket = Bucket(log, writer, opening.rules, clock)
            spool = _spool(opening, writer.epoch, batches, bucket)
        opened.callback(spool.close)
        batches.spooled(writer.epoch, spool.headers(log.standing(writer.id, writer.epoch).sealed + 1))
        _adopt_earlier(directory / "spool", writer, spool, batches, log, clock)
        takeover = Takeover(log=log, writer=writer, spool=spool, batches=batches, clock=clock)
        takeover.own()
        _report_lost(log, writer, spool, batches, clock)
        path = _folder(opening, writer.epoch) / _CUTS
        cuts = Cuts(path, bucket.decide) if opening.diskless else Cuts(path)
        opened.pop_all()
        return State(lock, writer, spool, cuts, batches, takeover, work)


def _writer(opening: Opening) -> Writer:
    """The writer in the epoch it goes on with, or in a new one."""
    directory, log, writer_id = opening.directory, opening.log, opening.writer_id
    writer = writers.recall(directory, writer_id)
    known = log.next_of(writer_id)
    goes_on = writer is not None and (known is None or known[0] <= writer.epoch)
    left = known is not None and bool(diskless.unsealed(log, writer_id, known[0]))
    if known is not None and left:
        disown(log, Writer(writer_id, known[0]), opening.clock)
    if opening.diskless or not goes_on or writer is None or left:
        return writers.claim(directory, writer_id, log, opening.clock())
    return writer


def _finish_commit(opening: Opening, batches: Batches) -> None:
    """Complete the commit of a life whose spool is in the bucket, when the log has only some of its entries."""
    log, known = opening.log, opening.log.next_of(opening.writer_id)
    if known is None:
        return
    old = Writer(opening.writer_id, known[0])
    parts = log.standing(old.id, old.epoch).parts
    if not parts or parts[0].writer is None or _folder(opening, old.epoch, in_bucket=False).exists():
        return
    cut = diskless.read_cut(log, old, parts[0].writer.first, parts[0].writer.last)
    if cut is None:
        return
    folder = opening.copies / "unfinished"
    spools.make_folder(folder)
    frames = diskless.copy_range(log, old, cut, folder)
    if len(frames) != cut.last - cut.first + 1:
        return
    committer = Committer(log.store, log, old, opening.clock, batches)
    job = Job(cut, old, tuple(frames), opening.max_expanded_bytes, str(folder), opening.registry)
    try:
        committer.commit(cut, build(job))
    except SealedElsewhere as error:
        committer.commit(cut, build(replace(job, elsewhere=error.batches)))
    batches.follow(log)


def _spool(opening: Opening, epoch: int, batches: Batches, bucket: Bucket) -> Spool:
    return Spool(
        _folder(opening, epoch),
        epoch=epoch,
        limit_bytes=opening.limit_bytes,
        on_durable=lambda group: batches.spooled(epoch, group),
        durability=bucket if opening.diskless else DISK,
    )


def _adopt_earlier(
    folder: Path, writer: Writer, spool: Spool, batches: Batches, log: Log, clock: Callable[[], datetime]
) -> None:
    """Move what earlier epochs left unsealed into the current one, then remove their folders."""
    spools.make_folder(folder)
    for earlier in sorted(path for path in folder.iterdir() if path.name.isdigit() and int(path.name) != writer.epoch):
        epoch = int(earlier.name)
        old = Spool(earlier, epoch=epoch, limit_bytes=0, on_durable=lambda _: None)
        try:
            for place in old.frames(0, old.next - 1):
                header, body = spools.read(place)
                if not _is_kept(header.batch, writer, batches):
                    spool.append(header, [body]).result()
        finally:
            old.close()
        begun = Committer(log.store, log, Writer(writer.id, epoch), clock)
        sealed = begun.position().sealed
        for cut in Cuts(earlier / _CUTS).pending:
            if cut.first > sealed:
                begun.disown(cut)
        shutil.rmtree(earlier)


def _is_kept(batch: str, writer: Writer, batches: Batches) -> bool:
    try:
        known = batches.get(batch)
    except UnknownBatch:
        return False
    return known.state == "sealed" or known.epoch == writer.epoch


def _report_lost(log: Log, writer: Writer, spool: Spool, batches: Batches, clock: Callable[[], datetime]) -> None:
    lost = [state.batch for state in batches.missing(writer.epoch, spool.first, spool.next)]
    for start in range(0, len(lost), _NAMED_LOST):
        names = lost[start : start + _NAMED_LOST]
        log.append(Draft("incident", clock(), data={"what": "lost", "writer": writer.id, "batches": names}))
        for batch in names:
            batches.forget(batch)


def _folder(opening: Opening, epoch: int, *, in_bucket: bool | None = None) -> Path:
    """Where an epoch's spool files lie: the spool itself, or copies of what is in the bucket."""
    copies = opening.diskless if in_bucket is None else in_bucket
    return (opening.copies if copies else opening.directory / "spool") / str(epoch)
