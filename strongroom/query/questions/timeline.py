"""Timelines: how many records, hour by hour, for charts. Pure: from filters to SQL, and from committed counts.

The details of each commit state how many records each segment has in each hour (archive/details.py). So a timeline that
asks for nothing but time and sources is added up from these, whose hashes the log commits to, and no segment is opened.
Any other filter counts records themselves; both ways give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from strongroom.query.questions.prepared import Prepared
from strongroom.query.questions.search import Bound, Filters, hits, narrowing
from strongroom.query.views import ViewSource, quoted

Bucket = Literal["minute", "hour", "day"]
By = Literal["none", "source", "outcome", "account", "region", "action"]

_LENGTHS: Mapping[Bucket, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
MOST_AUTOMATIC = 400  # buckets of a chart that nobody chose the length for

# (source, hour since the epoch; None: records without a time) -> records
Counts = Mapping[tuple[str, int | None], int]


def automatic(span: timedelta) -> Bucket:
    """The shortest bucket that keeps a chart of `span` readable."""
    return next((b for b, length in _LENGTHS.items() if span <= MOST_AUTOMATIC * length), "day")


# Expressions are ours, quoted; values of a question are bound, never pasted.
# ruff: noqa: S608


def timeline(filters: Filters, views: Sequence[ViewSource], bucket: Bucket, by: By) -> Prepared:
    """The question for (start, group, records) in these views, in order; start is NULL for records without a time."""
    bound = Bound()
    group = "CAST(NULL AS VARCHAR)" if by == "none" else quoted(by)
    sql = (
        f"SELECT date_trunc('{bucket}', event_time) AS start, {group} AS {quoted('group')}, count(*) AS records "
        f"FROM ({hits(filters, views, bound)}) GROUP BY ALL ORDER BY 1 NULLS LAST, 2 NULLS LAST"
    )
    return Prepared(sql, bound.used(sql), narrowing(filters))


def countable(filters: Filters, bucket: Bucket, by: By) -> bool:
    """Whether committed counts can answer."""
    aligned = all(
        m is None or m == m.replace(minute=0, second=0, microsecond=0) for m in (filters.since, filters.until)
    )
    return filters.only_time_and_sources and aligned and bucket != "minute" and by in ("none", "source")


def from_counts(counts: Counts, filters: Filters, bucket: Bucket, by: By) -> list[list[Any]]:
    """Rows as `timeline` gives them, from counts of the sources that are asked for."""
    since, until = (None if m is None else hour_of(m) for m in (filters.since, filters.until))
    sums: dict[tuple[int | None, str | None], int] = {}
    for (source, hour), records in counts.items():
        if hour is None and (since is not None or until is not None):
            continue
        if hour is not None and ((since is not None and hour < since) or (until is not None and hour >= until)):
            continue
        start = hour - hour % 24 if hour is not None and bucket == "day" else hour
        key = (start, source if by == "source" else None)
        sums[key] = sums.get(key, 0) + records
    ordered = sorted(sums.items(), key=lambda item: (item[0][0] is None, item[0][0] or 0, item[0][1] or ""))
    return [[_instant(start), group, records] for (start, group), records in ordered]


def span_of(counts: Counts, filters: Filters) -> timedelta:
    """How much time there is to show: what is asked for, or from the first counted hour to the last."""
    hours = [hour for _, hour in counts if hour is not None]
    first = hour_of(filters.since) if filters.since else min(hours, default=0)
    last = hour_of(filters.until) if filters.until else max(hours, default=0) + 1
    if filters.since and filters.until:
        return filters.until - filters.since
    return timedelta(hours=max(last - first, 0))


def hour_of(moment: datetime) -> int:
    """Hours since the epoch."""
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1))


def _instant(hour: int | None) -> str | None:
    if hour is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"
