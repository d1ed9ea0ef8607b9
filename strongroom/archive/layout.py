"""Every object name of the archive format, in one place (docs/format.md §2). Pure.

Numbers in names are zero-padded to 20 digits so that listing order is numeric order.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import NamedTuple

IDENTITY = "archive.json"
ENTRIES = "log/entry/"
CHECKPOINTS = "log/checkpoint/"
TILES = "log/tile/"
COSIGNATURES = "log/cosigned/"
TIMESTAMPS = "log/timestamp/"
SEGMENTS = "segments/"
DETAILS = "details/"
REPORTS = "reports/"
ENCRYPTED = ".enc"  # ends the name of an object that is an envelope (docs/format.md §11)
SPOOL = "spool/"
ORDERS = "orders/"
CANARIES = "canary/"

WRITER_ID = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
SOURCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
REPORT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_SEGMENT_KEY = re.compile(
    r"segments/source=(?P<source>[a-z][a-z0-9_]{0,62})/date=(?P<date>\d{4}-\d{2}-\d{2})/"
    r"(?P<writer>[a-z0-9][a-z0-9_]{0,62})-(?P<epoch>\d+)-(?P<first>\d{20})-(?P<last>\d{20})(?:-r(?P<retry>\d+))?\.parquet(?:\.enc)?"
)
_DETAILS_KEY = re.compile(
    r"details/(?P<writer>[a-z0-9][a-z0-9_]{0,62})/(?P<epoch>\d+)/(?P<first>\d{20})-(?P<last>\d{20})(?:-[pr]\d+)*\.json(?:\.enc)?"
)
_SPOOL_KEY = re.compile(
    r"spool/(?P<writer>[a-z0-9][a-z0-9_]{0,62})/(?P<epoch>[1-9]\d*)/"
    r"(?P<first>\d{20})-(?P<last>\d{20})(?:-r(?P<attempt>[1-9]\d*))?(?P<cut>\.cut)?(?P<encrypted>\.enc)?"
)
_STATEMENT_KEY = re.compile(r"log/cosigned/(?P<cosigned>\d{20})/[0-9a-f]{8}|log/timestamp/(?P<stamped>\d{20})\.tsr")


def entry_key(index: int) -> str:
    """Name of the log entry at `index` (0-based)."""
    return f"{ENTRIES}{index:020d}"


def checkpoint_key(size: int) -> str:
    """Name of the signed checkpoint for a tree of `size` entries."""
    return f"{CHECKPOINTS}{size:020d}"


def cosignature_key(size: int, key_id: bytes) -> str:
    """Name of a witness's cosignature lines over the checkpoint of `size`."""
    return f"{COSIGNATURES}{size:020d}/{key_id.hex()}"


def timestamp_key(size: int) -> str:
    """Name of the RFC 3161 time-stamp response over the checkpoint of `size`."""
    return f"{TIMESTAMPS}{size:020d}.tsr"


def size_of_statement(key: str) -> int | None:
    """The tree size a cosignature's or timestamp's name carries, None for any other name."""
    match = _STATEMENT_KEY.fullmatch(key)
    return int(match["cosigned"] or match["stamped"]) if match else None


def index_of(key: str) -> int | None:
    """The number a log/entry or log/checkpoint name carries, None for any other name."""
    for prefix in (ENTRIES, CHECKPOINTS):
        digits = key.removeprefix(prefix)
        if digits != key and len(digits) == 20 and digits.isascii() and digits.isdigit():
            return int(digits)
    return None


def segment_key(source: str, day: date, writer: str, epoch: int, first: int, last: int, retry: int = 0) -> str:
    """Name of the segment of `source` and event date `day` from the writer's batches first..last.

    Deterministic, so that sealing again after a crash finds its own object. `retry` > 0 names the replacement when
    that object turns out to hold something else.
    """
    suffix = f"-r{retry}" if retry else ""
    return f"{SEGMENTS}source={source}/date={day.isoformat()}/{writer}-{epoch}-{first:020d}-{last:020d}{suffix}.parquet"


