"""Writing an evidence bundle: one pass over the row groups with a chosen record, straight into the output.

Memory is bounded however many records are disclosed: by one row group's hashes, one run of records, and eight bytes a
row for the choice itself. The table of contents comes first, because the choice alone decides it; the digests come
last, because they need every byte. What can be refused is refused before the first byte is written; damage in a segment
is found while it is read, and then the output is left without a directory, so that no tool takes it for a bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from strongroom.archive import canonical
from strongroom.archive.entry import timestamp
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence import commands, cover, layout
from strongroom.archive.evidence.layout import Contents, Disclosure, Head
from strongroom.archive.evidence.package import MemberWriter, Writer, new_file
from strongroom.archive.evidence.selection import (
    Chosen,
    Pick,
    Record,
    choose,
    disclose,
    signed_head,
    stored_entry,
)
from strongroom.archive.evidence.timestamp import read as read_timestamp
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint
from strongroom.archive.policy import Policy
from strongroom.archive.stores.store import ObjectStore

STANDALONE = Path(__file__).parents[1] / "standalone" / "verify.py"
SHOWN = 50  # records that the cover page shows
_SPOOL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written. `sha256` (hex) is of the whole bundle."""

    origin: str
    size: int
    records: int
    segments: int
    entries: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Export:
    """What goes into one bundle, checked and chosen."""

    store: ObjectStore
    log: Log
    head: Checkpoint
    checkpoint: bytes
    policy: Policy
    chosen: Sequence[Chosen]
    contents: Contents
    custody: Mapping[str, Any]
    timestamps: Sequence[bytes]


def write(
    target: BinaryIO | Path,
    *,
    store: ObjectStore,
    log: Log,
    checkpoint: bytes,
    policy: Policy,
    picks: Iterable[Pick],
    custody: Mapping[str, Any],
    now: datetime,
    timestamps: Iterable[bytes] = (),
) -> Summary:
    """Write a bundle of the picked records to an output (which need not seek) or to a new file.

    `checkpoint`: a signed note as stored, cosignature lines may have been added; it must be signed by every log key of
    `policy`. `custody`: who asks, why, by which question; canonical JSON values (no floats, no null). `timestamps`:
    RFC 3161 responses over the checkpoint.

    Raises ObjectMissing for picks that are not in the log at the checkpoint's size, FormatError naming what is damaged,
    ObjectExists when the file exists. A file is removed when writing fails; another output is left cut off.
    """
    head = signed_head(log, checkpoint, policy)
    chosen = choose(log, head, picks)
    disclosures = tuple(
        Disclosure(one.entry, one.position, one.reference.key, len(one.rows), one.reference.records, one.reference.root)
        for one in chosen
    )
    total = sum(disclosure.records for disclosure in disclosures)
    contents = Contents(head.origin, timestamp(now), Head(head.size, head.root.hex()), total, disclosures)
    stamps = tuple(timestamps)
    if any(read_timestamp(stamp).covers(checkpoint) is None for stamp in stamps):
        raise FormatError("a timestamp is over something else than this checkpoint")
    canonical.encode(custody)
    export = _Export(store, log, head, checkpoint, policy, chosen, contents, custody, stamps)
    if not isinstance(target, Path):
        return _write(export, target)
    with new_file(target) as output:
        return _write(export, output)


def _write(export: _Export, output: BinaryIO) -> Summary:
    writer = Writer(output)
    try:
        _add_statements(writer, export)
        _add_entries(writer, export)
        shown: list[cover.Shown] = []
        for number, chosen in enumerate(export.chosen, 1):
            _add_segment(writer, export.log, number, chosen, shown)
        writer.add(layout.COVER, _cover_page(export, shown).encode())
        length, digest = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    contents = export.contents
    return Summary(
        contents.origin,
        contents.checkpoint.size,
        contents.records,
        len(contents.segments),
        len(contents.entries),
        length,
        digest,
    )


def _cover_page(export: _Export, shown: list[cover.Shown]) -> str:
    first = shown[0]
    about = [
        commands.of_files(),
        *commands.of_signatures(export.checkpoint, export.policy),
        *commands.of_record(first.number, first.bytes, first.sha256, first.leaf),
        *commands.of_timestamps(export.checkpoint, export.timestamps),
    ]
    return cover.html(export.contents, export.policy, export.custody, about, shown)


def _add_statements(writer: Writer, export: _Export) -> None:
    """Everything but records and their proofs."""
    verifier = STANDALONE.read_bytes()
    writer.add(layout.README, cover.readme(export.contents, sha256(verifier).hexdigest()).encode())
    writer.add(layout.CONTENTS, layout.encode_contents(export.contents))
    writer.add(layout.CHECKPOINT, export.checkpoint)
    writer.add(layout.CUSTODY, canonical.encode(export.custody))
    writer.add(layout.POLICY, export.policy.text().encode())
    for key in commands.keys_of(export.policy):
        writer.add(layout.key_name(key), commands.pem(key))
    for number, stamp in enumerate(export.timestamps, 1):
        writer.add(layout.timestamp_name(number), stamp)
    writer.add(layout.VERIFIER, verifier)


def _add_entries(writer: Writer, export: _Export) -> None:
    for index in export.contents.entries:
        data, path = stored_entry(export.log, index, export.head)
        writer.add(layout.entry_name(index), data)
        writer.add(layout.proof_name(index), layout.tlog_proof(index, path, export.checkpoint))


def _add_segment(writer: Writer, log: Log, number: int, chosen: Chosen, shown: list[cover.Shown]) -> None:
    """Records and completing hashes of one segment. Both come from one pass, but a ZIP file takes one member at a time:
    the hashes, a thirtieth of the records or less, wait in a spool."""
    reference = chosen.reference
    with SpooledTemporaryFile(_SPOOL_BYTES) as nodes, log.contents.file(reference) as path:
        with writer.member(layout.records_name(number), compress=True) as records:
            for item in disclose(path, reference, chosen.rows):
                if isinstance(item, bytes):
                    nodes.write(item)
                    continue
                _write_frame(records, item)
                if len(shown) < SHOWN:
                    shown.append(cover.show(number, chosen, item))
        nodes.seek(0)
        with writer.member(layout.nodes_name(number), compress=False) as member:
            shutil.copyfileobj(nodes, cast("BinaryIO", member))


def _write_frame(member: MemberWriter, record: Record) -> None:
    header = record.row.to_bytes(8, "big") + record.nonce + len(record.raw).to_bytes(4, "big")
    member.write(header + record.raw)
