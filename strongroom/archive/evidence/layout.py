"""What is in an evidence bundle and under which name (docs/format.md §9). Pure.

The table of contents says which rows of which segment are disclosed and which tree they lead to. It is a claim like
everything else in the bundle: a checker holds it against the entries, the proofs and the checkpoint.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from strongroom.archive import canonical
from strongroom.archive.entry import parse_timestamp
from strongroom.archive.errors import FormatError
from strongroom.archive.note import KeyType, VerifierKey

FORMAT = "strongroom/evidence/1"
PROOF_HEADER = "c2sp.org/tlog-proof@v1"

README, CONTENTS, CHECKPOINT, CUSTODY = "README.txt", "bundle.json", "checkpoint", "custody.json"
VERIFIER, POLICY, COVER, SUMS = "verify.py", "keys/policy.txt", "cover.html", "SHA256SUMS"

Count = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]

_OPTIONAL = re.compile(
    r"README\.txt|cover\.html|verify\.py|custody\.json|keys/policy\.txt"
    r"|keys/[0-9a-f]{8}-[a-z0-9-]{1,32}\.pem|timestamps/[0-9]{6}\.tsr"
)
_ALGORITHMS = {
    KeyType.ED25519: "ed25519",
    KeyType.ECDSA: "ecdsa",
    KeyType.ED25519_COSIGNATURE: "ed25519-cosignature",
    KeyType.ML_DSA_44: "ml-dsa-44",
}


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tree every proof leads to."""

    size: Count
    root: Digest


class Disclosure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`records` rows of the `of` rows of one segment: the one at position `segment` of the entry at index `entry`."""

    entry: Count
    segment: Count
    key: str
    records: Count
    of: Count
    root: Digest


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bundle.json. `segments`[n-1] is what `records/<n>` and `nodes/<n>` hold; ascending by entry and segment."""

    origin: str
    created: str
    checkpoint: Head
    records: Count
    segments: tuple[Disclosure, ...]
    format: str = FORMAT

    @property
    def entries(self) -> list[int]:
        """The indices of the entries it needs, ascending."""
        return sorted({disclosure.entry for disclosure in self.segments})


msgspec.json.Decoder(Contents)  # see archive/details.py


def encode_contents(contents: Contents) -> bytes:
    """The bytes of bundle.json."""
    return canonical.encode(msgspec.to_builtins(contents))


def decode_contents(data: bytes) -> Contents:
    """The table of contents that bundle.json holds. Raises FormatError."""
    try:
        contents = msgspec.convert(canonical.decode(data), Contents)
    except (msgspec.ValidationError, TypeError) as error:
        raise FormatError(f"{CONTENTS}: {error}") from None
    if contents.format != FORMAT:
        raise FormatError(f"{CONTENTS}: unknown format {contents.format!r}")
    parse_timestamp(contents.created)
    places = [(disclosure.entry, disclosure.segment) for disclosure in contents.segments]
    if not places or places != sorted(set(places)):
        raise FormatError(f"{CONTENTS}: segments are not in ascending order, each once, at least one")
    if not all(1 <= disclosure.records <= disclosure.of for disclosure in contents.segments):
        raise FormatError(f"{CONTENTS}: a segment can't disclose that many records")
    if contents.records != sum(disclosure.records for disclosure in contents.segments):
        raise FormatError(f"{CONTENTS}: the number of records is not the sum over its segments")
    return contents


def needed_names(contents: Contents) -> set[str]:
    """The members without which the bundle proves nothing."""
    numbers = range(1, len(contents.segments) + 1)
    return (
        {CONTENTS, CHECKPOINT, SUMS}
        | {name(index) for index in contents.entries for name in (entry_name, proof_name)}
        | {name(number) for number in numbers for name in (records_name, nodes_name)}
    )


def is_optional(name: str) -> bool:
    """Whether a bundle may have a member of this name that no proof rests on."""
    return _OPTIONAL.fullmatch(name) is not None


def entry_name(index: int) -> str:
    """Member with the exact bytes of an entry."""
    return f"entries/{index:020d}"


def proof_name(index: int) -> str:
    """Member with the tlog-proof of an entry."""
    return f"proofs/{index:020d}"


def records_name(number: int) -> str:
    """Member with the disclosed records of the segment at number ≥ 1."""
    return f"records/{number:06d}"


def nodes_name(number: int) -> str:
    """Member with the hashes that complete that segment's tree."""
    return f"nodes/{number:06d}"


def timestamp_name(number: int) -> str:
    """Member with the RFC 3161 response at number ≥ 1."""
    return f"timestamps/{number:06d}.tsr"


def key_name(key: VerifierKey) -> str:
    """Member with a public key in PEM."""
    return f"keys/{key.key_id.hex()}-{_ALGORITHMS[key.type]}.pem"


def tlog_proof(index: int, path: Sequence[bytes], checkpoint: bytes) -> bytes:
    """A C2SP tlog-proof@v1 without extra data: the RFC 6962 path of an entry, then the checkpoint verbatim."""
    lines = [PROOF_HEADER, f"index {index}", *(base64.b64encode(node).decode() for node in path)]
    return ("\n".join(lines) + "\n\n").encode() + checkpoint


def tlog_path(proof: bytes, index: int, checkpoint: bytes) -> list[bytes]:
    """The path in the tlog-proof of entry `index` under `checkpoint`. Raises FormatError if it is not just that."""
    head, _, _ = proof.partition(b"\n\n")
    try:
        path = [base64.b64decode(line, validate=True) for line in head.split(b"\n")[2:]]
    except ValueError:
        raise FormatError(f"{proof_name(index)}: a line is not base64") from None
    if tlog_proof(index, path, checkpoint) != proof:
        raise FormatError(f"{proof_name(index)}: not the proof of entry {index} under this bundle's checkpoint")
    return path
