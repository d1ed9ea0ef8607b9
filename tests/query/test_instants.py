"""Fast functions of time are DuckDB's own in everything but speed: values, types, names of columns, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.query.errors import QueryInvalid
from strongroom.query.process import guard, instants, worker
from strongroom.query.process.databases import open_database

from .conftest import Bench

PARTS = [
    *(
        "microsecond",
        "milliseconds",
        "second",
        "minute",
        "hour",
        "HOUR",
        "hours",
        "day",
        "days",
        "dow",
        "isodow",
        "doy",
    ),
    *("week", "weeks", "month", "quarter", "year", "Years", "decade", "century", "millennium", "isoyear", "yearweek"),
]
WIDTHS = ("1 microsecond", "7 seconds", "5 minutes", "1 hour", "1 day", "13 days", "1 month", "5 months", "1 year")
CALLS = [
    *(f"{name}(x)" for name, function in instants.FUNCTIONS.items() if len(function.parameters) == 1),
    *(f"date_trunc('{part}', x)" for part in [*PARTS, "epoch"]),
    *(f"date_part('{part}', x)" for part in [*PARTS, "epoch", "julian", "era", "timezone"]),
    *(f"date_diff('{part}', x, y)" for part in PARTS),
    *(f"time_bucket(INTERVAL '{width}', x)" for width in WIDTHS),
    *(f"timezone('{zone}', x)" for zone in ("UTC", "Europe/Berlin")),
    *("date_part(p, x)", "date_trunc(p, x)", "date_diff(p, x, y)"),
    *("datepart('hour', x)", "datetrunc('hour', x)", "datediff('hour', x, y)"),
]
OWN = [re.sub(r"^(\w+)\(", r"system.main.\1(", call) for call in CALLS]
MOMENTS = st.one_of(
    st.one_of(
        st.integers(-(1 << 60), 1 << 60),  # 34,000 BC to 38,000
        st.integers(-62_300_000_000_000_000, 4_102_444_800_000_000),  # about the year 0 to 2100
        st.integers(-20_000, 50_000).map(lambda day: day * 86_400_000_000),
        st.sampled_from([0, -1, -62_135_596_800_000_000, -62_135_596_800_000_001]),
    ).map(lambda microseconds: f"make_timestamptz({microseconds})"),
    st.sampled_from(["NULL", "TIMESTAMPTZ 'infinity'", "TIMESTAMPTZ '-infinity'"]),
)
ROWS = st.tuples(MOMENTS, MOMENTS, st.sampled_from(PARTS)).map(lambda row: "({}, {}, '{}')".format(*row))


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(folders=[], memory_bytes=512 << 20, threads=2) as database:
        yield database


@pytest.fixture(scope="module")
def compared(database: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with all macros, and with `compared`: every call beside DuckDB's own, over `moments`."""
    with database.cursor() as connection:
        for name in instants.FUNCTIONS:
            connection.execute(instants.making(name))
        connection.execute("CREATE TEMP TABLE moments (x TIMESTAMPTZ, y TIMESTAMPTZ, p VARCHAR)")
        calls = ", ".join(
            f"{call} AS f{i}, {own} AS o{i}" for i, (call, own) in enumerate(zip(CALLS, OWN, strict=True))
        )
        differ = ", ".join(
            f"any_value((x, y, p, f{i}, o{i})::VARCHAR) FILTER (f{i} IS DISTINCT FROM o{i})" for i in range(len(CALLS))
        )
        types = connection.sql(f"SELECT {calls} FROM moments").types
        assert types[::2] == types[1::2]
        connection.execute(f"PREPARE compared AS SELECT {differ} FROM (SELECT *, {calls} FROM moments)")
        yield connection


@settings(max_examples=20)
@given(rows=st.lists(ROWS, min_size=30, max_size=90))
def test_they_say_what_the_calendar_says(rows: list[str], compared: duckdb.DuckDBPyConnection) -> None:
    compared.execute("DELETE FROM moments")
    compared.execute(f"INSERT INTO moments VALUES {', '.join(rows)}")
    (found,) = compared.execute("EXECUTE compared").fetchall()
    assert {call: value for call, value in zip(CALLS, found, strict=True) if value is not None} == {}


