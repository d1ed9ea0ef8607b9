"""Amazon SNS over HTTPS: who signed a message, and whether we want it.

Rules, in this order, before anything is fetched or kept:

    1. The topic is one that is wanted. Otherwise anybody's topic could subscribe us.
    2. The certificate's URL is https, at `sns.<region>.amazonaws.com`, a `SimpleNotificationService-….pem`; the same
       host rule holds for the URL that confirms a subscription. Otherwise a message could send us anywhere.
    3. The signature over the fields that SNS signs is by that certificate's key, within the certificate's time.
    4. A confirmation is not older than an hour. (A notification may be: it is tried again, and known by its MessageId.)

Messages delivered "raw" carry no signature and are refused. Source: Amazon SNS developer guide, "Verifying the
signatures of Amazon SNS messages" (versions 1, SHA-1, and 2, SHA-256).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from strongroom.ingest.errors import NotTheProtocol, SignatureRefused
from strongroom.ingest.protocols import JSON, Reply
from strongroom.ingest.sources import times

RAW_HEADER = "x-amz-sns-rawdelivery"
CONFIRMATION_AGE = timedelta(hours=1)
_HOST = re.compile(r"sns\.[a-z0-9-]{4,30}\.amazonaws\.com(\.cn)?")
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9A-Za-z_-]{1,128}\.pem")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    **dict.fromkeys(
        ("SubscriptionConfirmation", "UnsubscribeConfirmation"),
        ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_DIGESTS: dict[str, type[hashes.SHA1] | type[hashes.SHA256]] = {"1": hashes.SHA1, "2": hashes.SHA256}


class Message(msgspec.Struct, frozen=True):
    """What SNS sends. Members in its own spelling."""

    Type: str
    MessageId: str
    TopicArn: str
    Message: str
    Timestamp: str
    SignatureVersion: str
    Signature: str
    SigningCertURL: str
    Subject: str | None = None
    SubscribeURL: str | None = None
    Token: str | None = None


_message = msgspec.json.Decoder(Message)  # made here: see archive/details.py


def read(content: bytes, topics: Collection[str]) -> Message:
    """A message of a wanted topic whose URLs may be fetched. Raises NotTheProtocol, SignatureRefused."""
    try:
        message = _message.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotTheProtocol(f"no SNS message: {error}", hint="raw message delivery must be off") from None
    if message.Type not in _SIGNED:
        raise NotTheProtocol(f"SNS sends no {message.Type!r}")
    if message.TopicArn not in topics:
        raise SignatureRefused(f"topic {message.TopicArn!r} is not wanted here", hint="setting sns_topics names them")
    if not _CERTIFICATE.fullmatch(_path_at_sns(message.SigningCertURL)):
        raise SignatureRefused("the signing certificate is not at SNS")
    if message.Type == "SubscriptionConfirmation":
        _path_at_sns(message.SubscribeURL or "")
    return message


def verify(message: Message, certificate: bytes, now: datetime) -> None:
    """The message is signed by `certificate` (PEM), and timely. Raises SignatureRefused."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        key, digest = parsed.public_key(), _DIGESTS[message.SignatureVersion]()
        if not isinstance(key, RSAPublicKey) or not parsed.not_valid_before_utc <= now <= parsed.not_valid_after_utc:
            raise SignatureRefused("the signing certificate is not valid now")
        signature = base64.b64decode(message.Signature, validate=True)
        key.verify(signature, signed_text(message), padding.PKCS1v15(), digest)
    except (ValueError, KeyError, binascii.Error, InvalidSignature, UnsupportedAlgorithm):
        raise SignatureRefused("the signature does not hold") from None
    sent = times.microseconds(message.Timestamp)
    if message.Type != "Notification" and (
        sent is None or abs(now.timestamp() - sent / 1e6) > CONFIRMATION_AGE.total_seconds()
    ):
        raise SignatureRefused("the confirmation is too old", hint="subscribe again")


def signed_text(message: Message) -> bytes:
    """What SNS signs: name and value of each field, a line each."""
    pairs = ((name, getattr(message, name)) for name in _SIGNED[message.Type])
    return "".join(f"{name}\n{value}\n" for name, value in pairs if value is not None).encode()


def key(message: Message) -> str:
    """SNS's own name of a message, the same at every attempt."""
    return f"sns {message.TopicArn} {message.MessageId}"


def taken() -> Reply:
    """Durable."""
    return Reply(200, b"{}", JSON)


def refused(status: int, message: str) -> Reply:
    """Nothing was taken."""
    return Reply(status, msgspec.json.encode({"message": message}), JSON)


def _path_at_sns(url: str) -> str:
    """The path of a URL at SNS. Raises SignatureRefused for any other."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.port in (None, 443) and not parts.username and not parts.password
    except ValueError:
        plain = False
    if not plain or not _HOST.fullmatch(parts.hostname or "") or "@" in url or "\\" in url:
        raise SignatureRefused("a URL in the message does not lead to SNS")
    return parts.path
