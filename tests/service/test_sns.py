"""Amazon SNS: messages signed with a key of the test's own are taken; all others, and what they point to, are not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from strongroom.ingest.errors import SignatureRefused
from strongroom.ingest.protocols import sns
from strongroom.service.app import create_app
from strongroom.service.node import Node
from strongroom.service.settings import load

TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
CONFIRM_URL = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, NOW - timedelta(1), NOW + timedelta(1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def message(key: rsa.RSAPrivateKey, version: str = "2", **changed: Any) -> dict[str, Any]:
    """A signed message; `changed` before it is signed."""
    fields = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Subject": "ALARM",
        "Message": '{"AlarmName":"logins"}',
        "Timestamp": NOW.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "SignatureVersion": version,
        "Signature": "",
        "SigningCertURL": CERTIFICATE_URL,
    } | changed
    fields = {name: value for name, value in fields.items() if value is not None}
    text = sns.signed_text(sns._message.decode(json.dumps(fields)))
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    return fields | {"Signature": base64.b64encode(key.sign(text, padding.PKCS1v15(), digest)).decode()}


class Endpoint:
    """The application in this process, with a fetcher that records what it is asked for."""

    def __init__(self, folder: Path, certificate: bytes) -> None:
        places = {"archive": folder / "archive", "state": folder / "state", "verify_schedule": "outside"}
        self.node = Node(load(overrides={**places, "sns_topics": TOPIC}))
        self.app = create_app(self.node)
        self.app.state.fetch = self._fetch
        self.fetched: list[str] = []
        self._certificate = certificate
        self.token = self.node.tokens.create("forwarder", name="sns", now=NOW, sources=["sns"])[1]

    async def _fetch(self, url: str, *, keep: bool) -> bytes:
        self.fetched.append(url)
        return self._certificate

    def send(self, *messages: Any, **headers: str) -> tuple[list[int], int]:
        """(statuses, batches that were turned away as duplicates) of what is sent, in one life of the node."""

        async def run() -> tuple[list[int], int]:
            await self.node.start()
            try:
                transport = httpx.ASGITransport(self.app)
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                    answers = [
                        await client.post("/v1/sns", content=body, headers=headers, auth=("any", self.token))
                        for body in (m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages)
                    ]
                await self.node.audit.settle()
                return [a.status_code for a in answers], self.node.intake.counters().duplicate_batches
            finally:
                await self.node.stop()

        return asyncio.run(run())


@pytest.fixture
def endpoint(tmp_path: Path, certificate: bytes) -> Iterator[Endpoint]:
    yield Endpoint(tmp_path, certificate)


def test_signed_messages_are_taken_once(endpoint: Endpoint, key: rsa.RSAPrivateKey) -> None:
    first, second = message(key), message(key, "1", MessageId="m-2", Subject=None)
    assert endpoint.send(first, second, first, first) == ([200] * 4, 2)
    assert endpoint.fetched == [CERTIFICATE_URL] * 4  # keeping it is the real fetcher's


def test_a_subscription_is_confirmed(endpoint: Endpoint, key: rsa.RSAPrivateKey) -> None:
    wish = message(key, Type="SubscriptionConfirmation", Subject=None, Token="t", SubscribeURL=CONFIRM_URL)
    assert endpoint.send(wish)[0] == [200]
    assert endpoint.fetched == [CERTIFICATE_URL, CONFIRM_URL]


def test_what_is_refused_without_fetching_anything(endpoint: Endpoint, key: rsa.RSAPrivateKey) -> None:
    bad_urls = (
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://evil@sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/other.pem",
        "https://169.254.169.254/SimpleNotificationService-1.pem",
        "https://[::1/SimpleNotificationService-1.pem",
    )
    messages = [message(key, SigningCertURL=url) for url in bad_urls]
    messages.append(message(key, TopicArn=TOPIC + "2"))
    wish = {"Type": "SubscriptionConfirmation", "Subject": None, "Token": "t"}
    messages.append(message(key, **wish, SubscribeURL="https://169.254.169.254/"))
    statuses, _ = endpoint.send(*messages)
    assert statuses == [403] * len(messages)
    assert endpoint.send(b"no message", b"{}")[0] == [400, 400]
    assert endpoint.fetched == []


def test_what_is_refused_for_its_signature(endpoint: Endpoint, key: rsa.RSAPrivateKey) -> None:
    old = (NOW - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    replayed = message(
        key, Type="SubscriptionConfirmation", Subject=None, Token="t", SubscribeURL=CONFIRM_URL, Timestamp=old
    )
    stranger = message(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    forged = message(key) | {"Message": "other"}
    unknown = message(key) | {"SignatureVersion": "3"}
    assert endpoint.send(replayed, stranger, forged, unknown, message(key) | {"Signature": "!"})[0] == [403] * 5
    assert CONFIRM_URL not in endpoint.fetched
    assert endpoint.send(message(key), **{"x-amz-sns-rawdelivery": "true"})[0] == [403]


def test_a_certificate_out_of_its_time_is_refused(certificate: bytes, key: rsa.RSAPrivateKey) -> None:
    told = sns.read(json.dumps(message(key)).encode(), {TOPIC})
    sns.verify(told, certificate, NOW)
    with pytest.raises(SignatureRefused):
        sns.verify(told, certificate, NOW + timedelta(days=3))
