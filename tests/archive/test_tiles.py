"""tlog-tiles: names, contents, and what is published."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import layout, tiles
from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import Tree, root_of
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.tiles import TileName


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "0/000"),
        (TileName(1, 67), "1/067"),
        (TileName(0, 1234067), "0/x001/x234/067"),
        (TileName(None, 0, 17), "entries/000.p/17"),
    ],
)
def test_paths_of_the_standard(name: TileName, path: str) -> None:
    assert name.path == path
    assert tiles.parse_path(path) == name


@given(st.none() | st.integers(0, 59), st.integers(0, 10**12), st.integers(1, 256))
def test_every_name_has_one_path(level: int | None, number: int, width: int) -> None:
    name = TileName(level, number, width)
    assert tiles.parse_path(name.path) == name


@pytest.mark.parametrize(
    "path", ["0/0", "0/x000/001", "60/000", "0/000.p/256", "0/000.p/0", "0/000.p/017", "../000", "0/000/", ""]
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(FormatError):
        tiles.parse_path(path)


def test_tiles_rebuild_the_tree() -> None:
    leaves = [sha256(str(number).encode()).digest() for number in range(256 * 256 + 256 + 3)]
    tree = Tree(leaves)
    first = tiles.hash_tile(tree, TileName(0, 1))
    assert first == b"".join(leaves[256:512])
    upper = tiles.hash_tile(tree, TileName(1, 0))
    assert upper is not None
    assert upper[:32] == root_of(leaves[:256])
    assert root_of([upper[i : i + 32] for i in range(0, len(upper), 32)]) == tree.root(256 * 256)
    assert tiles.hash_tile(tree, TileName(0, 257, 3)) == b"".join(leaves[-3:])
    assert tiles.hash_tile(tree, TileName(0, 257)) is None
    assert tiles.hash_tile(tree, TileName(5, 0, 1)) is None


def test_full_tiles_are_published_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = DirectoryStore(tmp_path, create=True)
    tree = Tree(sha256(str(number).encode()).digest() for number in range(600))
    assert tiles.publish(store, tree, 0, 255) == 0
    assert tiles.publish(store, tree, 255, 600) == 2
    assert tiles.publish(store, tree, 0, 600) == 0
    assert [info.key for info in store.list(layout.TILES)] == ["log/tile/0/000", "log/tile/0/001"]


def test_entry_bundle() -> None:
    assert tiles.entry_bundle([b"one", b""]) == b"\x00\x03one\x00\x00"
