"""What queue messages say: every shape AWS sends, and any bytes at all."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.errors import NotificationInvalid, OutsidePerimeter
from strongroom.ingest.fetch.notifications import Notification, parse
from strongroom.ingest.fetch.objects import Perimeter, S3Object, bucket_and_key


def created(key: str, *, name: str = "ObjectCreated:Put", version: str = "2.1", **found: Any) -> dict[str, Any]:
    """One record of S3's own notification."""
    return {
        "eventVersion": version,
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2024-05-06T10:00:00.000Z",
        "eventName": name,
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "central-logs"}, "object": {"key": key, **found}},
    }


def from_eventbridge(kind: str, key: str, **found: Any) -> dict[str, Any]:
    detail = {"version": "0", "bucket": {"name": "central-logs"}, "object": {"key": key, **found}}
    return {"version": "0", "source": "aws.s3", "detail-type": kind, "account": "111122223333", "detail": detail}


def through_sns(message: Any) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:…", "Message": json.dumps(message)}


DIRECT = {"Records": [created("a+b/%C3%A4+1%2B2.gz", size=5, eTag="0a", versionId="v1", sequencer="0055")]}
OBJECT = S3Object("central-logs", "a b/ä 1+2.gz", "v1", "0a", 5)


@pytest.mark.parametrize(
    ("message", "objects"),
    [
        (DIRECT, [OBJECT]),
        (through_sns(DIRECT), [OBJECT]),
        ({"Records": [DIRECT["Records"][0]] * 2 + [created("c")]}, [OBJECT, S3Object("central-logs", "c")]),
        ({"Records": [created("c", name="s3:ObjectCreated:CompleteMultipartUpload", version="2.5")]},
         [S3Object("central-logs", "c")]),
        # EventBridge's and CloudTrail's keys are literal.
        (from_eventbridge("Object Created", "a+b%20c", size=0, etag="0a", **{"version-id": "v2"}),
         [S3Object("central-logs", "a+b%20c", "v2", "0a", 0)]),
        (through_sns({"s3Bucket": "central-logs", "s3ObjectKey": ["x+y", "z"]}),
         [S3Object("central-logs", "x+y"), S3Object("central-logs", "z")]),
        (through_sns({"messageType": "ConfigurationHistoryDeliveryCompleted", "s3Bucket": "bkt", "s3ObjectKey": "k"}),
         [S3Object("bkt", "k")]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "central-logs"}, []),
        (through_sns({"Service": "Amazon S3", "Event": "s3:TestEvent"}), []),
        ({"Records": [created("gone", name="ObjectRemoved:DeleteMarkerCreated")]}, []),
        (from_eventbridge("Object Deleted", "gone"), []),
        ({"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe…"}, []),
        (through_sns({"messageType": "ConfigurationItemChangeNotification", "configurationItem": {}}), []),
    ],
)  # fmt: skip
def test_every_shape(message: Any, objects: list[S3Object]) -> None:
    found = parse(json.dumps(message))
    assert list(found.objects) == objects
    assert bool(found.ignored) != bool(objects)


@pytest.mark.parametrize(
    "message",
    [
        {"hello": "world"},
        {"Records": {}},
        {"Records": [{"eventSource": "aws:dynamodb"}]},
        {"Records": [created("a%FF%FE")]},
        {"Records": [created("")]},
        {"Records": [created("k", version="3.0")]},
        {"Records": [created("k" * 1025)]},
        {"s3Bucket": "arn:aws:s3:::b", "s3ObjectKey": "k"},
        {"Type": "Notification", "Message": "plain text"},
        {"messageType": "DATA_MESSAGE", "logEvents": []},
        [],
        "text",
    ],
)
def test_what_is_no_notification_is_said_to_be_none(message: Any) -> None:
    with pytest.raises(NotificationInvalid):
        parse(json.dumps(message))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _somewhere(value: Any, path: list[Any], odd: Any) -> Any:
    """`value` with `odd` in the place that `path` leads to."""
    if not path:
        return odd
    if isinstance(value, dict):
        name = path[0] if path[0] in value else next(iter(value), "x")
        return {**value, name: _somewhere(value.get(name), path[1:], odd)}
    if isinstance(value, list) and value:
        return [_somewhere(value[0], path[1:], odd), *value[1:]]
    return odd


@given(st.binary() | st.text() | JSON.map(json.dumps))
def test_any_bytes_are_understood_or_refused(body: bytes | str) -> None:
    with contextlib.suppress(NotificationInvalid):
        assert isinstance(parse(body), Notification)


@given(
    st.sampled_from([DIRECT, from_eventbridge("Object Created", "k"), {"s3Bucket": "bkt", "s3ObjectKey": ["k"]}]),
    st.lists(st.sampled_from(["Records", "s3", "bucket", "name", "object", "key", "detail", "s3ObjectKey", "size"])),
    JSON,
)
def test_one_with_anything_anywhere_is_understood_or_refused(message: Any, path: list[Any], odd: Any) -> None:
    for body in (json.dumps(_somewhere(message, path, odd)), json.dumps(through_sns(_somewhere(message, path, odd)))):
        try:
            found = parse(body)
        except NotificationInvalid:
            continue
        for item in found.objects:
            assert bucket_and_key(item.name) == (item.bucket, item.key) or "?versionId=" in item.key


def test_the_same_content_has_one_key_and_other_content_another() -> None:
    versioned = S3Object("b-1", "k", "v1", "e1", 3)
    assert versioned.idempotency_key == S3Object("b-1", "k", "v1").idempotency_key
    assert versioned.idempotency_key != S3Object("b-1", "k", "v2", "e1").idempotency_key
    plain = S3Object("b-1", "k", "null", "e1", 3)
    assert plain.idempotency_key == S3Object("b-1", "k", "", "e1").idempotency_key
    assert plain.idempotency_key != S3Object("b-1", "k", "null", "e2").idempotency_key


def test_the_perimeter_names_buckets_and_their_owners() -> None:
    perimeter = Perimeter.parse("central-logs=111122223333, aws-accelerator-*")
    assert perimeter.owner("central-logs") == "111122223333"
    assert perimeter.owner("aws-accelerator-central-logs-1") == ""
    with pytest.raises(OutsidePerimeter):
        perimeter.owner("elsewhere")
    for odd in ("a b", "central-logs=12", "s3://central-logs"):
        with pytest.raises(ValueError, match="no bucket"):
            Perimeter.parse(odd)
