"""Every source alike: whatever comes, no byte of a record vanishes, nothing raises, and rows don't depend on company.

Real bodies are damaged in every way hypothesis can think of, with marks put into them: each mark must be found again in
a record, in a broken one, or in what surrounds a record.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.ingest.sources import SOURCES, recognise
from tests.ingest.samples import SAMPLES, body, files
from tests.pushed import SOURCE_OF, captured

_BODIES = {
    name: [body(p)[:6000] for p in files(SAMPLES / name) if p.suffix != ".parquet"]
    + [captured(capture).content for capture in SOURCE_OF.get(name, ())]
    or [b'{"a":1}\n{"b":[2]}\n', b"plain\n<13>x\n\n"]
    for name in SOURCES
}
_MARK = re.compile(rb"m\d{6}m")
_JUNK = st.sampled_from(
    [b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\x00", b"\xff\xfe", b" ", b"<13>", b"\xe2\x80\xa8"]
) | st.binary(max_size=12)


@st.composite
def _damaged(draw: st.DrawFn, name: str) -> bytes:
    content = draw(st.sampled_from(_BODIES[name]))
    for number in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.sampled_from([0, 0, 1, 7, 300]))
        content = content[:at] + draw(_JUNK) + b"m%06dm" % number + draw(_JUNK) + content[at + cut :]
    return content


@pytest.mark.parametrize("name", sorted(SOURCES))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_byte_of_a_record_vanishes(name: str, data: st.DataObject) -> None:
    content = data.draw(_damaged(name) | st.binary(max_size=300))
    source = SOURCES[name]
    assert recognise(content[:65_536]).name in SOURCES
    found = source.split(content)
    positions = range(len(found.raw)) if found.positions is None else found.positions
    assert len(positions) == len(found.raw)
    assert sorted([*positions, *(b.position for b in found.broken)]) == list(range(found.records))
    ordered = dict(zip(positions, found.raw, strict=True)) | {b.position: b.raw for b in found.broken}
    at = 0
    for position in range(found.records):
        at = content.index(ordered[position], at) + len(ordered[position])
    kept = b"\n".join([*ordered.values(), *(c for c in found.context or () if c is not None)])
    assert set(_MARK.findall(content)) == set(_MARK.findall(kept))
    table = source.derive(found.raw, found.context)
    assert table.num_rows == len(found.raw)
    for row in range(min(table.num_rows, 3)):
        context = None if found.context is None else found.context[row : row + 1]
        assert source.derive(found.raw[row : row + 1], context).equals(table.slice(row, 1).combine_chunks())
    assert pa.types.is_timestamp(table.schema.field("event_time").type)
