"""RFC 3161 timestamps over checkpoints: an outside authority's word that a tree head existed at a time.

What is stamped is the SHA-256 of the stored checkpoint note, so only a hash leaves. A response is kept as received
(`log/timestamp/<size>.tsr`) and verified later against root certificates the verifier brings, without the authority;
`openssl ts -verify` does the same. Certificates sent along are only used to build a chain to those roots; the signing
certificate must be one for time stamping (RFC 3161 §2.3). A response that is not strict DER is refused, also when an
authority sends it so (OpenSSL does, when it adds its chain).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from strongroom.archive.errors import FormatError

QUERY_TYPE = "application/timestamp-query"
REPLY_TYPE = "application/timestamp-reply"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as sent, and the nonce its answer must repeat."""

    data: bytes
    nonce: int


def request(checkpoint: bytes) -> Request:
    """A request for a timestamp over the stored bytes of a checkpoint, asking for the authority's certificate."""
    built = TimestampRequestBuilder().data(checkpoint).hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True).build()
    if built.nonce is None:
        raise FormatError("timestamp request: no nonce was made")
    return Request(built.as_bytes(), built.nonce)


def roots_of(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The root certificates in a PEM file. Raises FormatError."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise FormatError(f"timestamp authority certificates: {error}") from None


def verify(response: bytes, checkpoint: bytes, roots: Sequence[x509.Certificate], nonce: int | None = None) -> datetime:
    """The time a response states for `checkpoint`, when an authority under one of `roots` signed it.

    Raises FormatError when it does not parse, is over other bytes, or is not signed by such an authority.
    """
    try:
        parsed: TimeStampResponse = decode_timestamp_response(response)
        if parsed.tst_info.message_imprint.message != sha256(checkpoint).digest():
            raise FormatError("timestamp: it is over other bytes than this checkpoint")
        VerifierBuilder(roots=list(roots), nonce=nonce).build().verify_message(parsed, checkpoint)
        return parsed.tst_info.gen_time.astimezone(UTC)
    except (VerificationError, ValueError) as error:
        raise FormatError(f"timestamp: {error}") from None
