"""The ZIP file a bundle is: members written and read as streams, each digested on the way.

Writing needs no seek, so a bundle can go straight into an HTTP answer. `SHA256SUMS`, the last member, lists every other
member in the form `sha256sum -c` reads. Nothing in the file depends on a clock or a path: the same members give the
same bytes.

A ZIP file from a stranger is hostile input. Refused are anything before or after it, a comment, a name that occurs
twice, encryption, codings other than stored and deflate, and members larger than their kind can be. Names are only
compared, never used as paths. Memory is bounded: only members of limited size are held, others are read in pieces.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO

from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.evidence import layout

_END_BYTES, _END_SIGNATURE = 22, b"PK\x05\x06"  # the last record of a ZIP file that has no comment
_REFUSED_FLAGS = 0x2061  # encrypted, patched, strongly encrypted, masked headers
_READ_BYTES = 1 << 20
_WRITE_BYTES = 1 << 18
_SUMS_LINE = re.compile(rb"([0-9a-f]{64})  ([\x21-\x7e]+)\n")
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError, OverflowError, OSError)


class Writer:
    """A bundle under construction. `finish` makes it whole; after a failure the output stays visibly cut off."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = _Tee(output)
        # Level 1: log text shrinks nearly as well as at 6, several times faster.
        self._zip = zipfile.ZipFile(self._output, "w", allowZip64=True, compresslevel=1)  # type: ignore[call-overload]
        self._sums: list[str] = []

    def add(self, name: str, content: bytes, *, compress: bool = True) -> None:
        """Write a member whose content is at hand."""
        with self.member(name, compress=compress, large=False) as member:
            member.write(content)

    @contextmanager
    def member(self, name: str, *, compress: bool, large: bool = True) -> Iterator[MemberWriter]:
        """A member to be written in pieces; `large` when it may pass 2 GiB."""
        self._zip.compression = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with self._zip.open(name, "w", force_zip64=large) as file:
            member = MemberWriter(file)
            yield member
            member.flush()
        self._sums.append(f"{member.digest}  {name}\n")

    def finish(self) -> tuple[int, str]:
        """Write SHA256SUMS and the directory. Returns the bundle's length in bytes and its SHA-256 (hex)."""
        self.add(layout.SUMS, "".join(self._sums).encode())
        self._zip.close()
        return self._output.bytes, self._output.digest.hexdigest()

    def abandon(self) -> None:
        """Give up. The directory is not written: what is there can't be mistaken for a whole bundle."""
        self._output.muted = True
        self._zip.close()


class MemberWriter:
    """One member while it is written; small pieces are gathered, since the ZIP writer costs more than they do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = sha256()
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        """Append to the member."""
        self._gathered += data
        if len(self._gathered) >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass on what was gathered."""
        self._digest.update(self._gathered)
        self._file.write(self._gathered)
        self._gathered.clear()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what was written."""
        return self._digest.hexdigest()


class _Tee:
    """The output as the ZIP writer sees it: no seek, every byte counted and digested, deaf once muted."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self.bytes, self.digest, self.muted = 0, sha256(), False

    def write(self, data: bytes) -> int:
        if not self.muted:
            self._output.write(data)
            self.digest.update(data)
            self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        if not self.muted:
            self._output.flush()


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file for a bundle; removed again when writing it fails. Raises ObjectExists, StoreUnavailable."""
    try:
        file = path.open("xb")
    except FileExistsError:
        raise ObjectExists(f"{path} exists", hint="a bundle is never overwritten; name another file") from None
    except OSError as error:
        raise StoreUnavailable(f"can't write {path}: {error.strerror}", hint="check the folder") from error
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class Reader:
    """An opened bundle. Remembers the digest of every member that was read to its end."""

    def __init__(self, opened: zipfile.ZipFile) -> None:
        self._zip = opened
        self._infos = {info.filename: info for info in opened.infolist()}
        self._digests: dict[str, str] = {}

    @property
    def names(self) -> set[str]:
        """The members' names."""
        return set(self._infos)

    def read(self, name: str, limit: int) -> bytes:
        """A whole member of at most `limit` bytes. Raises FormatError."""
        with self.stream(name) as member:
            data = member.up_to(limit)
            if not member.at_end():
                raise FormatError(f"{name}: longer than the {limit} bytes it may have")
        return data

    @contextmanager
    def stream(self, name: str) -> Iterator[MemberReader]:
        """A member to be read in pieces. Raises FormatError for what is missing or damaged."""
        if name not in self._infos:
            raise FormatError(f"{name}: missing")
        with _as_format_error(name):
            file = self._zip.open(self._infos[name])
        with file:
            member = MemberReader(name, file)
            yield member
            if member.at_end():
                self._digests[name] = member.digest

    def check_sums(self) -> Iterator[str]:
        """Problems of the members against SHA256SUMS; reads what was not read yet."""
        try:
            stated = _parse_sums(self.read(layout.SUMS, 1 << 26))
        except FormatError as error:
            yield error.message
            return
        for name in sorted(self.names - {layout.SUMS}):
            try:
                if name not in self._digests:
                    with self.stream(name) as member:
                        member.skip()
            except FormatError as error:
                yield error.message
                continue
            if name not in stated:
                yield f"{name}: not listed in {layout.SUMS}"
            elif stated[name] != self._digests[name]:
                yield f"{name}: its SHA-256 is not the one {layout.SUMS} states"
        yield from (f"{name}: listed in {layout.SUMS}, missing" for name in sorted(set(stated) - self.names))


