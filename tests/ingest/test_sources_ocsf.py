"""Security Lake's Parquet: rows written out as JSON, the file kept beside them; OCSF as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.ingest.decode import HEAD_BYTES, Decoder
from strongroom.ingest.sources import SOURCES, recognise
from tests.ingest.conftest import House, run, send
from tests.ingest.rows import events, some
from tests.ingest.samples import SAMPLES

OCSF = SOURCES["ocsf"]
REAL = SAMPLES / "ocsf" / "api_activity-UpdateTrail.parquet"


def parquet(rows: list[dict[str, object]], schema: pa.Schema | None = None, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, **options)
    return bytes(sink.getvalue())


def test_rows_are_written_out_whole_and_without_what_is_null() -> None:
    kinds = pa.schema(
        [
            ("class_uid", pa.int32()),
            ("category_uid", pa.int32()),
            ("time_dt", pa.timestamp("ms", tz="UTC")),
            ("unmapped", pa.map_(pa.string(), pa.string())),
            ("codes", pa.map_(pa.int32(), pa.string())),
            ("actor", pa.struct({"user": pa.struct({"name": pa.string(), "uid": pa.string()})})),
            ("observables", pa.list_(pa.struct({"name": pa.string(), "value": pa.binary()}))),
            ("score", pa.decimal128(20, 3)),
            ("big", pa.uint64()),
            ("ratio", pa.float64()),
        ]
    )
    moment = datetime(2024, 5, 6, 10, 0, 0, 123000, UTC)
    content = parquet(
        [
            {
                "class_uid": 6003,
                "category_uid": 6,
                "time_dt": moment,
                "unmapped": [("ä", "1"), ("b", None)],
                "codes": [(1, "x")],
                "actor": {"user": {"name": "alice", "uid": None}},
                "observables": [{"name": "n", "value": b"\xff\x00"}, None],
                "score": Decimal("1234567890123.100"),
                "big": 2**64 - 1,
                "ratio": 0.5,
            },
            {"class_uid": 6003, "category_uid": 6},
        ],
        kinds,
    )
    found = OCSF.split(content)
    full, empty = found.raw
    assert empty == b'{"class_uid":6003,"category_uid":6}'
    assert full.decode() == (
        '{"class_uid":6003,"category_uid":6,"time_dt":"2024-05-06T10:00:00.123000Z","unmapped":{"ä":"1","b":null},'
        '"codes":[[1,"x"]],"actor":{"user":{"name":"alice"}},"observables":[{"name":"n","value":"/wA="},null],'
        '"score":"1234567890123.100","big":18446744073709551615,"ratio":0.5}'
    )
    assert (
        found.context
        == [json.dumps({"parquet_sha256": sha256(content).hexdigest()}, separators=(",", ":")).encode()] * 2
    )
    row = OCSF.derive(found.raw, found.context).to_pylist()[0]
    some(row, event_time=moment, user_name="alice", class_uid=6003)


def test_a_large_file_is_recognised_by_its_end() -> None:
    rows = [{"class_uid": 4001, "category_uid": 4, "noise": sha256(b"%d" % n).hexdigest()} for n in range(4000)]
    content = parquet(rows)
    assert len(content) > 2 * HEAD_BYTES
    for size in (1, 1000, HEAD_BYTES, len(content)):
        decoder = Decoder("identity", 1 << 30)
        step = max(size, 97)
        for at in range(0, len(content), step):
            decoder.feed(content[at : at + step])
        head = decoder.finish().head
        assert len(head) == HEAD_BYTES and recognise(head) is OCSF


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PAR1" + b"\0" * 40 + b"PAR1", "cannot be read"),
        (b"PAR1", "cannot be read"),
        (REAL.read_bytes()[:-9], "cannot be read"),
        (parquet([{"category_uid": 1, "other": "class_uid"}]), "not of OCSF events"),
    ],
)
def test_what_is_no_security_lake_file_is_broken_whole(content: bytes, reason: str) -> None:
    found = OCSF.split(content)
    (broken,) = found.broken
    assert broken.raw == content and reason in broken.reason and not found.raw and not found.attached


def test_too_many_rows_are_refused_before_they_are_read() -> None:
    columns = {
        "class_uid": pa.nulls(1 << 17, pa.int32()),
        **{f"c{n}": pa.nulls(1 << 17, pa.int8()) for n in range(2100)},
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    (broken,) = OCSF.split(sink.getvalue().to_pybytes()).broken
    assert "too many rows" in broken.reason


def test_the_file_is_sealed_beside_its_rows(house: House) -> None:
    content = REAL.read_bytes()

    async def test() -> None:
        intake = await house.open()
        await send(intake, content, source="auto")
        await intake.seal()
        await intake.stop()

    run(test)
    raws = {row["source"]: row["raw"] for row in house.rows().to_pylist()}
    assert raws["attachment"] == content
    assert json.loads(raws["ocsf"])["api"]["operation"] == "UpdateTrail"
    house.must_be_sound()


def test_json_of_any_class_but_findings_is_recognised() -> None:
    event = (
        b'{"class_uid":4001,"class_name":"Network Activity","category_uid":4,"activity_name":"Refuse","metadata":'
        b'{"version":"1.3.0"},"time":1700000000000,"src_endpoint":{"ip":"192.0.2.1"},"dst_endpoint":{"ip":"192.0.2.2",'
        b'"port":22},"disposition":"Blocked","status":"Success"}'
    )
    assert recognise(event) is OCSF
    assert recognise(event.replace(b'"time"', b'"finding_info":{"uid":"x"},"time"')).name == "securityhub"
    (row,) = events("ocsf", event)
    some(row, action="Network Activity: Refuse", target="192.0.2.2:22", outcome="denied", source_address="192.0.2.1")