def details_key(writer: str, epoch: int, first: int, last: int, part: int = 1, retry: int = 0) -> str:
    """Name of the details object of one commit; `part` counts from 1 when a commit needs several entries."""
    suffix = (f"-p{part}" if part > 1 else "") + (f"-r{retry}" if retry else "")
    return f"{DETAILS}{writer}/{epoch}/{first:020d}-{last:020d}{suffix}.json"


def spool_folder(writer: str, epoch: int) -> str:
    """What the names of an epoch's spool objects start with."""
    return f"{SPOOL}{writer}/{epoch}/"


def spool_key(writer: str, epoch: int, first: int, last: int, attempt: int = 0) -> str:
    """Name of the spool object with the writer's batches first … last; `attempt` counts the groups that were given up
    before it in its epoch."""
    return f"{spool_folder(writer, epoch)}{first:020d}-{last:020d}{f'-r{attempt}' if attempt else ''}"


def cut_key(writer: str, epoch: int, first: int, last: int) -> str:
    """Name of the spool object that says with which seed the batches first … last are sealed together."""
    return f"{spool_folder(writer, epoch)}{first:020d}-{last:020d}.cut"


class SpoolName(NamedTuple):
    """What the name of a spool object says. `cut`: it is a cut's, not batches; `encrypted`: it is an envelope."""

    writer: str
    epoch: int
    first: int
    last: int
    attempt: int
    cut: bool
    encrypted: bool

    @property
    def key(self) -> str:
        """The name itself."""
        key = spool_key(self.writer, self.epoch, self.first, self.last, self.attempt)
        return f"{key}{'.cut' if self.cut else ''}{ENCRYPTED if self.encrypted else ''}"


def parse_spool(key: str) -> SpoolName | None:
    """What a spool object's name says, None for any other name."""
    match = _SPOOL_KEY.fullmatch(key)
    if match is None or (match["cut"] and match["attempt"]):
        return None
    epoch, first, last, attempt = (int(match[name] or 0) for name in ("epoch", "first", "last", "attempt"))
    return SpoolName(match["writer"], epoch, first, last, attempt, bool(match["cut"]), bool(match["encrypted"]))


def report_key(day: date, report: str) -> str:
    """Name of the report `report` of a verification that began on `day` (UTC)."""
    return f"{REPORTS}{day.isoformat()}/{report}.json"


def report_of(key: str) -> str | None:
    """The id a report's name carries, None when the name is not a report's."""
    match = re.fullmatch(rf"{REPORTS}\d{{4}}-\d{{2}}-\d{{2}}/({REPORT_ID.pattern})\.json(?:\.enc)?", key)
    return match[1] if match else None


def order_key(day: date, order: str) -> str:
    """Name of the order `order` (32 hexadecimal digits) given on `day` (UTC)."""
    return f"{ORDERS}{day.isoformat()}/{order}.json"


class Place(NamedTuple):
    """Whose batches an object's name says it holds."""

    writer: str
    epoch: int
    first: int
    last: int


def place_of(key: str) -> Place | None:
    """What the name of a segment or details object says, None for any other name."""
    match = _SEGMENT_KEY.fullmatch(key) or _DETAILS_KEY.fullmatch(key)
    return Place(match["writer"], int(match["epoch"]), int(match["first"]), int(match["last"])) if match else None


def canary_key(now: datetime, name: str) -> str:
    """Name of an object on which a bucket's locks are tried; `name`: hexadecimal digits."""
    return f"{CANARIES}{now:%Y-%m-%dT%H%M%SZ}-{name}"


def is_canary(key: str) -> bool:
    """Whether the name is one that `canary_key` gives."""
    return re.fullmatch(rf"{CANARIES}\d{{4}}-\d{{2}}-\d{{2}}T\d{{6}}Z-[0-9a-f]{{1,64}}", key) is not None


def segment_source(key: str) -> str | None:
    """The source a segment name carries, None when the name is not a segment's."""
    match = _SEGMENT_KEY.fullmatch(key)
    return match["source"] if match else None


def segment_date(key: str) -> date | None:
    """The event date a segment name carries, None when the name is not a segment's."""
    match = _SEGMENT_KEY.fullmatch(key)
    try:
        return date.fromisoformat(match["date"]) if match else None
    except ValueError:
        return None
