"""The splitter: whatever contains the records, the slices are exact; whatever is damaged, the neighbours live."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.jsonsplit import split

CONTAINERS = (container("Records"), container("detail.findings"), container("detail", many=False))

_NAMES = ("Records", "detail", "findings")
_TEXT = st.text(max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
# Members that would make a record a container itself are tried apart, in test_containers_are_not_opened_twice.
_OBJECTS = st.dictionaries(_TEXT.filter(lambda name: name not in _NAMES), _VALUES, max_size=4)
_ODD = (
    b"",
    b'"twice":1,"twice":2',
    b'"huge":1' + b"0" * 400,
    b'"exp":-1.5E+400',
    b'"bad":"\xff\xc3("',
    b'"lone":"\\udfff"',
)
_SPACES = st.text(" \t\r\n", max_size=3)


@st.composite
def _written(draw: st.DrawFn, objects: st.SearchStrategy[dict[str, object]] = _OBJECTS) -> bytes:
    """A JSON object as some writer or other would spell it, now and then with odd but legal contents."""
    text = json.dumps(
        draw(objects),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " :\t")])),
    )
    odd = draw(st.sampled_from(_ODD))
    if not odd:
        return text.encode()
    rest = text.encode().rstrip()[:-1]
    return rest + (b"," if rest.strip() != b"{" else b"") + odd + b"}"


@given(st.lists(_written(), min_size=1, max_size=5), st.data())
def test_every_container_yields_the_exact_records(records: list[bytes], data: st.DataObject) -> None:
    def gap() -> bytes:
        return data.draw(_SPACES).encode()

    listed = b",".join(gap() + record + gap() for record in records)
    bodies = {
        "Records": gap() + b"{" + gap() + b'"Records"' + gap() + b":[" + listed + b"]" + gap() + b"}" + gap(),
        "beside": b'{"a":[{"x":"]"}],"Records":[' + listed + b'],"b":{"y":[]}}',
        "array": gap() + b"[" + listed + b"]" + gap(),
        "lines": b"\r\n".join(record + gap() for record in records),
        "concatenated": b"".join(records),
        "envelope": b'{"version":"0","detail":{"n":1,"findings":[' + listed + b']},"z":"}"}',
        "envelopes": b"".join(b'{"detail":' + gap() + record + gap() + b',"id":"1"}' for record in records),
        "marked": b"\xef\xbb\xbf" + b"\n".join(records),
    }
    for name, body in bodies.items():
        found = split(body, CONTAINERS)
        assert found.raw == records, name
        assert found.broken == [] and found.positions is None, name
        assert (found.context is None) == (name in ("Records", "array", "lines", "concatenated", "marked")), name


def test_the_context_is_the_document_with_its_records_cut_out() -> None:
    found = split(b' {"v" : 0, "detail":{"n":1,"findings":[ {"a":1} , {"b":2} ]}, "v":"\xff"} ', CONTAINERS)
    assert found.context == [b'{"v" : 0, "detail":{"n":1,"findings":[]}, "v":"\xff"}'] * 2
    assert split(b'{"id":"1","detail": {"a":1} ,"x":[]}', CONTAINERS).context == [b'{"id":"1","detail": null ,"x":[]}']
    assert split(b'{"Records":[{"a":1}],"next":"token"}', CONTAINERS).context == [b'{"Records":[],"next":"token"}']
    # A second member of the same name is not lost: the last one counts, as in every reader; the first is context.
    twice = split(b'{"Records":[{"a":1}],"Records":[{"b":2}]}', CONTAINERS)
    assert twice.raw == [b'{"b":2}'] and twice.context == [b'{"Records":[{"a":1}],"Records":[]}']


def test_containers_are_not_opened_twice() -> None:
    inner = b'{"Records":[{"a":1}],"detail":{"b":2}}'
    assert split(b'{"Records":[' + inner + b"]}", CONTAINERS).raw == [inner]
    assert split(b'{"a":{"Records":[{"a":1}]}}', CONTAINERS).raw == [b'{"a":{"Records":[{"a":1}]}}']


@pytest.mark.parametrize("document", [b'{"Records":5}', b'{"Records":{"a":1}}', b'{"detail":"x"}', b'{"detail":null}'])
def test_a_document_that_is_no_container_after_all_is_a_record(document: bytes) -> None:
    assert split(document, CONTAINERS).raw == [document]


def test_elements_that_are_no_objects_are_broken_and_keep_their_place() -> None:
    found = split(b'[{"a":1}, 7, "x", {"b":2}, null]')
    assert found.raw == [b'{"a":1}', b'{"b":2}']
    assert found.positions == [0, 3]
    assert [(b.position, b.raw) for b in found.broken] == [(1, b"7"), (2, b'"x"'), (4, b"null")]


def test_empty_bodies_hold_nothing() -> None:
    for body in (b"", b" \r\n", b"\xef\xbb\xbf", b"[]", b'{"Records":[]}', b"[\n]"):
        assert split(body, CONTAINERS).records == 0


@given(st.lists(_written().map(lambda r: re.sub(rb"[\r\n]", b" ", r)), min_size=2, max_size=6), st.data())
def test_damage_in_ndjson_costs_no_undamaged_line(records: list[bytes], data: st.DataObject) -> None:
    victim = data.draw(st.integers(0, len(records) - 1))
    damaged = bytearray(records[victim])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2).map(lambda b: b.replace(b"\n", b""))
        )
        if not damaged:
            break
    body = b"\n".join([*records[:victim], bytes(damaged), *records[victim + 1 :]])
    found = split(body)
    survivors = iter(found.raw)
    for record in records[:victim] + records[victim + 1 :]:
        assert record in survivors, (record, found)  # in order, each once


_RECORD = b'{"eventVersion":"1.08","n":%d,"list":[{"x":1},{"y":[]}],"text":"a b"}'


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=8), st.data())
def test_damage_in_records_costs_one_element(numbers: list[int], data: st.DataObject) -> None:
    records = [_RECORD % n for n in numbers]
    victim = data.draw(st.integers(0, len(records) - 1))
    at = data.draw(st.integers(24, len(records[victim]) - 2))
    damage = data.draw(st.sampled_from([b"", b'"', b"{", b"[", b"}", b"]", b"\\", b"\x00", b"tru", b","]))
    spoilt = records[victim][:at] + damage + records[victim][at + 1 :]
    body = b'{"Records":[' + b",".join([*records[:victim], spoilt, *records[victim + 1 :]]) + b"]}"
    found = split(body, CONTAINERS)
    assert found.raw[:victim] == records[:victim]
    if damage in (b"{", b"["):
        # An opening bracket can make one sound record of several: then they are inside it.
        pieces = [*found.raw, *(b.raw for b in found.broken)]
        assert all(any(record in piece for piece in pieces) for record in records[victim + 1 :])
    else:
        assert found.raw[len(found.raw) - len(records) + victim + 1 :] == records[victim + 1 :]
        assert found.records == len(records)


@given(st.lists(_written(), min_size=1, max_size=4), st.integers(0, 400))
def test_truncation_keeps_the_whole_records(records: list[bytes], cut: int) -> None:
    start = b'{"Records":['
    body = start + b",".join(records)
    body = body[: max(len(start), len(body) - cut)]
    found = split(body, CONTAINERS)
    whole, end = 0, len(start)
    for record in records:
        end += len(record)
        whole += end <= len(body)
        end += 1
    assert found.raw[:whole] == records[:whole]


@given(st.binary(max_size=200) | st.text('{}[]":,\\ntruefalse0 \n', max_size=60).map(str.encode))
def test_nothing_raises_and_everything_found_is_a_slice(body: bytes) -> None:
    found = split(body, CONTAINERS)
    for piece in [*found.raw, *(b.raw for b in found.broken)]:
        assert piece in body
    assert sorted([*(found.positions or range(len(found.raw))), *(b.position for b in found.broken)]) == list(
        range(found.records)
    )


def test_concatenated_and_pretty_documents_survive_each_other() -> None:
    good = [b'{"a":"}{"}', b'{\n  "b": [\n    {}\n  ]\n}', b'{"c":3}']
    found = split(good[0] + b'{"a":tru}' + good[1] + b"\n" + b'{\n  "x": ,\n  "y": {\n  }\n}\n' + good[2])
    assert found.raw == good
    assert [b.raw for b in found.broken] == [b'{"a":tru}', b'{\n  "x": ,\n  "y": {\n  }\n}']
    assert all(b.reason.startswith("not valid JSON") for b in found.broken)


def test_nesting_beyond_reading_is_broken_and_alone() -> None:
    deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    found = split(b'{"Records":[{"a":1},' + deep + b',{"a":2}]}', CONTAINERS)
    assert found.raw == [b'{"a":1}', b'{"a":2}']
    assert [(b.raw, b.reason) for b in found.broken] == [(deep, "nested too deeply to be read")]


@pytest.mark.parametrize(
    ("body", "what"),
    [(b"PAR1\x15\x04", "Parquet"), (b"\x1f\x8b\x08", "gzip"), ('{"a":"0123456789"}'.encode("utf-16"), "UTF-16")],
)
def test_binary_bodies_stay_whole(body: bytes, what: str) -> None:
    found = split(body)
    assert [b.raw for b in found.broken] == [body] and what in found.broken[0].reason and not found.raw


@pytest.mark.adversarial
@pytest.mark.parametrize(
    "piece",
    [b'{"a":', b"[{", b'{"a":\n', b"}{", b'"\\"', b'[{"a":1,', b'[{"a":1},{"a"', b"\n{", b'{"Records":[{"a":1]'],
)
def test_hostile_bodies_cost_linear_time(piece: bytes) -> None:
    """Doubling the body must not quadruple the time; the bound is loose because machines are shared."""
    seconds = []
    for size in (20_000, 80_000):
        started = time.process_time()
        split(piece * (size // len(piece)), CONTAINERS)
        seconds.append(time.process_time() - started)
    assert seconds[1] < 10 * seconds[0] + 0.2


def test_an_envelope_does_not_vanish_with_its_records() -> None:
    kinds = (container("logEvents"),)
    assert split(b'{"logEvents":[]}', kinds).records == 0
    empty = b'{"owner":"1","logEvents":[ ]}'
    assert split(empty * 2, kinds).raw == [empty, empty]
    for damaged in (
        b'{"owner":"1","logEvents":[7]}',
        b'{"owner":"1","logEvents":[{"a":x}]}',
        b'{"owner":"1","logEvents":[',
    ):
        found = split(damaged, kinds)
        assert [b.raw for b in found.broken] == [damaged] and not found.raw


def test_a_piece_of_the_last_element_does_not_pass_for_a_record() -> None:
    good = _RECORD % 1
    spoilt = good.replace(b'"list":[{"x"', b'"list":[]"x"')
    found = split(b'{"Records":[' + good + b"," + spoilt + b"]}", CONTAINERS)
    assert found.raw == [good] and len(found.broken) == 1 and found.broken[0].raw.startswith(spoilt)