class MemberReader:
    """One member while it is read, digested as it passes. Every method raises FormatError on damage."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file
        self._digest = sha256()
        self._buffer, self._place = b"", 0

    def up_to(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        end = self._place + count
        if end <= len(self._buffer):
            data = self._buffer[self._place : end]
            self._place = end
            return data
        pieces = [self._buffer[self._place :]]
        missing = count - len(pieces[0])
        while missing > 0 and self._fill():
            self._place = min(missing, len(self._buffer))
            pieces.append(self._buffer[: self._place])
            missing -= self._place
        return b"".join(pieces)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        data = self.up_to(count)
        if len(data) != count:
            raise FormatError(f"{self.name}: ends in the middle")
        return data

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._place == len(self._buffer) and not self._fill()

    def skip(self) -> None:
        """Read what is left, for its digest."""
        while self._fill():
            pass
        self._place = len(self._buffer)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the member, once it was read to its end."""
        return self._digest.hexdigest()

    def _fill(self) -> bool:
        with _as_format_error(self.name):
            self._buffer, self._place = self._file.read(_READ_BYTES), 0
        self._digest.update(self._buffer)
        return bool(self._buffer)


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """The bundle at `path`. Raises ObjectMissing when there is no such file, FormatError when it is no bundle."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ObjectMissing(f"can't read {path}: {error.strerror}", hint="name a bundle file") from None
    with file:
        with _as_format_error("bundle"):
            file.seek(-_END_BYTES, os.SEEK_END)
            end = file.read()
            archive = zipfile.ZipFile(file)
        with archive:
            _must_be_plain(archive, end)
            yield Reader(archive)


def _must_be_plain(archive: zipfile.ZipFile, end: bytes) -> None:
    infos = archive.infolist()
    if len({info.filename for info in infos}) != len(infos):
        raise FormatError("bundle: two members of one name")
    starts = min((info.header_offset for info in infos), default=None)
    if starts != 0 or not end.startswith(_END_SIGNATURE) or not end.endswith(b"\0\0"):
        raise FormatError("bundle: not only members in the file")
    for info in infos:
        if info.flag_bits & _REFUSED_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"bundle: member {info.filename!r} is neither stored nor deflated")


def _parse_sums(data: bytes) -> dict[str, str]:
    lines = [_SUMS_LINE.fullmatch(line) for line in data.splitlines(keepends=True)]
    stated = {line[2].decode(): line[1].decode() for line in lines if line}
    if len(stated) != len(lines):
        raise FormatError(f"{layout.SUMS}: not one line `<SHA-256>  <name>` for each member")
    return stated


@contextmanager
def _as_format_error(name: str) -> Iterator[None]:
    """Whatever reading a damaged ZIP file raises is a FormatError that names the member."""
    try:
        yield
    except _BAD_ZIP as error:
        raise FormatError(f"{name}: damaged: {error or type(error).__name__}") from None


def unexpected(names: Iterable[str], needed: set[str]) -> list[str]:
    """Problems of a bundle's names: what is missing, what does not belong."""
    present = set(names)
    missing = [f"{name}: missing" for name in sorted(needed - present)]
    strange = sorted(name for name in present - needed if not layout.is_optional(name))
    return missing + [f"{name!r}: does not belong in a bundle" for name in strange]
