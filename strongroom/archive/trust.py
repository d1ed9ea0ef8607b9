"""The verifier's own ground: which log it means, whose signatures count, and what it saw last.

Two files, both the verifier's, neither ever taken from the archive that is being checked:

* the **policy**, in C2SP tlog-policy form: `log <vkey>` lines name the log's keys (all must sign), `quorum none` says
  that no witnesses are asked for;
* the **memory**: the newest checkpoint a sound verification has seen. With it, an archive whose newest entries and
  checkpoints were cut off is recognised even though what is left is consistent.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from strongroom.archive.errors import FormatError
from strongroom.archive.note import Checkpoint, VerifierKey, parse_vkey


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verification rests on."""

    keys: tuple[VerifierKey, ...]
    memory: Checkpoint | None = None

    @property
    def origin(self) -> str:
        """The log's name: the name its keys sign under."""
        return self.keys[0].name


def parse_policy(text: str) -> tuple[VerifierKey, ...]:
    """The log keys of a policy. Raises FormatError naming the line."""
    keys: list[VerifierKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        match line.split("#")[0].split():
            case []:
                continue
            case ["log", vkey, *_]:
                keys.append(parse_vkey(vkey))
            case ["quorum", "none"]:
                continue
            case words:
                raise FormatError(f"policy line {number}: {words[0]!r} is not understood")
    if not keys or len({key.name for key in keys}) != 1:
        raise FormatError("policy: needs the keys of exactly one log")
    return tuple(keys)


def policy_text(keys: tuple[VerifierKey, ...]) -> str:
    """A policy that asks for a signature by every one of `keys` and for no witness."""
    return "".join(f"log {key.vkey()}\n" for key in keys) + "quorum none\n"


def remember(path: Path, checkpoint: Checkpoint) -> None:
    """Durably replace the checkpoint remembered at `path`."""
    text = json.dumps({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()})
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = path.with_name(path.name + ".new")
    with staged.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def recall(path: Path) -> Checkpoint | None:
    """The checkpoint remembered at `path`, None when nothing is. Raises FormatError when the file is damaged."""
    try:
        value = json.loads(path.read_text())
        return Checkpoint(str(value["origin"]), int(value["size"]), bytes.fromhex(value["root"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a remembered checkpoint: {error}") from None
