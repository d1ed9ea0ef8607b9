"""CloudTrail digest files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, some


def digest(*files: str) -> bytes:
    name = "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2024/05/06/x_20240506T100000Z.json.gz"
    return json.dumps(
        {
            "awsAccountId": "111122223333",
            "digestStartTime": "2024-05-06T09:00:00Z",
            "digestEndTime": "2024-05-06T10:00:00Z",
            "digestS3Bucket": "logs",
            "digestS3Object": f"org/{name}",
            "digestPublicKeyFingerprint": "31e8",
            "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": "2024-05-06T09:59:00Z" if files else None,
            "oldestEventTime": "2024-05-06T09:01:00Z" if files else None,
            "previousDigestS3Object": None,
            "previousDigestHashValue": None,
            "logFiles": [{"s3Bucket": "logs", "s3Object": f, "hashValue": f"hash of {f}"} for f in files],
        },
        indent=1,
    ).encode()


def test_one_file_is_one_record() -> None:
    content = digest("a", "b")
    assert SOURCES["cloudtraildigest"].split(content).raw == [content]
    (row,) = derived("cloudtraildigest", content)
    some(
        row,
        account="111122223333",
        region="eu-west-1",
        file_count=2,
        file_objects=["a", "b"],
        file_hashes=["hash of a", "hash of b"],
        event_time=datetime(2024, 5, 6, 10, tzinfo=UTC),
        previous_hash=None,
    )
    (event,) = events("cloudtraildigest", content)
    some(event, event_id=row["digest_object"], message="2 log files")


def test_an_hour_without_files() -> None:
    (row,) = derived("cloudtraildigest", digest())
    some(row, file_count=0, file_objects=None, newest_event_time=None)
