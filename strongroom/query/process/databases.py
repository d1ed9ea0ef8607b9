"""The databases of one process: opened before they are needed, walled in before anybody asks, one user's each.

Opening a database takes longer than answering a small question. So some stand ready, opened while nobody asks; and one
that answered a question in an ordinary way is kept for the next question of the same user. Nobody is ever given one
that was another user's, and what failed is thrown away with its database: whatever a statement might leave behind that
guard.py should not have let through, it can't reach anybody else's answer. Every question has a connection of its own;
views and tables are temporary, so they end with it.

A database can read the folders given and nothing else, and its configuration is locked: this is the second of the three
walls that guard.py speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb

READY = 2
"""Databases that stand ready."""
QUESTIONS = 100
"""One database answers so many at most."""


class Databases:
    """Where the questions of one process get their connections. Raises duckdb.Error when a database can't be opened."""

    def __init__(self, opened: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        """`opened` opens one, as `open_database` does."""
        self._open = opened
        self._ready = [self._open()]
        self._kept: duckdb.DuckDBPyConnection | None = None
        self._owner, self._served = "", 0

    def prepare(self, asked: Callable[[], bool]) -> None:
        """Open what should stand ready, as long as nobody has `asked`."""
        while len(self._ready) < READY and (not self._ready or not asked()):
            self._ready.append(self._open())

    @contextmanager
    def connection(self, owner: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one question of `owner`; "" is a stranger every time."""
        if self._kept is None or not owner or owner != self._owner or self._served >= QUESTIONS:
            self.forget()
            self._kept, self._owner, self._served = self._ready.pop() if self._ready else self._open(), owner, 0
        self._served += 1
        try:
            with self._kept.cursor() as connection:
                yield connection
        finally:
            if not owner:
                self.forget()

    def forget(self) -> None:
        """Close the database that was asked last, whoever may come next."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


def open_database(
    *, folders: Sequence[str], memory_bytes: int, threads: int, spill: str = "", spill_bytes: int = 0
) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, for a process of `memory_bytes`, which can read `folders` and nothing else.

    What does not fit goes to the folder `spill`, up to `spill_bytes`; "" for nowhere.
    """
    database = duckdb.connect(
        ":memory:",
        config={
            # What DuckDB counts is not all it takes: where it can spill it should do so well before it is killed.
            "memory_limit": f"{memory_bytes * (2 if spill else 3) // 4 >> 20}MiB",
            "threads": threads,
            "temp_directory": spill,
            "max_temp_directory_size": f"{spill_bytes}B",
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "enable_external_file_cache": False,
            "arrow_lossless_conversion": True,
            "errors_as_json": True,
        },
    )
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute("SET GLOBAL parquet_metadata_cache = true")  # a statement is bound several times before it runs
    listed = ", ".join("'" + folder.replace("'", "''") + "'" for folder in folders)
    database.execute(f"SET allowed_directories = [{listed}]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database
