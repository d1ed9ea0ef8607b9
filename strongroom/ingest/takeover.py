"""Batches that other lives left in the bucket, taken over under their ids, so that their receipts stay good.

    an earlier epoch of this writer     the process died, and its disk perhaps with it
    another writer, silent for long     a replica that will not come back: its next epoch is claimed first

A claim is the fence: once the log knows a newer epoch, no entry of the older one can follow, so what the log does not
seal by then is sealed by whoever takes it over. Two that take over the same batch both have it under one id, and the
one that commits second leaves it out (ingest/commit.py).

The fenced life may not know yet and acknowledge a little more into its own epoch. Therefore epochs are looked at again
for `LATE_SECONDS` after they ended.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime

from strongroom.archive import layout
from strongroom.archive.entry import Draft, WriterRange, parse_timestamp
from strongroom.archive.log import Log, Standing
from strongroom.ingest import diskless
from strongroom.ingest.batches import Batches
from strongroom.ingest.commit import Committer
from strongroom.ingest.errors import UnknownBatch
from strongroom.ingest.spool import Spool
from strongroom.ingest.writer import Writer

LATE_SECONDS = 3600.0
_AT_ONCE_BYTES = 64 << 20


class Takeover:
    """Takes over into `spool`, the one of `writer`. Blocking; not for use by several threads at once."""

    def __init__(
        self,
        *,
        log: Log,
        writer: Writer,
        spool: Spool,
        batches: Batches,
        clock: Callable[[], datetime],
    ) -> None:
        self._log, self._writer = log, writer
        self._spool, self._batches, self._clock = spool, batches, clock
        self._seen: set[str] = set()
        self._disowned: set[tuple[str, int]] = set()

    def own(self) -> int:
        """Take over what earlier epochs of this writer left; the number of batches. Raises StoreUnavailable."""
        return self._take(self._writer.id, self._writer.epoch)

    def abandoned(self, silent_seconds: float) -> int:
        """Take over what writers left that have been silent for so long; the number of batches."""
        taken = 0
        for writer in self._log.writers():
            epochs = self._log.epochs(writer)
            newest = max(epochs)
            if writer == self._writer.id or self._age(epochs[newest].written_at) < silent_seconds:
                continue
            if not any(self._worth(epochs, epoch) and self._new(writer, epoch) for epoch in epochs):
                continue
            self._disown(writer, newest)
            fence = WriterRange(writer, newest + 1, 0, -1)
            claim = Draft("heartbeat", self._clock(), fence, data={"claims": "epoch", "for": self._writer.id})
            self._log.append(claim)
            taken += self._take(writer, newest + 1)
        return taken

    def _take(self, writer: str, before: int) -> int:
        epochs = self._log.epochs(writer)
        return sum(
            self._take_epoch(writer, epoch) for epoch in sorted(epochs) if epoch < before and self._worth(epochs, epoch)
        )

    def _take_epoch(self, writer: str, epoch: int) -> int:
        names = self._new(writer, epoch)
        waiting: list[Future[int]] = []
        taken = size = 0
        ids: set[str] = set()
        for left in diskless.leftovers(self._log, names, self._unreadable):
            batch = left.header.batch
            if batch in ids or self._is_kept(batch):
                continue
            ids.add(batch)
            waiting.append(self._spool.append(left.header, [left.body]))
            taken, size = taken + 1, size + len(left.body)
            if size > _AT_ONCE_BYTES:
                _wait(waiting)
                size = 0
        _wait(waiting)
        self._seen.update(name.key for name in names)
        if names:
            self._disown(writer, epoch)
        return taken

    def _disown(self, writer: str, epoch: int) -> None:
        if (writer, epoch) not in self._disowned:
            disown(self._log, Writer(writer, epoch), self._clock)
            self._disowned.add((writer, epoch))

    def _new(self, writer: str, epoch: int) -> list[layout.SpoolName]:
        names = diskless.unsealed(self._log, writer, epoch)
        return [name for name in names if name.key not in self._seen]

    def _worth(self, epochs: dict[int, Standing], epoch: int) -> bool:
        """Whether an epoch may still hold what nobody took over.

        A successor that has written more than its claim had taken over everything before; what the predecessor
        acknowledged without knowing of it came soon after the claim.
        """
        return not any(
            later > epoch and standing.index > standing.began and self._age(standing.began_at) > LATE_SECONDS
            for later, standing in epochs.items()
        )

    def _age(self, written_at: str) -> float:
        return (self._clock() - parse_timestamp(written_at)).total_seconds()

    def _is_kept(self, batch: str) -> bool:
        try:
            known = self._batches.get(batch)
        except UnknownBatch:
            return False
        return known.state == "sealed" or (known.writer, known.epoch) == (self._writer.id, self._writer.epoch)

    def _unreadable(self, key: str) -> None:
        data = {"what": "unreadable", "key": key, "writer": self._writer.id}
        self._log.append(Draft("incident", self._clock(), data=data))


def disown(log: Log, writer: Writer, clock: Callable[[], datetime]) -> None:
    """Explain in the log what an epoch that is over put for batches it did not seal. Raises StoreUnavailable."""
    Committer(log.store, log, writer, clock).disown_beyond()


def _wait(futures: list[Future[int]]) -> None:
    for future in futures:
        future.result()
    futures.clear()