MADE = """
    CREATE TEMP TABLE stored AS
    SELECT TIMESTAMPTZ '2026-01-31 23:59:59.123456' + to_minutes(i * 377) AS x, i, 'hour' AS p,
           TIMESTAMPTZ '2024-02-29' + to_hours(i) AS y, DATE '2026-02-28' + CAST(i AS INTEGER) AS d,
           TIMESTAMP '2026-05-05 05:05:05' + to_hours(i) AS n
    FROM range(30) AS numbers(i)
    UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL
    UNION ALL SELECT TIMESTAMPTZ 'infinity', 1, 'day', TIMESTAMPTZ '-infinity', NULL, NULL
    UNION ALL SELECT TIMESTAMPTZ '0044-03-15 (BC) 12:00:00', 2, 'year', TIMESTAMPTZ '1582-10-04', NULL, NULL
"""
FAST = """
    SELECT date_trunc('hour', x) FROM t
    SELECT date_trunc('day', x), sum(i) FROM t GROUP BY DATE_TRUNC('day', x) HAVING date_trunc('day', x) > '2026-02-01'
    SELECT date_trunc('day', x) AS h, hour(x), count(*) FROM t GROUP BY ROLLUP (h, hour(x)) ORDER BY ALL
    SELECT DISTINCT ON (date_trunc('day', x)) i FROM t ORDER BY date_trunc('day', x), i
    SELECT i FROM t WHERE hour(x) = 5 OR date_trunc('month', x) = '2026-02-01' OR day(x) IN (1, 2)
    SELECT i FROM t QUALIFY row_number() OVER (PARTITION BY date_trunc('day', x) ORDER BY minute(x), i) = 1 ORDER BY i
    SELECT max(date_trunc('day', x)), sum(hour(x)) FILTER (day(x) > 3), list(dayname(x) ORDER BY month(x), i) FROM t
    SELECT a.i, b.i, hour(a.x) FROM t AS a JOIN t AS b ON date_trunc('day', a.x) = date_trunc('day', b.x)
    SELECT i, (SELECT count(*) FROM t AS b WHERE date_trunc('day', b.x) = date_trunc('day', a.x)) FROM t AS a
    WITH c AS (SELECT date_trunc('day', x), extract(year FROM x), x AT TIME ZONE 'UTC' FROM t) SELECT * FROM c
    SELECT list_transform([x, y], lambda ts: hour(ts)), [date_trunc('day', z) FOR z IN [x, y] IF hour(z) > 3] FROM t
    SELECT date_trunc(part, "timestamp"), date_trunc(p, x) FROM (SELECT p, x, p AS part, y AS "timestamp" FROM t)
    SELECT date_part(p, x), extract(epoch FROM x), extract(decade FROM x), date_trunc(NULL, x) FROM t
    SELECT hour(d), hour(n), day(INTERVAL 3 DAY), minute(TIME '10:11:12'), hour(TIMETZ '10:11:12+01') FROM t
    SELECT date_trunc('day', d), date_trunc('day', n), date_trunc('day', INTERVAL 30 HOUR), last_day(n) FROM t
    SELECT microsecond(n::TIMESTAMP_NS), hour(n::TIMESTAMP_S), hour(n::TIMESTAMP_NS::TIMESTAMPTZ_NS), year(y) FROM t
    SELECT date_diff('day', x, '2026-01-01'), date_diff('day', d, x), date_diff('hour', n, d) FROM t
    SELECT time_bucket('5 minutes', x), time_bucket(INTERVAL 1 DAY, d), time_bucket(INTERVAL 1 DAY, n) FROM t
    SELECT x AT TIME ZONE 'Europe/Berlin', n AT TIME ZONE 'UTC', d AT TIME ZONE 'UTC', x AT TIME ZONE 'utc' FROM t
    SELECT hour(date_trunc('day', x)), strftime(date_trunc('day', x), '%d'), hour(COLUMNS('x|y')) FROM t
    SELECT * REPLACE (date_trunc('day', x) AS x) FROM t
    SELECT hour (x), "hour"(x), hour(x) AS hour, typeof(year(x)), typeof(date_part(p, x)) FROM t
    DESCRIBE SELECT hour(x), date_trunc('day', x), x AT TIME ZONE 'UTC' FROM t
    SELECT * FROM (PIVOT t ON hour(x) IN (5, 6) USING count(*) GROUP BY p)
"""
OTHERWISE = """
    SELECT date_trunc('day', max(x)), hour(min(x)) FROM t
    SELECT date_trunc('day', (SELECT max(x) FROM t)), hour(lag(x) OVER (ORDER BY x, i)) FROM t
    SELECT x AS ts, hour(ts), date_trunc('day', ts) AS part, hour(part) FROM t
    SELECT x.hour(), x.day(), hour(x), main.day(x), date_part(['hour', 'year'], x) FROM t
    SELECT time_bucket(INTERVAL 1 DAY, x, INTERVAL 1 HOUR), time_bucket(INTERVAL 1 DAY, x, 'Europe/Berlin') FROM t
    SELECT timezone(x), timezone('UTC', x), hour(ts := x), date_trunc(part := 'hour', "timestamp" := x) FROM t
    SELECT date_trunc('month', date_trunc('day', date_trunc('hour', x))) FROM t
    SELECT date_trunc('era', x), TRY(date_trunc('huor', x)), TRY(hour(TRY_CAST(p AS TIMESTAMPTZ))) FROM t
"""
ERRORS = """
    SELECT i, hour(xx) FROM t
    SELECT i, date_trunc('huor', x) FROM t
    SELECT i, extract(huor FROM x) FROM t
    SELECT i, date_part('nanosecond', x) FROM t
    SELECT i, date_trunc('hour') FROM t
    SELECT i, date_trunc('hour', x, 1) FROM t
    SELECT i, date_trunc(5, x) FROM t
    SELECT i, date_trunc(x, 'hour') FROM t
    SELECT i, date_trunc('hour', p) FROM t
    SELECT i, hour(5) FROM t
    SELECT i, hour('2026-01-01') FROM t
    SELECT i, hour(NULL) FROM t
    SELECT i, date_diff('day', NULL, NULL) FROM t
    SELECT i, time_bucket(INTERVAL 1 DAY, NULL) FROM t
    SELECT i, hour(CAST(p AS TIMESTAMPTZ)) FROM t
    SELECT i, hour(x) OVER () FROM t
    SELECT i, hour(x) FILTER (true) FROM t
    SELECT i, hour(DISTINCT x) FROM t
    SELECT i, x AT TIME ZONE 'Europe/Brelin' FROM t
    SELECT i, hour(x) FROM t GROUP BY day(x)
    SELECT i FROM t WHERE hour(max(x)) = 1
"""


