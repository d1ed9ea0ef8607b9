"""What every source promises for any body: no byte of a record vanishes, nothing raises, rows don't depend on company.

Bytes are followed by marks, `m000017m`, that a test puts into a body: each must be found again in a record, in a broken
one, or in what surrounds a record.
"""

from __future__ import annotations

import re
from hashlib import sha256

import pyarrow as pa

from strongroom.ingest.sources import Source, recognise
from strongroom.ingest.sources.source import TIME
from tests.ingest.samples import SAMPLES, body, files
from tests.pushed import SOURCE_OF, captured

MARK = re.compile(rb"m\d{6}m")


def bodies(name: str) -> list[bytes]:
    """Real bodies of a source, or two that any source must survive."""
    real = [body(path) for path in files(SAMPLES / name)]
    found = [content if content.startswith(b"PAR1") else content[:6000] for content in real]
    found += [captured(capture).content for capture in SOURCE_OF.get(name, ())]
    return found or [b'{"a":1}\n{"b":[2]}\n', b"plain\n<13>x\n\n"]


def _lost(content: bytes, kept: bytes, *, cut: bool) -> list[bytes]:
    """Marks of a body that are not kept. `cut`: a byte of one may be a length, or its record end there (protobuf);
    then one of its halves is whole."""
    there = set(MARK.findall(kept))
    missing = [mark for mark in MARK.findall(content) if mark not in there]
    return [mark for mark in missing if not (cut and (mark[:4] in kept or mark[4:] in kept))]


def survives(source: Source, content: bytes, *, rows: int = 3) -> None:
    """Raises AssertionError where a promise is broken; `rows` are derived once more, each alone."""
    recognise(content[:65_536])
    found = source.split(content)
    positions = range(len(found.raw)) if found.positions is None else found.positions
    assert len(positions) == len(found.raw)
    told = [*positions, *(b.position for b in found.broken), *(a.position for a in found.attached)]
    assert sorted(told) == list(range(found.records))
    assert found.context is None or len(found.context) == len(found.raw)
    if found.attached:
        # Records written out: the file is kept, and named by each of them.
        assert [a.raw for a in found.attached] == [content] and found.context is not None
        assert all(sha256(content).hexdigest().encode() in (context or b"") for context in found.context)
    else:
        ordered = dict(zip(positions, found.raw, strict=True)) | {b.position: b.raw for b in found.broken}
        at = 0
        for position in range(found.records):
            at = content.index(ordered[position], at) + len(ordered[position])
        kept = b"\n".join([*ordered.values(), *(c for c in found.context or () if c is not None)])
        assert not _lost(content, kept, cut=source.name == "otlp")
    table = source.derive(found.raw, found.context)
    assert table.schema == pa.schema([pa.field("event_time", TIME), *source.schema])
    assert table.num_rows == len(found.raw)
    for row in range(min(table.num_rows, rows)):
        context = None if found.context is None else found.context[row : row + 1]
        assert source.derive(found.raw[row : row + 1], context).equals(table.slice(row, 1).combine_chunks())
