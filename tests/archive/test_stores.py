"""The store contract, held against every store."""

import errno
import os
import threading
from pathlib import Path

import pytest

from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.stores import DirectoryStore, ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return DirectoryStore(tmp_path / "store", create=True)


def test_create_get_head(store: ObjectStore, tmp_path: Path) -> None:
    assert store.create("a/b", b"bytes").bytes == 5
    assert (store.get("a/b"), store.head("a/b").bytes) == (b"bytes", 5)
    (tmp_path / "file").write_bytes(b"from a file")
    store.create("a/c", tmp_path / "file")
    assert store.get("a/c") == b"from a file"


def test_created_once(store: ObjectStore) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_one_winner_of_many(store: ObjectStore) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        for key in range(20):
            try:
                store.create(f"race/{key}", b"%d" % number)
                won.append(key)
            except ObjectExists:
                pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_listing_is_in_name_order_and_can_resume(store: ObjectStore) -> None:
    names = ["a/1", "a/10", "a/2/x", "a/2-", "b", "ab/c", "a-b"]
    for name in names:
        store.create(name, b"")
    assert [info.key for info in store.list("")] == sorted(names)
    assert [info.key for info in store.list("a/")] == sorted(name for name in names if name.startswith("a/"))
    assert [info.key for info in store.list("a/", "a/10")] == ["a/2-", "a/2/x"]
    assert list(store.list("zzz/")) == []


def test_missing(store: ObjectStore) -> None:
    for read in (store.get, store.head):
        with pytest.raises(ObjectMissing):
            read("a/none")
        with pytest.raises(ObjectMissing):
            store.create("file", b"") if not any(store.list("file")) else None
            read("file/below")


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", "a/./b", "a b", "a\x00", "ä"])
def test_names_that_leave_the_store(store: ObjectStore, key: str) -> None:
    for call in (store.get, store.head, lambda key: store.create(key, b"")):
        with pytest.raises(FormatError):
            call(key)


def test_directory_objects_are_read_only_and_no_residue_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", create=True)
    store.create("a/b", b"x")
    assert (tmp_path / "store/a/b").stat().st_mode & 0o222 == 0
    assert os.listdir(tmp_path / "store/.tmp") == []
    with pytest.raises(StoreUnavailable):
        DirectoryStore(tmp_path / "nowhere")


def test_a_file_from_another_mount_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two volumes of one container may lie on one device and still refuse link(2) between them."""
    store = DirectoryStore(tmp_path / "store", create=True)
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"segment")
    link = os.link

    def across_mounts(origin: Path, target: Path) -> None:
        if store.root not in Path(origin).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(origin, target)

    monkeypatch.setattr(os, "link", across_mounts)
    store.create("a/b", spooled)
    assert store.get("a/b") == b"segment"
    assert list((store.root / ".tmp").iterdir()) == []
