"""Amazon S3 server access logs: one line a request to a bucket, delivered when S3 gets to it.

A request id is shared by all lines of one request (a batch deletion has one for each key), so a line has no identity.
The account is not recorded; the bucket's owner is a canonical user id. Field reference: Amazon S3 user guide, "Amazon
S3 server access log format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import accesslog, times
from strongroom.ingest.sources.declared import events, matching, mostly
from strongroom.ingest.sources.source import TEXT, Contexts, Split

_I64 = pa.int64()
_LINE = re.compile(rb"\S+ \S+ \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] \S+ \S+ \S+ [A-Z0-9]+\.\S+ \S+ ")

# For each field in order the columns read from it: name, type, conversion (None: what the type reads).
_Column = tuple[str, pa.DataType, Callable[[str], object] | None]
_METHOD, _URI, _PROTOCOL = (accesslog.request(part) for part in range(3))
_FIELDS: tuple[tuple[_Column, ...], ...] = (
    (("bucket_owner", TEXT, None),),
    (("bucket_name", TEXT, None),),
    (("event_time", _I64, times.common_log),),
    (("source_address", TEXT, None),),
    (("requester", TEXT, None),),
    (("request_id", TEXT, None),),
    (("operation", TEXT, None),),
    (("key", TEXT, None),),
    (("method", TEXT, _METHOD), ("uri", TEXT, _URI), ("http_version", TEXT, _PROTOCOL)),
    (("status", _I64, None),),
    (("error_code", TEXT, None),),
    (("sent_bytes", _I64, None),),
    (("object_bytes", _I64, None),),
    (("total_milliseconds", _I64, None),),
    (("turnaround_milliseconds", _I64, None),),
    (("referrer", TEXT, None),),
    (("user_agent", TEXT, None),),
    (("version_id", TEXT, None),),
    (("host_id", TEXT, None),),
    (("signature_version", TEXT, None),),
    (("tls_cipher", TEXT, None),),
    (("authentication", TEXT, None),),
    (("host", TEXT, None),),
    (("tls_version", TEXT, None),),
    (("access_point_arn", TEXT, None),),
    (("acl_required", TEXT, None),),
    (("source_region", TEXT, None),),
)


class S3Access:
    """See the module."""

    name = "s3access"
    description = "Requests to S3 buckets, from server access logging"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("bucket_name", "operation", "event_time")
    summary_columns: tuple[str, ...] = ("bucket_name", "operation", "requester", "source_address", "key")
    schema = pa.schema(
        [
            *((name, kind) for columns in _FIELDS for name, kind, _ in columns if name != "event_time"),
            accesslog.EXTRA,
        ]
    )
    events: Mapping[str, str] = events(
        "s3access",
        region="source_region",
        actor="requester",
        action="operation",
        target="concat_ws('/', bucket_name, key)",
        source_address="source_address",
        outcome="""CASE WHEN status IN (401, 403) OR error_code = 'AccessDenied' THEN 'denied'
            WHEN status >= 400 THEN 'failure' WHEN status IS NOT NULL THEN 'success' END""",
        event_id="request_id",
        message="concat_ws(' ', status, error_code)",
    )

    def recognise(self, head: bytes) -> bool:
        """Most of the first lines begin with owner, bucket and a time in brackets."""
        return mostly(head, _LINE)

    def split(self, body: bytes) -> Split:
        """Lines that begin so."""
        return matching(body, _LINE, "not a line of an S3 server access log")

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by position."""
        return accesslog.table(self.schema, [_read(line) for line in raw])


def _read(line: bytes) -> Mapping[str, object]:
    if not _LINE.match(line):
        return {}
    values = accesslog.fields(line)
    row: dict[str, object] = {"extra": values[len(_FIELDS) :] or None}
    for columns, value in zip(_FIELDS, values, strict=False):
        for name, kind, convert in columns:
            row[name] = (convert or accesslog.CONVERT[kind])(value)
    return row


SOURCE = S3Access()
