"""What the entries name, held against the objects the store has, and nothing else lies there.

Each named object is looked at as far as the level asks (archive/verification/examination.py), in order, by workers.
After each the position may be kept (archive/verification/progress.py). Whatever no entry names, no layout rule explains
and no writer is about to commit is an orphan.

Retention and legal holds come in here: what orders have added (archive/retention/order_book.py) decides which absence
is a finding, and in a store that locks, how every object should be protected (archive/verification/safeguards.py).
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from strongroom.archive import layout, tiles
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.errors import FormatError
from strongroom.archive.retention.order_book import OrderBook
from strongroom.archive.stores.store import LockingStore, ObjectStore, ObjectVersion
from strongroom.archive.verification import safeguards
from strongroom.archive.verification.examination import Examiner, Rederive, summarise_times
from strongroom.archive.verification.findings import Asked, Finding, Level, Report
from strongroom.archive.verification.history import History
from strongroom.archive.verification.log_locks import LogLocks, entry_of
from strongroom.archive.verification.progress import Journal, Position
from strongroom.archive.verification.safeguards import Expected
from strongroom.archive.verification.workers import Task, Workers

__all__ = ["Holdings", "Progress", "Rederive", "summarise_times"]

# (what is being done, done so far, total)
Progress = Callable[[str, int, int], None]

# Requests that only ask about an object wait for the network, not for a processor.
_LOOKS_AT_ONCE = 16
# Less than this is parsed sooner in threads than other processes start.
_WORTH_PROCESSES = 32 << 20


class Holdings:
    """What the entries name, held against what the store has."""

    def __init__(
        self,
        store: ObjectStore,
        history: History,
        report: Report,
        *,
        contents: Contents,
        book: OrderBook,
        irregular: Mapping[str, Sequence[ObjectVersion]],
        start: int = 0,
        position: Position | None = None,
        journal: Journal | None = None,
        deadline: float = math.inf,
        progress: Progress | None = None,
    ) -> None:
        """`contents`: of the same store. `book`: the log's orders. `irregular`: names with several versions or
        markers, and these, newest first.

        `start`: the first entry whose objects are looked at; `position`: go on from there instead.

        `deadline`, on the monotonic clock: stop at the next object after it, with the position kept in `journal`.
        """
        self.store, self.history, self.listed, self.asked = store, history, history.listed, history.asked
        self.level = self.asked.level
        self.report, self.journal, self.deadline = report, journal, deadline
        self.progress: Progress = progress or (lambda *_: None)
        self.start, self.next, self.objects = start, start, 0
        self.total = sum(1 for key in self.listed if key.startswith((layout.SEGMENTS, layout.DETAILS, layout.REPORTS)))
        self.earlier = 0.0
        self.begun = time.monotonic()
        self.explained: set[str] = set()
        self.announced: set[str] = set()  # reports and attestations that an entry has announced
        self.digests: dict[str, str] = {}  # SHA-256 -> key, to recognise swapped segments
        self.contents, self.book, self.irregular = contents, book, irregular
        self.over: set[str] = set()  # segments that nothing keeps any more
        self.expected: dict[int, tuple[Expected, Expected]] = {}  # index -> of the entry, of checkpoints and the like
        self.gone = self.without_checksum = 0
        self.encryption: Counter[str] = Counter()
        self.found: list[Finding] = []
        self.notes: list[str] = []
        self.incomplete: list[str] = []
        if position is not None:
            self._go_on(position)
        self.sat_down_at = self.next

    def check(self, rederive: Rederive | None, threads: int, processes: int) -> None:
        """Look at everything. `processes` are used instead of `threads` where records are parsed, if > 0."""
        worth = sum(size for key, size in self.listed.items() if key.startswith(layout.SEGMENTS)) > _WORTH_PROCESSES
        workers = Workers(Examiner(self.contents, rederive, self.asked.now), threads, processes if worth else 0)
        segments = records = 0
        stopped = False
        with workers.at_work():
            for entry in self.history.entries():
                self._explain(entry)
                self._expect(entry)
                segments += len(entry.segments)
                records += sum(reference.records for reference in entry.segments)
                for task in self._tasks(entry):
                    while workers.full and not stopped:
                        stopped = self._take(workers)
                    if not stopped:
                        workers.give(task)
            while workers.oldest is not None and not stopped:
                stopped = self._take(workers)
            if stopped:
                workers.drop()
        if not stopped:
            self.next = max(self.next, self.history.tree.size)
            self._check_log_locks(max(threads, _LOOKS_AT_ONCE))
        self._conclude(stopped)
        self.report.counts |= {"segments": segments, "records": records, "objects_checked": self.objects}

    def _take(self, workers: Workers) -> bool:
        """Take one outcome in; True when it is time to stop."""
        task, outcome = workers.take()
        self.objects += 1
        self.report.cost.bytes_read += outcome.bytes_read
        self.gone += outcome.over
        if outcome.protection is not None:
            self.encryption[outcome.protection.encryption or "none"] += 1
            self.without_checksum += not outcome.protection.sha256
        self.found += outcome.findings
        self.notes += [note for note in outcome.notes if note not in self.notes]
        self.incomplete += [f"not read: {outcome.unread}"] if outcome.unread else []
        self.progress("objects", self.objects, max(self.total, self.objects))
        self.next = workers.oldest if workers.oldest is not None else task.entry.index
        # Every sitting gets past at least one entry, or a short time would never be enough.
        stop = time.monotonic() >= self.deadline and self.next > self.sat_down_at
        if self.journal is not None and (stop or self.journal.due):
            self.journal.save(self._position())
        return stop

    def _conclude(self, stopped: bool) -> None:
        self._check_releases()
        self.report.findings += [self._recognise(finding) for finding in self.found]
        self._check_versions()
        self.report.notes += self.notes + self._remarks()
        self.report.incomplete += self.incomplete
        self.report.cost.seconds += self.earlier
        if self.level == "sampled":
            self.report.notes.append(_detection(self.asked))
        if stopped:
            self.report.incomplete.append(
                f"stopped when its time was over: {self.objects} of about {self.total} objects, up to entry {self.next}"
            )
        self._check_nothing_else()
        if self.journal is not None and not stopped:
            self.journal.close()

    def _recognise(self, finding: Finding) -> Finding:
        """A segment that holds another one's bytes was swapped, not damaged: say with which."""
        other = self.digests.get(finding.actual.removeprefix("SHA-256 "))
        if finding.code != "SEGMENT_CHANGED" or other is None:
            return finding
        return replace(finding, where={"index": finding.where["index"], "holds": other})

    def _tasks(self, entry: Entry) -> Iterator[Task]:
        if entry.index >= self.next:
            for reference in entry.objects:
                expected = safeguards.of_object(entry, reference.key, self.book.obligations)
                yield Task(entry, reference, self._level_of(reference), expected)

    def _level_of(self, reference: SegmentRef | ObjectRef) -> Level:
        """The run's level; in *sampled* a draw by the seed, which whoever wrote the object could not know."""
        if self.level != "sampled":
            return self.level
        drawn = int.from_bytes(sha256(self.asked.seed + reference.key.encode()).digest()[:8], "big") / 2**64
        return "deep" if drawn < self.asked.fraction else "inventory"

    def _expect(self, entry: Entry) -> None:
        """What the entry's promises, and the orders about them, ask for; and prunes that came too early."""
        obligations = self.book.obligations
        itself = safeguards.of_object(entry, layout.entry_key(entry.index), obligations)
        self.expected[entry.index] = (itself, safeguards.of_log(entry, obligations))
        for reference in entry.segments:
            expected = safeguards.of_object(entry, reference.key, obligations)
            if expected.over(self.asked.now):
                self.over.add(reference.key)
            index, pruned = obligations.pruned.get(reference.key, (-1, self.asked.now))
            early = expected.promise is None or pruned < expected.promise.until
            if index >= 0 and (early or reference.key in obligations.held_at_prune):
                until = f"{expected.promise.until:%Y-%m-%d %H:%M:%S}Z" if expected.promise else "without an end"
                said = f"kept until {until}" if early else "held for an open case"
                actual = f"pruned by entry {index}, {pruned:%Y-%m-%d %H:%M:%S}Z"
                self.report.findings.append(Finding("PRUNE_EARLY", reference.key, said, actual, {"index": entry.index}))

    def _check_log_locks(self, threads: int) -> None:
        """The protection of entries, checkpoints and their like, of those entries whose objects were looked at."""
        if isinstance(self.store, LockingStore):
            wanted = {index: expected for index, expected in self.expected.items() if index >= self.start}
            locks = LogLocks(self.store, wanted, self.asked.now, threads)
            self.found += locks.check(self.listed)
            self.incomplete += locks.unread
            if not self.store.keeps_versions():
                where = {"store": self.store.description}
                self.report.findings.append(
                    Finding("VERSIONING_SUSPENDED", "", "versioning enabled", "versioning suspended or off", where)
                )

    def _check_releases(self) -> None:
        """A case that was released while we looked holds nothing: read on, and take back what that explains."""
        if not any(finding.code == "HOLD_MISSING" for finding in self.found):
            return
        size = self.history.tree.size
        while (later := self.history.read_beyond(size)) is not None:
            self.book.follow(later)
            size += 1
        held = self.book.obligations.held
        entries = {entry.index: entry for entry in self.history.entries() if held & {s.key for s in entry.segments}}
        self.found = [
            finding
            for finding in self.found
            if finding.code != "HOLD_MISSING" or (finding.object in held or finding.where["index"] in entries)
        ]

    def _check_versions(self) -> None:
        """More versions than one, and delete markers: what somebody put on top of what is sealed."""
        for key, versions in self.irregular.items():
            index = entry_of(key)
            where = {} if index is None else {"index": index}
            self.report.findings += safeguards.judge_versions(key, versions, self.over.__contains__, where)

    def _remarks(self) -> list[str]:
        """What is no finding and still has to be said."""
        said = list(self.book.problems)
        if self.gone:
            named = sum(1 for key in self.over if key in self.book.obligations.pruned)
            said.append(f"{self.gone} segments are gone and their retention has ended; {named} are named by a prune")
        if self.encryption:
            counts = ", ".join(f"{name}: {count}" for name, count in self.encryption.most_common())
            said.append(f"server-side encryption of the objects looked at: {counts}")
        if self.without_checksum and self.level in ("quick", "inventory"):
            said.append(
                f"{self.without_checksum} objects have no SHA-256 over the whole in the store (put in parts, or listed "
                "from a report): their content was not compared"
            )
        return said

    def _explain(self, entry: Entry) -> None:
        self.explained.update(reference.key for reference in entry.objects)
        self.digests.update((reference.sha256, reference.key) for reference in entry.segments)
        if entry.kind == "incident" and isinstance(entry.data.get("key"), str):
            self.explained.add(entry.data["key"])
        if entry.kind in ("report", "source-digest") and isinstance(entry.data.get("report"), str):
            self.announced.add(entry.data["report"])

    def _go_on(self, position: Position) -> None:
        self.start, self.next, self.objects = position.start, position.next, position.objects
        self.earlier = position.seconds
        self.found, self.notes = list(position.findings), list(position.notes)
        self.incomplete = list(position.incomplete)
        self.report.cost.bytes_read += position.bytes_read
        self.report.run, self.report.started = position.run, position.started
        self.report.notes.append(f"went on at entry {position.next}: an earlier sitting had come that far")

    def _position(self) -> Position:
        return Position(
            run=self.report.run,
            level=self.level,
            origin=self.report.origin,
            started=self.report.started,
            size=self.history.tree.size,
            root=self.history.tree.root().hex(),
            start=self.start,
            next=self.next,
            seed=self.asked.seed.hex(),
            fraction=self.asked.fraction,
            objects=self.objects,
            total=self.total,
            bytes_read=self.report.cost.bytes_read,
            seconds=self.earlier + time.monotonic() - self.begun,
            findings=tuple(self.found),
            notes=tuple(self.notes),
            incomplete=tuple(self.incomplete),
        )

    def _check_nothing_else(self) -> None:
        """Every object is explained by an entry, by the layout, or by a commit that is still under way."""
        if self.history.bad or self.history.missing:
            self.report.notes.append("objects that only damaged entries may name were not judged")
            return
        waiting = 0
        for key in self.listed:
            if (name := layout.parse_spool(key)) is not None:
                waiting += not name.cut and self._waits(name)
                continue
            if key.startswith(layout.TILES) and self._is_tile(key):
                continue
            if key in self.explained or _belongs(key) or self._under_way(key):
                continue
            self.report.findings.append(Finding("ORPHAN", key, "named by an entry", "named by none", {}))
        if waiting:
            self.report.notes.append(f"{waiting} spool objects hold batches that wait to be sealed")

    def _waits(self, name: layout.SpoolName) -> bool:
        """Whether a spool object of a writer's newest epoch has batches that the log does not seal."""
        known = self.history.chain.next_of(name.writer)
        return known is None or (name.epoch, name.last) >= known

    def _is_tile(self, key: str) -> bool:
        """Whether the object is a tile of this log; its content is compared with what the entries give."""
        try:
            name = tiles.parse_path(key.removeprefix(layout.TILES))
        except FormatError:
            return False
        expected = (
            None if name.level is None or name.width < tiles.TILE_WIDTH else tiles.hash_tile(self.history.tree, name)
        )
        if expected is None:
            return False
        actual = self.store.get(key) if self.level != "quick" else expected
        if actual != expected:
            said, found = (f"SHA-256 {sha256(content).hexdigest()}" for content in (expected, actual))
            self.report.findings.append(Finding("TILE_CHANGED", key, said, found, {}))
        return True

    def _under_way(self, key: str) -> bool:
        match = _WRITER_OBJECT.search(key)
        if match is None:
            report = layout.report_of(key)
            if report is None or report not in self.announced:
                return False
            # Put, and then the service died before its entry: announced, so no stranger's; not committed, so no report.
            self.report.notes.append(f"{key}: a report that was announced and not committed")
            return True
        known = self.history.chain.next_of(match["writer"])
        place = (int(match["epoch"]), int(match["first"]))
        if known is not None and place < known:
            return False
        self.report.notes.append(f"{key}: put by a writer, not committed yet")
        return True


_WRITER_OBJECT = re.compile(
    r"^(?:segments/source=[a-z0-9_]+/date=[0-9-]+/|details/)"
    r"(?P<writer>[a-z0-9_]+)[-/](?P<epoch>\d+)[-/](?P<first>\d{20})-\d{20}(?:-[pr]\d+)*\.(?:parquet|json)(?:\.enc)?$"
)


def _belongs(key: str) -> bool:
    """Objects of the layout that entries do not name one by one."""
    return (
        layout.is_canary(key)
        or key == layout.IDENTITY
        or layout.index_of(key) is not None
        or layout.size_of_statement(key) is not None
    )


def _detection(asked: Asked) -> str:
    """What a sampled run can promise, in words: each object was looked at with probability `fraction`."""
    chances = ", ".join(f"{k}: {1 - (1 - asked.fraction) ** k:.1%}" for k in (1, 10, 100))
    runs = math.ceil(math.log(0.01) / math.log(1 - asked.fraction)) if asked.fraction < 1 else 1
    return (
        f"sampled {asked.fraction:.1%} of the objects with seed {asked.seed.hex()}; chance to hit damage "
        f"with this run, by objects damaged: {chances}; one damaged object is found with 99% within {runs} runs"
    )
