"""Wrapping keys: what protects the data keys of envelopes, and who holds it. The holder is the customer.

A wrapping key makes data keys and wraps them, together with a context that must be given again to unwrap them. It is
known by an id that says nothing secret and stands in every envelope:

    local:<16 hex digits>    LocalWrapper: 32 bytes in a file of mode 0600. For development, and for sites without KMS
    kms:<key id>             archive/encryption/kms_wrapping.py: a key in AWS KMS, or in an external key store behind it

`WrappingKeys` is the set a node knows: one that new objects are sealed with, and older ones to read what they sealed.

What a key's holder does not give is `KeyWithheld` (disabled, deleted, denied, unknown here): it may come back, but not
by trying again at once. What may pass by itself is `KeyUnavailable`. Bytes that do not unwrap are a FormatError.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.archive import canonical
from strongroom.archive.errors import FormatError, KeyUnusable, KeyWithheld

KEY_BYTES = 32
_SALT_BYTES = 32
_NONCE = bytes(12)  # each wrapping has a key of its own

Context = Mapping[str, str]


class KeyWrapper(Protocol):
    """A wrapping key. Thread-safe; methods may wait for a service."""

    @property
    def key_id(self) -> str:
        """The id that envelopes name it by."""
        ...

    def generate(self, context: Context) -> tuple[bytes, bytes]:
        """A fresh data key of 32 bytes, plain and wrapped. Raises KeyWithheld, KeyUnavailable."""
        ...

    def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """The data key. Raises KeyWithheld, KeyUnavailable, FormatError for what it did not wrap in this context."""
        ...

    def standing(self) -> str:
        """In a few words whether it can be used, and what is planned for it. Raises KeyWithheld, KeyUnavailable."""
        ...


@dataclass(frozen=True)
class LocalWrapper:
    """A wrapping key in this process's memory."""

    _key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self._key) != KEY_BYTES:
            raise KeyUnusable(f"a wrapping key has {KEY_BYTES} bytes, not {len(self._key)}")

    @classmethod
    def load(cls, path: Path) -> LocalWrapper:
        """The key in `path`: exactly 32 bytes, which nobody but the file's owner may read. Raises KeyUnusable."""
        try:
            mode, key = path.stat().st_mode & 0o777, path.read_bytes()
        except OSError as error:
            hint = f"make one: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path})"
            raise KeyUnusable(f"wrapping key file {path}: {error.strerror}", hint=hint) from None
        if mode & 0o077:
            raise KeyUnusable(f"wrapping key file {path} has mode {mode:04o}: others can read it", hint="chmod 600")
        if len(key) != KEY_BYTES:
            raise KeyUnusable(f"wrapping key file {path} has {len(key)} bytes, not {KEY_BYTES}")
        return cls(key)

    @property
    def key_id(self) -> str:
        return f"local:{hmac.digest(self._key, b'strongroom wrapping key', 'sha256')[:8].hex()}"

    def generate(self, context: Context) -> tuple[bytes, bytes]:
        data_key, salt = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(_SALT_BYTES)
        return data_key, salt + self._cipher(salt).encrypt(_NONCE, data_key, _associated(context))

    def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        salt, ciphertext = wrapped[:_SALT_BYTES], wrapped[_SALT_BYTES:]
        try:
            return self._cipher(salt).decrypt(_NONCE, ciphertext, _associated(context))
        except (InvalidTag, ValueError):
            raise FormatError(f"wrapped data key: not one that {self.key_id} wrapped in this context") from None

    def standing(self) -> str:
        return "in a file"

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA512(), KEY_BYTES, salt, b"strongroom/wrap/1").derive(self._key))


@dataclass(frozen=True)
class WrappingKeys:
    """The wrapping keys a node knows. `current` seals new objects; None: new objects are not encrypted."""

    current: KeyWrapper | None = None
    older: Sequence[KeyWrapper] = ()

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def all(self) -> list[KeyWrapper]:
        """Every key, the current one first."""
        return [*([self.current] if self.current else []), *self.older]

    def named(self, key_id: str) -> KeyWrapper:
        """The key of that id. Raises KeyWithheld when it is not among them."""
        for wrapper in self.all:
            if wrapper.key_id == key_id:
                return wrapper
        raise KeyWithheld(
            f"wrapping key {key_id} is not known here",
            hint="name it in encryption_key or encryption_keys_old",
        )


NO_KEYS = WrappingKeys()


def _associated(context: Context) -> bytes:
    return canonical.encode(dict(context))
