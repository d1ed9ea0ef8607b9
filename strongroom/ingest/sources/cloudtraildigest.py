"""CloudTrail digest files: the hourly, signed lists of the log files CloudTrail delivered.

A file is one JSON object and one record, also for an hour without log files. Its signature is the S3 object's metadata
and not in the file. Each digest names the one before it with its hash and signature, so with the files sealed the chain
can be followed here. Its identity is the name of its object. Reference: AWS CloudTrail user guide, "CloudTrail digest
file structure".
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXTS, TIME


def _region(name: Any) -> str | None:
    """Of an object `…/CloudTrail-Digest/<region>/…`: the region whose log files are listed."""
    after = name.partition("/CloudTrail-Digest/")[2] if isinstance(name, str) else ""
    return after.partition("/")[0] or None


def _count(files: Any) -> int | None:
    return len(files) if isinstance(files, list) else None


SOURCE = JsonSource(
    name="cloudtraildigest",
    description="Hourly signed digests of CloudTrail's log files",
    columns=(
        field("event_time", "digestEndTime", type=TIME),
        field("account", "awsAccountId"),
        field("region", "digestS3Object", convert=_region),
        field("start_time", "digestStartTime", type=TIME),
        field("end_time", "digestEndTime", type=TIME),
        field("bucket_name", "digestS3Bucket"),
        field("digest_object", "digestS3Object"),
        field("key_fingerprint", "digestPublicKeyFingerprint"),
        field("signature_algorithm", "digestSignatureAlgorithm"),
        field("oldest_event_time", "oldestEventTime", type=TIME),
        field("newest_event_time", "newestEventTime", type=TIME),
        field("previous_object", "previousDigestS3Object"),
        field("previous_hash", "previousDigestHashValue"),
        field("previous_signature", "previousDigestSignature"),
        field("file_count", "logFiles", type=pa.int64(), convert=_count),
        # Parallel as far as every file has both, as all of CloudTrail's own have.
        field("file_objects", "logFiles.*.s3Object", type=TEXTS),
        field("file_hashes", "logFiles.*.hashValue", type=TEXTS),
    ),
    events=events(
        "cloudtraildigest",
        account="account",
        region="region",
        action="'digest'",
        target="digest_object",
        event_id="digest_object",
        message="concat(file_count, ' log files')",
    ),
    sort=("account", "region", "event_time"),
    summary_columns=("account", "region", "bucket_name"),
    marks=(("digestS3Object", "digestEndTime"),),
    natural_id="digest_object",
)
