"""What a log says about its own encryption: `policy` entries that take wrapping keys into use (docs/format.md §11.5).

From the first of them on, every object an entry names must be an envelope: a writer that was started without a key
would otherwise store plain records where its owner believes that there are none. Nothing ends it; a log that shall be
plain is another log. The keys stand in the log, each with a canary, so that a verifier knows what must be unwrapped
without reading a single object, and a key that went away shows at once. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strongroom.archive import layout
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef

_WHAT = "encryption"


@dataclass(frozen=True, slots=True)
class Declared:
    """A wrapping key that entry `index` takes into use; `canary` is a data key that it wrapped."""

    index: int
    key: str
    canary: bytes


def statement(key: str, canary: bytes) -> dict[str, Any]:
    """The `data` of the entry that takes `key` into use."""
    return {"what": _WHAT, "key": key, "canary": base64.b64encode(canary).decode()}


def declared(index: int, kind: str, data: Mapping[str, Any]) -> Declared | None:
    """What an entry declares, None when it is not of this kind. A canary that is none is kept, and won't unwrap."""
    if kind != "policy" or data.get("what") != _WHAT:
        return None
    try:
        canary = base64.b64decode(str(data.get("canary", "")), validate=True)
    except binascii.Error:
        canary = b""
    return Declared(index, str(data.get("key", "")), canary)


def of(entry: Entry) -> Declared | None:
    """What `entry` declares, None when it declares no wrapping key."""
    return declared(entry.index, entry.kind, entry.data)


def in_the_clear(objects: tuple[SegmentRef | ObjectRef, ...]) -> list[str]:
    """The names of those that are no envelopes."""
    return [reference.key for reference in objects if not reference.key.endswith(layout.ENCRYPTED)]
