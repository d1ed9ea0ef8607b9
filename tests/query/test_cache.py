"""Copies from a remote store: checked before use, bounded, never taken from under a query."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.archive.encryption.contents import Contents
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.envelope import FileFacts
from strongroom.archive.stores import DirectoryStore
from strongroom.query.errors import IntegrityFailure
from strongroom.query.holdings import cache
from strongroom.query.holdings.cache import Check, SegmentCache
from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.segments import Segment

from .conftest import Archive


class RemoteStore(DirectoryStore):
    """A store whose files can't be opened in place; counts what is fetched."""

    fetched = 0

    def local_path(self, key: str) -> Path | None:
        return None

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self.fetched += 1
        super().fetch(key, path, version)


def cached(remote: RemoteStore, directory: Path, max_bytes: int = 1 << 30, check: Check = "hash") -> SegmentCache:
    fetch = Contents(remote, Encryption("")).fetch
    return SegmentCache(remote, directory, fetch=fetch, max_bytes=max_bytes, check=check)


@pytest.fixture
def remote(archive: Archive) -> RemoteStore:
    return RemoteStore(archive.root)


@pytest.fixture
def segments(archive: Archive) -> list[Segment]:
    catalog = Catalog(archive.store, archive.log)
    return catalog.segments(catalog.follow())


def test_a_copy_is_fetched_once_and_read_only(remote: RemoteStore, segments: list[Segment], tmp_path: Path) -> None:
    cache = cached(remote, tmp_path)
    paths = cache.ensure(segments)
    assert cache.ensure(segments) == paths
    assert remote.fetched == len(segments)
    for path, segment in zip(paths, segments, strict=True):
        assert path.read_bytes() == DirectoryStore(remote.root).get(segment.key)
        assert path.stat().st_mode & 0o777 == 0o400
        assert path.is_relative_to(cache.roots[0])
    # Another process's copies are used, but not unseen.
    again = cached(remote, tmp_path)
    paths[0].chmod(0o600)
    paths[0].write_bytes(b"x" * segments[0].bytes)
    with pytest.raises(IntegrityFailure):
        again.ensure(segments)
    assert again.ensure(segments) == paths  # the spoiled copy was thrown away and fetched anew
    assert remote.fetched == len(segments) + 1


def test_what_the_store_gives_is_checked_first(remote: RemoteStore, segments: list[Segment], tmp_path: Path) -> None:
    cache = cached(remote, tmp_path)
    for wrong in (replace(segments[0], sha256="00" * 32), replace(segments[0], bytes=1)):
        with pytest.raises(IntegrityFailure) as failure:
            cache.ensure([wrong])
        assert failure.value.segment == wrong.key
        assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_least_recently_used_goes_unless_held(remote: RemoteStore, segments: list[Segment], tmp_path: Path) -> None:
    first, second, third, *_ = segments
    cache = cached(remote, tmp_path, first.bytes + second.bytes)

    def use(segment: Segment) -> None:
        with cache.holding([segment]):
            cache.ensure([segment])

    use(first)
    use(second)
    use(first)
    use(third)
    kept = {path.name for path in tmp_path.rglob("*.parquet")}
    assert Path(second.key).name not in kept
    assert Path(third.key).name in kept
    with cache.holding(segments):
        assert all(path.exists() for path in cache.ensure(segments))


def test_a_copy_another_process_holds_stays_until_that_process_is_gone(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path
) -> None:
    """Two engines share a folder that has room for one segment; the other one is a process, and it is killed."""
    first, second = segments[:2]
    room = max(first.bytes, second.bytes)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), first.key, str(room)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        mine = cached(remote, tmp_path, room)
        mine.ensure([first])
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with mine.holding([second]):
            mine.ensure([second])
            assert mine.path(first).exists()  # more than there is room for, but both are in use
        other.kill()
        other.wait()
        mine.ensure([second])
        with mine.holding(segments[2:3]):
            mine.ensure(segments[2:3])
        assert not mine.path(first).exists()
        assert not mine.path(second).exists()
    finally:
        other.kill()


HOLDER = """
import sys, time
from pathlib import Path
from strongroom.query.holdings.shelf import Shelf
with Shelf(Path(sys.argv[1]), int(sys.argv[3])).holding([sys.argv[2]]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_queries_that_need_the_same_segments_at_once_fetch_each_once(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path
) -> None:
    shared = cached(remote, tmp_path)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: shared.ensure(segments), range(12)))
    assert all(paths == found[0] for paths in found)
    assert remote.fetched == len(segments)


@pytest.mark.parametrize("check", ["hash", "stat"])
def test_after_a_restart_copies_count_as_the_setting_says(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    first = cached(remote, tmp_path, check=check)
    paths = first.ensure(segments)
    first.close()
    hashed: list[str] = []
    real = cache.file_digest
    monkeypatch.setattr(cache, "file_digest", lambda file, how: hashed.append(file.name) or real(file, how))
    again = cached(remote, tmp_path, check=check)
    assert again.ensure(segments) == paths
    assert remote.fetched == len(segments)
    assert len(hashed) == (len(segments) if check == "hash" else 0)
    again.close()
    # A copy that was written to is hashed under either setting.
    paths[0].chmod(0o600)
    paths[0].write_bytes(b"x" * segments[0].bytes)
    with pytest.raises(IntegrityFailure):
        cached(remote, tmp_path, check=check).ensure(segments)


def test_a_damaged_index_is_made_anew_and_the_bound_still_holds(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path
) -> None:
    first = cached(remote, tmp_path)
    first.ensure(segments)
    first.close()
    for name in ("copies.sqlite", "copies.sqlite-wal", "copies.sqlite-shm"):
        (tmp_path / name).write_bytes(b"not a database, whatever it says" * 200)
    again = cached(remote, tmp_path, max_bytes=segments[0].bytes)
    with again.holding(segments[:1]):
        assert again.ensure(segments[:1])[0].exists()
    assert remote.fetched == len(segments)
    again.ensure(segments[1:2])  # not held: what is over the bound goes, least recently used first
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")) <= segments[0].bytes + segments[1].bytes


def test_an_encrypted_segment_is_fetched_anew_unless_stamps_are_trusted(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path
) -> None:
    """Its plain copy has a hash that no entry states."""
    plain = segments[0]
    sealed = replace(plain, key=plain.key + ".enc", bytes=1, sha256="00" * 32)
    fetched: list[str] = []

    def opened(segment: Segment, path: Path) -> FileFacts:
        fetched.append(segment.key)
        remote.fetch(plain.key, path)
        return FileFacts(plain.bytes, plain.sha256)

    checks: list[Check] = ["hash", "hash", "stat"]
    for check in checks:
        some = SegmentCache(remote, tmp_path, fetch=opened, max_bytes=1 << 30, check=check)
        assert some.ensure([sealed]) == [tmp_path / sealed.key]
        some.close()
    assert len(fetched) == 2


def test_what_is_read_ahead_is_there_when_it_is_asked_for(
    remote: RemoteStore, segments: list[Segment], tmp_path: Path
) -> None:
    some = cached(remote, tmp_path)
    some.ahead([replace(segments[0], sha256="00" * 32), *segments[1:]])  # a damaged one is for its query to report
    reader = some._reader
    assert reader is not None
    reader.submit(int).result(30)  # the last in the line
    assert remote.fetched == len(segments)
    some.ensure(segments[1:])
    assert remote.fetched == len(segments)
    some.close()
