"""Verification: what the archive claims, held against its bytes and against the verifier's own trust.

It reads everything from the store itself and believes nothing it was not shown, in this order:

1. **Entries** are chained one by one (archive/chain.py) and hashed into a tree.
2. **Checkpoints** must be signed by every key of the verifier's policy and state roots that the tree has. The first one
   that fails brackets when a change happened; what lies in that bracket is named, what only follows from it is not.
3. **Memory**: the tree must extend what this verifier has seen before.
4. **Objects** the entries name must exist and have the stated length (all levels) and SHA-256 (complete); in *deep*,
   every record is hashed again, every typed column derived again, and the details' counts compared.
5. **Nothing else** may lie in the archive, but what a writer has put and not committed yet.

Levels: *quick* reads the whole log but only the objects of entries beyond the verifier's memory; *complete* every
object's bytes; *deep* every record. Memory is bounded by the log (about 100 bytes an entry), not by the data.
"""

from __future__ import annotations

from datetime import UTC, datetime

from strongroom.archive import entry as entries
from strongroom.archive.findings import Finding, Level, Report
from strongroom.archive.history import History
from strongroom.archive.holdings import Holdings, Progress, Rederive
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust

__all__ = ["Finding", "Level", "Progress", "Rederive", "Report", "verify"]


def verify(
    store: ObjectStore,
    trust: Trust,
    level: Level = "complete",
    *,
    rederive: Rederive | None = None,
    progress: Progress | None = None,
    threads: int = 2,
) -> Report:
    """Verify the archive in `store`. Raises ObjectMissing when there is none, StoreUnavailable when it can't be read.

    `rederive` gives *deep* the parsers; without it typed columns are not compared, and a note says so.
    """
    report = Report(level, trust.origin, entries.timestamp(datetime.now(UTC)))
    # List before reading: a live archive grows meanwhile; what is listed now, entries read later must explain.
    listed = {info.key: info.bytes for info in store.list("")}
    history = History.read(store, trust, listed, report)
    history.judge(report)
    Holdings(store, history, listed, report, rederive, progress or (lambda *_: None), threads).check()
    report.finished = entries.timestamp(datetime.now(UTC))
    return report
