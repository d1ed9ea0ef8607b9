"""What is fuzzed: every splitter, and every decoder of what comes from outside.

Splitters keep what survival.py says, decoders what decoders.py says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from strongroom.archive.errors import FormatError
from strongroom.ingest.errors import NotificationInvalid
from strongroom.ingest.fetch import notifications
from strongroom.ingest.protocols import eventbridge
from strongroom.ingest.sources import SOURCES, Registry, Source
from strongroom.ingest.trails import digests
from tests.fuzz import decoders
from tests.fuzz.decoders import CODED, PLAIN, TOPIC
from tests.ingest.survival import bodies, survives
from tests.pushed import SOURCE_OF, captured


@dataclass(frozen=True)
class Target:
    """`check` takes any bytes; the fuzzer begins with `seeds`. `marked`: it puts marks in, for `check` to find."""

    check: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    marked: bool = False


_SEED_BYTES = 1500
_RECORDS = [{"data": base64.b64encode(data).decode()} for data in (PLAIN[:70], CODED[0], b"\xff")]
_MESSAGE = {
    "Type": "Notification",
    "MessageId": "1",
    "TopicArn": TOPIC,
    "Message": "m",
    "Timestamp": "2024-01-01T00:00:00.000Z",
    "SignatureVersion": "2",
    "Signature": "c2lnbmF0dXJl",
    "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0.pem",
}
_ANNOUNCED = (
    b'{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{'
    b'"bucket":{"name":"b-1"},"object":{"key":"a%2Bb+c","size":5,"eTag":"x","versionId":"v"}}}]}',
    b'{"source":"aws.s3","detail-type":"Object Created","detail":{"bucket":{"name":"b-1"},'
    b'"object":{"key":"k","size":1}}}',
    b'{"Type":"Notification","Message":"{\\"s3Bucket\\":\\"b-1\\",\\"s3ObjectKey\\":[\\"k\\"]}"}',
)
_DIGEST = {
    "digestS3Bucket": "trail",
    "digestS3Object": "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2024/05/06/"
    "111122223333_CloudTrail-Digest_eu-west-1_trail_eu-west-1_20240506T100000Z.json.gz",
    "digestStartTime": "2024-05-06T09:00:00Z",
    "digestEndTime": "2024-05-06T10:00:00Z",
    "digestPublicKeyFingerprint": "0" * 32,
    "digestSignatureAlgorithm": "SHA256withRSA",
    "previousDigestS3Bucket": None,
    "previousDigestS3Object": None,
    "previousDigestHashValue": None,
    "previousDigestHashAlgorithm": None,
    "previousDigestSignature": None,
    "logFiles": [{"s3Bucket": "trail", "s3Object": "k", "hashValue": "0" * 64, "hashAlgorithm": "SHA-256"}],
}
_DECLARED = """
[[source]]
name = "declared_json"
description = "x"
recognise = ["txn.id"]
container = "events"
time = { path = "when", format = "%d.%m.%Y %H:%M:%S" }
[source.columns]
txn = "txn.id"
amount = { path = "amount.value", type = "number" }
all = { path = "items.*.id", type = "texts" }

[[source]]
name = "declared_lines"
description = "x"
pattern = '(?P<when>\\S+) (?P<who>[^ ]*) (?P<what>.*)'
time = "when"
[source.columns]
who = "who"
what = "what"
"""
_OWN = Registry(_DECLARED).sources
_OWN_SEEDS = {
    "declared_json": (
        b'{"events":[{"txn":{"id":"1"},"when":"01.02.2024 03:04:05","amount":{"value":"7.5"},"items":[{"id":1}]}]}',
    ),
    "declared_lines": (b"2024-05-06T10:00:00Z alice did this\nno\n",),
}


def _splitters() -> Mapping[str, Target]:
    named = {name: (source, _small(source)) for name, source in SOURCES.items()}
    named |= {name: (_OWN[name], seeds) for name, seeds in _OWN_SEEDS.items()}
    return {
        name: Target(partial(survives, source, rows=1), seeds, marked=True) for name, (source, seeds) in named.items()
    }


def _small(source: Source) -> tuple[bytes, ...]:
    """Beginnings of real bodies; records of theirs, whole, one after another and in each of the source's containers."""
    real = bodies(source.name)
    seeds = [content if content.startswith(b"PAR1") else content[:_SEED_BYTES] for content in real]
    raw = [record for content in real for record in source.split(content).raw if len(record) < _SEED_BYTES]
    if not raw:
        return tuple(seeds)
    seeds += [raw[0], b"\n".join(raw[:2]), b"\r\n".join(raw[-2:])]
    for container in getattr(source, "containers", ()):
        inner = b"[" + b",".join(raw[:2]) + b"]" if container.many else raw[0]
        for name in reversed(container.path):
            inner = b'{"id":1,"%s":%s,"z":{}}' % (name.encode(), inner)
        seeds.append(inner)
    return tuple(seeds)


def _captures(*names: str) -> tuple[bytes, ...]:
    return tuple(captured(capture).content for name in names for capture in SOURCE_OF[name])


TARGETS: Mapping[str, Target] = {
    **_splitters(),
    **{
        f"coding-{name}": Target(partial(decoders.coded, name), CODED)
        for name in ("auto", "gzip", "zstd", "deflate", "snappy")
    },
    "protocol-bulk": Target(decoders.bulk_request, _captures("bulk"), marked=True),
    "protocol-firehose": Target(
        decoders.firehose_request, (json.dumps({"requestId": "r", "records": _RECORDS}).encode(),)
    ),
    "protocol-journal": Target(decoders.journal_body, _captures("journal"), marked=True),
    "protocol-hec": Target(decoders.hec_acks, (b'{"acks":[1,2,9007199254740991]}',)),
    "protocol-sns": Target(decoders.sns_message, (json.dumps(_MESSAGE).encode(),)),
    "protocol-eventbridge": Target(eventbridge.key, (b'{"id":"1","source":"aws.s3","detail-type":"x"}',)),
    "notifications": Target(partial(decoders.parsed, notifications.parse, NotificationInvalid), _ANNOUNCED),
    "digests": Target(
        partial(decoders.parsed, digests.parse, FormatError),
        (json.dumps(_DIGEST).encode(),),
    ),
    "spool": Target(decoders.spooled, (decoders.spool_file(),)),
}
"""Name → what is fuzzed."""
