"""Rows of one source, for tests of its columns."""

from __future__ import annotations

from typing import Any

import duckdb

from strongroom.ingest.sources import SOURCES, recognise
from tests.ingest.samples import SAMPLES, body


def derived(name: str, content: bytes) -> list[dict[str, Any]]:
    """The columns of every record of a body that is recognised as the source's and has nothing broken in it."""
    assert recognise(content).name == name
    found = SOURCES[name].split(content)
    assert not found.broken
    return SOURCES[name].derive(found.raw, found.context).to_pylist()


def sample(name: str, file: str) -> list[dict[str, Any]]:
    """The same for one of the source's samples."""
    return derived(name, body(SAMPLES / name / file))


def events(name: str, content: bytes) -> list[dict[str, Any]]:
    """What the view `events` shows of a body."""
    source = SOURCES[name]
    found = source.split(content)
    table = source.derive(found.raw, found.context)
    with duckdb.connect() as connection:
        connection.register("records", table.append_column("raw", [[r.decode("utf-8", "replace") for r in found.raw]]))
        columns = ", ".join(f"({expression}) AS {column}" for column, expression in source.events.items())
        return connection.sql(f"SELECT {columns} FROM records").to_arrow_table().to_pylist()


def some(row: dict[str, Any], **wanted: object) -> None:
    """The row has these values, whatever else it has."""
    found = {name: row[name] for name in wanted}
    different = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
    assert not different, f"column: (found, wanted): {different}"
