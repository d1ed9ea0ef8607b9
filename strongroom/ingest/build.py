"""From spooled batches to finished segment files: everything about sealing that costs CPU. Runs in a worker process.

The result is a function of the cut and the spooled bytes alone. Per batch: read the frame, decode, compare the digest
with what was acknowledged, split into exact records, derive columns. Then one segment per source and event date; a
record without a usable time goes under the date it was received. Rows are in the source's own order, ties in order of
arrival. What is reported of a file was computed from the file read back.

What is not a record of its source becomes a record of `quarantine`, with its bytes, the source it was meant for and the
reason. So does a whole batch, as it was received, if it could not be decoded on receipt, if its source's code fails on
it, or if it is known to kill workers (`Cut.whole`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import layout, segment
from strongroom.archive.details import BatchFacts, SegmentSummary
from strongroom.archive.entry import timestamp
from strongroom.archive.errors import FormatError
from strongroom.archive.rebuilding import Form
from strongroom.archive.segment import SegmentFacts
from strongroom.archive.verification.holdings import summarise_times
from strongroom.ingest import spool
from strongroom.ingest.batches import ELSEWHERE
from strongroom.ingest.cuts import Cut
from strongroom.ingest.decode import decode_whole
from strongroom.ingest.errors import CutTooLarge, SealFailed, SpoolDamaged
from strongroom.ingest.frames import EPOCH, BatchHeader
from strongroom.ingest.sources import BUILT_IN, SOURCES, Registry, attachment, quarantine
from strongroom.ingest.sources.entities import single_values
from strongroom.ingest.sources.source import TEXT, Rebuildable, Source, Split
from strongroom.ingest.spool import FrameAt
from strongroom.ingest.writer import Writer

MAX_GROUPS = 500
"""Row groups per segment: their roots must fit one entry."""
MAX_FORMS = 16
"""Kinds of lines of one segment that may be rebuilt; a footer stays small."""
_MAX_SUMMARY_TEXT = 200
_FIRST_DATE, _LAST_DATE = ((day - EPOCH.date()).days for day in (date(1000, 1, 1), date(9999, 12, 31)))
_DATE = "date"
_CONTEXT = pa.dictionary(pa.int32(), pa.binary())


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to build one cut. `limit` bounds the decoded content of a batch, in bytes; the files go to
    `folder`, which no other job uses."""

    cut: Cut
    writer: Writer
    frames: tuple[FrameAt, ...]
    limit: int
    folder: str
    registry: Registry = BUILT_IN
    elsewhere: frozenset[str] = frozenset()
    """Ids of batches whose records another writer sealed first."""


@dataclass(frozen=True, slots=True)
class BuiltSegment:
    """A finished segment file at `path` and what the archive will say about it."""

    source: str
    date: date
    path: str
    facts: SegmentFacts
    summary: SegmentSummary


