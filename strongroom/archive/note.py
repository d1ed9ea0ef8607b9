"""C2SP signed notes, tlog checkpoints and cosignatures: text in, verdict out. Pure.

Rules, in order of application (C2SP signed-note, tlog-checkpoint, tlog-cosignature):

1. A note is UTF-8 text without control characters but newline, ending in a newline; then an empty line; then one or
   more signature lines `— <name> <base64(key id ‖ signature)>`.
2. A verification key is `<name>+<key id, 8 hex digits>+<base64(type ‖ key)>`. Its key id is
   SHA-256(name ‖ "\\n" ‖ type ‖ key)[:4], but for ECDSA SHA-256(SPKI)[:4].
3. Signatures by unknown keys are ignored. A signature by a known key that fails makes the whole note invalid, so that
   a forged line can never hide behind a good one.
4. A checkpoint is a note of exactly three lines: origin, size in decimal, base64 of the 32-byte root. Extension lines
   are refused: ML-DSA cosignatures would not cover them.
5. What a key signs depends on its type: Ed25519 (0x01) and ECDSA (0x02) sign the text; an Ed25519 cosignature (0x04)
   signs a timestamp and the text; ML-DSA-44 (0x06) signs `subtree/v1`, a binary statement of the checkpoint's facts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.archive.errors import FormatError

MAX_NOTE_BYTES = 1_000_000
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_DASH = "\u2014 "


class KeyType(IntEnum):
    """Signature algorithm byte of a verification key (C2SP signed-note, tlog-cosignature)."""

    ED25519 = 0x01
    ECDSA = 0x02
    ED25519_COSIGNATURE = 0x04
    ML_DSA_44 = 0x06


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """The line as it stands in the note, without its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.value).decode()}"


@dataclass(frozen=True, slots=True)
class Note:
    """Signed text (ending in a newline) and its signature lines."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        """The note as stored and sent."""
        return self.text + "\n" + "".join(signature.line() + "\n" for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the first `size` entries of the log `origin` have this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that can check signature lines. `public` is raw bytes, or DER SPKI for ECDSA."""

    name: str
    key_id: bytes
    type: KeyType
    public: bytes = field(repr=False)

    def vkey(self) -> str:
        """The key's text form."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.type]) + self.public).decode()}"


class NoteSigner(Protocol):
    """Something that holds a private key: a local file, a KMS key, an HSM."""

    @property
    def key(self) -> VerifierKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The raw signature over `message`. Raises KeyUnusable."""
        ...


def verifier_key(name: str, type_: KeyType, public: bytes) -> VerifierKey:
    """The verification key for raw `public` bytes, with its key id computed."""
    if not _NAME.fullmatch(name):
        raise FormatError(f"{name!r} can't name a key: no spaces, no plus signs, not empty")
    preimage = public if type_ is KeyType.ECDSA else name.encode() + b"\n" + bytes([type_]) + public
    return VerifierKey(name, sha256(preimage).digest()[:4], type_, public)


