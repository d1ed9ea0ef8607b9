"""Which keys speak for the log at which size: the key history, read from the log and anchored in a policy. Pure.

A log changes its keys by an entry of kind `key` (docs/format.md §4.5). It holds a **statement**: every key in force
before and after, and the tree size from which the change counts, which is always one more than the entry's index.
The rules:

1. Keys are valid for ranges of tree sizes, never for dates: a checkpoint of size s is signed by exactly the keys in
   force at s. A newer key does not speak for an older tree, so whoever steals it can't rewrite what came before.
2. A statement is signed by every key before and every key after. The old keys vouch for the new, so a verifier with an
   old policy goes on by itself; the new keys vouch for the old, so one with a new policy can look back.
3. A key that is *revoked* is not believed from a size on, which may lie before the statement, and its own signature
   may be lacking. If it lacks, whoever holds the *other* keys could have said it: one key would be enough to take the
   log over. A verifier therefore follows, but says so (`unconfirmed`) until his policy names the keys that remain.
4. When no key the policy trusts has signed a statement, nothing in the log can help: a new policy must come from
   outside (pin anew). The statement then still leads from the new keys back to the old.
5. A key that went never returns.

What is signed is a tree head's three lines with origin `<origin>/keys`, the size from which the change counts, and the
SHA-256 of the statement as root: ML-DSA-44 note signatures (type 0x06) can sign tree heads and nothing else, and no
log has that origin under these key names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from strongroom.archive import note
from strongroom.archive.errors import FormatError
from strongroom.archive.note import Checkpoint, KeyType, NoteSigner, VerifierKey

TITLE = "strongroom keys v1"
MAX_REASON_CHARACTERS = 200

Keys = frozenset[VerifierKey]


@dataclass(frozen=True, slots=True)
class Change:
    """A statement: from trees of `effective` entries on, other keys sign. Each tuple keeps the statement's order.

    `revoked`: keys with the size from which their signatures are not believed. `signed`: whose signatures it carries.
    """

    origin: str
    effective: int
    reason: str
    kept: tuple[VerifierKey, ...] = ()
    retired: tuple[VerifierKey, ...] = ()
    revoked: tuple[tuple[VerifierKey, int], ...] = ()
    added: tuple[VerifierKey, ...] = ()
    signed: Keys = frozenset()

    @property
    def before(self) -> Keys:
        """The keys in force until then."""
        return frozenset((*self.kept, *self.retired, *(key for key, _ in self.revoked)))

    @property
    def after(self) -> Keys:
        """The keys in force from then on."""
        return frozenset((*self.kept, *self.added))

    def text(self) -> str:
        """The statement."""
        lines = [TITLE, f"origin {self.origin}", f"from {self.effective}", f"reason {self.reason}"]
        lines += [f"keep {key.vkey()}" for key in self.kept]
        lines += [f"retire {key.vkey()}" for key in self.retired]
        lines += [f"revoke {size} {key.vkey()}" for key, size in self.revoked]
        lines += [f"add {key.vkey()}" for key in self.added]
        return "\n".join(lines) + "\n"


def sign(change: Change, signers: Sequence[NoteSigner]) -> dict[str, Any]:
    """What the entry of this change holds as `data`. Raises FormatError unless `read` would accept it."""
    statement = change.text()
    data = {"statement": statement, "signed": note.sign(_head(change, statement).text(), signers).encode()}
    read(change.effective - 1, change.origin, data)
    return data


def read(index: int, origin: str, data: Mapping[str, Any]) -> Change:
    """The change that the `key` entry at `index` makes, as far as it can be judged alone.

    Raises FormatError when the statement is malformed, not about this place in this log, or not signed by all who
    must. Whether it continues the keys in force, `Keyring` judges.
    """
    statement, signed = data.get("statement"), data.get("signed")
    if set(data) != {"statement", "signed"} or not isinstance(statement, str) or not isinstance(signed, str):
        raise FormatError("key change: data must be a statement and its signed note")
    change = _parse(statement)
    if (change.origin, change.effective) != (origin, index + 1):
        raise FormatError(f"key change: made for {change.origin} from size {change.effective}")
    _must_be_meaningful(change)
    seal = note.parse(signed.encode())
    if seal.text != _head(change, statement).text():
        raise FormatError("key change: what is signed is not the statement")
    signers = frozenset(note.verify(seal, change.before | change.after))
    must = {*change.kept, *change.retired, *change.added}
    if missing := must - signers:
        raise FormatError(f"key change: not signed by {_names(missing)}")
    return Change(
        change.origin,
        change.effective,
        change.reason,
        change.kept,
        change.retired,
        change.revoked,
        change.added,
        signers,
    )


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be said about the `key` entry at `index`: a finding's code, expected and actual.

    `discontinued`: the statement is good in itself but does not follow from the others, as when one of them is lost.
    """

    code: Literal["KEY_CHANGE_INVALID", "KEY_CHANGE_UNCONFIRMED"]
    index: int
    expected: str
    actual: str
    discontinued: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """Trees of `first` entries and more, up to the next period: who must sign them and who may.

    The two differ where a policy names some of the log's keys only.
    """

    first: int
    must: Keys
    may: Keys