@dataclass(frozen=True, slots=True)
class Built:
    """All segments of a cut, in order of their names, and the facts of its batches, in order."""

    segments: tuple[BuiltSegment, ...]
    batches: tuple[BatchFacts, ...]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Records of one source with the columns that belong to them: all but `raw` and those that no row fills."""

    records: list[bytes]
    columns: pa.Table


def build(job: Job) -> Built:
    """Build a cut. Raises SpoolDamaged, CutTooLarge, SealFailed, OSError, MemoryError."""
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    found: dict[str, list[_Rows]] = defaultdict(list)
    batches = []
    for place in job.frames:
        header, body = spool.read(place)
        rows, facts = _sort_out(header, body, place.sequence, job)
        batches.append(facts)
        for name, some in rows.items():
            found[name] += some
    segments = [
        built for name in sorted(found) for built in _segments(job, job.registry.sources[name], found.pop(name))
    ]
    return Built(tuple(segments), tuple(batches))


def preview(job: Job, sources: frozenset[str]) -> dict[str, str]:
    """Rows of `sources` in a job's batches, to be asked before they are sealed: source -> a file like a segment's.

    In order of arrival, one file a source whatever the dates; nothing that could be mistaken for a segment later: no
    cut was decided, and the secret is forgotten. Raises SpoolDamaged, SealFailed, OSError, MemoryError.
    """
    found: dict[str, list[_Rows]] = defaultdict(list)
    for place in job.frames:
        header, body = spool.read(place)
        for name, some in _sort_out(header, body, place.sequence, job)[0].items():
            if name in sources:
                found[name] += some
    files = {}
    for name, batches in found.items():
        records, columns = _joined(batches)
        files[name] = str(Path(job.folder) / f"{name}.parquet")
        try:
            segment.write(
                Path(files[name]),
                records,
                columns,
                typed=job.registry.sources[name].schema,
                secret=job.cut.secret(name),
                metadata={"source": name},
            )
        except FormatError as error:
            raise SealFailed(f"{files[name]}: {error.message}") from None
    return files


def carries_natural_ids(body: bytes, coding: str, source: str, limit: int, registry: Registry = BUILT_IN) -> bool:
    """Whether every record of a body (as sent) carries its source's own id, so that a repetition says nothing new."""
    kind = registry.sources[source]
    if kind.natural_id is None:
        return False
    split = kind.split(decode_whole(body, coding, limit))  # type: ignore[arg-type]  # a coding the decoder resolved
    if split.broken or not split.raw:
        return False
    return bool(kind.derive(split.raw, split.context).column(kind.natural_id).null_count == 0)


def _sort_out(header: BatchHeader, body: bytes, sequence: int, job: Job) -> tuple[dict[str, list[_Rows]], BatchFacts]:
    """One batch's rows by source, and its facts."""
    if header.batch in job.elsewhere:
        return {}, _facts(header, sequence, 0, 0, ELSEWHERE)
    if header.reason:
        return _whole(header, body, sequence, header.reason)
    if job.cut.whole:
        return _whole(header, body, sequence, "the process that parsed it died", "parser-died")
    content = decode_whole(body, header.coding, job.limit)
    if sha256(content).hexdigest() != header.sha256:
        raise SpoolDamaged(f"batch {sequence} ({header.batch}) no longer has the content that was acknowledged")
    source = job.registry.sources.get(header.source)
    if source is None:  # declared when the batch was accepted, and no longer
        return _whole(header, body, sequence, "no such source is declared any more", "source-unknown")
    try:
        split = source.split(content)
        derived = _derived(source, split) if split.raw else None
    except MemoryError:
        raise
    except Exception as error:  # a source promises not to raise; if it does, no bytes may be lost for it
        return _whole(header, body, sequence, f"the parser failed: {type(error).__name__}", "parser-failed")
    rows: dict[str, list[_Rows]] = defaultdict(list)
    if derived is not None:
        rows[source.name].append(_rows(source, header, sequence, split, derived))
    if split.broken:
        broken = _quarantined(
            header,
            sequence,
            raw=[item.raw for item in split.broken],
            positions=[item.position for item in split.broken],
            reasons=[item.reason for item in split.broken],
        )
        rows["quarantine"].append(broken)
    if split.attached:
        rows["attachment"].append(_attached(header, sequence, split))
    return rows, _facts(header, sequence, len(split.raw) + len(split.attached), len(split.broken))


def _derived(source: Source, split: Split) -> pa.Table:
    """Columns of a batch's records. They do not depend on their neighbours; so never of too many at once."""
    parts = []
    for start in range(0, len(split.raw), segment.ROW_GROUP):
        stop = start + segment.ROW_GROUP
        part = source.derive(split.raw[start:stop], split.context and split.context[start:stop])
        parts.append(_lean(source, part))
    derived = pa.concat_tables(parts, promote_options="default")
    if derived.num_rows != len(split.raw):
        raise ValueError("derived rows")
    return derived


