"""What each protocol reads and says; whatever comes is read, kept aside or refused on purpose, and never a crash."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import time
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.decode import decode_whole
from strongroom.ingest.errors import BodyTooLarge, DeliveryRefused, ExpandsTooFar, NotTheProtocol, SignatureRefused
from strongroom.ingest.protocols import elastic, eventbridge, firehose, hec, journal, otlp, sns
from strongroom.ingest.sources import SOURCES, protobuf
from strongroom.ingest.sources.bulk import pairs
from tests.pushed import SOURCE_OF, captured

LIMIT = 1 << 20
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def request(*records: bytes, id: str = "r-1") -> bytes:
    return json.dumps({"requestId": id, "records": [{"data": base64.b64encode(r).decode()} for r in records]}).encode()


# -- Firehose


def test_firehose_sorts_members_lines_and_damage_into_deliveries_with_keys_of_their_own() -> None:
    member, other = gzip.compress(b'{"a":1}'), gzip.compress(b'{"a":2}')
    body = request(member, b"plain", other, b"with feed\n", b"", gzip.compress(b"cut" * 99)[:-9])
    body = body.replace(b'"records": [', b'"records": [{"data": "not base64!"}, {"data": {"b": 1}}, ')
    batch = firehose.read(body, id="", arn="arn:x:deliverystream/flows", limit=LIMIT)
    assert batch.id == "r-1"
    found = {(d.coding, d.name): d.content for d in batch.deliveries}
    assert found["gzip", "flows/r-1/gzip"] == member + other
    assert decode_whole(member + other, "gzip", LIMIT) == b'{"a":1}{"a":2}'
    assert found["identity", "flows/r-1/plain"] == b'{"b": 1}\nplain\nwith feed\n'
    assert found["base64", "flows/r-1/broken-0"] == b'"not base64!"'
    assert found["gzip", "flows/r-1/broken-1"] == gzip.compress(b"cut" * 99)[:-9]
    assert len({d.key for d in batch.deliveries}) == 4
    again = firehose.read(body, id="r-1", arn="arn:x:deliverystream/flows", limit=LIMIT)
    assert [d.key for d in again.deliveries] == [d.key for d in batch.deliveries]


def test_firehose_refuses_other_ids_and_what_expands_too_far() -> None:
    with pytest.raises(NotTheProtocol):
        firehose.read(request(b"x"), id="r-2", arn="", limit=LIMIT)
    with pytest.raises(ExpandsTooFar):
        firehose.read(request(gzip.compress(bytes(LIMIT)), gzip.compress(b"1")), id="", arn="", limit=LIMIT)
    with pytest.raises(ExpandsTooFar):
        firehose.read(request(*[b"x" * 1000] * 20), id="", arn="", limit=10_000)


def test_firehose_answers_name_the_request() -> None:
    assert json.loads(firehose.accepted("r-1", 5).body) == {"requestId": "r-1", "timestamp": 5}
    told = json.loads(firehose.refused("r-1", 5, 503, "m" * 10_000).body)
    assert (told["requestId"], len(told["errorMessage"])) == ("r-1", 8192)


# -- Splunk HEC


@given(st.integers(1, 8191), st.integers(0, 2**40 - 1))
def test_an_ack_id_is_a_place_and_exact_in_javascript(epoch: int, sequence: int) -> None:
    ack = hec.ack_id(epoch, sequence)
    assert ack is not None and hec.place_of(ack) == (epoch, sequence) and int(float(ack)) == ack


def test_ack_queries() -> None:
    assert hec.asked(b'{"acks":[0,7,-1,99999999999999999999]}') == [0, 7]
    assert hec.asked(b'{"acks":["7"]}') == hec.asked(b"") == []
    assert hec.acks([0, 7], lambda ack: ack == 7).body == b'{"acks":{"0":false,"7":true}}'


def test_hec_uses_only_codes_on_which_clients_keep_their_data() -> None:
    assert hec.refused(503).body == b'{"text":"Server is busy","code":9}'
    assert (hec.refused(401, token_missing=True).status, hec.refused(401).status) == (401, 403)
    assert hec.refused(400, empty=True).body == b'{"text":"No data","code":5}'


# -- OTLP


def test_otlp_speaks_the_encoding_of_the_request() -> None:
    assert otlp.media_type("application/json; charset=utf-8") == "application/json"
    assert otlp.media_type("") == otlp.PROTOBUF
    assert (otlp.taken("application/json").body, otlp.taken(otlp.PROTOBUF).body) == (b"{}", b"")
    told = json.loads(otlp.taken("application/json", "odd").body)
    assert told == {"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": "odd"}}
    assert otlp.taken(otlp.PROTOBUF, "odd").body == b"\x0a\x05\x12\x03odd"
    assert otlp.refused(otlp.PROTOBUF, 503, "x").body == b"\x08\x0e\x12\x01x"


def test_protobuf_and_json_of_the_same_record_give_the_same_columns() -> None:
    def text(value: str) -> bytes:
        return protobuf.encode(1, value.encode())

    def pair(key: str, value: bytes) -> bytes:
        return text(key) + protobuf.encode(2, value)

    record = (
        b"\x09" + struct.pack("<Q", 1_795_000_000_000_000_000)
        + protobuf.encode(2, 17)
        + protobuf.encode(5, text("no"))
        + protobuf.encode(6, pair("n", protobuf.encode(3, 2**64 - 5)))
        + protobuf.encode(6, pair("d", b"\x21" + struct.pack("<d", 1.5)))
        + protobuf.encode(6, pair("l", protobuf.encode(5, protobuf.encode(1, protobuf.encode(2, 1)))))
        + protobuf.encode(9, bytes(range(16)))
    )  # fmt: skip
    resource = protobuf.encode(1, protobuf.encode(1, pair("service.name", text("shop"))))
    scope = protobuf.encode(1, text("lib"))
    body = protobuf.encode(1, resource + protobuf.encode(2, scope + protobuf.encode(2, record)))
    written = {
        "timeUnixNano": "1795000000000000000",
        "severityNumber": 17,
        "body": {"stringValue": "no"},
        "attributes": [
            {"key": "n", "value": {"intValue": "-5"}},
            {"key": "d", "value": {"doubleValue": 1.5}},
            {"key": "l", "value": {"arrayValue": {"values": [{"boolValue": True}]}}},
        ],
        "traceId": bytes(range(16)).hex(),
    }
    around = {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}}
    as_json = json.dumps(
        {"resourceLogs": [{**around, "scopeLogs": [{"scope": {"name": "lib"}, "logRecords": [written]}]}]}
    ).encode()
    rows = []
    for content in (body, as_json):
        found = SOURCES["otlp"].split(content)
        assert (len(found.raw), found.broken) == (1, [])
        rows.append(SOURCES["otlp"].derive(found.raw, found.context).to_pylist()[0])
    assert rows[0] == rows[1]
    assert (rows[0]["service"], rows[0]["scope"], rows[0]["severity"], rows[0]["body"]) == (
        "shop", "lib", "error", "no",
    )  # fmt: skip
    assert json.loads(rows[0]["attributes"]) == {"n": -5, "d": 1.5, "l": [True]}


# -- Elasticsearch


@pytest.mark.parametrize("name", SOURCE_OF["bulk"])
def test_bulk_has_an_item_for_every_action_in_order(name: str) -> None:
    content = captured(name).content
    answer = elastic.taken(content, "b" * 64, 3)
    assert answer.headers == {"X-Elastic-Product": "Elasticsearch"}
    assert answer.body.startswith(b'{"took":3,"errors":false,"items":[{"')
    items = json.loads(answer.body)["items"]
    assert [next(iter(item)) for item in items] == [operation for operation, _, _, _ in pairs(content)]
    assert all(facts["status"] == 201 for item in items for facts in item.values())


def test_bulk_pairs() -> None:
    body = b'{"delete":{"_id":"7"}}\n\n{"index":{"_index":"i","_id":"8"}}\n\n{"m":1}\r\nnonsense\n{"create":{}}'
    assert [(op, doc) for op, _, doc, _ in pairs(body)] == [
        ("delete", None), ("index", b'{"m":1}'), ("", None), ("create", None),
    ]  # fmt: skip
    found = SOURCES["bulk"].split(body)
    assert found.raw == [b'{"delete":{"_id":"7"}}', b'{"m":1}']
    assert [b.raw for b in found.broken] == [b"nonsense", b'{"create":{}}']
    items = json.loads(elastic.taken(body, "b" * 64, 0).body)["items"]
    assert [(op, facts["_id"]) for item in items for op, facts in item.items()] == [
        ("delete", "7"), ("index", "8"), ("create", "b" * 16 + "-2"),
    ]  # fmt: skip


def test_rsyslog_is_told_by_what_it_does_not_say() -> None:
    said = captured("rsyslog_es-bulk").headers
    assert elastic.keeps_only_on_reset(said.get("user-agent", ""), said["content-type"])
    said = captured("syslog-ng_es-bulk").headers
    assert not elastic.keeps_only_on_reset(said["user-agent"], said["content-type"])


# -- EventBridge, journal


def test_an_event_has_a_key_and_anything_else_has_none() -> None:
    assert eventbridge.key(b'{"id":"e-1","detail-type":"x","source":"aws.x","detail":{}}') == "eventbridge e-1"
    assert eventbridge.key(b'{"id":"e-1","finding":1}') is None
    assert eventbridge.key(b"\xff") is None


def entry(number: int, binary: bytes = b"") -> bytes:
    value = b"B\n" + len(binary).to_bytes(8, "little") + binary + b"\n" if binary else b""
    return b"__CURSOR=%d\nMESSAGE=m%d\n" % (number, number) + value + b"\n"


@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 60), st.integers(20, 120))
def test_a_journal_is_cut_at_the_same_places_however_it_comes(values: list[bytes], step: int, part: int) -> None:
    entries = [entry(number, value) for number, value in enumerate(values)]
    body = b"".join(entries)
    parts = journal.Parts(LIMIT, part)
    found = [p for start in range(0, len(body), step) for p in parts.feed(body[start : start + step])]
    found.append(parts.finish())
    assert b"".join(found) == body
    whole = journal.Parts(LIMIT, part)
    assert [*whole.feed(body), whole.finish()] == found
    records = [raw for p in found for raw in SOURCES["journal"].split(p).raw]
    assert records == [e[:-2] for e in entries]


def test_an_endless_entry_is_refused() -> None:
    parts = journal.Parts(1000, 100)
    with pytest.raises(BodyTooLarge):
        list(parts.feed(b"B\n" + (1 << 40).to_bytes(8, "little") + bytes(2000)))


@pytest.mark.adversarial
def test_an_entry_of_many_fields_costs_linear_time() -> None:
    """Fields that came are not read again with each piece that follows them, which took 22 s."""
    body = b"__CURSOR=1\n" + b"".join(b"FIELD_%d=%s\n" % (n, b"x" * 40) for n in range(100_000))
    parts, started = journal.Parts(1 << 30, 1 << 20), time.process_time()
    found = [part for at in range(0, len(body), 8192) for part in parts.feed(body[at : at + 8192])]
    assert time.process_time() - started < 3
    assert b"".join([*found, parts.finish()]) == body


# -- whatever comes


@given(st.binary(max_size=200) | JSON_VALUES.map(msgspec.json.encode))
def test_no_body_is_too_odd(body: bytes) -> None:
    for read in (
        lambda: firehose.read(body, id="", arn="", limit=LIMIT),
        lambda: sns.read(body, {"arn"}),
    ):
        try:
            read()
        except DeliveryRefused as error:
            assert isinstance(error, NotTheProtocol | SignatureRefused | ExpandsTooFar)
    hec.asked(body)
    eventbridge.key(body)
    json.loads(elastic.taken(body, "b" * 64, 0).body)
    assert b"".join([*(parts := journal.Parts(LIMIT, 50)).feed(body), parts.finish()]) == body


@given(
    st.fixed_dictionaries(
        {
            "records": st.lists(
                st.fixed_dictionaries({}, optional={"data": st.text(max_size=12) | JSON_VALUES}), max_size=4
            )
        },
        optional={"requestId": JSON_VALUES},
    )
)
def test_no_firehose_record_is_lost(told: dict[str, object]) -> None:
    try:
        batch = firehose.read(msgspec.json.encode(told), id="", arn="", limit=LIMIT)
    except NotTheProtocol:
        return
    for record in told["records"]:  # type: ignore[attr-defined]
        data = record.get("data", "")
        written = msgspec.json.encode(data)
        if isinstance(data, str):
            with suppress(ValueError):
                written = base64.b64decode(data, validate=True)
        assert any(written in delivery.content for delivery in batch.deliveries) or not written
