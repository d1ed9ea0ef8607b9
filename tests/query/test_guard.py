"""Which statements pass, which don't, and what the refusal says."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from strongroom.query.errors import QueryError, QueryInvalid, QueryRefused
from strongroom.query.process.functions import FUNCTIONS, TABLE_FUNCTIONS
from strongroom.query.process.guard import check

VIEWS = ["cloudtrail", "vpcflow", "events"]


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as connection:
        yield connection


QUESTIONS = {
    "SELECT 1": set(),
    "select 1;": set(),
    "SELECT count(*) FROM cloudtrail": {"cloudtrail"},
    "FROM CloudTrail": {"cloudtrail"},
    "VALUES (1), (2)": set(),
    "SELECT raw->>'$.a', 'x' LIKE 'y%', a[1], b[1:2], {'k': 1}.k, [x FOR x IN l IF x > 1] FROM events": {"events"},
    "SELECT CASE WHEN a THEN 1 END, TRY(a::INT), coalesce(a, b), a BETWEEN 1 AND 2, a IN (1, 2) FROM events": {
        "events"
    },
    "WITH a AS (FROM vpcflow), b AS (SELECT * FROM a) SELECT * FROM b JOIN cloudtrail USING (x)": {
        "vpcflow",
        "cloudtrail",
    },
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT * FROM t": set(),
    "WITH cloudtrail AS (SELECT 1 AS a) SELECT a FROM cloudtrail": set(),
    "SELECT lag(a) OVER w FROM events WINDOW w AS (PARTITION BY b ORDER BY c) QUALIFY row_number() OVER w = 1": {
        "events"
    },
    "SELECT * FROM (PIVOT events ON a IN ('x', 'y') USING sum(b))": {"events"},
    "SELECT * FROM range(10), unnest([1, 2]), LATERAL (SELECT 1)": set(),
    "SELECT date_trunc('hour', event_time AT TIME ZONE 'UTC'), count(*) FILTER (a > 1) FROM events GROUP BY ALL": {
        "events"
    },
    "SELECT list_transform([1], lambda x: x + 1), 'a'.upper(), $1 FROM events ORDER BY 1 DESC LIMIT 5": {"events"},
    "SELECT * EXCLUDE (a) REPLACE (1 AS b), COLUMNS('x.*') FROM events ASOF JOIN vpcflow ON a >= b": {
        "events",
        "vpcflow",
    },
    "SELECT 1 UNION ALL BY NAME SELECT 2 EXCEPT SELECT 3": set(),
    "DESCRIBE events": {"events"},
    "SUMMARIZE vpcflow": {"vpcflow"},
    "SHOW TABLES": set(),
    "EXPLAIN SELECT * FROM events": {"events"},
    "/* why */ EXPLAIN -- because\n ANALYZE SELECT * FROM events": {"events"},
}

HOSTILE = [
    # files, by function, by name, through a WITH name that is out of scope
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/*')",
    "SELECT * FROM read_parquet('x.parquet')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM parquet_kv_metadata('x.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "FROM 'x.parquet'",
    "SELECT * FROM (WITH \"/etc/passwd\" AS (SELECT 1) SELECT 1), \"/etc/passwd\"",
    'WITH "/etc/passwd" AS (SELECT * FROM "/etc/passwd") SELECT * FROM "/etc/passwd"',
    'WITH RECURSIVE "/etc/passwd" AS (SELECT * FROM "/etc/passwd" UNION SELECT 1) SELECT 1',
    "DESCRIBE '/etc/passwd'",
    "SUMMARIZE '/etc/passwd'",
    "SELECT 1 WHERE EXISTS (FROM '/etc/passwd')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT [x FOR x IN (SELECT list(a) FROM '/etc/passwd' AS t(a))]",
    "SELECT * FROM events JOIN '/etc/passwd' ON true",
    "SELECT 1 ORDER BY (SELECT count(*) FROM '/etc/passwd')",
    "SELECT 1 LIMIT (SELECT count(*) FROM '/etc/passwd')",
    "SELECT * FROM (PIVOT '/etc/passwd' ON a IN ('x') USING sum(b))",
    # writing
    "COPY (SELECT 1) TO '/tmp/f'",
    "COPY events FROM '/etc/passwd'",
    "WITH x AS (COPY (SELECT 1) TO '/tmp/f') SELECT * FROM x",
    "WITH x AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE events SET a = 1 RETURNING *) SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '/tmp/f') SELECT * FROM x)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/f'",
    "EXPLAIN COPY (SELECT 1) TO '/tmp/f'",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '/tmp/f') SELECT * FROM x",
    "EXPORT DATABASE '/tmp/d'",
    "IMPORT DATABASE '/tmp/d'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW events AS SELECT 1",
    "DROP VIEW events",
    "INSERT INTO events VALUES (1)",
    "CREATE MACRO f(x) AS x",
    # other databases, extensions, settings, environment, catalogs
    "ATTACH '/tmp/x.db'",
    "USE memory",
    "INSTALL httpfs",
    "LOAD '/tmp/x.so'",
    "PRAGMA version",
    "PRAGMA enable_profiling",
    "SET threads = 1",
    "RESET threads",
    "CALL pragma_version()",
    "CHECKPOINT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "SELECT getenv('HOME')",
    "SELECT 'HOME'.getenv()",
    "SELECT current_setting('threads')",
    "SELECT getvariable('x')",
    "SET VARIABLE x = 1",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM pragma_database_size()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM memory.main.events",
    "SHOW DATABASES",
    # text that becomes SQL, objects of the host language, sleeping, forged states
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM histogram('/etc/passwd', 'a')",
    "SELECT json_execute_serialized_sql('{}')",
    "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT json_serialize_plan('FROM events')",
    "SELECT * FROM some_python_object",
    "SELECT * FROM python_map_function(1)",
    "SELECT sleep_ms(100000)",
    "SELECT finalize('\\x00'::BLOB)",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    # several statements, none, no text at all
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '/tmp/f'",
    "EXPLAIN SELECT 1; DROP VIEW events",
    "SHOW TABLES; DROP VIEW events",
    "",
    "-- nothing",
    "SELECT 1 \0; DROP VIEW events",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT '" + "x" * 70_000 + "'",
]  # fmt: skip


@pytest.mark.parametrize("sql", QUESTIONS)
def test_questions_pass_and_tell_their_views(sql: str, parser: duckdb.DuckDBPyConnection) -> None:
    assert check(sql, VIEWS, parser, max_bytes=65_536).views == QUESTIONS[sql]


@pytest.mark.adversarial
@pytest.mark.parametrize("sql", HOSTILE)
def test_everything_else_is_refused(sql: str, parser: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(QueryError) as refused:
        check(sql, VIEWS, parser, max_bytes=65_536)
    assert isinstance(refused.value, QueryRefused | QueryInvalid)


def test_what_runs_after_explain_is_what_was_checked(parser: duckdb.DuckDBPyConnection) -> None:
    assert check("/*x*/ explain\n analyze select 1", VIEWS, parser, max_bytes=99).sql == "EXPLAIN ANALYZE select 1"


@pytest.mark.parametrize(
    ("sql", "line", "column", "says", "suggests"),
    [
        ("SELECT *\n FROM cloudtrial", 2, 7, "no view 'cloudtrial'", "cloudtrail"),
        ("SELECT 'ä', uper('x')", 1, 13, "'uper'", "upper"),
        ("EXPLAIN SELECT 1,\n  getenv('x')", 2, 3, "'getenv'", ""),
        ("SELECT 1 FORM x y", 1, 15, "syntax error", ""),
        ("INSERT INTO events VALUES (1)", None, None, "INSERT is not a question", "SELECT"),
        ("PIVOT events ON a USING sum(b)", None, None, "PIVOT", "FROM (PIVOT"),
    ],
)
def test_refusals_say_where_and_what_instead(
    sql: str, line: int | None, column: int | None, says: str, suggests: str, parser: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(QueryError) as refused:
        check(sql, VIEWS, parser, max_bytes=65_536)
    error = refused.value
    assert says in error.message
    assert suggests in error.hint
    place = (error.position.line, error.position.column) if error.position else (None, None)
    assert place == (line, column)


def test_the_listed_functions_exist_and_the_dangerous_do_not_stand_there(parser: duckdb.DuckDBPyConnection) -> None:
    rows = parser.execute("SELECT DISTINCT function_name, function_type FROM duckdb_functions()").fetchall()
    known = {name.lower() for name, _ in rows}
    by_parser = {"coalesce", "try", "list_comprehension", "->", "==", "unnest", "array_agg"}
    assert FUNCTIONS - known <= by_parser
    words = (
        "read_",
        "write",
        "glob",
        "env",
        "setting",
        "secret",
        "log_",
        "sql",
        "query",
        "sleep",
        "attach",
        "__internal",
    )
    assert [name for name in FUNCTIONS | TABLE_FUNCTIONS if any(word in name for word in words)] == []
