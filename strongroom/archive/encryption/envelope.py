"""Client-side envelopes: one object, encrypted before it leaves its writer (docs/format.md §11).

Pure over bytes and files; data keys come in.

    envelope = encryption.seal_bytes(name, content)
    content = encryption.open_bytes(name, envelope)

is how the rest of the service asks (archive/encryption/encryption.py): it gets data keys and calls what is here.

* **One content key per envelope**, derived from the data key, a random salt and the hash of the whole header: nonces
  may simply count, and no byte of the header can change without another key coming out.
* **Key commitment**: GCM alone lets one ciphertext open under two keys. The derivation gives a second value that the
  envelope carries; it is compared before anything is decrypted.
* **Chunks of 1 MiB**, each with its number and a mark on the last one in the nonce (the STREAM construction), so that
  cut off, repeated, exchanged and appended chunks are found, in bounded memory.
* The header names the archive and the object: an envelope moved elsewhere is refused.

Only AES-256-GCM, HKDF, SHA-256 and SHA-512 are used, all by OpenSSL. Content that came out before an error is not to be
used: `open_file` removes it. Source of the chunk layout: Hoang, Reyhanitabar, Rogaway, Vizár, "Online
Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (2015); of the commitment: AWS Encryption SDK message
format, committing suites. Why not that format itself: docs/decisions/0007-own-envelope.md.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.archive import canonical
from strongroom.archive.errors import FormatError

FORMAT = "strongroom/envelope/1"
MAGIC = bytes.fromhex("5352656e760d0a01")
KEY_BYTES = 32
SALT_BYTES = 32
CHUNK_BYTES = 1 << 20
TAG_BYTES = 16

_MAX_HEADER = 65_535
_COMMITMENT_BYTES = 32
_MAX_CHUNKS = 1 << 32


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key, and what a header says of it: who wrapped it (`key`), how it looks wrapped, and what it is for.

    `scope` is an object's name, or a beginning of names that ends in "/".
    """

    plain: bytes = field(repr=False)
    key: str
    wrapped: bytes
    scope: str


@dataclass(frozen=True, slots=True)
class Header:
    """An envelope's header. `stored`: all its bytes before the commitment."""

    archive: str
    object: str
    scope: str
    key: str
    wrapped: bytes
    salt: bytes
    stored: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file's length and SHA-256 (hex), as an entry states them."""

    bytes: int
    sha256: str


def seal(content: bytes, key: DataKey, archive: str, object_: str) -> bytes:
    """The envelope of `content`, to be stored as `object_` in the archive of id `archive`."""
    envelope = BytesIO()
    seal_stream(BytesIO(content), envelope, key, archive, object_)
    return envelope.getvalue()


def seal_file(source: Path, target: Path, key: DataKey, archive: str, object_: str) -> FileFacts:
    """Write the envelope of the file `source` to the new file `target`. Raises OSError, leaving no `target`."""
    with source.open("rb") as content, _new(target) as envelope:
        digest = _Digesting(envelope)
        seal_stream(content, digest, key, archive, object_)
        return digest.facts()


def read_header(envelope: BinaryIO) -> Header:
    """The header at the start of `envelope`, not yet authenticated. Raises FormatError."""
    start = envelope.read(len(MAGIC) + 4)
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC) or length > _MAX_HEADER:
        raise FormatError("envelope: does not begin as one")
    encoded = envelope.read(length)
    if len(encoded) != length:
        raise FormatError("envelope: ends within its header")
    value = canonical.decode(encoded)
    try:
        if value.pop("format") != FORMAT:
            raise FormatError("envelope: unknown format")
        header = Header(
            archive=value.pop("archive"),
            object=value.pop("object"),
            scope=value.pop("scope"),
            key=value.pop("key"),
            wrapped=base64.b64decode(value.pop("wrapped"), validate=True),
            salt=bytes.fromhex(value.pop("salt")),
            stored=start + encoded,
        )
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise FormatError(f"envelope: malformed header: {error}") from None
    texts = (header.archive, header.object, header.scope, header.key)
    if value or len(header.salt) != SALT_BYTES or not all(isinstance(text, str) for text in texts):
        raise FormatError("envelope: malformed header")
    if header.scope != header.object and not (header.scope.endswith("/") and header.object.startswith(header.scope)):
        raise FormatError(f"envelope: a data key for {header.scope!r} can't be that of {header.object!r}")
    if encode_header(header.archive, header.object, _said(header), header.salt) != header.stored:
        raise FormatError("envelope: the header has another, proper spelling")
    return header


def open_bytes(envelope: bytes, header: Header, data_key: bytes) -> bytes:
    """The content. Raises FormatError unless every byte of the envelope is as it was sealed with this data key."""
    content = BytesIO()
    stored = BytesIO(envelope)
    stored.seek(len(header.stored))
    for chunk in _chunks(stored, header, data_key):
        content.write(chunk)
    return content.getvalue()


