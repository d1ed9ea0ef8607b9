"""S3 server access logs."""

from __future__ import annotations

from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def test_captured_lines() -> None:
    rows = sample("s3access", "clo-s3.log")
    assert len(rows) == 6
    some(
        rows[1],
        bucket_name="test-bucket",
        operation="REST.PUT.OBJECT",
        key="static/js/33.08e874ca.chunk.js",
        status=200,
        object_bytes=5283,
        sent_bytes=None,
        uri="/static/js/33.08e874ca.chunk.js",
        acl_required="Yes",
        extra=None,
    )
    assert rows[0]["event_time"] == datetime(2021, 12, 13, 9, 29, 20, tzinfo=UTC)


def test_access_point_and_events() -> None:
    content = body(SAMPLES / "s3access" / "lambda-promtail-s3accesslog.log")
    (row,) = derived("s3access", content)
    some(row, access_point_arn="arn:aws:s3:us-west-1:123456789012:accesspoint/example-AP", key=None)
    (event,) = events("s3access", content)
    some(event, action="REST.GET.VERSIONING", target="amzn-s3-demo-bucket1", outcome="success", message="200")


def test_denied_new_fields_and_broken_lines() -> None:
    line = (
        body(SAMPLES / "s3access" / "lambda-promtail-s3accesslog.log")
        .strip()
        .replace(b" 200 - ", b" 403 AccessDenied ")
    )
    content = line + b" us-west-1 later\n" + line[:60] + b"\n"
    found = SOURCES["s3access"].split(content)
    assert found.raw == [line + b" us-west-1 later"] and [b.raw for b in found.broken] == [line[:60]]
    (row,) = SOURCES["s3access"].derive(found.raw, None).to_pylist()
    some(row, error_code="AccessDenied", source_region="us-west-1", extra=["later"])
    some(events("s3access", found.raw[0])[0], outcome="denied", message="403 AccessDenied")
