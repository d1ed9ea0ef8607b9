"""Every real log we have: recognised, split exactly, counted by other means, derived row by row, mapped to `events`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.ingest.sources import SOURCES, Source, Split, recognise
from strongroom.ingest.sources.source import TIME
from tests.ingest.samples import SAMPLES, SHARED, body, files
from tests.pushed import SOURCE_OF, captured

NORMALISED = (
    *("source", "event_time", "account", "region", "actor", "action", "target", "source_address", "outcome"),
    *("severity", "event_id", "message"),
)

LINES = ("text", "vpcflow", "elb", "s3access", "syslog", "cloudtraillake")
HEADED = ("vpcflow", "cloudtraillake")
ARRAYS = {
    "cloudtrail": ("Records",),
    "guardduty": ("Findings", "findings"),
    "securityhub": ("Findings", "findings"),
    "json": ("Records", "configurationItems", "logEvents"),
    "config": ("configurationItems",),
    "cwlogs": ("logEvents",),
    "eksaudit": ("items",),
}
"""Where documents keep their records, for each source."""
SAID = {
    "hec": ("event_time", "message"),
    "otlp": ("event_time", "body"),
    "loki": ("event_time", "line", "labels"),
    "bulk": ("message", "index"),
    "journal": ("event_time", "cursor", "message"),
}
"""Columns that every forwarder's records fill."""
BROKEN = [b"#"]
"""Lines of real logs that are no records: one publisher's file begins so."""


def _documents(text: str) -> Iterator[object]:
    """Concatenated JSON documents, by the standard library."""
    decoder, at = json.JSONDecoder(strict=False), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        yield value


def _opened(value: object, source: str) -> list[object]:
    """The records of one document, said once more and differently than by the sources."""
    if isinstance(value, list):
        return [record for element in value for record in _opened(element, source)]
    assert isinstance(value, dict)
    detail = value.get("detail")
    if source in ("cloudtrail", "guardduty", "config") and isinstance(detail, dict):
        return [detail]
    if source == "securityhub" and isinstance(detail, dict) and "findings" in detail:
        return list(detail["findings"])
    for name in ARRAYS.get(source, ()):
        if isinstance(value.get(name), list):
            return list(value[name])
    return [value]


def _check(content: bytes) -> tuple[Source, Split, pa.Table]:
    source = recognise(content)
    found = source.split(content)
    if content.startswith(b"PAR1"):
        return source, found, _check_written_out(source, content, found)
    at = 0
    for record in found.raw:
        at = content.index(record, at) + len(record)  # a slice, and in the order of the body
    if source.name in LINES:
        wanted = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
        assert found.records == len(wanted) - (source.name in HEADED), "lines, without the header"
    elif source.name == "journal":
        assert found.raw == content.strip(b"\n").split(b"\n\n")
    else:
        values = [
            record for d in _documents(content.decode("utf-8-sig", "replace")) for record in _opened(d, source.name)
        ]
        assert [json.loads(r) for r in found.raw] == values
    assert all(b.raw in BROKEN for b in found.broken)
    table = source.derive(found.raw, found.context)
    assert table.num_rows == len(found.raw)
    assert table.schema == pa.schema([pa.field("event_time", TIME), *source.schema])
    return source, found, table


def _check_written_out(source: Source, content: bytes, found: Split) -> pa.Table:
    """A Parquet file: whole as an attachment beside what its rows say."""
    assert not found.broken
    assert [(a.raw, a.position) for a in found.attached] == [(content, len(found.raw))]
    rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    if source.name == "ocsf":
        assert [json.loads(record) for record in found.raw] == [_said(row) for row in rows]
    else:
        wanted = [["-" if value is None else str(value).removesuffix(".0") for value in row.values()] for row in rows]
        assert [line.decode().split(" ") for line in found.raw] == wanted
    return source.derive(found.raw, found.context)


