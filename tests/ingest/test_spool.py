"""The spool: what a crash, a full disk and a lying disk leave behind."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest import frames, spool
from strongroom.ingest.errors import SpoolDamaged, SpoolFull, SpoolLocked, SpoolUnavailable
from strongroom.ingest.frames import Bad, BatchHeader, FileHeader
from strongroom.ingest.spool import Durable, Spool
from strongroom.ingest.writer import DirectoryLock

FILE = FileHeader(b"markmark", 1, 5)


def header(number: int = 0) -> BatchHeader:
    return BatchHeader(f"{number:064x}", "json", "identity", "0" * 64, 10, 1_700_000_000_000_000, "f", "http", "::1")


@contextmanager
def opened(folder: Path, limit: int = 1 << 30, seen: list[int] | None = None) -> Iterator[Spool]:
    def note(group: Durable) -> None:
        if seen is not None:
            seen.extend(sequence for sequence, _ in group)

    found = Spool(folder, epoch=1, limit_bytes=limit, on_durable=note)
    try:
        yield found
    finally:
        found.close()


def contents(found: Spool) -> list[bytes]:
    return [spool.read(place)[1] for place in found.frames(0, found.next - 1)]


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[int], list[int]]:
    """A spool file of several groups; the end offsets of its frames and of its groups."""
    data, sequence = frames.encode_file_header(FILE), FILE.first
    ends, groups = [], []
    for group in draw(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=3), min_size=1, max_size=4)):
        start = len(data)
        for body in group:
            pieces, _ = frames.encode_frame(
                FILE, sequence, start, frames.encode_header(header(sequence)), [body[:7], body[7:]]
            )
            data, sequence = data + b"".join(pieces), sequence + 1
            ends.append(len(data))
        groups.append(len(data))
    return data, ends, groups


@given(files(), st.data())
def test_every_frame_before_a_torn_tail_survives(file: tuple[bytes, list[int], list[int]], data: st.DataObject) -> None:
    content, ends, _ = file
    end = data.draw(st.integers(frames.FILE_HEADER_BYTES, len(content)))
    found = list(frames.scan(content[:end], FILE))
    whole = [frame for frame in found if not isinstance(frame, Bad)]
    assert [frame.end for frame in whole] == [e for e in ends if e <= end]
    cut = whole[-1].end if whole else frames.FILE_HEADER_BYTES
    assert [bad for bad in found if isinstance(bad, Bad)] == ([Bad(cut, "torn")] if cut < end else [])


@given(files(), st.data())
def test_a_changed_byte_is_damage_if_a_later_group_was_written_else_a_torn_group(
    file: tuple[bytes, list[int], list[int]], data: st.DataObject
) -> None:
    content, ends, groups = file
    place = data.draw(st.integers(frames.FILE_HEADER_BYTES, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    start = max([e for e in ends if e <= place], default=frames.FILE_HEADER_BYTES)
    found = list(frames.scan(bytes(changed), FILE))[-1]
    assert found == Bad(start, "torn" if place >= ([0, *groups][-2]) else "damaged")


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    list(frames.scan(frames.encode_file_header(FILE) + content, FILE))
    frames.decode_file_header(content)


def test_a_tail_torn_at_every_offset_is_cut_kept_aside_and_written_over(tmp_path: Path) -> None:
    with opened(tmp_path) as found:
        for number in range(3):
            found.append(header(number), [b"body %d" % number]).result()
        path = Path(found.frames(0, 0)[0].path)
        last = found.frames(2, 2)[0].offset
    content = path.read_bytes()
    for end in range(last, len(content)):
        path.write_bytes(content[:end])
        with opened(tmp_path) as found:
            assert contents(found) == [b"body 0", b"body 1"]
            if end % 10:
                continue
            assert found.append(header(9), [b"again"]).result() == 2
            assert contents(found) == [b"body 0", b"body 1", b"again"]
    kept = {torn.read_bytes() for torn in (tmp_path / "torn").iterdir()}
    assert kept == {content[last:end] for end in range(last + 1, len(content))}


def test_damage_is_an_error_that_says_where_and_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as found:
        for number in range(3):
            found.append(header(number), [b"body"]).result()
        place = found.frames(1, 1)[0]
    content = bytearray(Path(place.path).read_bytes())
    content[place.offset + 60] ^= 1
    Path(place.path).write_bytes(content)
    with pytest.raises(SpoolDamaged, match=rf"{place.path}: the frame at byte {place.offset}"):
        Spool(tmp_path, epoch=1, limit_bytes=1 << 30, on_durable=lambda _: None)
    assert Path(place.path).read_bytes() == content
    assert [torn.read_bytes() for torn in (tmp_path / "torn").iterdir()] == [content[place.offset :]]


def test_damage_after_opening_is_found_when_the_batch_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as found:
        found.append(header(), [b"body"]).result()
        place = found.frames(0, 0)[0]
        with Path(place.path).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"X")
        with pytest.raises(SpoolDamaged):
            spool.read(place)


def test_what_waits_together_shares_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, syncing, real = threading.Event(), threading.Event(), os.fdatasync

    def slow(descriptor: int) -> None:
        syncing.set()
        go.wait(5)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    seen: list[int] = []
    with opened(tmp_path, seen=seen) as found:
        first = found.append(header(0), [b"0"])
        assert syncing.wait(5)
        rest = [found.append(header(n), [b"%d" % n]) for n in range(1, 50)]
        assert not first.done() and not seen
        go.set()
        assert [done.result(5) for done in (first, *rest)] == list(range(50)) == seen
        assert found.syncs == 2
        assert contents(found) == [b"%d" % n for n in range(50)]


def test_who_stops_waiting_does_not_stop_the_writer(tmp_path: Path) -> None:
    with opened(tmp_path) as found:
        assert not found.append(header(0), [b"0"]).cancel()
        assert not found.rotate().cancel()
        assert found.append(header(1), [b"1"]).result(5) == 1


def test_a_full_disk_refuses_the_group_leaves_nothing_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def full(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        real(descriptor, [buffers[0][:20]], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as found:
        found.append(header(0), [b"kept"]).result()
        size = Path(found.frames(0, 0)[0].path).stat().st_size
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", full)
            with pytest.raises(SpoolUnavailable, match="No space left") as refused:
                found.append(header(1), [b"lost" * 100]).result()
        assert refused.value.transient
        assert Path(found.frames(0, 0)[0].path).stat().st_size == size
        assert found.append(header(2), [b"next"]).result() == 1
        assert contents(found) == [b"kept", b"next"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda d, buffers, offset: real(d, [buffers[0][:11]], offset))
    with opened(tmp_path) as found:
        found.append(header(), [b"a" * 30, b"", b"b" * 30]).result()
        assert contents(found) == [b"a" * 30 + b"b" * 30]


def test_a_failed_fsync_is_final_until_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path) as found:
        found.append(header(0), [b"kept"]).result()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fails)
            with pytest.raises(SpoolUnavailable, match="Input/output error"):
                found.append(header(1), [b"refused"]).result()
        with pytest.raises(SpoolUnavailable, match="restart"):
            found.append(header(2), [b"refused"])
        assert found.problem
    with opened(tmp_path) as found:
        assert contents(found) == [b"kept"]
        assert found.append(header(3), [b"next"]).result() == 1


def test_a_batch_the_index_can_not_take_is_not_stored(tmp_path: Path) -> None:
    def refuses(group: Durable) -> None:
        if group[0][1].batch == header(1).batch:
            raise OSError(errno.ENOSPC, "index full")

    found = Spool(tmp_path, epoch=1, limit_bytes=1 << 30, on_durable=refuses)
    found.append(header(0), [b"kept"]).result()
    with pytest.raises(SpoolUnavailable):
        found.append(header(1), [b"refused"]).result()
    assert found.append(header(2), [b"next"]).result() == 1
    found.close()
    with opened(tmp_path) as found:
        assert contents(found) == [b"kept", b"next"]


def test_the_bound_counts_what_is_still_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, limit=10_000) as found:
        results: list[Future[int]] = []
        with pytest.raises(SpoolFull):
            for number in range(100):
                results.append(found.append(header(number), [b"x" * 1000]))
        assert 5 <= len(results) <= 10
        assert [done.result() for done in results] == list(range(len(results)))


def test_files_rotate_and_are_released_but_the_newest_carries_the_numbers_on(tmp_path: Path) -> None:
    found = Spool(tmp_path, epoch=1, limit_bytes=1 << 30, on_durable=lambda _: None, durability=spool.Disk(300))
    for number in range(6):
        found.append(header(number), [b"x" * 200]).result()
    assert found.rotate().result() == 6
    found.release(3)
    assert (found.first, found.next) == (4, 6)
    found.release(5)
    assert (found.first, found.next, contents(found)) == (6, 6, [])
    found.close()
    with opened(tmp_path) as again:
        assert again.append(header(), [b"y"]).result() == 6


def test_a_missing_file_in_between_is_noticed(tmp_path: Path) -> None:
    found = Spool(tmp_path, epoch=1, limit_bytes=1 << 30, on_durable=lambda _: None, durability=spool.Disk(1))
    for number in range(3):
        found.append(header(number), [b"x"]).result()
    path = Path(found.frames(1, 1)[0].path)
    found.close()
    path.unlink()
    with pytest.raises(SpoolDamaged, match="begins at batch 2"):
        Spool(tmp_path, epoch=1, limit_bytes=1 << 30, on_durable=lambda _: None)


def test_a_directory_has_one_user_who_is_named(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(SpoolLocked, match=f"process {os.getpid()} on "):
        DirectoryLock(tmp_path)
    DirectoryLock(tmp_path).close()