@dataclass(frozen=True, slots=True)
class Signatures:
    """How a checkpoint's signatures stand: required keys that lack, and keys of the log that had no say there."""

    missing: Keys
    out_of_window: Keys


@dataclass(slots=True)
class Keyring:
    """The keys of one log over all tree sizes, as far as a policy's keys vouch for them. Made by `follow`."""

    periods: list[Period] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    revoked: dict[VerifierKey, int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @classmethod
    def follow(
        cls, origin: str, anchor: Iterable[VerifierKey], entries: Iterable[tuple[int, Mapping[str, Any]]]
    ) -> Keyring:
        """The key history that `anchor`, the policy's keys, vouch for.

        `entries`: index and data of the log's `key` entries, in order. What can't be followed is a remark, and changes
        nothing.
        """
        ring = cls()
        read_changes: list[Change] = []
        for index, data in entries:
            try:
                read_changes.append(read(index, origin, data))
            except FormatError as error:
                ring._remark("KEY_CHANGE_INVALID", index, "a statement signed by all its keys", error.message)
        pinned = frozenset(anchor)
        start, full = _place(pinned, read_changes)
        ring.periods = [Period(0, pinned, full)]
        ring._look_back(read_changes[:start], full)
        ring._go_on(read_changes[start:])
        ring.remarks.sort(key=lambda remark: remark.index)
        return ring

    @property
    def keys(self) -> Keys:
        """Every key that is or was in force, and those the policy names."""
        return frozenset[VerifierKey]().union(*(period.must | period.may for period in self.periods))

    def at(self, size: int) -> Period:
        """The period a tree of `size` entries falls in."""
        return self.periods[bisect_right([period.first for period in self.periods], size) - 1]

    def believed(self, size: int) -> Keys:
        """The keys that must have signed a checkpoint of `size`; empty when all of them were revoked by then."""
        return frozenset(key for key in self.at(size).must if not self._revoked_at(key, size))

    def window(self, key: VerifierKey) -> tuple[int, int | None] | None:
        """First and last tree size `key` speaks for (last None: still in force), None when it never does."""
        found = [number for number, period in enumerate(self.periods) if key in period.may | period.must]
        if not found:
            return None
        ends = [self.periods[found[-1] + 1].first - 1] if found[-1] + 1 < len(self.periods) else []
        ends += [self.revoked[key] - 1] if key in self.revoked else []
        first, last = max(1, self.periods[found[0]].first), min(ends, default=None)
        return (first, last) if last is None or first <= last else None

    def judge(self, size: int, signers: Iterable[VerifierKey]) -> Signatures:
        """How a checkpoint of `size` stands that carries valid signatures by `signers`."""
        signed = frozenset(signers)
        period = self.at(size)
        return Signatures(self.believed(size) - signed, (signed & self.keys) - period.may - period.must)

    def _look_back(self, changes: Sequence[Change], current: Keys) -> None:
        later: set[VerifierKey] = set(current)
        for change in reversed(changes):
            gone = change.before - change.after
            if change.after != current or gone & later:
                self._remark_break(change, current, "to")
                continue
            # The keys after it have signed, and this policy vouches for them.
            self.periods[0] = Period(change.effective, self.periods[0].must, self.periods[0].may)
            self.periods.insert(0, Period(0, change.before, change.before))
            self._note(change, first=True)
            current = change.before
            later |= current

    def _go_on(self, changes: Sequence[Change]) -> None:
        for change in changes:
            last = self.periods[-1]
            if change.before != last.may or set(change.added) & self.keys:
                self._remark_break(change, last.may, "from")
                continue
            silent = last.must - change.signed
            if silent == last.must:
                self._remark(
                    "KEY_CHANGE_INVALID", change.effective - 1, f"a signature by one of {_names(last.must)}", "none"
                )
                continue
            if silent:
                self._remark(
                    "KEY_CHANGE_UNCONFIRMED",
                    change.effective - 1,
                    f"a signature by {_names(silent)}, or a policy that names {_names(change.after)}",
                    f"retired without its signature: {change.reason}",
                )
            self.periods.append(Period(change.effective, change.after, change.after))
            self._note(change)

    def _note(self, change: Change, first: bool = False) -> None:
        self.changes.insert(0 if first else len(self.changes), change)
        self.revoked |= dict(change.revoked)

    def _revoked_at(self, key: VerifierKey, size: int) -> bool:
        return key in self.revoked and self.revoked[key] <= size

    def _remark(
        self, code: Literal["KEY_CHANGE_INVALID", "KEY_CHANGE_UNCONFIRMED"], index: int, expected: str, actual: str
    ) -> None:
        self.remarks.append(Remark(code, index, expected, actual))

    def _remark_break(self, change: Change, current: Keys, direction: str) -> None:
        found = change.before if direction == "from" else change.after
        actual = f"a change {direction} {_names(found)}"
        if found == current:
            actual = f"a change that brings back a key that went before ({_names(change.before ^ change.after)})"
        expected = f"a change {direction} {_names(current)}"
        self.remarks.append(Remark("KEY_CHANGE_INVALID", change.effective - 1, expected, actual, found != current))


def in_order(keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """The keys in an order that depends on them alone."""
    return tuple(sorted(keys, key=lambda key: (key.type, key.key_id)))


def _place(pinned: Keys, changes: Sequence[Change]) -> tuple[int, Keys]:
    """Where in the history the policy stands: the first change still before it, and all keys in force there.

    Only a change that a pinned key has signed can tell; among those, one between exactly the pinned keys and others is
    preferred to one that names further keys beside them. Anybody can write statements that no pinned key has signed.
    """
    for fits in (pinned.__eq__, pinned.__le__):
        for number, change in enumerate(changes):
            if fits(change.before) and pinned & change.signed:
                return number, change.before
            if fits(change.after):  # which have all signed
                return number + 1, change.after
    return 0, pinned


def _head(change: Change, statement: str) -> Checkpoint:
    return Checkpoint(f"{change.origin}/keys", change.effective, sha256(statement.encode()).digest())


def _parse(statement: str) -> Change:
    lists: dict[str, list[VerifierKey]] = {"keep": [], "retire": [], "add": []}
    revoked: list[tuple[VerifierKey, int]] = []
    title, *lines = statement.split("\n")
    facts: dict[str, str] = {}
    for line in lines[:-1]:
        word, _, rest = line.partition(" ")
        if word in lists:
            lists[word].append(note.parse_vkey(rest))
        elif word == "revoke":
            size, _, vkey = rest.partition(" ")
            revoked.append((note.parse_vkey(vkey), _size(size)))
        else:
            facts[word] = rest
    if title != TITLE or set(facts) != {"origin", "from", "reason"}:
        raise FormatError(f"key change: not a statement of the form {TITLE!r}")
    change = Change(
        facts["origin"],
        _size(facts["from"]),
        facts["reason"],
        tuple(lists["keep"]),
        tuple(lists["retire"]),
        tuple(revoked),
        tuple(lists["add"]),
    )
    if change.text() != statement:
        raise FormatError("key change: the statement's lines are not in the order of docs/format.md")
    return change


def _must_be_meaningful(change: Change) -> None:
    every = [*change.kept, *change.retired, *(key for key, _ in change.revoked), *change.added]
    if len(set(every)) != len(every):
        raise FormatError("key change: names a key twice")
    if any(key.name != change.origin or key.type is KeyType.ED25519_COSIGNATURE for key in every):
        raise FormatError("key change: names a key that can't sign for this log")
    if not change.before or not change.after or change.before == change.after:
        raise FormatError("key change: comes from no key, leaves none, or changes none")
    if any(size > change.effective for _, size in change.revoked):
        raise FormatError("key change: revokes a key from a size beyond the change")
    if not 1 <= len(change.reason) <= MAX_REASON_CHARACTERS or not change.reason.isprintable():
        raise FormatError(f"key change: the reason must be one line of 1-{MAX_REASON_CHARACTERS} characters")


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or str(int(text)) != text:
        raise FormatError(f"key change: {text!r} is not a tree size")
    return int(text)


def _names(keys: Iterable[VerifierKey]) -> str:
    return ", ".join(sorted(f"{key.type.name} {key.key_id.hex()}" for key in keys)) or "no key"