def _said(value: object) -> object:
    """A value of Parquet as JSON, without what is null."""
    if isinstance(value, dict):
        return {name: _said(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        pairs = [item for item in value if isinstance(item, tuple)]
        return dict(pairs) if pairs else [_said(item) for item in value]
    return value


@pytest.mark.parametrize(
    "path",
    [p for p in files(SAMPLES) if p.parent.name != "ocsf" or (p.suffix == ".parquet" and ".input" not in p.name)],
    ids=lambda p: f"{p.parent.name}/{p.name[-60:]}",
)
def test_samples(path: Path) -> None:
    source, found, table = _check(body(path))
    assert source.name == path.parent.name
    # Deep verification derives again in other groups: each row must be what it was, whatever stands beside it.
    for row in range(min(table.num_rows, 60)):
        context = None if found.context is None else found.context[row : row + 1]
        assert source.derive(found.raw[row : row + 1], context).equals(table.slice(row, 1).combine_chunks())
    with duckdb.connect() as connection:
        shown = pa.array([record.decode("utf-8", "replace") for record in found.raw])  # as the views show it
        connection.register("records", table.append_column("raw", shown))
        columns = ", ".join(f"({source.events[name]}) AS {name}" for name in NORMALISED)
        relation = connection.sql(f"SELECT {columns} FROM records")
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        events = relation.to_arrow_table()
    assert events.num_rows == table.num_rows
    assert events["source"].unique().to_pylist() == [source.name]
    assert set(filter(None, events["outcome"].unique().to_pylist())) <= {"success", "failure", "denied"}
    assert types.pop("event_time") == "TIMESTAMP WITH TIME ZONE" and set(types.values()) == {"VARCHAR"}


@pytest.mark.parametrize(("name", "capture"), [(name, capture) for name in SOURCE_OF for capture in SOURCE_OF[name]])
def test_what_forwarders_really_sent(name: str, capture: str) -> None:
    content = captured(capture).content
    found = SOURCES[name].split(content)
    assert found.raw and not found.broken
    at = 0
    for record in found.raw:
        at = content.index(record, at) + len(record)
    table = SOURCES[name].derive(found.raw, found.context)
    assert table["event_time"].null_count in (0, len(table))
    assert all(table[column].null_count < len(table) for column in SAID.get(name, ()))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the larger collection of real logs is not here")
def test_the_larger_collection() -> None:
    counts: dict[str, int] = {}
    for path in files(SHARED):
        source, found, _ = _check(body(path))
        counts[source.name] = counts.get(source.name, 0) + found.records
    assert counts["cloudtrail"] > 4000 and counts["syslog"] > 8000
    assert set(counts) == set(SOURCES) - {
        *("text", "audit", "quarantine", "attachment", "sessionmanager", "cloudtraildigest", "cloudtraillake"),
        *("hec", "otlp", "loki", "bulk", "journal", "sns"),
    }


def test_every_source_is_complete_and_consistent() -> None:
    for name, source in SOURCES.items():
        columns = {"event_time", *source.schema.names}
        assert source.name == name and source.description
        assert set(source.sort) <= columns and set(source.summary_columns) <= columns
        assert source.natural_id is None or source.natural_id in columns
        assert all(source.schema.field(c).type == pa.string() for c in source.summary_columns)
        assert source.events == {} or set(source.events) == set(NORMALISED)
        empty = source.derive([], None)
        assert empty.num_rows == 0 and empty.schema == pa.schema([pa.field("event_time", TIME), *source.schema])
        assert source.split(b"").records == 0


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_odd_records_never_stop_a_derivation(name: str) -> None:
    odd = [
        b"{}",
        b"null",
        b"",
        b"\xff\xfe\x00",
        b'{"eventTime":5,"userIdentity":"root","resources":{"a":1},"time":{},"severity":"x","detail":[]}',
        b'{"eventTime":"2023-13-45T99:00:00Z","id":"\\ud800","accountId":' + b"9" * 5000 + b"}",
        b'{"eventName":"\xc3(","service":[],"resource":{"instanceDetails":[1]},"Severity":{"Normalized":1e400}}',
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b"a b c",
    ]
    for context in (None, [None] * len(odd), [b"srcaddr bytes"] * len(odd), [b'{"time":7,"detail":null}'] * len(odd)):
        assert SOURCES[name].derive(odd, context).num_rows == len(odd)


def test_nobody_can_send_an_act_of_this_service_by_its_looks() -> None:
    act = (
        b'{"time":"2024-01-01T00:00:00Z","actor":"root","action":"grant","target":"x","outcome":"success","detail":{}}'
    )
    assert recognise(act).name == "json"
