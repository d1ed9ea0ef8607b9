"""How AWS names the log objects it delivers, and how a central logs bucket is laid out. Pure.

    [prefix/]AWSLogs/[o-<org>/]<account>/<service>/<region>/YYYY/MM/DD/[HH/]<file>
    …/CloudTrail-Digest/…/<account>_CloudTrail-Digest_<region>_<trail>_<home region>_YYYYMMDDTHHMMSSZ[_backfill].json.gz

The Landing Zone Accelerator writes under this layout too, and beside it under prefixes of its own
(`CloudWatchLogs/YYYY/MM/DD/HH/…`). A day can be read from all of them; what has none is taken with every range.
Source: AWS CloudTrail user guide, "CloudTrail log file names" and "Digest file location"; Amazon VPC user guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_DAY = re.compile(r"(?:^|/)(\d{4})/(\d{1,2})/(\d{1,2})(?:/|$)|year=(\d{4})/month=(\d{1,2})/day=(\d{1,2})")
_PLACE = re.compile(
    r"(?P<root>(?:.*/)?AWSLogs/(?:(?P<organisation>o-[a-z0-9]+)/)?)(?P<account>\d{12})/"
    r"(?P<service>[^/]+)/(?P<region>[a-z]{2}[a-z0-9-]*-\d)/"
)
_DIGEST = re.compile(
    r"(?P<root>(?:.*/)?AWSLogs/(?:(?P<organisation>o-[a-z0-9]+)/)?)(?P<account>\d{12})/CloudTrail-Digest/"
    r"(?P<region>[a-z0-9-]+)/\d{4}/\d{2}/\d{2}/"
    r"\d{12}_CloudTrail-Digest_(?P=region)_(?P<trail>[^/]+)_(?P<home>[a-z]{2}[a-z0-9-]*-\d)_"
    r"(?P<end>\d{8}T\d{6}Z)(?P<backfill>_backfill)?\.json\.gz"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the layout an object lies. `root` is everything before the account."""

    root: str
    organisation: str
    account: str
    service: str
    region: str


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """Whose digests follow each other: one trail's, in one account and region.

    Backfill digests stand outside the hourly chain and are one of their own.
    """

    account: str
    region: str
    trail: str
    home: str
    backfill: bool = False

    def __str__(self) -> str:
        kind = " (backfill)" if self.backfill else ""
        return f"account {self.account}, region {self.region}, trail {self.trail} of {self.home}{kind}"


@dataclass(frozen=True, slots=True)
class DigestName:
    """What the key of a digest says: whose it is, and the end of the time it covers."""

    root: str
    chain: Chain
    end: datetime


def place_of(key: str) -> Place | None:
    """Where an AWSLogs key lies, None for any other key."""
    match = _PLACE.match(key)
    if match is None:
        return None
    return Place(match["root"], match["organisation"] or "", match["account"], match["service"], match["region"])


def digest_name(key: str) -> DigestName | None:
    """What a digest's key says, None for any other key."""
    match = _DIGEST.fullmatch(key)
    if match is None:
        return None
    try:
        end = datetime.strptime(match["end"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    chain = Chain(match["account"], match["region"], match["trail"], match["home"], bool(match["backfill"]))
    return DigestName(match["root"], chain, end)


def day_of(key: str) -> date | None:
    """The day a key says its content is of, None when it says none."""
    match = _DAY.search(key)
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        return date(year, month, day)
    except ValueError:
        return None


def is_within(key: str, since: date | None, until: date | None) -> bool:
    """Whether a key's day lies in since … until (both included); a key without a day always does."""
    day = day_of(key)
    return day is None or ((since is None or day >= since) and (until is None or day <= until))


def days(since: date, until: date) -> Iterator[date]:
    """Every day from `since` to `until`, both included."""
    for number in range((until - since).days + 1):
        yield since + timedelta(days=number)


def region_prefixes(folder: str, since: date, until: date) -> list[str]:
    """What to list below `…/<service>/<region>/` to see the days since … until and little else.

    Months where a range is long, days where it is short: a listing costs a request, and a page of strangers too.
    """
    if (until - since).days <= 31:
        return [f"{folder}{day:%Y/%m/%d}/" for day in days(since, until)]
    return sorted({f"{folder}{day:%Y/%m}/" for day in days(since, until)})
