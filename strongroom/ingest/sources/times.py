"""Event times: from what logs write to microseconds since 1970 in UTC.

ISO 8601 in its usual spellings (`T` or a space, any number of decimals, `Z`, an offset or nothing, which means UTC) and
numbers since the epoch in seconds, milli-, micro- or nanoseconds, told apart by their size. Anything else is None: an
unknown time is better than a wrong one. Decimals beyond the microsecond are cut off. Access logs write the time as the
Common Log Format does, `06/Feb/2019:00:00:38 +0000`: `common_log`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.ingest.sources.source import TIME

_ISO = re.compile(
    r"([12]\d{3})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_CANONICAL = r"^[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"
_COMMON_LOG = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d [+-]\d{4})", re.ASCII)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Sizes that tell the unit of an epoch number: seconds reach 1e11 in the year 5138, and so on by thousands. Numbers
# before 1973 are counters, not times.
_SMALLEST = 1e8
_UNITS: tuple[tuple[float, int, int], ...] = ((1e11, 1_000_000, 1), (1e14, 1_000, 1), (1e17, 1, 1), (1e20, 1, 1_000))


def microseconds(value: object) -> int | None:
    """One time as microseconds since the epoch, or None when it is not understood."""
    if isinstance(value, str):
        value = value.strip()
        match = _ISO.fullmatch(value)
        if match:
            return _from_iso(match)
        try:
            value = float(value) if not value.isdigit() else int(value[:25])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    for limit, times, over in _UNITS:
        if _SMALLEST <= value < limit:
            return int(value * times // over) if isinstance(value, int) else round(value * times / over)
    return None


def common_log(value: str) -> int | None:
    """A time of the Common Log Format, without its brackets, as microseconds since the epoch, or None."""
    match = _COMMON_LOG.fullmatch(value)
    if match is None or match[2] not in MONTHS:
        return None
    return microseconds(f"{match[3]}-{MONTHS.index(match[2]) + 1:02}-{match[1]}T{match[4]}")


def array(values: Sequence[str | None]) -> pa.Array:
    """Many times at once. AWS's own spelling is parsed by Arrow, whole columns at a time; the result for a value is
    the same as `microseconds` gives, whatever stands beside it."""
    texts = pa.array(values, pa.string())
    canonical = pc.match_substring_regex(texts, _CANONICAL)
    if pc.all(canonical, min_count=0).as_py() is not False:
        try:
            return texts.cast(TIME)
        except pa.ArrowInvalid:
            pass  # the thirteenth month of some record: each on its own, then
    return pa.array([microseconds(value) for value in values], pa.int64()).cast(TIME)


def _from_iso(match: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second, decimals, zone = match.groups()
    micro = int((decimals or "0")[:6].ljust(6, "0"))
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro, tzinfo=UTC
        )
    except ValueError:
        return None
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        try:
            moment = moment - offset if zone[0] == "+" else moment + offset
        except OverflowError:
            return None
    return (moment - _EPOCH) // _MICROSECOND