def said(database: duckdb.DuckDBPyConnection, sql: str, *, fast: bool) -> tuple[Any, list[str]]:
    """What the worker's process would say, and which macros there were when the statement was bound."""
    with database.cursor() as connection:
        connection.execute(MADE).execute("CREATE TEMP VIEW t AS SELECT * FROM stored")
        tree = guard.check(sql, ["t"], database, max_bytes=10_000).tree
        made = instants.called(tree) if fast else []
        for name in made:
            connection.execute(instants.making(name))

        def plain() -> bool:
            count = len(made)
            while made:
                connection.execute(instants.dropping(made.pop()))
            return count > 0

        try:
            relation = worker._bound(sql, None, connection, lambda: False, plain)
            rows = [repr(row) for row in relation.fetchall()]
        except duckdb.Error as error:
            return worker._failure(error, sql), made
        return (relation.columns, relation.types, rows if re.search(r"ORDER BY [^)]*$", sql) else sorted(rows)), made


def statements(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("sql", statements(FAST))
def test_a_statement_means_the_same(sql: str, database: duckdb.DuckDBPyConnection) -> None:
    expected, _ = said(database, sql, fast=False)
    found, made = said(database, sql, fast=True)
    assert found == expected
    assert isinstance(found, tuple)
    assert made


@pytest.mark.parametrize("sql", statements(OTHERWISE))
def test_a_statement_with_other_calls_means_the_same(sql: str, database: duckdb.DuckDBPyConnection) -> None:
    expected, _ = said(database, sql, fast=False)
    assert said(database, sql, fast=True)[0] == expected
    assert isinstance(expected, tuple)


@pytest.mark.parametrize("sql", statements(ERRORS))
def test_errors_are_the_same(sql: str, database: duckdb.DuckDBPyConnection) -> None:
    expected, _ = said(database, sql, fast=False)
    assert said(database, sql, fast=True)[0] == expected
    assert not isinstance(expected, tuple)


def test_they_are_made_for_what_is_called_and_not_for_too_much(database: duckdb.DuckDBPyConnection) -> None:
    def made(sql: str) -> list[str]:
        return instants.called(guard.check(sql, ["t"], database, max_bytes=100_000).tree)

    assert made("SELECT 1") == made("SHOW TABLES") == []
    assert made("EXPLAIN SELECT Hour(x) FROM t WHERE extract(day FROM x) = 1") == ["date_part", "hour"]
    assert made("SELECT hour(x), day((SELECT max(x) FROM t)), minute(max(x)) FROM t") == ["hour"]
    assert made("SELECT hour(CAST(p AS TIMESTAMPTZ)), day(x + INTERVAL 1 DAY), week(TIMESTAMPTZ '2026-01-01')") == [
        *("day", "week")
    ]
    assert made(f"SELECT {'hour(x), ' * instants.CALLS} 1 FROM t") == ["hour"]
    assert made(f"SELECT {'hour(x), ' * instants.CALLS} day(x) FROM t") == []
    assert made(f"SELECT {'hour(' * 300}x{')' * 300} FROM t") == []


def test_the_engine_makes_them(bench: Bench) -> None:
    """Through worker processes, of which one serves several questions of a user from one database."""
    sql = "SELECT date_trunc('hour', event_time), hour(event_time), count(*) FROM app GROUP BY ALL"
    for _ in range(3):
        assert bench.rows(sql, user="alice") == [["2026-11-24T12:00:00.000000Z", 12, 7]]
        plan = bench.rows(f"EXPLAIN {sql}", user="alice")
        assert "make_timestamp(epoch_us(event_time))" in " ".join(plan[-1][1].split())
        with pytest.raises(QueryInvalid) as invalid:
            bench.rows("SELECT 'ä',\n  hour(event_tme) FROM app", user="alice")
        error = invalid.value
        assert error.position is not None
        assert (error.position.line, error.position.column) == (2, 8)
        assert "event_time" in error.hint
    assert bench.rows("SELECT date_trunc($b, event_time) AS t FROM app LIMIT 1", {"b": "day"}) == [
        ["2026-11-24T00:00:00.000000Z"]
    ]
