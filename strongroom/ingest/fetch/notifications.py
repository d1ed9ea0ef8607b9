"""What a queue message says about S3 objects. Pure, and safe for any bytes: a message comes from outside.

Shapes, as AWS sends them (Amazon S3 user guide, "Event message structure"; EventBridge, "Amazon S3 events"):

    S3 → SQS                  {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:…", "s3": {…}}]}
    S3, when configured       {"Service": "Amazon S3", "Event": "s3:TestEvent", …}
    S3 → SNS → SQS            {"Type": "Notification", "Message": "<one of these as text>"}; raw delivery: as S3 → SQS
    EventBridge → SQS         {"source": "aws.s3", "detail-type": "Object Created", "detail": {…}}
    CloudTrail or Config → SNS → SQS    {"s3Bucket": "…", "s3ObjectKey": "…" or […]}

Rules:

1. Keys in S3's own notifications are form-encoded and decoded exactly once; those of the others are literal.
2. What announces no new object (deletions, restores, test events) is understood and needs nothing done.
3. What has none of these shapes raises NotificationInvalid: it is a mistake of whoever sends it, and kept for him.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from strongroom.ingest.errors import NotificationInvalid
from strongroom.ingest.fetch.objects import S3Object, is_address

# AWS Config tells its topic much that is no delivery of a file; what it tells about items lies in its files too.
_CONFIG_ONLY = frozenset(
    {
        *("ConfigurationItemChangeNotification", "OversizedConfigurationItemChangeNotification"),
        *("ComplianceChangeNotification", "ConfigRulesEvaluationStarted", "ConfigurationSnapshotDeliveryStarted"),
        *("ConfigurationSnapshotDeliveryFailed", "ConfigurationHistoryDeliveryFailed"),
    }
)


@dataclass(frozen=True, slots=True)
class Notification:
    """The objects a message announces, each once, and in words what else it said."""

    objects: tuple[S3Object, ...] = ()
    ignored: tuple[str, ...] = ()


def parse(body: str | bytes) -> Notification:
    """What a message body announces. Raises NotificationInvalid."""
    message = _decode(body)
    if message.get("Type") == "Notification" and "Message" in message:
        message = _decode(_text(message, "Message"))
    if message.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return Notification(ignored=("a subscription's own message",))
    if message.get("Event") == "s3:TestEvent":
        return Notification(ignored=("a test event",))
    if "Records" in message:
        return _collect(_from_s3(message))
    if message.get("source") == "aws.s3":
        return _collect(_from_eventbridge(message))
    if "s3Bucket" in message and "s3ObjectKey" in message:
        return _collect(_from_service(message))
    if message.get("messageType") in _CONFIG_ONLY:
        return Notification(ignored=("a message of AWS Config's without an object",))
    raise NotificationInvalid("the message has none of the shapes of an S3 notification")


def _from_s3(message: dict[str, Any]) -> Iterator[S3Object | str]:
    records = message["Records"]
    if not isinstance(records, list):
        raise NotificationInvalid("Records is no list")
    for record in records:
        if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":
            raise NotificationInvalid("a record is no S3 event")
        if not str(record.get("eventVersion", "2")).startswith("2."):
            raise NotificationInvalid("a record is of an event version that is not 2.x")
        name = _text(record, "eventName").removeprefix("s3:")
        if not name.startswith("ObjectCreated:"):
            yield f"an event {name.partition(':')[0]}"
            continue
        told = _member(record, "s3")
        found = _member(told, "object")
        try:
            key = unquote_plus(_text(found, "key"), errors="strict")
        except UnicodeDecodeError:
            raise NotificationInvalid("a key is not UTF-8") from None
        yield _object(_text(_member(told, "bucket"), "name"), key, found, etag="eTag", version="versionId")


def _from_eventbridge(message: dict[str, Any]) -> Iterator[S3Object | str]:
    kind = message.get("detail-type")
    if kind != "Object Created":
        yield f"an event {kind}" if isinstance(kind, str) else "an event without a type"
        return
    detail = _member(message, "detail")
    found = _member(detail, "object")
    bucket = _text(_member(detail, "bucket"), "name")
    yield _object(bucket, _text(found, "key"), found, etag="etag", version="version-id")


def _from_service(message: dict[str, Any]) -> Iterator[S3Object | str]:
    keys = message["s3ObjectKey"]
    for key in keys if isinstance(keys, list) else [keys]:
        if not isinstance(key, str):
            raise NotificationInvalid("s3ObjectKey is no text")
        yield _object(_text(message, "s3Bucket"), key, {}, etag="", version="")


def _object(bucket: str, key: str, found: dict[str, Any], *, etag: str, version: str) -> S3Object:
    if not is_address(bucket, key):
        raise NotificationInvalid("bucket and key are no object's")
    size = found.get("size")
    return S3Object(
        bucket=bucket,
        key=key,
        version=_optional(found, version),
        etag=_optional(found, etag).strip('"'),
        size=size if type(size) is int and size >= 0 else None,
    )


def _collect(items: Iterator[S3Object | str]) -> Notification:
    objects: dict[S3Object, None] = {}
    ignored: dict[str, None] = {}
    for item in items:
        if isinstance(item, str):
            ignored[item[:80]] = None
        else:
            objects[item] = None
    return Notification(tuple(objects), tuple(ignored))


def _decode(body: str | bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise NotificationInvalid("the message is no JSON") from None
    if not isinstance(value, dict):
        raise NotificationInvalid("the message is no JSON object")
    return value


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    if not isinstance(found, dict):
        raise NotificationInvalid(f"there is no object {name}")
    return found


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise NotificationInvalid(f"there is no text {name}")
    return found


def _optional(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) and len(found) <= 1024 and found.isascii() else ""
