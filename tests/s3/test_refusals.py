"""What an insider, or a careless hand, tries on a locked bucket, and what the server at hand does about it.

Each S3 implementation has its own column, seen and written down here: where moto and Ceph's gateway differ from S3, the
archive's own checks (verification, the lock canary) have to carry the weight. docs/s3.md shows the same table.
`STRONGROOM_TEST_S3` and `STRONGROOM_TEST_S3_NAME` choose the server; without, it is moto's.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.buckets import S3

pytestmark = pytest.mark.system

SERVER = os.environ.get("STRONGROOM_TEST_S3_NAME", "moto")


@dataclass(frozen=True)
class Locked:
    """A bucket with Object Lock and one object, `key`, locked in a mode until `until`."""

    client: Any
    bucket: str
    key: str
    version: str
    until: datetime

    @property
    def exact(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key, "VersionId": self.version}

    def put(self, body: bytes = b"x", checksum_of: bytes | None = None, key: str = "", **more: Any) -> Any:
        digest = sha256(body if checksum_of is None else checksum_of).digest()
        return self.client.put_object(
            Bucket=self.bucket,
            Key=key or self.key,
            Body=body,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=b64encode(digest).decode(),
            **more,
        )

    def retain(self, mode: str, until: datetime, **more: Any) -> Any:
        return self.client.put_object_retention(
            **self.exact, Retention={"Mode": mode, "RetainUntilDate": until}, **more
        )

    def hold(self, status: str) -> Any:
        return self.client.put_object_legal_hold(**self.exact, LegalHold={"Status": status})


def lock(s3: S3, mode: str) -> Locked:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    made = Locked(s3.client, s3.new_bucket(), "object", "", until)
    locked = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until} if mode else {}
    return Locked(made.client, made.bucket, made.key, made.put(**locked)["VersionId"], until)


def held(locked: Locked) -> Any:
    locked.hold("ON")
    return locked.client.delete_object(**locked.exact)


def over_a_marker(locked: Locked) -> Any:
    locked.client.delete_object(Bucket=locked.bucket, Key=locked.key)
    return locked.put(IfNoneMatch="*")


def suspend(locked: Locked) -> Any:
    return locked.client.put_bucket_versioning(Bucket=locked.bucket, VersioningConfiguration={"Status": "Suspended"})


SOON = timedelta(minutes=50)
# attempt: (mode, what is tried)
ATTEMPTS: dict[str, tuple[str, Callable[[Locked], Any]]] = {
    "create a taken name": ("COMPLIANCE", lambda o: o.put(IfNoneMatch="*")),
    "put bytes with another SHA-256": ("COMPLIANCE", lambda o: o.put(b"y", checksum_of=b"x", key="other")),
    "delete a version": ("COMPLIANCE", lambda o: o.client.delete_object(**o.exact)),
    "delete a version, bypassing governance": (
        "COMPLIANCE",
        lambda o: o.client.delete_object(**o.exact, BypassGovernanceRetention=True),
    ),
    "shorten COMPLIANCE": ("COMPLIANCE", lambda o: o.retain("COMPLIANCE", o.until - SOON)),
    "shorten COMPLIANCE, bypassing governance": (
        "COMPLIANCE",
        lambda o: o.retain("COMPLIANCE", o.until - SOON, BypassGovernanceRetention=True),
    ),
    "weaken COMPLIANCE to GOVERNANCE": ("COMPLIANCE", lambda o: o.retain("GOVERNANCE", o.until)),
    "delete a GOVERNANCE version": ("GOVERNANCE", lambda o: o.client.delete_object(**o.exact)),
    "shorten GOVERNANCE": ("GOVERNANCE", lambda o: o.retain("GOVERNANCE", o.until - SOON)),
    "delete a held version": ("", held),
    "suspend versioning": ("COMPLIANCE", suspend),
    # Object Lock protects versions, not names: no S3 refuses these. Verification finds them.
    "lift a legal hold": ("", lambda o: o.hold("OFF")),
    "delete the name (a marker)": (
        "COMPLIANCE",
        lambda o: o.client.delete_object(Bucket=o.bucket, Key=o.key),
    ),
    "put a newer version": ("COMPLIANCE", lambda o: o.put(b"forged")),
    "create a name under a marker": ("COMPLIANCE", over_a_marker),
}
NEVER_REFUSED = {
    "lift a legal hold",
    "delete the name (a marker)",
    "put a newer version",
    "create a name under a marker",
}
# What a server lets pass though S3 refuses it.
LETS_PASS = {
    "aws": set[str](),
    "moto": {
        "put bytes with another SHA-256",
        "shorten COMPLIANCE",
        "shorten COMPLIANCE, bypassing governance",
        "weaken COMPLIANCE to GOVERNANCE",
        "shorten GOVERNANCE",
        "suspend versioning",
    },
    "ceph": {"create a taken name", "put bytes with another SHA-256"},
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempt(s3: S3, attempt: str) -> None:
    mode, what = ATTEMPTS[attempt]
    locked = lock(s3, mode)
    try:
        what(locked)
        refused = False
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403, 409, 412), error
        refused = True
    assert refused == (attempt not in NEVER_REFUSED | LETS_PASS[SERVER])
    # Whatever was tried: where it was refused or only put something on top, the locked bytes are still there.
    if refused or attempt in NEVER_REFUSED:
        assert locked.client.get_object(**locked.exact)["Body"].read() == b"x"


def test_the_page_shows_what_was_seen() -> None:
    page = (Path(__file__).parents[2] / "docs" / "s3.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    written = {cells[0]: cells[1:4] for cells in rows if cells[0] in ATTEMPTS}
    servers = ("aws", "moto", "ceph")
    for attempt in ATTEMPTS:
        refused = [attempt not in NEVER_REFUSED | LETS_PASS[server] for server in servers]
        assert written[attempt] == ["refused" if one else "allowed" for one in refused], attempt
