"""A database is one user's, reads the folders it was given, and keeps nothing of a question."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import pytest

from strongroom.query.process import databases
from strongroom.query.process.databases import Databases, open_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "it's here"
    folder.mkdir()
    (folder / "logs.csv").write_text("n\n1\n")
    return folder


@pytest.fixture
def several(folder: Path) -> Iterator[Databases]:
    several = Databases(partial(open_database, folders=[str(folder)], memory_bytes=512 << 20, threads=1))
    yield several
    several.forget()


def tables(several: Databases, owner: str) -> list[str]:
    with several.connection(owner) as connection:
        return [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]


def leave(several: Databases, owner: str, name: str) -> None:
    """As if a statement had done what the guard lets none do."""
    with several.connection(owner) as connection:
        connection.execute(f"CREATE TABLE {name} AS SELECT 1")


def test_what_one_user_leaves_behind_nobody_else_meets(several: Databases) -> None:
    leave(several, "ada", "mark")
    assert tables(several, "ada") == ["mark"]  # it is kept indeed
    assert tables(several, "ben") == []
    assert tables(several, "ada") == []  # nor does it come back


def test_strangers_share_nothing(several: Databases) -> None:
    leave(several, "", "mark")
    assert tables(several, "") == []


def test_what_failed_is_not_used_again_nor_what_served_long(
    several: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(several, "ada", "mark")
    several.forget()
    assert tables(several, "ada") == []
    monkeypatch.setattr(databases, "QUESTIONS", 3)
    leave(several, "ada", "again")
    assert tables(several, "ada") == ["again"]
    assert tables(several, "ada") == []


def test_views_and_tables_of_a_question_end_with_it(several: Databases) -> None:
    with several.connection("ada") as connection:
        connection.execute("CREATE OR REPLACE TEMP VIEW logs AS SELECT 1 AS n; CREATE TEMP TABLE entries AS SELECT 2")
        assert connection.execute("FROM logs, entries").fetchall() == [(1, 2)]
    for name in ("logs", "entries"):
        with several.connection("ada") as connection, pytest.raises(duckdb.CatalogException):
            connection.execute(f"FROM {name}")


def test_every_connection_is_walled_in(several: Databases, folder: Path) -> None:
    outside = folder.parent / "outside.csv"
    outside.write_text("n\n2\n")
    inside = str(folder / "logs.csv").replace("'", "''")
    for _ in range(2):  # the first, and one after another
        with several.connection("ada") as connection:
            assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
            assert connection.execute(f"FROM read_csv('{inside}')").fetchall() == [(1,)]
            for path in (outside, folder / ".." / "outside.csv", "/etc/passwd"):
                with pytest.raises(duckdb.PermissionException):
                    connection.execute(f"FROM read_csv('{str(path).replace(chr(39), chr(39) * 2)}')")
            for statement in ("SET threads = 2", "SET TimeZone = 'CET'", "RESET allowed_directories"):
                with pytest.raises(duckdb.InvalidInputException):
                    connection.execute(statement)
