"""CloudTrail as far as digests go: log files and signed digests in AWS's exact form, with a key of the tests' own.

Made from the user guide: field names and their order, file names, the string to sign, hexadecimal signatures in the
object's metadata, hourly digests also for empty hours.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.ingest.conftest import events

KEY = rsa.generate_private_key(65537, 2048)
DER = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
FINGERPRINT = hashlib.md5(DER, usedforsecurity=False).hexdigest()
START = datetime(2024, 5, 6, 0, 0, 31, tzinfo=UTC)


def sign(text: str, key: rsa.RSAPrivateKey = KEY) -> str:
    return key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()


@dataclass
class Stored:
    """One object as it lies in a bucket."""

    body: bytes
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Trail:
    """One trail's objects of one account and region; an organisation's when `organisation` is given."""

    account: str = "111122223333"
    region: str = "eu-west-1"
    home: str = "eu-central-1"
    name: str = "org-trail"
    organisation: str = "o-abc1234567"
    bucket: str = "central-logs"
    prefix: str = ""
    objects: dict[str, Stored] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    _last: dict[str, Any] | None = None

    @property
    def root(self) -> str:
        return f"{self.prefix}AWSLogs/{self.organisation + '/' if self.organisation else ''}"

    def digest_key(self, end: datetime, suffix: str = "") -> str:
        name = f"{self.account}_CloudTrail-Digest_{self.region}_{self.name}_{self.home}_{end:%Y%m%dT%H%M%SZ}{suffix}"
        return f"{self.root}{self.account}/CloudTrail-Digest/{self.region}/{end:%Y/%m/%d}/{name}.json.gz"

    def log_file(self, when: datetime, number: int) -> tuple[str, bytes]:
        """A log file's key and content, unlike any other's."""
        content = events(int(self.account[:3]) * 10_000 + when.hour * 100 + number)
        mark = hashlib.sha256(content).hexdigest()[:16]
        name = f"{self.account}_CloudTrail_{self.region}_{when:%Y%m%dT%H%MZ}_{mark}"
        key = f"{self.root}{self.account}/CloudTrail/{self.region}/{when:%Y/%m/%d}/{name}.json.gz"
        self.objects[key] = Stored(gzip.compress(content, mtime=0))
        return key, content

    def hour(self, number: int, files: int = 2, *, restart: bool = False, suffix: str = "") -> str:
        """Write the log files and the digest of one hour after START; the digest's key."""
        start = START + timedelta(hours=number)
        end = start + timedelta(hours=1)
        written = [self.log_file(start + timedelta(minutes=5 * n + 5), n) for n in range(files)]
        last = None if restart or suffix else self._last
        key = self.digest_key(end, suffix)
        digest = {
            "awsAccountId": self.account,
            "digestStartTime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "digestEndTime": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "digestS3Bucket": self.bucket,
            "digestS3Object": key,
            "digestPublicKeyFingerprint": FINGERPRINT,
            "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": f"{start:%Y-%m-%dT%H:%M:%SZ}" if files else None,
            "oldestEventTime": f"{start:%Y-%m-%dT%H:%M:%SZ}" if files else None,
            "previousDigestS3Bucket": self.bucket if last else None,
            "previousDigestS3Object": last and last["key"],
            "previousDigestHashValue": last and last["sha256"],
            "previousDigestHashAlgorithm": "SHA-256" if last else None,
            "previousDigestSignature": last and last["signature"],
            "logFiles": [
                {
                    "s3Bucket": self.bucket,
                    "s3Object": name,
                    "hashValue": hashlib.sha256(content).hexdigest(),
                    "hashAlgorithm": "SHA-256",
                    "newestEventTime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
                    "oldestEventTime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
                }
                for name, content in written
            ],
        }
        self.put_digest(key, digest)
        if not suffix:
            self.digests.append(key)
        return key

    def put_digest(self, key: str, digest: dict[str, Any], signer: rsa.RSAPrivateKey = KEY) -> None:
        """Sign a digest and store it, as CloudTrail would, or whoever has `signer`."""
        content = json.dumps(digest, separators=(",", ":")).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        before = digest["previousDigestSignature"] or "null"
        text = f"{digest['digestEndTime']}\n{digest['digestS3Bucket']}/{digest['digestS3Object']}\n{sha256}\n{before}"
        signature = sign(text, signer)
        metadata = {"signature": signature, "signature-algorithm": "SHA256withRSA"}
        self.objects[key] = Stored(gzip.compress(content, mtime=0), metadata)
        if not key.endswith("_backfill.json.gz"):
            self._last = {"key": key, "sha256": sha256, "signature": signature}

    def files_of(self, digest: str) -> list[str]:
        """Keys of the log files a digest names."""
        return [item["s3Object"] for item in json.loads(gzip.decompress(self.objects[digest].body))["logFiles"]]

    def change(self, key: str, old: bytes, new: bytes) -> None:
        """Replace bytes in an object's content; its metadata stays."""
        content = gzip.decompress(self.objects[key].body)
        assert old in content
        self.objects[key].body = gzip.compress(content.replace(old, new, 1), mtime=0)


def a_day(**trail: Any) -> Trail:
    """Six hours of one trail, the fourth of them empty."""
    made = Trail(**trail)
    for number in range(6):
        made.hour(number, 0 if number == 3 else 2, restart=number == 0)
    return made
