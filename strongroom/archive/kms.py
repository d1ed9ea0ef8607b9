"""Signing keys that never leave AWS KMS: a note signer that sends tree heads and gets signatures.

    KMS key spec             signing algorithm     note type
    ECC_NIST_P256            ECDSA_SHA_256         ECDSA (0x02)
    ECC_NIST_P384            ECDSA_SHA_384         ECDSA (0x02)
    ECC_NIST_EDWARDS25519    ED25519_SHA_512       Ed25519 (0x01)
    ML_DSA_44                ML_DSA_SHAKE_256      ML-DSA-44 (0x06)

Rules:

1. The public key is fetched once, when the key is taken into use, and **pinned** in the key file. Every signature that
   comes back is checked against the pinned key before anybody sees it: a replaced key, or an answer by somebody else,
   is `KeyUnusable`, not a log that nobody can verify.
2. The key is kept by what KMS names it (its ARN), which is one key for ever; an alias is resolved once.
3. What may pass (throttling, timeouts, an unreachable endpoint) is `KeyUnavailable` after a few tries; what will not
   (disabled, deleted, no permission, wrong usage) is `KeyUnusable`.
4. The message goes out whole (RAW), so that hashing, too, happens in KMS's validated module. Tree heads and receipts
   are short and hold nothing secret.

boto3 is an optional dependency (`pip install 'strongroom[aws]'`). Endpoint, credentials and region come from where AWS
tools take them (`AWS_ENDPOINT_URL_KMS`, `AWS_USE_FIPS_ENDPOINT`, instance role, …). Needs `kms:GetPublicKey` once and
`kms:Sign` from then on. Source: AWS KMS API reference, GetPublicKey and Sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.archive import aws, note
from strongroom.archive.errors import KeyUnavailable, KeyUnusable
from strongroom.archive.note import KeyType, VerifierKey, verifier_key

_ARN = re.compile(r"arn:[a-z0-9-]+:kms:(?P<region>[a-z0-9-]+):\d+:(key|alias)/\S+")
_SPECS = "ECC_NIST_P256, ECC_NIST_P384, ECC_NIST_EDWARDS25519, ML_DSA_44"
_MAX_MESSAGE_BYTES = 4096
_CONNECT_SECONDS, _READ_SECONDS, _TRIES = 3, 5, 4

# Error codes of the service that are not about the key and may pass.
PASSING = frozenset(
    {
        "DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException", "LimitExceededException",
        "RequestLimitExceeded", "ServiceUnavailable", "ThrottlingException", "Throttling",
    }
)  # fmt: skip
_HINTS = {
    "DisabledException": "enable it in KMS, or revoke it here: strongroom keys revoke",
    "KMSInvalidStateException": "it may be pending deletion: cancel that in KMS, or strongroom keys revoke",
    "NotFoundException": "check the ARN, the account and the region",
    "AccessDeniedException": "this role needs kms:GetPublicKey and kms:Sign for the key",
    "InvalidKeyUsageException": "the key must be made with KeyUsage SIGN_VERIFY",
    "UnsupportedOperationException": "the key must be asymmetric, made with KeyUsage SIGN_VERIFY",
}


class KmsClient(Protocol):
    """The two calls of boto3's KMS client that are used here."""

    def get_public_key(self, *, KeyId: str) -> Mapping[str, Any]: ...

    def sign(
        self,
        *,
        KeyId: str,
        Message: bytes,
        MessageType: str,
        SigningAlgorithm: str,
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class KmsSigner:
    """A note signer whose private key is in AWS KMS under `arn` (or key id). `key` is the pinned public half."""

    key: VerifierKey
    arn: str
    _client: KmsClient = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """The raw signature over `message`. Raises KeyUnusable, KeyUnavailable."""
        if len(message) > _MAX_MESSAGE_BYTES:
            raise KeyUnusable(f"KMS key {self.arn}: KMS signs at most {_MAX_MESSAGE_BYTES} bytes, not {len(message)}")
        algorithm = _algorithm(self.key)
        answer = _call(
            self.arn,
            lambda: self._client.sign(KeyId=self.arn, Message=message, MessageType="RAW", SigningAlgorithm=algorithm),
        )
        signature = bytes(answer["Signature"])
        if not note.is_signature(self.key, message, signature):
            raise KeyUnusable(
                f"KMS key {self.arn}: the signature is not by the public key pinned for it",
                hint="the key behind this name was replaced, or the answer was: find out before anything is signed",
            )
        return signature

    def stored(self, passphrase: bytes | None) -> bytes:
        """The key file's line for this key; there is nothing secret in it."""
        return f"aws-kms {self.arn} {self.key.vkey()}\n".encode()


def adopt(key_id: str, name: str) -> KmsSigner:
    """The KMS key `key_id` (id, alias or ARN), to sign under `name`: fetches and pins its public key.

    Raises KeyUnusable when it can't sign notes, KeyUnavailable.
    """
    client: KmsClient = connect(_region(key_id))
    answer = _call(key_id, lambda: client.get_public_key(KeyId=key_id))
    if answer.get("KeyUsage") != "SIGN_VERIFY":
        raise KeyUnusable(f"KMS key {key_id} is for {answer.get('KeyUsage')}", hint="KeyUsage must be SIGN_VERIFY")
    der = bytes(answer["PublicKey"])
    try:
        public = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"KMS key {key_id}: its public key can't be read: {error}") from None
    match public:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            key = verifier_key(name, KeyType.ECDSA, der)
        case ed25519.Ed25519PublicKey():
            key = verifier_key(name, KeyType.ED25519, public.public_bytes_raw())
        case mldsa.MLDSA44PublicKey():
            key = verifier_key(name, KeyType.ML_DSA_44, public.public_bytes_raw())
        case _:
            raise KeyUnusable(f"KMS key {key_id} can't sign notes", hint=f"its key spec must be one of {_SPECS}")
    return KmsSigner(key, str(answer["KeyId"]), client)


