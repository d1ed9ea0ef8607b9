"""Copies from a remote store: checked before use, bounded, never taken from under a query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.archive.contents import Contents
from strongroom.archive.encryption import Encryption
from strongroom.archive.stores import DirectoryStore
from strongroom.query.cache import SegmentCache
from strongroom.query.catalog import Catalog
from strongroom.query.errors import IntegrityFailure
from strongroom.query.segments import Segment

from .conftest import Archive


class RemoteStore(DirectoryStore):
    """A store whose files can't be opened in place; counts what is fetched."""

    fetched = 0

    def local_path(self, key: str) -> Path | None:
        return None

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self.fetched += 1
        super().fetch(key, path, version)


def cached(remote: RemoteStore, directory: Path, max_bytes: int = 1 << 30) -> SegmentCache:
    fetch = Contents(remote, Encryption("")).fetch
    return SegmentCache(remote, directory, fetch=fetch, max_bytes=max_bytes)


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
