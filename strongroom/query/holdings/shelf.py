"""The folder of copies, or of folds: which are there, which are in use, and which go when it outgrows its bound.

Any number of processes share one folder. What each must know of the others is in one SQLite file beside the copies:

    copies      name, length, SHA-256 and stamp (inode, length, mtime, ctime) of each file; when it was last used
    holds       which process needs which copies now; those are never removed
    processes/  a file a process, locked as long as the process lives: the holds of a dead one count no more

A copy is put on the shelf by a rename and then written down; a crash between the two leaves a file that the next start
finds by looking once. The index is derived: lost or damaged, it is made anew, and every copy is checked again. It lies
where the copies lie, so it is no more to be trusted than they are: a caller decides what it takes from here unchecked.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from strongroom.archive import derived, layout
from strongroom.archive.locks import exclusive

Stamp = tuple[int, int, int, int]
"""Inode, length, mtime and ctime (ns): a file that was written to since has another one."""

STAGED = ".fetch-"
_INDEX = "copies.sqlite"
_PROCESSES = "processes"
_VERSION = 1
_SCHEMA = """
CREATE TABLE copies (
    name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, inode INTEGER NOT NULL,
    mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_use ON copies (used);
CREATE TABLE holds (
    name TEXT NOT NULL, process TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (name, process)
) WITHOUT ROWID;
CREATE INDEX by_process ON holds (process);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TRIGGER more AFTER INSERT ON copies BEGIN UPDATE total SET bytes = bytes + new.bytes; END;
CREATE TRIGGER less AFTER DELETE ON copies BEGIN UPDATE total SET bytes = bytes - old.bytes; END;
"""
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy as it was when it was put on the shelf and checked. `sha256`: hex, "" when nobody has checked it."""

    name: str
    sha256: str
    stamp: Stamp


def stamp_of(path: Path) -> Stamp | None:
    """The file's stamp, None when there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Shelf:
    """Copies under `folder`, of at most `max_bytes` together unless more are held. Thread-safe; methods block."""

    def __init__(self, folder: Path, max_bytes: int, *, names: str = layout.SEGMENTS) -> None:
        """`names`: what the copies' names begin with. Raises OSError, sqlite3.DatabaseError when there can't be one."""
        self._folder, self._max_bytes, self._names = folder, max_bytes, names
        self._lock = threading.RLock()
        (folder / _PROCESSES).mkdir(parents=True, exist_ok=True, mode=0o750)
        self._process = secrets.token_hex(8)
        with exclusive(folder / "copies.lock"):  # a process must not look dead between its first two steps
            self._alive = os.open(folder / _PROCESSES / self._process, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX)
            self._db = derived.open_database(folder / _INDEX, _SCHEMA, _VERSION, busy_seconds=30)
            for other in (folder / _PROCESSES).iterdir():
                if other.name != self._process:
                    self._lives(other.name)  # or its file goes
        self._look()

    def close(self) -> None:
        """Let go of everything this process holds."""
        with self._writing() as db:
            db.execute("DELETE FROM holds WHERE process = ?", (self._process,))
        with self._lock:
            self._db.close()
        (self._folder / _PROCESSES / self._process).unlink(missing_ok=True)
        os.close(self._alive)

    def get(self, name: str) -> Copy | None:
        """What is written down of a copy."""
        with self._lock:
            asked = "SELECT name, sha256, inode, bytes, mtime, ctime FROM copies WHERE name = ?"
            row = self._db.execute(asked, (name,)).fetchone()
        return None if row is None else Copy(row[0], row[1], row[2:])

    def names(self) -> list[str]:
        """All that is written down, the least recently used first."""
        with self._lock:
            return [name for (name,) in self._db.execute("SELECT name FROM copies ORDER BY used")]

    @property
    def size(self) -> int:
        """Bytes of all copies together."""
        with self._lock:
            (total,) = self._db.execute("SELECT bytes FROM total").fetchone()
        return int(total)

    def put(self, copy: Copy) -> None:
        """Write a copy down that is at its place and was checked."""
        inode, size, mtime, ctime = copy.stamp
        with self._writing() as db:
            db.execute("DELETE FROM copies WHERE name = ?", (copy.name,))
            values = (copy.name, size, copy.sha256, inode, mtime, ctime, time.time_ns())
            db.execute("INSERT INTO copies VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def remove(self, name: str) -> None:
        """Remove a copy that turned out to be spoiled."""
        with self._writing() as db:
            db.execute("DELETE FROM copies WHERE name = ?", (name,))
            (self._folder / name).unlink(missing_ok=True)

    def discard(self, name: str) -> bool:
        """Remove a copy that nobody wants any more, unless somebody holds it. Says whether it is gone."""
        self._forget_the_dead()
        with self._writing() as db:
            if db.execute("SELECT 1 FROM holds WHERE name = ?", (name,)).fetchone() is not None:
                return False
            db.execute("DELETE FROM copies WHERE name = ?", (name,))
            (self._folder / name).unlink(missing_ok=True)
            return True

    @contextmanager
    def holding(self, names: Sequence[str]) -> Iterator[None]:
        """Keep these copies, those that are there and those that come, as long as the context lasts."""
        mine = [(name, self._process) for name in names]
        used = [(time.time_ns(), name) for name in names]
        with self._writing() as db:
            held = "INSERT INTO holds VALUES (?, ?, 1) ON CONFLICT (name, process) DO UPDATE SET count = count + 1"
            db.executemany(held, mine)
            db.executemany("UPDATE copies SET used = ? WHERE name = ?", used)
        try:
            yield
        finally:
            with self._writing() as db:
                db.executemany("UPDATE holds SET count = count - 1 WHERE name = ? AND process = ?", mine)
                db.execute("DELETE FROM holds WHERE process = ? AND count <= 0", (self._process,))

    def evict(self) -> None:
        """Remove the least recently used copies that nobody holds until the rest fits."""
        if self.size <= self._max_bytes:
            return
        self._forget_the_dead()
        # Under the same lock as `holding`: whoever comes after this sees that the copy is gone and fetches it.
        with self._writing() as db:
            (total,) = db.execute("SELECT bytes FROM total").fetchone()
            unheld = "SELECT name, bytes FROM copies WHERE name NOT IN (SELECT name FROM holds) ORDER BY used"
            gone: list[tuple[str]] = []
            for name, size in db.execute(unheld):
                if total <= self._max_bytes:
                    break
                (self._folder / name).unlink(missing_ok=True)
                gone.append((name,))
                total -= size
            db.executemany("DELETE FROM copies WHERE name = ?", gone)

    def _forget_the_dead(self) -> None:
        with self._lock:
            known = [row[0] for row in self._db.execute("SELECT DISTINCT process FROM holds")]
        dead = [name for name in known if name != self._process and not self._lives(name)]
        if dead:
            with self._writing() as db:
                db.executemany("DELETE FROM holds WHERE process = ?", [(name,) for name in dead])

    def _lives(self, process: str) -> bool:
        path = self._folder / _PROCESSES / process
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        path.unlink(missing_ok=True)
        return False

    def _look(self) -> None:
        """Once a start: files that nobody wrote down, and names of files that are gone."""
        found = {
            path.relative_to(self._folder).as_posix(): path
            for path in (self._folder / self._names).rglob("*")
            if path.is_file()
        }
        with self._writing() as db:
            known = {row[0] for row in db.execute("SELECT name FROM copies")}
            for name in known - set(found):
                if not (self._folder / name).exists():
                    db.execute("DELETE FROM copies WHERE name = ?", (name,))
            for name in set(found) - known:
                if (stamp := stamp_of(found[name])) is not None:
                    values = (name, stamp[1], "", stamp[0], *stamp[2:], 0)
                    db.execute("INSERT OR IGNORE INTO copies VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        for staged in self._folder.glob(f"{STAGED}*"):
            with suppress(FileNotFoundError):
                if time.time() - staged.stat().st_mtime > _STALE_SECONDS:
                    staged.unlink()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
