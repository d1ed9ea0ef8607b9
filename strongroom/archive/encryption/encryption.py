"""Encryption of an archive's objects: data keys from wrapping keys, used for envelopes, and nothing else.

    encryption.seal_bytes(name, content) -> envelope        encryption.open_bytes(name, envelope) -> content
    encryption.seal_file(name, file, envelope file)         encryption.open_file(name, envelope file, file)

`name` is the object's name, which ends in `.enc`. Every envelope is bound to it and to the archive's id.

**Which data key.** A file (a segment) gets one of its own. Small objects of one folder share one, for at most
`SHARED_SECONDS` and `SHARED_OBJECTS`: their content keys differ by their salts, a reader of a hundred thousand details
does not make as many calls to KMS, and an acknowledgement in diskless mode does not wait for one. Unwrapped keys are
remembered as long, so a key that its owner takes away is out of use here after that time. A verification begins with
none.

**Sealing twice** gives two envelopes: salts and data keys are never derived from content or position. Whoever finds the
name taken compares contents (ingest/commit.py).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from strongroom.archive import layout
from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.envelope import DataKey, FileFacts, Header
from strongroom.archive.encryption.wrapping import NO_KEYS, Context, KeyWrapper, WrappingKeys
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyUnusable, KeyWithheld

SHARED_SECONDS = 600.0
SHARED_OBJECTS = 1_000
_REMEMBERED = 4_096


@dataclass(slots=True)
class _Shared:
    key: DataKey
    until: float
    left: int


class Encryption:
    """Seals and opens the objects of one archive.

    Thread-safe. Can be sent to another process, which begins without what this one remembers.
    """

    def __init__(self, archive: str, keys: WrappingKeys = NO_KEYS) -> None:
        """`archive`: the archive's id."""
        self.archive, self.keys = archive, keys
        self._lock = threading.Lock()
        self._shared: dict[str, _Shared] = {}
        self._unwrapped: OrderedDict[tuple[str, str, bytes], tuple[bytes, float]] = OrderedDict()

    def __reduce__(self) -> tuple[object, ...]:
        return Encryption, (self.archive, self.keys)

    @property
    def on(self) -> bool:
        """Whether new objects are encrypted."""
        return self.keys.current is not None

    def name(self, key: str) -> str:
        """The name that an object otherwise named `key` is stored under."""
        return key + layout.ENCRYPTED if self.on else key

    def seal_bytes(self, name: str, content: bytes) -> bytes:
        """The envelope of `content`, to be stored as `name`. Raises KeyUnavailable, KeyWithheld."""
        return envelope.seal(content, self._shared_key(name), self.archive, name)

    def seal_file(self, name: str, source: Path, target: Path) -> FileFacts:
        """Write the envelope of `source` to the new file `target`. Raises KeyUnavailable, KeyWithheld, OSError."""
        return envelope.seal_file(source, target, self._fresh_key(name, name), self.archive, name)

    def open_bytes(self, name: str, content: bytes) -> bytes:
        """The content of the envelope stored as `name`. Raises FormatError, KeyUnavailable, KeyWithheld."""
        header = self._header(name, BytesIO(content))
        try:
            return envelope.open_bytes(content, header, self._unwrap(header))
        except FormatError as error:
            raise FormatError(f"{name}: {error.message}") from None

    def open_file(self, name: str, source: Path, target: Path) -> FileFacts:
        """Write the content of the envelope file `source` to the new file `target`; the content's length and SHA-256.

        Raises FormatError, KeyUnavailable, KeyWithheld, OSError; nothing is left at `target` then.
        """
        with source.open("rb") as file:
            header = self._header(name, file)
        try:
            return envelope.open_file(source, target, header, self._unwrap(header))
        except FormatError as error:
            raise FormatError(f"{name}: {error.message}") from None

    def canary(self) -> tuple[str, bytes]:
        """The current wrapping key's id and a data key it wrapped for nothing but being unwrapped again."""
        wrapper = self._current()
        return wrapper.key_id, wrapper.generate(self._context(_CANARY))[1]

    def unwrap_canary(self, key_id: str, wrapped: bytes) -> None:
        """Raises KeyWithheld or KeyUnavailable when the key `key_id` can't unwrap now, FormatError for no canary."""
        wrapper = self.keys.named(key_id)
        wrapper.unwrap(wrapped, self._context(_CANARY))

    def standing(self, key_id: str, canary: bytes) -> str:
        """In a few words how a wrapping key stands, once it has unwrapped its canary. Raises as that does."""
        self.unwrap_canary(key_id, canary)
        return f"unwraps; {self.keys.named(key_id).standing()}"

    def _header(self, name: str, file: BinaryIO) -> Header:
        try:
            header = envelope.read_header(file)
        except FormatError as error:
            raise FormatError(f"{name}: {error.message}") from None
        if (header.archive, header.object) != (self.archive, name):
            raise FormatError(f"{name}: holds the envelope of {header.object} in archive {header.archive}")
        return header

    def _shared_key(self, name: str) -> DataKey:
        scope = name[: name.rindex("/") + 1] if "/" in name else name
        with self._lock:
            shared = self._shared.get(scope)
            if shared is None or shared.left <= 0 or time.monotonic() >= shared.until:
                now = time.monotonic()
                self._shared = {known: one for known, one in self._shared.items() if one.until > now}
                shared = _Shared(self._fresh_key(scope, name), now + SHARED_SECONDS, SHARED_OBJECTS)
                self._shared[scope] = shared
            shared.left -= 1
            return shared.key

    def _fresh_key(self, scope: str, name: str) -> DataKey:
        wrapper = self._current()
        try:
            plain, wrapped = wrapper.generate(self._context(scope))
        except KeyUnavailable as error:
            raise _about(name, error) from error
        return DataKey(plain, wrapper.key_id, wrapped, scope)

    def _current(self) -> KeyWrapper:
        if self.keys.current is None:
            raise KeyUnusable("there is no wrapping key to seal with", hint="set encryption_key")
        return self.keys.current

    def _unwrap(self, header: Header) -> bytes:
        known = (header.key, header.scope, header.wrapped)
        with self._lock:
            plain, until = self._unwrapped.get(known, (b"", 0.0))
        if time.monotonic() < until:
            return plain
        try:
            plain = self.keys.named(header.key).unwrap(header.wrapped, self._context(header.scope))
        except KeyUnavailable as error:
            raise _about(header.object, error) from error
        with self._lock:
            self._unwrapped[known] = plain, time.monotonic() + SHARED_SECONDS
            while len(self._unwrapped) > _REMEMBERED:
                self._unwrapped.popitem(last=False)
        return plain

    def _context(self, scope: str) -> Context:
        return {"strongroom:archive": self.archive, "strongroom:scope": scope}


_CANARY = "canary"


def _about(name: str, error: KeyUnavailable) -> KeyUnavailable:
    """The same error, naming the object."""
    kind = KeyWithheld if isinstance(error, KeyWithheld) else KeyUnavailable
    return kind(f"{name}: {error.message}", hint=error.hint)
