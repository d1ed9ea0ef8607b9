"""The page of each source: every column with its type, the identity, and a question that runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from strongroom.ingest.ocsf import CLASSES
from strongroom.ingest.sources import SOURCES
from strongroom.query import normalised, views
from strongroom.query.process import guard
from strongroom.query.views import sql_type
from strongroom.service.answers.views import ocsf_views, source_views
from tests.service.conftest import REPOSITORY
from tests.service.test_pages import page, rows

_SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)


def _asked(sql: str) -> None:
    """The statement passes the guard and binds over views without rows; its parameters are text."""
    everything = source_views(SOURCES.values())
    with duckdb.connect() as connection:
        for source in everything:
            connection.execute(views.source_view(source, [], Path("/")))
        connection.execute(views.events_view(everything))
        for view in ocsf_views():
            connection.execute(normalised.normalised_view(view, SOURCES.keys()))
        names = [*views.view_names(everything), *(view.name for view in ocsf_views())]
        guard.check(sql, names, connection, max_bytes=10_000)
        given = {name: "" if name != "row" else 0 for name in re.findall(r"\$(\w+)", sql.replace("'$.", ""))}
        connection.execute(sql, given)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_page_of_a_source(name: str) -> None:
    text = page(f"sources/{name}.md")
    source = SOURCES[name]
    written = {cells[0].strip("`"): cells[1] for cells in rows(text) if cells[0].startswith("`")}
    types = {field.name: sql_type(field.type) for field in source.schema}
    assert written == {"event_time": "TIMESTAMP WITH TIME ZONE", **types}
    identity = re.search(r"\*\*Identity\*\*: (\S+)", text)
    assert identity and identity[1].strip("`:;,.") == (source.natural_id or "none")
    (sql,) = _SQL.findall(text)
    _asked(sql)


def test_every_page_is_of_a_source_and_linked() -> None:
    pages = {path.stem for path in (REPOSITORY / "docs" / "sources").glob("*.md")}
    assert pages == {*SOURCES, "custom"}
    guide = page("investigators.md")
    assert set(re.findall(r"\(sources/(\w+)\.md\)", guide)) == {*SOURCES, "custom"}
    for item in CLASSES:
        assert f"`{item.name}`" in guide


def test_the_guides_questions_run() -> None:
    for sql in _SQL.findall(page("investigators.md")):
        for statement in filter(str.strip, re.sub(r"--[^\n]*", "", sql).split(";")):
            if "entries" not in statement and "segments" not in statement:
                _asked(statement)