def _lean(source: Source, columns: pa.Table) -> pa.Table:
    """The columns that some row fills. Lines are short and many: their text would weigh more than they do."""
    lean = {"event_time": columns.column("event_time")}
    encoded = isinstance(source, Rebuildable)
    for field in source.schema:
        column = columns.column(field.name)
        if column.null_count < len(column):
            lean[field.name] = column.dictionary_encode() if encoded and field.type == TEXT else column
    return pa.table(lean)


def _attached(header: BatchHeader, sequence: int, split: Split) -> _Rows:
    kind = SOURCES["attachment"]
    raw = [item.raw for item in split.attached]
    context: list[bytes | None] = [attachment.belonging(header.source, item.format) for item in split.attached]
    files = Split(raw=raw, context=context, positions=[item.position for item in split.attached], broken=[])
    return _rows(kind, header, sequence, files, kind.derive(raw, context))


def _whole(
    header: BatchHeader, body: bytes, sequence: int, reason: str, *flags: str
) -> tuple[dict[str, list[_Rows]], BatchFacts]:
    rows = _quarantined(header, sequence, raw=[body], positions=[0], reasons=[reason])
    return {"quarantine": [rows]}, _facts(header, sequence, 0, 1, *flags)


def _quarantined(
    header: BatchHeader, sequence: int, *, raw: list[bytes], positions: list[int], reasons: list[str]
) -> _Rows:
    kind = SOURCES["quarantine"]
    intended = header.intended or header.source
    context: list[bytes | None] = [quarantine.why(intended, reason) for reason in reasons]
    split = Split(raw=raw, context=context, positions=positions, broken=[])
    return _rows(kind, header, sequence, split, kind.derive(raw, context))


def _rows(source: Source, header: BatchHeader, sequence: int, split: Split, derived: pa.Table) -> _Rows:
    """Rows of one batch: the universal columns, then the source's."""
    count = len(split.raw)
    universal = {
        "event_time": derived.column("event_time"),
        "received_at": pa.repeat(pa.scalar(header.received_at, pa.int64()), count).cast(pa.timestamp("us", tz="UTC")),
        "sequence": pa.repeat(pa.scalar(sequence, pa.int64()), count),
        "position": pa.array(split.positions or range(count), pa.int64()),
        "context": pa.nulls(count, _CONTEXT) if split.context is None else _contexts(split.context),
    }
    return _Rows(split.raw, pa.table(universal | {name: derived.column(name) for name in derived.schema.names}))


def _joined(batches: list[_Rows]) -> tuple[list[bytes], pa.Table]:
    """The records of all batches and their columns. Empties the list: it would hold the columns a second time."""
    columns = pa.concat_tables([rows.columns for rows in batches], promote_options="default").unify_dictionaries()
    records = list(chain.from_iterable(rows.records for rows in batches))
    batches.clear()
    return records, columns


def _contexts(contexts: Sequence[bytes | None]) -> pa.DictionaryArray:
    """Contexts are few and may be longer than their records: each is held once."""
    distinct = [context for context in dict.fromkeys(contexts) if context is not None]
    numbers: dict[bytes | None, int] = {context: number for number, context in enumerate(distinct)}
    places = list(map(numbers.get, contexts))
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(distinct, pa.binary()))


def _facts(header: BatchHeader, sequence: int, accepted: int, quarantined: int, *flags: str) -> BatchFacts:
    return BatchFacts(
        sequence=sequence,
        id=header.batch,
        source=header.source,
        sha256=header.sha256,
        bytes=header.bytes,
        records=accepted + quarantined,
        accepted=accepted,
        quarantined=quarantined,
        received_at=timestamp(EPOCH + timedelta(microseconds=header.received_at)),
        forwarder=header.forwarder,
        protocol=header.protocol,
        address=header.address,
        key=header.key,
        name=header.name,
        flags=(*header.flags, *flags),
    )


