"""Key files: which keys sign here, and where their private halves are.

A log signs each checkpoint with an Ed25519 key, for every tool that exists today, and an ML-DSA-44 key (FIPS 204),
because evidence must outlive classical keys; where only validated modules may sign, with ECDSA P-256 or P-384. Other
uses (receipts) need one key only.

A key file holds, in any number and order, PKCS#8 private keys in PEM form, encrypted when a passphrase is given, and
lines that name keys in AWS KMS (archive/kms.py). It is created exclusively with mode 0600 and never overwritten; a file
that others may read is refused, because a leaked key can extend the log.

PKCS#8 encryption here is PBES2: AES-256-CBC under PBKDF2 with 2,048 rounds. It protects a stolen backup only as well as
the passphrase resists guessing, so let a machine draw it: `openssl rand -base64 24`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from strongroom.archive import durable, kms
from strongroom.archive.errors import FormatError, KeyUnusable
from strongroom.archive.kms import KmsSigner
from strongroom.archive.note import KeyType, VerifierKey, verifier_key

_BLOCKS = re.compile(rb"-----BEGIN [A-Z ]+-----\n.*?-----END [A-Z ]+-----\n?|^aws-kms [^\n]*", re.DOTALL | re.MULTILINE)

PrivateKey = ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class LocalSigner:
    """A note signer whose private key is in this process's memory."""

    key: VerifierKey
    _private: PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """The raw signature over `message`."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(message, ec.ECDSA(_digest(self._private.curve)))
        return self._private.sign(message)

    def stored(self, passphrase: bytes | None) -> bytes:
        """The key file's block for this key."""
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def __repr__(self) -> str:
        return f"LocalSigner({self.key.name}, {self.key.type.name})"


HeldSigner = LocalSigner | KmsSigner


def generate(name: str, types: Sequence[KeyType] = (KeyType.ED25519, KeyType.ML_DSA_44)) -> list[LocalSigner]:
    """Fresh local keys of the given types for the key name `name`; ECDSA ones are on P-384."""
    makers: dict[KeyType, Callable[[], PrivateKey]] = {
        KeyType.ED25519: ed25519.Ed25519PrivateKey.generate,
        KeyType.ECDSA: lambda: ec.generate_private_key(ec.SECP384R1()),
        KeyType.ED25519_COSIGNATURE: ed25519.Ed25519PrivateKey.generate,
        KeyType.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    }
    return [_signer(name, makers[type_](), type_) for type_ in types]


def generate_p256(name: str) -> LocalSigner:
    """A fresh local ECDSA key on P-256 for the key name `name`."""
    return _signer(name, ec.generate_private_key(ec.SECP256R1()), KeyType.ECDSA)


def as_cosigners(signers: Sequence[HeldSigner]) -> list[HeldSigner]:
    """The same keys used as a witness uses them: Ed25519 keys sign cosignatures instead of bare notes."""
    return [
        replace(signer, key=verifier_key(signer.key.name, KeyType.ED25519_COSIGNATURE, signer.key.public))
        if signer.key.type is KeyType.ED25519
        else signer
        for signer in signers
    ]


def save(path: Path, signers: Sequence[HeldSigner], passphrase: bytes | None = None) -> None:
    """Write the keys durably to a new file of mode 0600. Raises KeyUnusable when the file exists."""
    content = b"".join(signer.stored(passphrase) for signer in signers)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Under the final name only when whole: a key file that a crash cut short would be taken for damage.
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(staged)
    except FileExistsError:
        raise KeyUnusable(f"{path} exists", hint="keys are never overwritten; move the file away first") from None
    finally:
        staged.unlink(missing_ok=True)
    durable.sync_folder(path.parent)


def load(path: Path, name: str, passphrase: bytes | None = None) -> list[HeldSigner]:
    """The keys in `path`, signing under `name`. Raises KeyUnusable, saying what is wrong with the file."""
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise KeyUnusable(f"key file {path}: {error.strerror}") from None
    if mode & 0o077:
        raise KeyUnusable(f"key file {path} has mode {mode:04o}: others can read it", hint=f"chmod 600 {path}")
    blocks = _BLOCKS.findall(data)
    if not blocks:
        raise KeyUnusable(f"key file {path} holds no private key and names none")
    signers = [_from_block(path, block, name, passphrase) for block in blocks]
    if any(signer.key.name != name for signer in signers):
        raise KeyUnusable(f"key file {path} names a key of another log than {name}")
    return signers


def load_or_create(
    path: Path,
    name: str,
    types: Sequence[KeyType] = (KeyType.ED25519, KeyType.ML_DSA_44),
    passphrase: bytes | None = None,
) -> list[HeldSigner]:
    """The keys in `path`; generated and saved there when there is no such file."""
    if not path.exists():
        save(path, generate(name, types), passphrase)
    return load(path, name, passphrase)


def is_encrypted(path: Path) -> bool:
    """Whether the file holds a private key that a passphrase protects. Raises OSError."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in path.read_bytes()


def _from_block(path: Path, block: bytes, name: str, passphrase: bytes | None) -> HeldSigner:
    if block.startswith(b"aws-kms "):
        try:
            return kms.reopen(block.decode())
        except (FormatError, UnicodeDecodeError) as error:
            raise KeyUnusable(f"key file {path}: {error}") from None
    private = _decrypt(path, block, passphrase)
    return _signer(name, private, _type_of(private))


def _decrypt(path: Path, block: bytes, passphrase: bytes | None) -> PrivateKey:
    encrypted = b"ENCRYPTED" in block
    if encrypted and passphrase is None:
        raise KeyUnusable(f"key file {path} is encrypted", hint="set key_passphrase_file")
    try:
        private = load_pem_private_key(block, passphrase if encrypted else None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"key file {path}: {error}", hint="check the passphrase setting") from None
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1 | ec.SECP384R1):
        return private
    if isinstance(private, ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey):
        return private
    raise KeyUnusable(f"key file {path}: only Ed25519, ML-DSA-44 and ECDSA P-256 and P-384 keys sign here")


def _type_of(private: PrivateKey) -> KeyType:
    match private:
        case ed25519.Ed25519PrivateKey():
            return KeyType.ED25519
        case ec.EllipticCurvePrivateKey():
            return KeyType.ECDSA
        case _:
            return KeyType.ML_DSA_44


def _signer(name: str, private: PrivateKey, type_: KeyType) -> LocalSigner:
    public = private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return LocalSigner(
            verifier_key(name, type_, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)), private
        )
    return LocalSigner(verifier_key(name, type_, public.public_bytes_raw()), private)


def _digest(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA384() if isinstance(curve, ec.SECP384R1) else hashes.SHA256()