def open_file(source: Path, target: Path, header: Header, data_key: bytes) -> FileFacts:
    """Write the content of the envelope file `source` to the new file `target`; returns the content's facts.

    Raises FormatError as `open_bytes` does, OSError; either leaves no `target`.
    """
    with source.open("rb") as envelope, _new(target) as content:
        envelope.seek(len(header.stored))
        digest = _Digesting(content)
        for chunk in _chunks(envelope, header, data_key):
            digest.write(chunk)
        return digest.facts()


def encode_header(archive: str, object_: str, key: DataKey, salt: bytes) -> bytes:
    """Magic, length and header, as stored. Raises FormatError when it is too long."""
    encoded = canonical.encode(
        {
            "format": FORMAT,
            "archive": archive,
            "object": object_,
            "scope": key.scope,
            "key": key.key,
            "wrapped": base64.b64encode(key.wrapped).decode(),
            "salt": salt.hex(),
        }
    )
    if len(encoded) > _MAX_HEADER:
        raise FormatError(f"envelope: the header would be {len(encoded)} bytes")
    return MAGIC + len(encoded).to_bytes(4, "big") + encoded


def seal_stream(source: BinaryIO, target: _Writable, key: DataKey, archive: str, object_: str) -> None:
    """Write the envelope of what is left of `source` to `target`, in bounded memory."""
    salt = secrets.token_bytes(SALT_BYTES)
    stored = encode_header(archive, object_, key, salt)
    cipher, commitment = _derive(key.plain, salt, stored)
    target.write(stored)
    target.write(commitment)
    stored_chunk = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))
    for number, chunk, last in _pieces(source, CHUNK_BYTES):
        sealed = stored_chunk[: len(chunk) + TAG_BYTES]
        cipher.encrypt_into(_nonce(number, last), chunk, None, sealed)
        target.write(sealed)


def _chunks(envelope: BinaryIO, header: Header, data_key: bytes) -> Iterator[memoryview]:
    """The authenticated content from behind the header on, chunk by chunk; each is good until the next is asked for."""
    cipher, commitment = _derive(data_key, header.salt, header.stored)
    if not hmac.compare_digest(envelope.read(_COMMITMENT_BYTES), commitment):
        raise FormatError("envelope: the header was changed, or this is not the data key it was sealed with")
    content_chunk = memoryview(bytearray(CHUNK_BYTES))
    for number, chunk, last in _pieces(envelope, CHUNK_BYTES + TAG_BYTES):
        content = content_chunk[: max(len(chunk) - TAG_BYTES, 0)]
        try:
            cipher.decrypt_into(_nonce(number, last), chunk, None, content)
        except (InvalidTag, ValueError):
            raise FormatError(f"envelope: chunk {number} is not what was sealed, or not the last one") from None
        if not content and number:
            raise FormatError("envelope: an empty chunk after the content")
        yield content


def _pieces(source: BinaryIO, size: int) -> Iterator[tuple[int, memoryview, bool]]:
    """What is left of `source` in pieces of `size` bytes, at least one: number, bytes, and whether it is the last.

    Two buffers take turns: memory that is got anew for each piece costs more than the cipher.
    """
    buffer, other = memoryview(bytearray(size)), memoryview(bytearray(size))
    held, number = _fill(source, buffer), 0
    while True:
        following = _fill(source, other)
        yield number, buffer[:held], not following
        if not following:
            return
        buffer, other, held, number = other, buffer, following, number + 1


def _fill(source: BinaryIO, buffer: memoryview) -> int:
    count = source.readinto(buffer)  # type: ignore[attr-defined]  # all that is opened here has it
    return int(count)


def _derive(data_key: bytes, salt: bytes, stored: bytes) -> tuple[AESGCM, bytes]:
    """The cipher under the content key, and the commitment."""
    info = FORMAT.encode() + sha256(stored).digest()
    output = HKDF(SHA512(), KEY_BYTES + _COMMITMENT_BYTES, salt, info).derive(data_key)
    return AESGCM(output[:KEY_BYTES]), output[KEY_BYTES:]


def _nonce(number: int, last: bool) -> bytes:
    if number >= _MAX_CHUNKS:
        raise FormatError("envelope: the content is too long")
    return bytes(7) + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def _said(header: Header) -> DataKey:
    return DataKey(b"", header.key, header.wrapped, header.scope)


class _Writable(Protocol):
    def write(self, data: bytes | memoryview, /) -> object: ...


class _Digesting:
    """A file that is hashed and measured while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._bytes = file, sha256(), 0

    def write(self, data: bytes | memoryview, /) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def facts(self) -> FileFacts:
        return FileFacts(self._bytes, self._hash.hexdigest())


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A new file that is gone again when the context ends by an exception."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
