"""Segments: what is written reads back, every record has a proof, every changed byte shows."""

import contextlib
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.archive import segment
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence import prove_record
from strongroom.archive.merkle import leaf_hash, root_of, verify_inclusion
from tests.archive.conftest import Archive, records_table
from tests.segments import write_segment

SECRET = bytes(range(32))


def numbered(count: int) -> list[bytes]:
    return [b'{"name":"%d"}' % number for number in range(count)]


def test_same_input_same_bytes_and_read_back_agrees(tmp_path: Path) -> None:
    table = records_table(numbered(10))
    first = write_segment(tmp_path / "a", table, secret=SECRET, metadata={"source": "test"})
    second = write_segment(tmp_path / "b", table, secret=SECRET, metadata={"source": "test"})
    assert first == second == segment.read_back(tmp_path / "a")
    assert write_segment(tmp_path / "c", table, secret=bytes(32), metadata={}).root != first.root


def test_leaves_are_blinded_as_the_format_says(tmp_path: Path) -> None:
    raws = numbered(3)
    facts = write_segment(tmp_path / "a", records_table(raws), secret=SECRET, metadata={})
    from hashlib import shake_256

    nonces = shake_256(SECRET + bytes(8)).digest(48)
    leaves = [leaf_hash(nonces[16 * row : 16 * row + 16] + raw) for row, raw in enumerate(raws)]
    assert facts.root == root_of(leaves).hex()


def test_proofs_across_row_groups(archive: Archive) -> None:
    count = segment.ROW_GROUP + 1000
    entry = archive.commit(count=count)
    [reference] = entry.segments
    assert len(reference.groups) == 2
    store, log, size = archive.store, archive.log, archive.log.size
    for row in (0, 1, segment.ROW_GROUP - 1, segment.ROW_GROUP, count - 1):
        proof = prove_record(store, log, size, entry.index, 0, row)
        raw, nonce = b64decode(proof["record"]["raw"]), bytes.fromhex(proof["record"]["nonce"])
        assert raw == b'{"name": "batch 5 record %d"}' % row
        assert proof["segment"]["root"] == reference.root
        path = [bytes.fromhex(node) for node in proof["record"]["path"]]
        verify_inclusion(row, count, leaf_hash(nonce + raw), path, bytes.fromhex(reference.root))
    with pytest.raises(ObjectMissing, match="no row"):
        prove_record(store, log, size, entry.index, 0, count)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_seen(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a"
    path.unlink(missing_ok=True)
    facts = write_segment(path, records_table(numbered(50)), secret=SECRET, metadata={})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert segment.file_digest(path) == sha256(content).hexdigest() != facts.sha256
    with contextlib.suppress(FormatError):
        assert segment.read_back(path) != facts


def test_what_is_no_segment(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PAR1 not really")
    with pytest.raises(FormatError):
        segment.read_back(tmp_path / "a")
    with pytest.raises(FormatError):
        write_segment(tmp_path / "b", records_table(numbered(1)), secret=b"short", metadata={})


def test_filters_stand_where_they_save_reading(tmp_path: Path) -> None:
    """On many values in several row groups; the same bytes each time, and what is searched for is found."""
    typed = pa.schema([("id", pa.string()), ("few", pa.string()), ("unfiltered", pa.string())])

    def written(name: str, count: int) -> segment.SegmentFacts:
        numbers = pa.array(range(count), pa.int64())
        names = pa.array([f"{(7919 * n) % count}" for n in range(count)])
        moments = pa.repeat(pa.scalar(0, segment.UNIVERSAL.field("event_time").type), count)
        few = pa.array([str(n % 9) for n in range(count)]).dictionary_encode()
        columns = {"event_time": moments, "received_at": moments, "sequence": numbers, "position": numbers}
        table = pa.table({**columns, "id": names, "few": few, "unfiltered": names})
        filtered = ("id", "few", "nowhere")
        path = tmp_path / name
        return segment.write(path, [b"x"] * count, table, typed=typed, secret=SECRET, metadata={}, filtered=filtered)

    many = segment.ROW_GROUP + 1000
    large, again, small = written("large", many), written("again", many), written("small", 1000)
    assert large == again
    assert small.records == 1000
    with duckdb.connect() as connection:
        sql = "SELECT DISTINCT path_in_schema FROM parquet_metadata(?) WHERE bloom_filter_length IS NOT NULL"
        assert connection.execute(sql, [str(tmp_path / "large")]).fetchall() == [("id",)]
        assert connection.execute(sql, [str(tmp_path / "small")]).fetchall() == []
        for wanted in ("5", "66000", "no such"):
            sql = "SELECT count(*) FROM read_parquet(?) WHERE id = ?"
            assert connection.execute(sql, [str(tmp_path / "large"), wanted]).fetchone() == (wanted != "no such",)
