"""The investigator's three questions, to Strongroom and to plain DuckDB over the gzip files, and what must come out.

Both are asked for the same rows in the same order, and both must agree with what the generator counted. The plain
statements are the fastest we found for DuckDB, not the obvious ones: `read_json` with `unnest(Records)`, as one would
first write it, took ten to thirty times as long as taking the records out by JSON path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.generate import Truth

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """`sealed` is over Strongroom's views, `plain` over `{cloudtrail}` and `{vpcflow}`, patterns of the gzip files."""

    title: str
    sealed: str
    plain: str
    parameters: Callable[[Truth], Mapping[str, str]]
    expected: Callable[[Truth], Rows]


def all_questions() -> tuple[Question, ...]:
    """In the order of the demo."""
    return (_DENIED, _STOLEN_KEY, _TALKERS)


_EVENTS = """(SELECT unnest(json_extract(json, '$.Records[*]')) AS e
              FROM read_json_objects('{cloudtrail}', format = 'unstructured', maximum_object_size = 67108864))"""

_DENIED = Question(
    title="who was denied what, most often first",
    sealed="""
        SELECT actor, action, count(*) AS times
        FROM events WHERE source = 'cloudtrail' AND outcome = 'denied'
        GROUP BY ALL ORDER BY times DESC, actor, action LIMIT 10""",
    plain=f"""
        SELECT coalesce(e->>'$.userIdentity.userName', e->>'$.userIdentity.sessionContext.sessionIssuer.userName')
                   AS actor,
               replace(e->>'$.eventSource', '.amazonaws.com', '') || ':' || (e->>'$.eventName') AS action,
               count(*) AS times
        FROM {_EVENTS}
        WHERE (e->>'$.errorCode') ILIKE '%denied%' OR (e->>'$.errorCode') ILIKE '%unauthorized%'
        GROUP BY ALL ORDER BY times DESC, actor, action LIMIT 10""",
    parameters=lambda truth: {},
    expected=lambda truth: [tuple(row) for row in truth.denied],
)

_STOLEN_KEY = Question(
    title="everything one access key did, in order",
    sealed="""
        SELECT strftime(event_time, '%Y-%m-%dT%H:%M:%SZ') AS time, event_id
        FROM cloudtrail WHERE access_key_id = $key ORDER BY event_time, event_id""",
    plain=f"""
        SELECT e->>'$.eventTime' AS time, e->>'$.eventID' AS event_id
        FROM {_EVENTS} WHERE (e->>'$.userIdentity.accessKeyId') = $key ORDER BY time, event_id""",
    parameters=lambda truth: {"key": truth.stolen_key},
    expected=lambda truth: [tuple(row) for row in truth.stolen],
)

_TALKERS = Question(
    title="top rejected talkers",
    sealed="""
        SELECT source_address, count(*) AS flows
        FROM vpcflow WHERE action = 'REJECT'
        GROUP BY ALL ORDER BY flows DESC, source_address LIMIT 10""",
    plain="""
        SELECT srcaddr, count(*) AS flows
        FROM read_csv('{vpcflow}', delim = ' ', header = true, nullstr = '-', all_varchar = true,
                      union_by_name = true)
        WHERE action = 'REJECT'
        GROUP BY ALL ORDER BY flows DESC, srcaddr LIMIT 10""",
    parameters=lambda truth: {},
    expected=lambda truth: [tuple(row) for row in truth.talkers],
)
