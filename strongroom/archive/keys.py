"""Local signing keys: an Ed25519 and an ML-DSA-44 private key in one PEM file, readable by its owner alone.

A log signs each checkpoint with both: Ed25519 for every tool that exists today, ML-DSA-44 (FIPS 204) because
evidence must outlive classical keys. Other uses (receipts) need the classical key only.

The file holds one or more PKCS#8 blocks, encrypted when a passphrase is given. It is created exclusively with mode
0600 and never overwritten; a file that others may read is refused, because a leaked key can extend the log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from strongroom.archive.errors import KeyUnusable
from strongroom.archive.note import KeyType, VerifierKey, verifier_key

_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----\n.*?-----END [A-Z ]+-----\n?", re.DOTALL)

PrivateKey = ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey


@dataclass(frozen=True)
class LocalSigner:
    """A note signer whose private key is in this process's memory."""

    key: VerifierKey
    _private: PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The raw signature over `message`."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"LocalSigner({self.key.name}, {self.key.type.name})"


def generate(name: str, types: Sequence[KeyType] = (KeyType.ED25519, KeyType.ML_DSA_44)) -> list[LocalSigner]:
    """Fresh keys of the given types for the key name `name`."""
    makers: dict[KeyType, Callable[[], PrivateKey]] = {
        KeyType.ED25519: ed25519.Ed25519PrivateKey.generate,
        KeyType.ED25519_COSIGNATURE: ed25519.Ed25519PrivateKey.generate,
        KeyType.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    }
    return [_signer(name, makers[type_](), type_) for type_ in types]


def as_cosigners(signers: Sequence[LocalSigner]) -> list[LocalSigner]:
    """The same keys used as a witness uses them: Ed25519 keys sign cosignatures instead of bare notes."""
    return [
        _signer(signer.key.name, signer._private, KeyType.ED25519_COSIGNATURE)
        if signer.key.type is KeyType.ED25519
        else signer
        for signer in signers
    ]


def save(path: Path, signers: Sequence[LocalSigner], passphrase: bytes | None = None) -> None:
    """Write the private keys to a new file of mode 0600. Raises KeyUnusable when the file exists."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    blocks = [s._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption) for s in signers]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyUnusable(f"{path} exists", hint="keys are never overwritten; move the file away first") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"".join(blocks))
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, name: str, passphrase: bytes | None = None) -> list[LocalSigner]:
    """The keys in `path`, signing under `name`. Raises KeyUnusable, saying what is wrong with the file."""
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise KeyUnusable(f"key file {path}: {error.strerror}") from None
    if mode & 0o077:
        raise KeyUnusable(f"key file {path} has mode {mode:04o}: others can read it", hint=f"chmod 600 {path}")
    blocks = _PEM.findall(data)
    if not blocks:
        raise KeyUnusable(f"key file {path} holds no PEM private key")
    privates = [_decrypt(path, block, passphrase) for block in blocks]
    return [_signer(name, private, _type_of(private)) for private in privates]


def load_or_create(
    path: Path,
    name: str,
    types: Sequence[KeyType] = (KeyType.ED25519, KeyType.ML_DSA_44),
    passphrase: bytes | None = None,
) -> list[LocalSigner]:
    """The keys in `path`; generated and saved there when there is no such file."""
    if not path.exists():
        save(path, generate(name, types), passphrase)
    return load(path, name, passphrase)


def _decrypt(path: Path, block: bytes, passphrase: bytes | None) -> PrivateKey:
    try:
        private = load_pem_private_key(block, passphrase)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"key file {path}: {error}", hint="check the passphrase setting") from None
    if not isinstance(private, ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey):
        raise KeyUnusable(f"key file {path}: only Ed25519 and ML-DSA-44 keys sign here")
    return private


def _type_of(private: PrivateKey) -> KeyType:
    return KeyType.ED25519 if isinstance(private, ed25519.Ed25519PrivateKey) else KeyType.ML_DSA_44


def _signer(name: str, private: PrivateKey, type_: KeyType) -> LocalSigner:
    return LocalSigner(verifier_key(name, type_, private.public_key().public_bytes_raw()), private)
