"""How far a verification has come, kept outside the archive so that one that was killed goes on where it was.

What is kept is what can't be had again cheaply: up to which entry the objects were looked at, and what was found. The
log itself is always read anew; a kept position counts only when the log still has the root it was taken at, so that
nobody makes a verifier skip what he has just replaced by another history.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from strongroom.archive import durable
from strongroom.archive.verification.findings import Finding, Level

SAVE_SECONDS = 1.0


class Position(msgspec.Struct, frozen=True):
    """A place in a verification.

    The objects of entries `start` … `next` − 1 were looked at; `size` and `root` are the tree then. `objects` of
    `total` objects, `seconds` and `bytes_read` spent so far, over all sittings. `seed`: hex; what *sampled* draws by.
    """

    run: str
    level: Level
    origin: str
    started: str
    size: int
    root: str
    start: int
    next: int
    seed: str
    fraction: float
    objects: int
    total: int
    bytes_read: int
    seconds: float
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


class Journal:
    """The file of one verification's position. Not locked: whoever verifies sees to that."""

    def __init__(self, path: Path, save_seconds: float = SAVE_SECONDS) -> None:
        self.path = path
        self._save_seconds = save_seconds
        self._saved = time.monotonic()

    def load(self) -> Position | None:
        """The position kept, None when there is none that can be read: the verification then begins anew."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Position)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved >= self._save_seconds

    def save(self, position: Position) -> None:
        """Durably keep `position`. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.replace(self.path, msgspec.json.encode(position))
        self._saved = time.monotonic()

    def close(self) -> None:
        """The verification has come to its end: nothing is left to go on with."""
        self.path.unlink(missing_ok=True)