def _segments(job: Job, source: Source, batches: list[_Rows]) -> Iterator[BuiltSegment]:
    """One source's rows as segment files, one a date, in order of the dates."""
    records, columns = _joined(batches)
    dates = _dates(columns)
    keys = [key for key in (*source.sort, "sequence", "position") if key in columns.schema.names]
    by = pa.table({_DATE: dates} | {key: _plain(columns.column(key)) for key in keys})
    order = pc.sort_indices(by, sort_keys=[(key, "ascending") for key in by.schema.names])
    # Column by column, so that never all are there twice.
    loose = {name: columns.column(name) for name in columns.schema.names}
    del columns, by
    columns = pa.table({name: loose.pop(name).combine_chunks().take(order) for name in list(loose)})
    places = order.to_pylist()
    start = 0
    for day, count in sorted((run["values"], run["counts"]) for run in pc.value_counts(dates).to_pylist()):
        rows = _Rows([records[place] for place in places[start : start + count]], columns.slice(start, count))
        start += count
        yield _segment(job, source, EPOCH.date() + timedelta(days=day), rows)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _segment(job: Job, source: Source, day: date, rows: _Rows) -> BuiltSegment:
    if len(rows.records) > MAX_GROUPS * segment.ROW_GROUP:
        raise CutTooLarge(f"{len(rows.records)} records of {source.name} on {day} are too many for one segment")
    cut, writer = job.cut, job.writer
    key = layout.segment_key(source.name, day, writer.id, writer.epoch, cut.first, cut.last)
    path = Path(job.folder) / f"{source.name}-{day}.parquet"
    metadata = {
        "source": source.name,
        "date": day.isoformat(),
        "writer": writer.id,
        "epoch": str(writer.epoch),
        "first": str(cut.first),
        "last": str(cut.last),
    }
    if fingerprint := job.registry.fingerprint(source.name):
        metadata["declaration"] = fingerprint
    try:
        forms = _forms(source, rows.columns)
        facts = segment.write(
            path,
            rows.records,
            rows.columns,
            typed=source.schema,
            secret=cut.secret(key),
            metadata=metadata,
            forms=forms,
            filtered=single_values(source),
        )
    except FormatError as error:
        # Memory, disk or encoder lied. Committing would seal the error for ever; building again may not repeat it.
        raise SealFailed(f"{path}: {error.message}", hint="check this machine's memory and disk") from None
    return BuiltSegment(source.name, day, str(path), facts, _summary(key, source, day, rows.columns))


def _forms(source: Source, rows: pa.Table) -> list[Form]:
    """How the rows' records are made of their columns, for the contexts that a source of lines knows."""
    if not isinstance(source, Rebuildable):
        return []
    contexts = sorted(set(rows.column("context").unique().to_pylist()), key=lambda context: context or b"")
    return [form for context in contexts[:MAX_FORMS] if (form := source.form(context)) is not None]


def _summary(key: str, source: Source, day: date, rows: pa.Table) -> SegmentSummary:
    records, earliest, latest, hours = summarise_times(rows.column("event_time"))
    columns: dict[str, tuple[str, str]] = {}
    for name in source.summary_columns:
        if name not in rows.schema.names:
            continue
        column = rows.column(name)
        distinct = _plain(column.unique()) if pa.types.is_dictionary(column.type) else column
        low, high = pc.min_max(distinct).as_py().values()
        if low is not None and max(len(low), len(high)) <= _MAX_SUMMARY_TEXT:
            columns[name] = (low, high)
    return SegmentSummary(
        key=key,
        source=source.name,
        date=day.isoformat(),
        records=records,
        min_time=earliest,
        max_time=latest,
        hours=hours,
        columns=columns,
    )


def _dates(table: pa.Table) -> pa.ChunkedArray:
    """Per row the segment's date, in days since the epoch: of the event, else of the receipt.

    Times outside the years 1000 … 9999 are no dates an object name can carry; such records, too, go by receipt.
    """
    event = table.column("event_time").cast(pa.date32()).cast(pa.int32())
    usable = pc.and_(pc.greater_equal(event, _FIRST_DATE), pc.less_equal(event, _LAST_DATE))
    received = table.column("received_at").cast(pa.date32()).cast(pa.int32())
    return pc.if_else(pc.fill_null(usable, False), event, received)
