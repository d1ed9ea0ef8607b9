"""The store contract, held against every store."""

import errno
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.stores import DirectoryStore, ObjectStore, S3Store

NewStore = Callable[[], AbstractContextManager[ObjectStore]]


@pytest.fixture(scope="module", params=["directory", "s3"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """Makes empty stores, each for as long as a context lasts."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        bucket = s3.new_bucket()
        prefixes = (f"store-{number}" for number in range(1000))
        options = s3.options

        @contextmanager
        def in_bucket() -> Iterator[ObjectStore]:
            yield S3Store.open(bucket, next(prefixes), options=options)

        return in_bucket

    @contextmanager
    def in_folder() -> Iterator[ObjectStore]:
        with tempfile.TemporaryDirectory() as folder:
            yield DirectoryStore(Path(folder), create=True)

    return in_folder


@pytest.fixture
def agreeing(request: pytest.FixtureRequest, new_store: NewStore) -> None:
    """Asked for by tests of create-if-absent, which not every S3 has."""
    if request.node.callspec.params["new_store"] == "s3":
        request.getfixturevalue("s3").needs("conditions")


@pytest.fixture
def store(new_store: NewStore) -> Iterator[ObjectStore]:
    with new_store() as made:
        yield made


def test_create_get_head(store: ObjectStore, tmp_path: Path) -> None:
    assert store.create("a/b", b"bytes").bytes == 5
    assert (store.get("a/b"), store.head("a/b").bytes) == (b"bytes", 5)
    (tmp_path / "file").write_bytes(b"from a file")
    store.create("a/c", tmp_path / "file")
    assert store.get("a/c") == b"from a file"


def test_created_once(agreeing: None, store: ObjectStore) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_one_winner_of_many(agreeing: None, store: ObjectStore) -> None:
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


_NAMES = st.from_regex(r"[a-c=.\-]{1,3}(/[a-b1]{1,2}){0,2}", fullmatch=True).filter(
    lambda name: not {".", ".."} & set(name.split("/"))
)


@settings(max_examples=8)
@given(names=st.sets(_NAMES, max_size=8), prefix=_NAMES, after=_NAMES)
def test_listing_equals_a_sorted_list(new_store: NewStore, names: set[str], prefix: str, after: str) -> None:
    with new_store() as store:
        held = set()
        for name in names:
            try:
                store.create(name, name.encode())
                held.add(name)
            except (StoreUnavailable, ObjectExists):  # a folder can't be a file as well
                assert isinstance(store, DirectoryStore)
        for start, last in (("", ""), (prefix, ""), (prefix[:1], after), ("", after)):
            expected = sorted(name for name in held if name.startswith(start) and name > last)
            assert [info.key for info in store.list(start, last)] == expected
        assert all(store.head(name) == info for name in held for info in store.list(name) if info.key == name)


def test_fetched_into_a_new_file(store: ObjectStore, tmp_path: Path) -> None:
    info = store.create("a/b", bytes(range(256)) * 999)
    store.fetch("a/b", tmp_path / "copy", info.version)
    assert (tmp_path / "copy").read_bytes() == store.get("a/b", info.version)
    with pytest.raises((OSError, StoreUnavailable), match="exists"):
        store.fetch("a/b", tmp_path / "copy")
    with pytest.raises(ObjectMissing):
        store.fetch("a/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_can_be_sent_to_another_process(store: ObjectStore) -> None:
    store.create("a/b", b"bytes")
    there = pickle.loads(pickle.dumps(store))
    assert (there.get("a/b"), there.description) == (b"bytes", store.description)


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
