"""Every source alike: real bodies, damaged in every way hypothesis can think of, lose no byte (survival.py)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.ingest.sources import SOURCES
from tests.ingest.survival import bodies, survives

_JUNK = st.sampled_from(
    [b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\x00", b"\xff\xfe", b" ", b"<13>", b"\xe2\x80\xa8"]
) | st.binary(max_size=12)
_BODIES = {name: bodies(name) for name in SOURCES}


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
    survives(SOURCES[name], data.draw(_damaged(name) | st.binary(max_size=300)))
