"""How AWS names the log objects it delivers, and how a central logs bucket is laid out. Pure.

    [prefix/]AWSLogs/[o-<org>/]<account>/<service>/<region>/YYYY/MM/DD/[HH/]<file>
    …/CloudTrail-Digest/…/<account>_CloudTrail-Digest_<region>_<trail>_<home region>_YYYYMMDDTHHMMSSZ[_backfill].json.gz

The Landing Zone Accelerator writes under this layout too, and beside it under prefixes of its own
(`CloudWatchLogs/YYYY/MM/DD/HH/…`). A day can be read from all of them; what has none is taken with every range.
Source: AWS CloudTrail user guide, "CloudTrail log file names" and "Digest file location"; Amazon VPC user guide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_DATE = re.compile(
    r"(?:^|/)(?:year=)?(?P<year>(?:19|20)\d{2})/(?:(?:month=)?(?P<month>\d{1,2})/(?:(?:day=)?(?P<day>\d{1,2})/)?)?"
)
_WRITTEN = re.compile(r"_CloudTrail_[a-z0-9-]+_(\d{8}T\d{2})\d{2}Z_[^/]*$")
_DEEPEST = 12
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


def hour_of_file(key: str) -> datetime | None:
    """The hour in which CloudTrail wrote a log file, by its name; None when it says none."""
    match = _WRITTEN.search(key)
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def period_of(path: str) -> tuple[date, date] | None:
    """First and last day that a path's date folders allow: a year's, a month's or a day's; None when it has none."""
    match = _DATE.search(path)
    if match is None:
        return None
    year, month, day = (int(part) if part else None for part in match.group("year", "month", "day"))
    try:
        if year is None or month is None:
            return date(year or 1, 1, 1), date(year or 1, 12, 31)
        first = date(year, month, day or 1)
    except ValueError:
        return None
    following = date(year + month // 12, month % 12 + 1, 1)
    return first, first if day is not None else following - timedelta(days=1)


def is_within(path: str, since: date | None, until: date | None) -> bool:
    """Whether a path can hold something of since … until (both included); without a date it always can."""
    period = period_of(path)
    return period is None or ((since is None or period[1] >= since) and (until is None or period[0] <= until))


def is_leaf(folder: str) -> bool:
    """Whether a folder is listed whole: a day's, or one that is too deep to hold further accounts and regions."""
    match = _DATE.search(folder)
    return (match is not None and match["day"] is not None) or folder.count("/") > _DEEPEST
