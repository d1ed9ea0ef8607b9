"""What CloudTrail Lake exports: CSV, the API's answer, rows as objects; and its own notation of objects."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.ingest.sources import SOURCES, csvsplit, lines, recognise
from strongroom.ingest.sources.cloudtraillake import read
from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body

LAKE = SOURCES["cloudtraillake"]
SAMPLE = SAMPLES / "cloudtraillake" / "written-result_1.csv"


def test_rows_have_the_columns_of_the_events_they_are_of() -> None:
    audit, denied = sample("cloudtraillake", SAMPLE.name)
    some(
        audit,
        event_time=datetime(2024, 5, 6, 10, tzinfo=UTC),
        event_id="0aa50d1e-43a8-4a62-9a29-000000000001",
        identity_type="AssumedRole",
        arn="arn:aws:sts::111122223333:assumed-role/Audit/alice@example.com",
        session_issuer_arn="arn:aws:iam::111122223333:role/Audit",
        session_issuer_name="Audit",
        access_key_id="ASIAEXAMPLE1",
        user_name=None,
        mfa=True,
        read_only=True,
        bucket_name="trail-archive",
        resource_arns=["arn:aws:s3:::trail-archive"],
        tls_version="TLSv1.3",
        account="111122223333",
        region="eu-central-1",
        error_code=None,
    )
    some(denied, user_name="bob", user_agent='agent, with "quotes" and = signs', error_code="AccessDenied")
    assert denied["selected"] == sorted(name.lower() for name in csvsplit.fields(body(SAMPLE).split(b"\n")[0]))
    assert [row["outcome"] for row in events("cloudtraillake", body(SAMPLE))] == ["success", "denied"]


def rows() -> list[dict[str, str]]:
    header, *lines = body(SAMPLE).splitlines()
    return [dict(zip(csvsplit.fields(header), csvsplit.fields(line), strict=True)) for line in lines]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(map(json.dumps, rows())),
        json.dumps(rows(), indent=1),
        json.dumps(
            {
                "QueryStatus": "FINISHED",
                "QueryStatistics": {"ResultsCount": 2},
                "QueryResultRows": [[{name: value} for name, value in row.items()] for row in rows()],
                "NextToken": None,
            }
        ),
    ],
    ids=["object a line", "array of objects", "answer of the API"],
)
def test_every_way_of_exporting_gives_the_same_columns(content: str) -> None:
    assert derived("cloudtraillake", content.encode()) == sample("cloudtraillake", SAMPLE.name)


def test_an_error_that_was_not_asked_for_is_no_success_and_the_whole_event_is_taken_where_it_is() -> None:
    some(events("cloudtraillake", b"eventName,eventSource,eventTime\nGetObject,s3.amazonaws.com,\n")[0], outcome=None)
    event = {"eventName": "Decrypt", "eventSource": "kms.amazonaws.com", "userIdentity": {"userName": "eve"}}
    quoted = json.dumps(event).replace('"', '""')
    (row,) = events("cloudtraillake", f'eventJson\n"{quoted}"\n'.encode())
    some(row, actor="eve", action="kms:Decrypt", outcome="success")


def test_aliases_are_taken_when_the_source_is_named() -> None:
    found = LAKE.split(b"who,n\r\nalice,3\r\n")
    assert found.raw == [b"alice,3"] and found.context == [b"who,n"] and not found.broken


def test_a_stray_quote_costs_one_line() -> None:
    content = b'eventID,eventName,eventTime\n1,a,b\n2,"x,b\n3,"y\nz",b\n4,c"d,e\n5,d,e\n6,f\n'
    found = LAKE.split(content)
    assert found.raw == [b"1,a,b", b'3,"y\nz",b', b"5,d,e"]
    assert [b.raw for b in found.broken] == [b'2,"x,b', b'4,c"d,e', b"6,f"]


def test_hostile_bodies_cost_linear_time() -> None:
    started = time.perf_counter()
    header = b"eventID,eventName,eventTime\n"
    for line in (b'"\n', b'a"\n', b'"a\n""\n', b"{=" * 9, b"{a=" * 50 + b"\n", b'"{a=[' * 20 + b"\n"):
        found = LAKE.split(header + line * 40_000)
        LAKE.derive(found.raw[:2000], None if found.context is None else found.context[:2000])
    assert time.perf_counter() - started < 6


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)


@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=5))
@example([["\x1f\x08\x08"] * 3] * 4)
def test_any_row_written_by_the_rules_is_one_record(table: list[list[str]]) -> None:
    written = [",".join('"' + cell.replace('"', '""') + '"' for cell in row).encode() for row in table]
    content = b"a,b,c\n" + b"\n".join(written)
    found = csvsplit.split(content)
    if lines.binary(content) is not None:  # full of control bytes: no text, and kept whole
        assert [broken.raw for broken in found.broken] == [content] and not found.raw
        return
    assert found.raw == written and not found.broken
    assert [csvsplit.fields(row) for row in found.raw] == table


notation = st.recursive(
    st.from_regex(r"[a-z0-9:/@.+-]{1,9}", fullmatch=True) | st.none(),
    lambda inner: (
        st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), inner, max_size=3)
        | st.lists(
            st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, min_size=1, max_size=2), max_size=3
        )
    ),
    max_leaves=8,
)


def in_notation(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={in_notation(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(in_notation, value)) + "]"
    return "null" if value is None else str(value)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), notation, min_size=1, max_size=4))
def test_the_notation_of_objects_is_read_back(value: dict[str, Any]) -> None:
    assert read(in_notation(value)) in (value, json.loads(json.dumps(value)))


def test_nothing_else_is_taken_for_lake() -> None:
    assert recognise(b"version,account,type\n1,2,3\n").name == "text"
    assert recognise(b'{"eventName":"a","eventSource":"b","userIdentity":{"type":"Root"}}').name == "cloudtrail"
