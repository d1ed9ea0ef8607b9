"""C2SP tlog-tiles: the log's tree cut into tiles that any tile-log client can fetch and audit.

Tile (L, N) holds the hashes of 256 consecutive complete subtrees of 256^L leaves, numbers 256·N … 256·N+255; a partial
tile its first W. Entry bundle N holds entries 256·N … 256·N+255, each after its length as two bytes big-endian.

Full tiles never change, so they are published as objects beside the log (`log/tile/…`); partial ones are made when
asked for. All of it is derived from the entries: verification compares it, and it can be deleted and published again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectExists
from strongroom.archive.stores.store import ObjectStore

TILE_WIDTH = 256
_HEIGHT = 8
_PATH = re.compile(
    r"(?P<level>[0-9]|[1-5][0-9]|entries)/(?P<number>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)


@dataclass(frozen=True, slots=True)
class TileName:
    """Which tile: its level (None for an entry bundle), number, and how many of its 256 items."""

    level: int | None
    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The path below `tile/` in the standard's spelling: groups of three digits, `.p/<width>` if partial."""
        groups = re.findall(r"...", f"{self.number:0{-(-len(str(self.number)) // 3) * 3}d}")
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        partial = f".p/{self.width}" if self.width < TILE_WIDTH else ""
        return f"{'entries' if self.level is None else self.level}/{number}{partial}"


def parse_path(path: str) -> TileName:
    """The tile a path below `tile/` names. Raises FormatError."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise FormatError(f"{path!r} is not a tile path", hint="like 0/x001/067 or entries/000.p/17")
    number = int(re.sub(r"[x/]", "", match["number"]))
    name = TileName(
        None if match["level"] == "entries" else int(match["level"]), number, int(match["width"] or TILE_WIDTH)
    )
    if name.path != path or not 0 < name.width <= TILE_WIDTH:
        raise FormatError(f"{path!r} is not the one spelling of a tile path", hint=f"that tile is {name.path}")
    return name


class Rows(Protocol):
    """A tree, or a log that has one."""

    def row(self, level: int, start: int, stop: int) -> list[bytes]:
        """See merkle.Tree.row."""
        ...


def hash_tile(tree: Rows, name: TileName) -> bytes | None:
    """The tile's bytes, None when the tree does not have that many hashes yet."""
    assert name.level is not None
    start = name.number * TILE_WIDTH
    row = tree.row(name.level * _HEIGHT, start, start + name.width)
    return b"".join(row) if len(row) == name.width else None


def entry_bundle(entries: Iterable[bytes]) -> bytes:
    """The bundle of these entries' bytes. Each must be shorter than 65,536 bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def full_tiles(old: int, new: int) -> Iterator[TileName]:
    """Hash tiles that are complete at `new` entries and were not at `old`."""
    level, span = 0, TILE_WIDTH
    while span <= new:
        yield from (TileName(level, number) for number in range(old // span, new // span))
        level, span = level + 1, span * TILE_WIDTH


def publish(store: ObjectStore, tree: Rows, old: int, new: int) -> int:
    """Put the hash tiles that became complete between two sizes beside the log; returns how many were new."""
    created = 0
    for name in full_tiles(old, new):
        content = hash_tile(tree, name)
        assert content is not None
        try:
            store.create(layout.TILES + name.path, content)
        except ObjectExists:  # published before a crash, or by another signer: verification compares it
            continue
        created += 1
    return created
