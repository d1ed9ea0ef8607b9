"""Text bodies: cutting them into lines, and telling that a body is not text at all.

A line is a record without its terminator, LF or CR LF. Lines of nothing but white space are not records. A body of
some binary format (Parquet, an archive, UTF-16) has no records we could find: a source returns it whole, as one
broken record that says what it is, instead of thousands of senseless lines.
"""

from __future__ import annotations

from strongroom.ingest.sources.source import Broken, Split

BOM = b"\xef\xbb\xbf"

# Long enough that neither text nor a damaged byte or two can look like one of these.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1\x15", "an Apache Parquet file"),
    (b"\x1f\x8b\x08", "gzip data inside the decoded body"),
    (b"\x28\xb5\x2f\xfd", "zstd data inside the decoded body"),
    (b"BZh91AY&SY", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Obj\x01", "an Avro file"),
    (b"ARROW1\x00", "an Arrow file"),
)
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_SAMPLE = 4096


def binary(body: bytes) -> str | None:
    """Why `body` is not text, or None when it may be."""
    for magic, kind in _MAGIC:
        if body.startswith(magic):
            return f"the body is {kind}, not text"
    sample = body[:_SAMPLE]
    # A few stray control bytes are damage in a record; one byte in ten is another format.
    if len(sample) - len(sample.translate(None, _CONTROL)) > max(16, len(sample) // 10):
        kind = "UTF-16 or UTF-32, not UTF-8" if sample.startswith(_WIDE) else "binary data, not text"
        return f"the body is {kind}"
    return None


def whole(body: bytes, reason: str) -> Split:
    """The whole body as one broken record."""
    return Split(raw=[], context=None, positions=None, broken=[Broken(0, body, reason)])


def lines(body: bytes) -> list[bytes]:
    """The lines of a body, exact but for their terminators; blank ones are left out."""
    found = body.removeprefix(BOM).split(b"\n")
    if b"\r" in body:
        found = [line.removesuffix(b"\r") for line in found]
    # Nearly every line begins with a byte above any white space: comparing is quicker than asking.
    return [line for line in found if line > b"!" or (line and not line.isspace())]
