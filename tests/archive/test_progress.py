"""Long verifications: killed and gone on with, out of time, in processes, and past files that kill them."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest

from strongroom.archive import layout
from strongroom.archive.entry import Draft, ObjectRef, WriterRange
from strongroom.archive.errors import StoreUnavailable
from strongroom.archive.stores import DirectoryStore, ObjectInfo
from strongroom.archive.verification import holdings
from strongroom.archive.verification.findings import Level, Report
from strongroom.archive.verification.progress import Journal
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import NOW, Archive, rederive

pytestmark = pytest.mark.adversarial


class Killed(BaseException):
    """The verifier's process is gone."""


class DyingStore(DirectoryStore):
    """Kills its reader when it looks at the n-th segment; counts the looks."""

    def __init__(self, root: Path, dies_at: float = math.inf) -> None:
        super().__init__(root)
        self.looks: list[str] = []
        self.dies_at = dies_at

    def local_path(self, key: str) -> Path | None:
        if key.startswith(layout.SEGMENTS):
            self.looks.append(key)
            if len(self.looks) >= self.dies_at:
                raise Killed
        return super().local_path(key)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "progress.json", save_seconds=0)


def test_a_killed_run_goes_on_and_keeps_what_it_found(archive: Archive, journal: Journal) -> None:
    for _ in range(20):
        archive.commit()
    damaged = archive.log.entry(2).segments[0].key
    archive.path(damaged).write_bytes(archive.store.get(damaged)[:-1] + b"\x00")
    dying = DyingStore(archive.root, dies_at=19)
    with pytest.raises(Killed):
        verify(dying, archive.trust, "complete", journal=journal, threads=1)
    kept = journal.load()
    assert kept is not None
    assert 3 < kept.next < 21
    archive.commit()
    rest = DyingStore(archive.root)
    report = verify(rest, archive.trust, "complete", journal=journal, resume=True)
    assert [(finding.code, finding.object) for finding in report.findings] == [("SEGMENT_CHANGED", damaged)]
    assert (report.run, report.started, report.counts["segments"]) == (kept.run, kept.started, 26)
    # Nothing is skipped, and of what was looked at before only the objects that were in flight come again.
    assert set(dying.looks) | set(rest.looks) == {s.key for e in archive.log.entries() for s in e.segments}
    assert len(rest.looks) == 27 - kept.next
    assert journal.load() is None


