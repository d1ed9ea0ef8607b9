"""Segments written from one table, as tests like to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from strongroom.archive import segment
from strongroom.archive.rebuilding import Form
from strongroom.archive.segment import SegmentFacts


def write_segment(
    path: Path, table: pa.Table, *, secret: bytes, metadata: Mapping[str, str], forms: Sequence[Form] = ()
) -> SegmentFacts:
    """`segment.write` of a table with all its columns, `raw` among them."""
    records = table.column("raw").to_pylist()
    typed = pa.schema(list(table.schema)[len(segment.UNIVERSAL) :])
    columns = table.drop_columns("raw")
    return segment.write(path, records, columns, typed=typed, secret=secret, metadata=metadata, forms=forms)
