"""What a start finds in the state directory, and what it makes of it.

    writer.json, spool/<epoch>/, cuts.json there    the writer goes on where it was
    new directory, writer unknown to the log        epoch 1
    new directory, writer known to the log          next epoch
    spool behind the log, or epoch superseded       next epoch; unsealed batches of the old spool move into it under
                                                    their ids, so that their receipts stay good
    batches.sqlite missing, damaged or behind       filled from the log's details and the spool
    the index knows an unsealed batch that no       its bytes are lost (a disk that lied about an fsync, a spool moved
    spool file holds                                away): an `incident` entry names it, its sender may send it again

Everything here may be interrupted at any point and is simply done again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from strongroom.archive.entry import Draft
from strongroom.archive.log import Log
from strongroom.ingest import spool as spools
from strongroom.ingest import writer as writers
from strongroom.ingest.batches import INDEX, Batches
from strongroom.ingest.commit import Committer
from strongroom.ingest.cuts import Cuts
from strongroom.ingest.errors import UnknownBatch
from strongroom.ingest.spool import Spool
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
    work: Path

    def close(self) -> None:
        """Close everything; what is durable stays."""
        self.spool.close()
        self.batches.close()
        self.lock.close()


def open_state(directory: Path, *, writer_id: str, log: Log, limit_bytes: int, clock: Callable[[], datetime]) -> State:
    """Lock and open the state directory, making good what a crash left. Blocking.

    Raises SpoolLocked, SpoolDamaged, SpoolUnavailable, StoreUnavailable.
    """
    with ExitStack() as opened:
        lock = DirectoryLock(directory)
        opened.callback(lock.close)
        log.refresh()
        work = directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        batches = Batches(directory / INDEX, writer_id)
        opened.callback(batches.close)
        batches.follow(log)
        writer, spool = _open_spool(directory, writer_id, log, batches, limit_bytes, clock)
        opened.callback(spool.close)
        batches.spooled(writer.epoch, spool.headers(log.standing(writer.id, writer.epoch).sealed + 1))
        _adopt_earlier(directory / "spool", writer, spool, batches, log, clock)
        _report_lost(log, writer, spool, batches, clock)
        cuts = Cuts(_epoch_folder(directory, writer.epoch) / _CUTS)
        opened.pop_all()
        return State(lock, writer, spool, cuts, batches, work)


def _open_spool(
    directory: Path,
    writer_id: str,
    log: Log,
    batches: Batches,
    limit_bytes: int,
    clock: Callable[[], datetime],
) -> tuple[Writer, Spool]:
    writer = writers.recall(directory, writer_id)
    known = log.next_of(writer_id)
    if writer is not None and (known is None or known[0] <= writer.epoch):
        spool = _spool(directory, writer.epoch, batches, limit_bytes)
        if known is None or known[0] < writer.epoch or known[1] <= spool.next:
            return writer, spool
        spool.close()
    writer = writers.claim(directory, writer_id, log, clock())
    return writer, _spool(directory, writer.epoch, batches, limit_bytes)


def _spool(directory: Path, epoch: int, batches: Batches, limit_bytes: int) -> Spool:
    return Spool(
        _epoch_folder(directory, epoch),
        epoch=epoch,
        limit_bytes=limit_bytes,
        on_durable=lambda group: batches.spooled(epoch, group),
    )


def _adopt_earlier(
    folder: Path, writer: Writer, spool: Spool, batches: Batches, log: Log, clock: Callable[[], datetime]
) -> None:
    """Move what earlier epochs left unsealed into the current one, then remove their folders."""
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


def _epoch_folder(directory: Path, epoch: int) -> Path:
    return directory / "spool" / str(epoch)
