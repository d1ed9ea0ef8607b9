"""What tools that everybody has (`sha256sum`, `openssl`) can check in an unpacked bundle: exact shell commands. Pure.

They cover files, signatures and single leaves. The path from a record to the signed root is many hashes long and is
what the verifier is for; ML-DSA-44 signs a binary statement and is left to it as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from strongroom.archive import note
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence import layout
from strongroom.archive.evidence.timestamp import read as read_timestamp
from strongroom.archive.note import KeyType, Note, VerifierKey
from strongroom.archive.policy import Policy

_ALGORITHMS = {
    KeyType.ED25519: "Ed25519",
    KeyType.ECDSA: "ECDSA",
    KeyType.ED25519_COSIGNATURE: "Ed25519 (cosignature)",
    KeyType.ML_DSA_44: "ML-DSA-44",
}
_FRAME_HEADER_BYTES = 28  # row, nonce, length: docs/format.md §9.2

PublicKey = ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Command:
    """Shell lines for the unpacked bundle's folder: what they show, and what they print when it is so."""

    shows: str
    shell: str
    prints: str


def keys_of(policy: Policy) -> list[VerifierKey]:
    """Every key a policy names: the log's, then the witnesses'."""
    return [*policy.logs, *(witness.key for witness in policy.witnesses.values())]


def pem(key: VerifierKey) -> bytes:
    """The public key as `openssl` reads it."""
    return _public(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: VerifierKey) -> str:
    """SHA-256 (hex) of the key's SubjectPublicKeyInfo: what two people compare by telephone."""
    return sha256(_public(key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def algorithm(key: VerifierKey) -> str:
    """The key's algorithm, for people."""
    return _ALGORITHMS[key.type]


def of_files() -> Command:
    """That no file changed since the bundle was written."""
    return Command("Every file is as it was written", "sha256sum -c SHA256SUMS", "OK for each file")


def of_record(number: int, raw_bytes: int, digest: str, leaf: str) -> list[Command]:
    """About the first record of `records/<number>`, which is `raw_bytes` long; `digest` and `leaf` in hex."""
    name, end = layout.records_name(number), _FRAME_HEADER_BYTES + raw_bytes
    raw = f"head -c {end} {name} | tail -c +{_FRAME_HEADER_BYTES + 1}"
    nonce = f"head -c 24 {name} | tail -c 16"
    return [
        Command("The first record, byte for byte", f"{raw} | sha256sum", digest),
        Command("Its leaf in the segment's tree", f"(printf '\\0'; {nonce}; {raw}) | sha256sum", leaf),
    ]


def of_signatures(checkpoint: bytes, policy: Policy) -> Iterator[Command]:
    """About the checkpoint's signatures by keys of the policy."""
    signed: Note = note.parse(checkpoint)
    known = {(key.name, key.key_id): key for key in keys_of(policy)}
    first = signed.text.count("\n") + 2
    for line, signature in enumerate(signed.signatures, first):
        key = known.get((signature.name, signature.key_id))
        if key is not None and key.type is not KeyType.ML_DSA_44:
            yield _of_signature(line, key, note.cosigned_at(signature, key.type))


def of_timestamps(checkpoint: bytes, responses: Sequence[bytes]) -> Iterator[Command]:
    """About the time-stamp tokens; the reader brings the authority's certificates."""
    for number, response in enumerate(responses, 1):
        lines = read_timestamp(response).covers(checkpoint)
        verify = f"openssl ts -verify -in {layout.timestamp_name(number)} -data stamped -CAfile AUTHORITY.pem"
        yield Command(
            "When the checkpoint existed at the latest, by the authority's certificates",
            f"head -n {lines} checkpoint > stamped\n{verify}",
            "Verification: OK",
        )


def _of_signature(line: int, key: VerifierKey, time: int | None) -> Command:
    """About the signature in the given line (from 1) of the checkpoint file."""
    text = "head -n 3 checkpoint"
    blob = f"sed -n {line}p checkpoint | cut -d ' ' -f 3 | base64 -d"
    file = layout.key_name(key)
    if key.type is KeyType.ECDSA:
        public = _public(key)
        digest = "sha384" if isinstance(public, ec.EllipticCurvePublicKey) and public.key_size == 384 else "sha256"
        shell = f"{text} > text\n{blob} | tail -c +5 > signature\nopenssl dgst -{digest} -verify {file}"
        return Command(f"The ECDSA signature by {key.name}", f"{shell} -signature signature text", "Verified OK")
    what, skip = f"{algorithm(key)} signature", 5
    if key.type is KeyType.ED25519_COSIGNATURE:
        what, skip = "cosignature", 13
        text = f"(printf 'cosignature/v1\\ntime {time}\\n'; {text})"
    verify = f"openssl pkeyutl -verify -pubin -inkey {file} -rawin -in text -sigfile signature"
    return Command(
        f"The {what} by {key.name}",
        f"{text} > text\n{blob} | tail -c +{skip} > signature\n{verify}",
        "Signature Verified Successfully",
    )


def _public(key: VerifierKey) -> PublicKey:
    if key.type is KeyType.ECDSA:
        public = load_der_public_key(key.public)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise FormatError(f"verification key {key.name!r}: not an elliptic-curve key")
        return public
    if key.type is KeyType.ML_DSA_44:
        return mldsa.MLDSA44PublicKey.from_public_bytes(key.public)
    return ed25519.Ed25519PublicKey.from_public_bytes(key.public)
