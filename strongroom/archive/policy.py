"""A verifier's policy in C2SP tlog-policy form: which log, and whose cosignatures make a checkpoint count. Pure.

One statement a line; `#` starts a comment:

    log <vkey> [<url>]                        a key of the log; here a log may have several, and all must sign
    witness <name> <vkey> [<url>]             an independent cosigner
    group <name> <k|any|all> <member> …       true when k of its members (witnesses or groups) cosigned
    quorum <name|none>                        what must be true of a checkpoint; exactly one such line

Names are defined before they are used, each once, so a policy has no cycles and reads top to bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from strongroom.archive.errors import FormatError
from strongroom.archive.note import KeyType, Note, VerifierKey, cosigned_at, parse_vkey, verify

_COSIGNERS = (KeyType.ED25519_COSIGNATURE, KeyType.ML_DSA_44)


@dataclass(frozen=True, slots=True)
class Group:
    """`threshold` of `members` make it true."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Witness:
    """An independent cosigner, and where it takes checkpoints ("" when it comes by itself)."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier asks of a checkpoint."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, Witness] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = "none"

    @property
    def origin(self) -> str:
        """The log's name: the name its keys sign under."""
        return self.logs[0].name

    def satisfied_by(self, cosigned: Set[str]) -> bool:
        """Whether these witnesses (by policy name) are enough."""
        return self.quorum == "none" or self._holds(self.quorum, cosigned)

    def _holds(self, name: str, cosigned: Set[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigned
        return sum(self._holds(member, cosigned) for member in group.members) >= group.threshold

    def text(self) -> str:
        """The policy as a file."""
        lines = [f"log {key.vkey()}" for key in self.logs]
        lines += [f"witness {w.name} {w.key.vkey()} {w.url}".rstrip() for w in self.witnesses.values()]
        lines += [f"group {name} {group.threshold} {' '.join(group.members)}" for name, group in self.groups.items()]
        return "\n".join([*lines, f"quorum {self.quorum}"]) + "\n"


def parse(text: str) -> Policy:
    """The policy of a file. Raises FormatError naming the line."""
    logs: list[VerifierKey] = []
    witnesses: dict[str, Witness] = {}
    groups: dict[str, Group] = {}
    quorum = ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            match line.split("#")[0].split():
                case []:
                    continue
                case ["log", vkey] | ["log", vkey, _]:
                    key = parse_vkey(vkey)
                    if key.type is KeyType.ED25519_COSIGNATURE or key in logs:
                        raise FormatError(f"log key {key.key_id.hex()}: given twice, or a cosigner's")
                    logs.append(key)
                case ["witness", name, vkey, *url] if len(url) <= 1:
                    key = parse_vkey(vkey)
                    if key.type not in _COSIGNERS:
                        raise FormatError(f"witness {name!r}: {key.type.name} keys don't cosign")
                    _define(name, witnesses, groups)
                    witnesses[name] = Witness(name, key, url[0] if url else "")
                case ["group", name, threshold, *members] if members and len(set(members)) == len(members):
                    _define(name, witnesses, groups)
                    groups[name] = Group(_threshold(threshold, len(members)), tuple(members))
                    for member in members:
                        _known(member, witnesses, groups, besides=name)
                case ["quorum", name] if not quorum:
                    quorum = name
                    if name != "none":
                        _known(name, witnesses, groups)
                case words:
                    raise FormatError(f"{words[0]!r} is not understood here")
        except FormatError as error:
            raise FormatError(f"policy line {number}: {error.message}") from None
    if not logs or len({key.name for key in logs}) != 1 or not quorum:
        raise FormatError("policy: needs the keys of exactly one log and a quorum line (`quorum none` asks no witness)")
    return Policy(tuple(logs), witnesses, groups, quorum)


def cosigners(note: Note, policy: Policy) -> dict[str, int]:
    """Policy names of the witnesses that validly cosigned, with the POSIX seconds they state.

    Raises FormatError when a line by a known witness is not valid.
    """
    names = {witness.key: name for name, witness in policy.witnesses.items()}
    signed = verify(note, names)
    times = {(s.name, s.key_id): s for s in note.signatures}
    return {names[key]: cosigned_at(times[key.name, key.key_id], key.type) or 0 for key in signed}


def _define(name: str, *known: Mapping[str, object]) -> None:
    if name == "none" or any(name in names for names in known):
        raise FormatError(f"{name!r} can't be defined here: it has a meaning already")


def _known(name: str, *known: Mapping[str, object], besides: str = "") -> None:
    if name == besides or not any(name in names for names in known):
        raise FormatError(f"{name!r} is not defined before")


def _threshold(text: str, members: int) -> int:
    if text in ("any", "all"):
        return 1 if text == "any" else members
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= members:
        raise FormatError(f"threshold {text!r} of {members} members")
    return int(text)
