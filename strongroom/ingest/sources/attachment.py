"""Whole files, kept verbatim: what records were taken from when a record has no bytes of its own in what arrived.

A source whose records are values in a binary file (see vpcflowparquet.py, ocsfparquet.py) attaches it. The record is
the file, its context says whose it is: a JSON object with the members `source` and `format`, made by `belonging`.
Whoever sends a file to `attachment` gets it kept as one record, whatever it is. Nothing is recognised as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import lenient
from strongroom.ingest.sources.fields import text
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split


def belonging(source: str, format: str) -> bytes:
    """The context of an attached file."""
    return msgspec.json.encode({"source": source, "format": format})


class Attachment:
    """See the module."""

    name = "attachment"
    description = "Whole files in binary formats, byte for byte, whose contents are records of another source"
    natural_id: str | None = "sha256"
    sort: tuple[str, ...] = ("of_source", "sha256")
    summary_columns: tuple[str, ...] = ("of_source", "format")
    schema = pa.schema({"of_source": TEXT, "format": TEXT, "bytes": pa.int64(), "sha256": TEXT})
    events: Mapping[str, str] = {}

    def recognise(self, head: bytes) -> bool:
        """Never."""
        return False

    def split(self, body: bytes) -> Split:
        """The body."""
        return Split(raw=[body] if body else [], context=None, positions=None, broken=[])

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Whose file it is from the context, the rest from the file."""
        known = [lenient.record(c or b"") for c in ([None] * len(raw) if context is None else context)]
        columns: dict[str, pa.Array] = {
            "event_time": pa.nulls(len(raw), TIME),
            "of_source": pa.array([text(k.get("source")) for k in known], TEXT),
            "format": pa.array([text(k.get("format")) for k in known], TEXT),
            "bytes": pa.array(map(len, raw), pa.int64()),
            "sha256": pa.array([sha256(file).hexdigest() for file in raw], TEXT),
        }
        return pa.table(columns)


SOURCE = Attachment()
