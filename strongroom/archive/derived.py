"""A SQLite database that is derived: when anything is wrong with it, it is thrown away and filled again.

Its owner can make all of it anew (from the log, the spool, files that lie beside it), so a write need not wait for the
disk, and a database of another version or with damage is no error: it starts empty.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path


def open_database(path: Path, schema: str, version: int, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """The database at `path`, sound and of this `version`, made by the script `schema` where it was not.

    In autocommit mode, usable from several threads one at a time. `busy_seconds`: how long a statement waits for
    another process. Raises sqlite3.Error when there can't be one here.
    """
    if path.exists():
        with suppress(sqlite3.DatabaseError):
            database = connect(path, busy_seconds=busy_seconds)
            (found,) = database.execute("PRAGMA user_version").fetchone()
            (health,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if (found, health) == (version, "ok"):
                return database
            database.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    database = connect(path, busy_seconds=busy_seconds)
    database.executescript(f"{schema} PRAGMA user_version = {version};")
    return database


def connect(path: Path, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """One more connection to a database that is open."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    return database