def reopen(line: str) -> KmsSigner:
    """The signer that `KmsSigner.stored` wrote down. Asks nobody. Raises KeyUnusable, FormatError."""
    match line.split():
        case ["aws-kms", arn, vkey] if "alias/" not in arn:
            return KmsSigner(note.parse_vkey(vkey), arn, connect(_region(arn)))
    raise KeyUnusable(f"{line[:80]!r} is no line `aws-kms <ARN> <verification key>`")


def _algorithm(key: VerifierKey) -> str:
    match key.type:
        case KeyType.ECDSA:
            public = load_der_public_key(key.public)
            p384 = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP384R1)
            return "ECDSA_SHA_384" if p384 else "ECDSA_SHA_256"
        case KeyType.ML_DSA_44:
            return "ML_DSA_SHAKE_256"
        case _:
            return "ED25519_SHA_512"


def _region(key_id: str) -> str | None:
    match = _ARN.fullmatch(key_id)
    return match["region"] if match else None


def connect(region: str | None) -> Any:
    """A client of boto3 for KMS in `region` (None: where AWS tools would look). Raises KeyUnusable."""
    try:
        import boto3  # noqa: F401 (is it there?)
        import botocore.exceptions
        from botocore.config import Config
    except ImportError:
        raise KeyUnusable("keys in AWS KMS need boto3", hint="pip install 'strongroom[aws]'") from None
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
    )
    try:
        return aws.make_client("kms", region_name=region, config=config)
    except botocore.exceptions.BotoCoreError as error:
        raise KeyUnusable(f"AWS KMS: {error}", hint="name the key by its ARN, or set AWS_REGION") from None


def _call(key_id: str, call: Any) -> Mapping[str, Any]:
    """One request, its failures translated."""
    import botocore.exceptions as failures

    try:
        answer: Mapping[str, Any] = call()
    except failures.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"KMS key {key_id}: {error.response.get('Error', {}).get('Message') or code}"
        if code in PASSING or status >= 500:
            raise KeyUnavailable(said, hint="it is tried again") from error
        raise KeyUnusable(said, hint=_HINTS.get(code, "")) from error
    except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.ParamValidationError) as error:
        raise KeyUnusable(f"KMS key {key_id}: {error}") from error
    except failures.BotoCoreError as error:
        raise KeyUnavailable(f"KMS key {key_id}: {error}", hint="check the network and AWS_ENDPOINT_URL_KMS") from error
    return answer
