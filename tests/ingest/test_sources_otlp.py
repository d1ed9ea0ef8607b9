"""Branches of a protobuf request that hold no record must not take their bytes with them."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.sources import SOURCES
from strongroom.ingest.sources.protobuf import encode
from tests.ingest.survival import survives

RECORD = encode(5, encode(1, b"m000001m"))


def scope(name: bytes, *records: bytes) -> bytes:
    return encode(2, encode(1, encode(1, name)) + b"".join(encode(2, record) for record in records))


def resource(attribute: bytes, *scopes: bytes) -> bytes:
    return encode(1, encode(1, encode(1, encode(1, attribute))) + b"".join(scopes))


def test_a_branch_without_records_is_broken_and_its_neighbours_are_not() -> None:
    empty_scope, empty_resource = scope(b"m000002m"), resource(b"m000003m", scope(b"m000004m"))
    whole = resource(b"m000005m", scope(b"m000006m", RECORD), empty_scope)
    body = whole + empty_resource + encode(9, b"m000007m")
    found = SOURCES["otlp"].split(body)
    assert found.raw == [RECORD]
    assert [b.raw for b in found.broken] == [empty_scope, empty_resource]
    assert found.context and all(mark in (found.context[0] or b"") for mark in (b"m000005m", b"m000006m", b"m000007m"))
    survives(SOURCES["otlp"], body)


def test_a_request_without_any_record_is_broken_whole() -> None:
    body = resource(b"m000001m", scope(b"m000002m")) + encode(9, b"m000003m")
    assert [b.raw for b in SOURCES["otlp"].split(body).broken] == [body]
    assert SOURCES["otlp"].split(resource(b"")).records == 1
    loki = encode(1, encode(1, b'{a="m000001m"}')) + encode(2, b"m000002m")
    assert [b.raw for b in SOURCES["loki"].split(loki).broken] == [loki]


TREES = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=12)
OTLP, LOKI = (1, 2, 2), (1, 2)
OTLP_NAMES, LOKI_NAMES = ("resourceLogs", "scopeLogs", "logRecords"), ("streams", "values")


def message(tree: list[Any], path: tuple[int, ...], marks: Any) -> bytes:
    """A message with a field of its own before and behind those that the path names, all with marks in them."""
    before, behind = (encode(number, b"m%06dm" % next(marks)) for number in (12, 13))
    inner = (encode(path[0], message(branch, path[1:], marks)) for branch in tree) if path else ()
    return before + b"".join(inner) + behind


def document(tree: list[Any], path: tuple[str, ...], marks: Any) -> Any:
    """The same in JSON."""
    told: dict[str, Any] = {"a": f"m{next(marks):06}m"}
    if path:
        told[path[0]] = [document(branch, path[1:], marks) for branch in tree]
    return told | {"z": f"m{next(marks):06}m"}


@pytest.mark.parametrize(("name", "path"), [("otlp", OTLP), ("loki", LOKI)])
@given(tree=TREES)
def test_no_branch_of_any_shape_vanishes(name: str, path: tuple[int, ...], tree: list[Any]) -> None:
    body = message(tree, path, count())
    survives(SOURCES[name], encode(path[0], message(tree, path[1:], count(1000))) + body)


@pytest.mark.parametrize(("name", "path"), [("otlp", OTLP_NAMES), ("loki", LOKI_NAMES)])
@given(tree=TREES)
def test_no_branch_of_any_shape_vanishes_in_json(name: str, path: tuple[str, ...], tree: list[Any]) -> None:
    survives(SOURCES[name], json.dumps(document(tree, path, count())).encode())