def parse_vkey(text: str) -> VerifierKey:
    """A verification key from its text form. Raises FormatError when malformed or its key id is wrong."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    blob = _base64(encoded, "verification key")
    try:
        key = verifier_key(name, KeyType(blob[0] if blob else 0), blob[1:])
    except ValueError:
        raise FormatError(f"verification key {name!r}: unknown signature type") from None
    if key_id != key.key_id.hex():
        raise FormatError(f"verification key {name!r}: key id {key_id!r} does not belong to the key")
    _load(key)
    return key


def parse(data: bytes) -> Note:
    """A note from its stored bytes. Raises FormatError."""
    if len(data) > MAX_NOTE_BYTES:
        raise FormatError("signed note: too long")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("signed note: not UTF-8") from None
    if any(ord(char) < 0x20 and char != "\n" for char in text):
        raise FormatError("signed note: control character")
    body, separator, tail = text.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise FormatError("signed note: no signature block")
    return Note(body + "\n", tuple(_signature(line) for line in tail[:-1].split("\n")))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint a note's text states. Raises FormatError unless it is exactly three well-formed lines."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise FormatError("checkpoint: not exactly three lines")
    origin, size, root = lines[:3]
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
        raise FormatError(f"checkpoint: {size!r} is not a tree size")
    digest = _base64(root, "checkpoint root")
    if len(digest) != 32:
        raise FormatError("checkpoint: the root is not 32 bytes long")
    return Checkpoint(origin, int(size), digest)


def sign(text: str, signers: Sequence[NoteSigner], timestamp: int = 0) -> Note:
    """`text` signed by every signer. `timestamp` (POSIX seconds) goes into cosignatures; logs sign with 0."""
    if not text.endswith("\n"):
        raise FormatError("a note's text ends in a newline")
    return Note(text, tuple(_sign(text, signer, timestamp) for signer in signers))


def verify(note: Note, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
    """The keys among `keys` that signed the note, in the note's order.

    Raises FormatError when a signature by one of `keys` fails: such a note is not to be believed at all.
    """
    known = {(key.name, key.key_id): key for key in keys}
    signed: list[VerifierKey] = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None or key in signed:
            continue
        if not _valid(note.text, signature, key):
            raise FormatError(f"signed note: the signature by {key.name} ({key.key_id.hex()}) is not valid")
        signed.append(key)
    return signed


def cosigned_at(signature: Signature, type_: KeyType) -> int | None:
    """POSIX seconds a cosignature states, None for types that carry no time."""
    if type_ in (KeyType.ED25519_COSIGNATURE, KeyType.ML_DSA_44) and len(signature.value) > 8:
        return int.from_bytes(signature.value[:8], "big")
    return None


def _sign(text: str, signer: NoteSigner, timestamp: int) -> Signature:
    key = signer.key
    value = signer.sign(_message(text, key, timestamp))
    if key.type in (KeyType.ED25519_COSIGNATURE, KeyType.ML_DSA_44):
        value = timestamp.to_bytes(8, "big") + value
    return Signature(key.name, key.key_id, value)


def _message(text: str, key: VerifierKey, timestamp: int) -> bytes:
    """The bytes a key of this type signs for this note text."""
    match key.type:
        case KeyType.ED25519 | KeyType.ECDSA:
            return text.encode()
        case KeyType.ED25519_COSIGNATURE:
            return f"cosignature/v1\ntime {timestamp}\n{text}".encode()
        case KeyType.ML_DSA_44:
            checkpoint = parse_checkpoint(text)
            return b"".join(
                (
                    b"subtree/v1\n\x00",
                    _short(key.name.encode()),
                    timestamp.to_bytes(8, "big"),
                    _short(checkpoint.origin.encode()),
                    bytes(8),
                    checkpoint.size.to_bytes(8, "big"),
                    checkpoint.root,
                )
            )


def _valid(text: str, signature: Signature, key: VerifierKey) -> bool:
    value = signature.value
    timestamp = cosigned_at(signature, key.type) or 0
    if key.type in (KeyType.ED25519_COSIGNATURE, KeyType.ML_DSA_44):
        value = value[8:]
    try:
        return is_signature(key, _message(text, key, timestamp), value)
    except FormatError:
        return False


def is_signature(key: VerifierKey, message: bytes, value: bytes) -> bool:
    """Whether `value` is a raw signature by `key` over `message`."""
    try:
        public = _load(key)
        if isinstance(public, ec.EllipticCurvePublicKey):
            digest = hashes.SHA384() if isinstance(public.curve, ec.SECP384R1) else hashes.SHA256()
            public.verify(value, message, ec.ECDSA(digest))
        else:
            public.verify(value, message)
    except (InvalidSignature, FormatError, ValueError):
        return False
    return True


def _load(key: VerifierKey) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA44PublicKey:
    try:
        match key.type:
            case KeyType.ED25519 | KeyType.ED25519_COSIGNATURE:
                return ed25519.Ed25519PublicKey.from_public_bytes(key.public)
            case KeyType.ML_DSA_44:
                return mldsa.MLDSA44PublicKey.from_public_bytes(key.public)
            case KeyType.ECDSA:
                public = load_der_public_key(key.public)
                if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(
                    public.curve, ec.SECP256R1 | ec.SECP384R1
                ):
                    return public
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"verification key {key.name!r}: {error}") from None
    raise FormatError(f"verification key {key.name!r}: not a P-256 or P-384 key")


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    blob = _base64(encoded, "signature line")
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(blob) < 5:
        raise FormatError("signed note: malformed signature line")
    return Signature(name, blob[:4], blob[4:])


def _short(value: bytes) -> bytes:
    if len(value) > 255:
        raise FormatError("a key name or origin of more than 255 bytes can't be signed with ML-DSA")
    return len(value).to_bytes(1, "big") + value


def _base64(text: str, what: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what}: not base64") from None
    if base64.b64encode(value).decode() != text:
        raise FormatError(f"{what}: not canonical base64")
    return value
