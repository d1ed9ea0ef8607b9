"""AWS's Parquet delivery of flow logs: rows written out as lines, the file kept beside them."""

from __future__ import annotations

import json
import random
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.ingest.sources import SOURCES, recognise
from tests.ingest.conftest import House, run, send
from tests.ingest.samples import SAMPLES

REAL = SAMPLES / "vpcflow" / "vpc_flow-input0.json.parquet"
VPCFLOW = SOURCES["vpcflow"]


def parquet(**columns: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


def test_rows_have_the_columns_of_the_text_delivery() -> None:
    content = parquet(
        version=pa.array([2, 2, None, 2], pa.int32()),
        account_id=pa.array(["1", None, "", "4"]),
        srcaddr=pa.array(["192.0.2.1", "192.0.2.2", "-", "192.0.2.4"]),
        packets=pa.array([1.0, None, 2.0**40, -3.0]),
        start=pa.array([1700000000, 1700000001, 1700000002, None], pa.int64()),
        new_field=pa.array(["x", None, "z", "y"]),
    )
    assert recognise(content[:100]) is VPCFLOW
    found = VPCFLOW.split(content)
    assert found.raw == [
        b"2 1 192.0.2.1 1 1700000000 x",
        b"2 - 192.0.2.2 - 1700000001 -",
        b"- - - 1099511627776 1700000002 z",
        b"2 4 192.0.2.4 -3 - y",
    ]
    assert found.context is not None
    header, _, origin = (found.context[0] or b"").partition(b"\n")
    assert header == b"version account_id srcaddr packets start new_field"
    assert origin.endswith(sha256(content).hexdigest().encode())
    # What the same lines give under the same header when they come as text.
    as_text = VPCFLOW.split(b"\n".join([header, *found.raw]))
    assert VPCFLOW.derive(found.raw, found.context).equals(VPCFLOW.derive(as_text.raw, as_text.context))


def test_white_space_in_a_value_breaks_its_row_and_no_other() -> None:
    found = VPCFLOW.split(parquet(version=pa.array([2, 2, 2, 2]), srcaddr=pa.array(["a", "b c", "d\n", "e"])))
    assert found.raw == [b"2 a", b"2 e"] and found.positions == [0, 3]
    assert [(b.position, b.raw) for b in found.broken] == [(1, b"2 b c"), (2, b"2 d\n")]
    assert [a.position for a in found.attached] == [4] and found.records == 5


def test_a_value_that_every_row_repeats_takes_no_memory() -> None:
    """Some kilobytes that would be 50 GB of lines, and a file whose one long value is no reason to refuse it."""
    rows = 50_000
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * 1_000_000]))
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"version": pa.array([2] * rows), "srcaddr": long}), sink, compression="zstd", store_schema=False
    )
    bomb = sink.getvalue().to_pybytes()
    assert len(bomb) < 100_000
    before = pa.default_memory_pool()
    watched = pa.proxy_memory_pool(before)
    pa.set_memory_pool(watched)
    try:
        found = VPCFLOW.split(bomb)
    finally:
        pa.set_memory_pool(before)
    assert found.raw == [] and [b.reason for b in found.broken] == ["an Apache Parquet file that expands beyond reason"]
    assert watched.max_memory() < 64 << 20
    once = VPCFLOW.split(parquet(version=pa.array([2, 2]), srcaddr=pa.array(["a" * 1_000_000, "b"])))
    assert once.raw == [b"2 " + b"a" * 1_000_000, b"2 b"]


@pytest.mark.parametrize(
    "content",
    [
        parquet(time=pa.array([1]), class_uid=pa.array([4001])),
        parquet(version=pa.array([1]), srcaddr=pa.array([["nested"]])),
        b"PAR1",
        b"PAR1" * 100,
        REAL.read_bytes()[:-1],
    ],
)
def test_what_is_no_readable_flow_log_is_broken_whole(content: bytes) -> None:
    found = VPCFLOW.split(content)
    assert [b.raw for b in found.broken] == [content] and found.records == 1


def test_damaged_files_are_broken_or_attached_whole() -> None:
    real, chance = REAL.read_bytes(), random.Random(7)
    for _ in range(60):
        damaged = bytearray(real)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(4, len(real))] = chance.randrange(256)
        found = VPCFLOW.split(bytes(damaged))
        assert bytes(damaged) in [*(a.raw for a in found.attached), *(b.raw for b in found.broken)]
        assert VPCFLOW.derive(found.raw, found.context).num_rows == len(found.raw)


def test_sealed_with_its_file_and_derived_again(house: House) -> None:
    content = REAL.read_bytes()

    async def scenario() -> None:
        intake = await house.open()
        accepted = await send(intake, content, source="auto")
        assert accepted.source == "vpcflow"
        await intake.stop()

    run(scenario)
    rows = {row["source"]: row for row in house.rows().to_pylist()}
    assert set(rows) == {"vpcflow", "attachment"}
    assert rows["attachment"]["raw"] == content and rows["attachment"]["position"] == 1
    assert json.loads(rows["attachment"]["context"]) == {"source": "vpcflow", "format": "parquet"}
    (facts,) = house.sealed()
    assert (facts.records, facts.accepted, facts.quarantined) == (2, 2, 0)
    house.must_be_sound()