def test_a_position_in_another_history_counts_for_nothing(archive: Archive, journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        verify(DyingStore(archive.root, dies_at=5), archive.trust, "complete", journal=journal, threads=1)
    other = Archive(tmp_path / "other", tmp_path / "other.json", archive.signers)
    for _ in range(7):
        other.commit(count=1)
    other.path(other.log.entry(1).segments[0].key).unlink()
    report = verify(other.store, other.trust, "complete", journal=journal, resume=True)
    assert [finding.code for finding in report.findings] == ["SEGMENT_MISSING"]


def test_out_of_time_is_incomplete_and_the_next_run_goes_on(archive: Archive, journal: Journal) -> None:
    sittings = 0
    report = verify(archive.store, archive.trust, "deep", rederive=rederive, journal=journal, seconds=0, threads=1)
    while not report.sound:
        sittings += 1
        assert (report.verdict, report.findings) == ("incomplete check", [])
        assert "time was over" in report.incomplete[-1]
        assert sittings < 20
        report = verify(
            archive.store, archive.trust, "deep", rederive=rederive, journal=journal, resume=True, seconds=0, threads=1
        )
    assert sittings > 1
    assert report.verdict == "sound"
    assert report.cost.bytes_read > 2 * sum(s.bytes for e in archive.log.entries() for s in e.segments)
    told = report.to_json()["cost"]
    assert told["bytes_held"] == sum(info.bytes for info in archive.store.list(""))
    assert told["bytes_read_per_tb"] == round(told["bytes_read"] * 1e12 / told["bytes_held"])


def test_a_store_that_fails_makes_the_check_incomplete_and_not_a_finding(archive: Archive) -> None:
    class Failing(DirectoryStore):
        def head(self, key: str, version: str = "") -> ObjectInfo:
            if key == failing:
                raise StoreUnavailable("a slow down")
            return super().head(key, version)

    failing = archive.log.entry(3).segments[0].key
    report = verify(Failing(archive.root), archive.trust, "complete")
    assert (report.findings, report.verdict) == ([], "incomplete check")
    assert report.incomplete == [f"not read: {failing}: a slow down"]
    archive.path(archive.log.entry(1).segments[0].key).unlink()
    assert verify(Failing(archive.root), archive.trust, "complete").verdict == "tampered"


def kill_on_batch_2(source: str, rows: pa.Table) -> pa.Table | None:
    """A parser that a record kills."""
    if b"batch 2 " in rows.column("raw")[0].as_py():
        os.kill(os.getpid(), signal.SIGKILL)
    return rederive(source, rows)


def test_processes_find_the_same_and_survive_a_file_that_kills_them(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_WORTH_PROCESSES", 0)
    last = archive.commit().segments[0].key
    archive.path(last).write_bytes(archive.store.get(last)[:-1] + b"\x00")
    inside = verify(archive.store, archive.trust, "deep", rederive=rederive)
    apart = verify(archive.store, archive.trust, "deep", rederive=rederive, processes=2)
    assert apart.findings == inside.findings != []
    survived = verify(archive.store, archive.trust, "deep", rederive=kill_on_batch_2, processes=1)
    assert survived.findings == inside.findings
    killer = archive.log.entry(3).segments[0].key
    assert any(killer in reason and "died" in reason for reason in survived.incomplete)


def test_incremental_leaves_out_what_was_covered(archive: Archive) -> None:
    covered = archive.signer.last
    fresh = archive.commit().segments[0].key
    store = DyingStore(archive.root)
    report = verify(store, archive.trust, "complete", since=covered)
    assert report.sound
    assert store.looks == [fresh]
    assert "before 6 were left out" in report.notes[0]


# Reports are objects like the others.


def file_report(archive: Archive, report: str, *, commit: bool = True, content: bytes = b"{}") -> str:
    key = layout.report_key(NOW.date(), report)
    archive.log.append(Draft("report", NOW, data={"report": report, "state": "started"}))
    archive.store.create(key, content)
    if commit:
        reference = ObjectRef(key, "", len(content), sha256(content).hexdigest())
        archive.log.append(Draft("report", NOW, details=reference, data={"report": report, "state": "finished"}))
    archive.signer.sign()
    return key


@pytest.mark.parametrize("level", ["quick", "inventory", "complete", "deep"])
def test_reports_are_covered(archive: Archive, level: Level) -> None:
    def found(level: Level) -> list[tuple[str, str]]:
        return [(f.code, f.object) for f in verify(archive.store, archive.trust, level, rederive=rederive).findings]

    key = file_report(archive, "r1")
    assert found(level) == []
    archive.path(key).write_bytes(b"[]")
    assert found(level) == ([("REPORT_CHANGED", key)] if level in ("complete", "deep") else [])
    archive.path(key).write_bytes(b"longer")
    assert found(level) == [("REPORT_CHANGED", key)]
    archive.path(key).unlink()
    assert found(level) == [("REPORT_MISSING", key)]


def test_a_crash_before_a_reports_entry_is_no_finding_but_a_strangers_report_is(archive: Archive) -> None:
    announced = file_report(archive, "r1", commit=False)
    report: Report = verify(archive.store, archive.trust)
    assert not report.findings
    assert f"{announced}: a report that was announced and not committed" in report.notes
    stranger = layout.report_key(NOW.date(), "r2")
    archive.store.create(stranger, b"{}")
    assert [(f.code, f.object) for f in verify(archive.store, archive.trust).findings] == [("ORPHAN", stranger)]


def test_a_live_signer_is_waited_for_whatever_the_clock_said(archive: Archive) -> None:
    """The clock stepped: the entry looks a year old, and is about to be signed."""
    archive.log.append(Draft("heartbeat", NOW.replace(year=2025), writer=WriterRange("w1", 1, 5, 4)))
    signing = threading.Timer(0.3, archive.signer.sign)
    signing.start()
    try:
        assert verify(archive.store, archive.trust, "quick", live=True).sound
    finally:
        signing.join()


def test_a_log_that_grows_while_it_is_read_yields_nothing(archive: Archive) -> None:
    """Entries are committed and signed between the listing of entries and that of checkpoints."""

    class Growing(DirectoryStore):
        def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
            if prefix == layout.CHECKPOINTS:
                archive.commit()
            return super().list(prefix, start_after)

    for level in ("quick", "complete", "deep"):
        report = verify(Growing(archive.root), archive.trust, level, rederive=rederive)  # type: ignore[arg-type]
        assert report.sound, report.findings
