"""The verifier's own ground: whose signatures count, and what it saw last.

Three things, all the verifier's, none ever taken from the archive that is being checked:

* the **policy** (archive/policy.py): the log's keys, all of which must sign, and the witnesses that must cosign;
* the **memory**: the newest checkpoint a sound verification has seen. With it, an archive whose newest entries and
  checkpoints were cut off is recognised even though what is left is consistent;
* root certificates of **time-stamping authorities**, when timestamps are to count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from strongroom.archive import durable
from strongroom.archive.errors import FormatError
from strongroom.archive.note import Checkpoint, VerifierKey
from strongroom.archive.policy import Policy


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verification rests on."""

    policy: Policy
    memory: Checkpoint | None = None
    tsa_roots: tuple[x509.Certificate, ...] = ()

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.policy.origin

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The log's keys."""
        return self.policy.logs


def remember(path: Path, checkpoint: Checkpoint) -> None:
    """Durably replace the checkpoint remembered at `path`."""
    value = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.replace(path, json.dumps(value).encode() + b"\n")


def recall(path: Path) -> Checkpoint | None:
    """The checkpoint remembered at `path`, None when nothing is. Raises FormatError when the file is damaged."""
    try:
        value = json.loads(path.read_text())
        return Checkpoint(str(value["origin"]), int(value["size"]), bytes.fromhex(value["root"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a remembered checkpoint: {error}") from None
