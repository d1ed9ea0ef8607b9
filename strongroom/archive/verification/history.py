"""The log as a verifier finds it: what its entries and checkpoints break, and the judgement over that.

The rules are archive/chain.py's; this module holds the stored log against them, against the checkpoints, and against
the verifier's own policy and memory. Who must have signed a checkpoint of which size, archive/keyring.py says: the
policy's keys, and what the log's key changes make of them. The judgement names each change once and where it was made:

* Every validly signed checkpoint whose root the tree has moves *last good* up; the first whose root differs is *first
  bad*. A change lies between the two.
* When `prev` of an entry and the bytes before it disagree, the checkpoints decide which of the two was changed.
* What a named change explains (later links, later checkpoints, the verifier's memory) is not reported again. Behind a
  damaged entry that may have changed the log's keys, checkpoints by keys nobody introduced are a note, not a finding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from strongroom.archive import entry as entries
from strongroom.archive import layout, note, timestamps
from strongroom.archive.chain import Chain, Violation
from strongroom.archive.encryption import policy as encryption_policy
from strongroom.archive.encryption.policy import Declared
from strongroom.archive.entry import Entry
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.keyring import Keyring
from strongroom.archive.log import checkpoint_sizes, read_identity
from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.archive.note import Checkpoint, Note, VerifierKey
from strongroom.archive.policy import cosigners
from strongroom.archive.retention.order_book import is_order
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import Asked, Finding, Report

_FRESH_SECONDS = 60  # an unsigned entry younger than this may belong to a commit under way


class History:
    """The log as found: its entries' violations, its tree, its checkpoints, and the judgement over them."""

    def __init__(self, store: ObjectStore, trust: Trust, listed: Mapping[str, int], asked: Asked) -> None:
        self.store = store
        self.trust = trust
        self.listed = listed
        self.asked = asked
        self.tree = Tree()
        self.indices: list[int] = []  # of the entries that are there, ascending
        self.missing: list[range] = []  # indices without an entry though later entries or checkpoints exist
        self.violations: dict[int, list[Violation]] = {}
        self.bad: set[int] = set()  # entries a finding blames; what they name is not held against other objects
        self.last_good = 0  # largest size whose checkpoint agrees with the tree
        self.first_bad: tuple[Checkpoint, bytes] | None = None  # the first that does not, and the tree's root there
        self.chain: Chain
        self.ring: Keyring
        self.orders: list[Entry] = []  # entries that name orders
        self.wrapping_keys: list[Declared] = []  # those the log has taken into use
        self.in_the_clear: dict[int, list[str]] = {}  # objects that are no envelopes, by the entry that names them
        self.archive = ""  # the archive's id
        self._key_entries: list[tuple[int, Mapping[str, Any]]] = []
        self._key_changes_lost: list[int] = []  # indices where a key change may have stood that can't be read now
        self._unbelieved: list[int] = []  # sizes whose keys were all revoked
        self._unsigned: list[tuple[Finding, bool]] = []  # checkpoints without a signature; whether a stranger signed

    @classmethod
    def read(cls, store: ObjectStore, trust: Trust, listed: Mapping[str, int], asked: Asked, report: Report) -> History:
        """Read all entries and the checkpoints the level asks for."""
        history = cls(store, trust, listed, asked)
        identity = b""
        try:
            found = read_identity(store)
            identity = found.data
            history.archive = found.archive_id
            if found.origin != trust.origin:
                report.findings.append(
                    Finding(
                        "IDENTITY_CHANGED", layout.IDENTITY, f"the log {trust.origin}", f"the log {found.origin}", {}
                    )
                )
        except FormatError as error:
            report.findings.append(
                Finding("IDENTITY_CHANGED", layout.IDENTITY, "a canonical identity", error.message, {})
            )
        history.chain = Chain(trust.origin, identity)
        history._read_entries()
        start = trust.memory.size if asked.level == "quick" and trust.memory is not None else 0
        sizes = history._checkpoint_sizes(start)
        history._read_on(sizes)
        history.ring = Keyring.follow(trust.origin, trust.keys, history._key_entries)
        history._read_checkpoints(sizes, report)
        return history

    def entries(self) -> Iterator[Entry]:
        """Entries no finding blames, in order."""
        for index in self.indices:
            if index not in self.bad:
                try:
                    yield entries.decode(self.store.get(layout.entry_key(index)))
                except (ObjectMissing, FormatError):  # changed between the two readings: the next run will say
                    continue

    def read_beyond(self, index: int) -> Entry | None:
        """The entry at `index`, which was appended since the log was read; None when it is not there or no entry."""
        data = _fetch(self.store, layout.entry_key(index))
        try:
            return entries.decode(data) if data is not None else None
        except FormatError:
            return None

    def judge(self, report: Report) -> None:
        """Turn violations into findings: each change once, where it was made."""
        last_good, first_bad = self.last_good, self.first_bad[0].size if self.first_bad else None
        findings: dict[tuple[str, int], Finding] = {}

        def blame(code: str, index: int, expected: str, actual: str) -> None:
            self.bad.add(index)
            key = layout.entry_key(index)
            findings[code, index] = Finding(code, key, expected, actual, {"index": index}, last_good, first_bad)

        for hole in self.missing:
            where = {"index": hole[0], "entries": f"{hole[0]}..{hole[-1]}"}
            key = layout.entry_key(hole[0])
            findings["ENTRY_MISSING", hole[0]] = Finding(
                "ENTRY_MISSING", key, f"{len(hole)} entries", "no object", where, last_good, first_bad
            )
        for index, found in self.violations.items():
            for violation in found:
                if violation.code != "ENTRY_CHAIN":
                    blame(violation.code, index, violation.expected, violation.actual)
        broken = {i: v for i, found in self.violations.items() for v in found if v.code == "ENTRY_CHAIN"}
        for index, violation in broken.items():
            self._judge_link(index, violation, index + 1 in broken, report, blame)
        if self.first_bad is not None and not any(last_good <= index < self.first_bad[0].size for index in self.bad):
            self._judge_bracket(*self.first_bad, report, blame)
        self._judge_key_changes(blame)
        report.findings += [findings[key] for key in sorted(findings, key=lambda key: key[1])]
        self._judge_signatures(report)
        self._judge_memory(report)
        self._judge_unsigned(report)
        self._judge_witnesses(report)
        self._judge_timestamps(report)
        report.counts["entries"] = len(self.indices)
        report.size = self.tree.size
        report.root = self.tree.root().hex()

    def _read_entries(self) -> None:
        found = (layout.index_of(key) for key in self.listed if key.startswith(layout.ENTRIES))
        for index in sorted(index for index in found if index is not None):
            if index > self.chain.size:
                self.missing.append(range(self.chain.size, index))
                self.chain.skip(index)
            data = _fetch(self.store, layout.entry_key(index))
            if data is not None:  # else gone between listing and reading
                self._take(index, data)

    def _read_on(self, sizes: list[int]) -> None:
        """A live log has grown since its entries were listed: read what the newest checkpoint covers."""
        newest = sizes[-1] if sizes and not self.missing else 0
        while self.chain.size < newest:
            data = _fetch(self.store, layout.entry_key(self.chain.size))
            if data is None:
                return
            self._take(self.chain.size, data)

    def _take(self, index: int, data: bytes) -> None:
        self.indices.append(index)
        entry, violations = self.chain.follow(data)
        if violations:
            self.violations[index] = violations
        if entry is None:
            self._key_changes_lost.append(index)
        elif entry.kind == "key":
            self._key_entries.append((index, entry.data))
        elif is_order(entry):
            self.orders.append(entry)
        if entry is not None:
            self._follow_encryption(entry)
        if not self.missing:
            self.tree.append(leaf_hash(data))

    def _follow_encryption(self, entry: Entry) -> None:
        if (declared := encryption_policy.of(entry)) is not None:
            self.wrapping_keys.append(declared)
        elif self.wrapping_keys and (plain := encryption_policy.in_the_clear(entry.objects)):
            self.in_the_clear[entry.index] = plain

    def _read_checkpoints(self, sizes: list[int], report: Report) -> None:
        count, beyond = 0, self.chain.size
        for size in sizes:
            count += 1
            checkpoint = self._checkpoint(size, report)
            if checkpoint is None:
                continue
            if size > self.tree.size:
                beyond = max(beyond, size)
                continue
            root = self.tree.root(size)
            if checkpoint.root == root:
                self.last_good = max(self.last_good, size) if self.first_bad is None else self.last_good
                report.checkpoint = checkpoint
            elif self.first_bad is None:
                self.first_bad = (checkpoint, root)
        report.counts["checkpoints"] = count
        if beyond > self.chain.size:
            # A signed checkpoint says how many entries there must be, also when the newest of them are gone.
            self.missing.append(range(self.chain.size, beyond))

    def _checkpoint_sizes(self, start: int) -> list[int]:
        """Sizes with a checkpoint. An entry written moments ago may be about to be signed: give the signer a moment."""
        deadline = time.monotonic() + self.asked.signing_seconds
        while True:
            sizes = checkpoint_sizes(self.store, start)
            if sizes[-1:] >= [self.tree.size] or time.monotonic() >= deadline or not self._is_awaited():
                return sizes
            time.sleep(0.05)

    def _is_awaited(self) -> bool:
        """Whether the newest entry's checkpoint is probably about to appear."""
        if not self.indices or self.violations or self.missing:
            return False
        if self.asked.live:
            return True  # also after a clock step, which makes an entry written just now look old
        written = entries.parse_timestamp(entries.decode(self._stored(self.indices[-1])).written_at)
        return abs((self.asked.now - written).total_seconds()) < _FRESH_SECONDS

    def _checkpoint(self, size: int, report: Report) -> Checkpoint | None:
        """The checkpoint of `size` when it is one the policy believes, else None and a finding."""
        key = layout.checkpoint_key(size)
        try:
            signed = note.parse(self.store.get(key))
            checkpoint = note.parse_checkpoint(signed.text)
        except ObjectMissing:
            return None
        except FormatError as error:
            report.findings.append(
                Finding("CHECKPOINT_MALFORMED", key, "a signed checkpoint", error.message, {"size": size})
            )
            return None
        if (checkpoint.origin, checkpoint.size) != (self.trust.origin, size):
            actual = f"size {checkpoint.size} of {checkpoint.origin}"
            report.findings.append(
                Finding("CHECKPOINT_MALFORMED", key, f"size {size} of {self.trust.origin}", actual, {"size": size})
            )
            return None
        return checkpoint if self._is_signed(size, signed, report) else None

    def _is_signed(self, size: int, signed: Note, report: Report) -> bool:
        """Whether the keys in force at `size` have signed, and no key of the log that is not in force there."""
        key, believed = layout.checkpoint_key(size), self.ring.believed(size)
        if not believed:
            self._unbelieved.append(size)
            return False
        expected = f"signatures by {_fingerprints(believed)}"
        try:
            standing = self.ring.judge(size, note.verify(signed, self.ring.keys))
        except FormatError as error:
            self._unsigned.append(
                (Finding("CHECKPOINT_SIGNATURE", key, expected, error.message, {"size": size}), False)
            )
            return False
        if standing.out_of_window:
            actual = "; ".join(f"{_fingerprint(k)}, {_span(self.ring.window(k))}" for k in standing.out_of_window)
            report.findings.append(Finding("KEY_OUT_OF_WINDOW", key, expected, f"signed by {actual}", {"size": size}))
        elif standing.missing:
            known = {(k.name, k.key_id) for k in self.ring.keys}
            stranger = any(s.name == self.trust.origin and (s.name, s.key_id) not in known for s in signed.signatures)
            actual = f"no signature by {_fingerprints(standing.missing)}"
            self._unsigned.append((Finding("CHECKPOINT_SIGNATURE", key, expected, actual, {"size": size}), stranger))
        return not (standing.out_of_window or standing.missing)

    def _judge_link(
        self,
        index: int,
        violation: Violation,
        next_too: bool,
        report: Report,
        blame: Callable[[str, int, str, str], None],
    ) -> None:
        """`prev` of entry `index` and the bytes before it disagree: which of the two was changed?

        An entry whose links to both sides are broken was changed itself; else the checkpoints tell.
        """
        if self.bad & {index - 1, index}:
            return  # already explained by what is wrong with one of them
        if next_too or 0 < index <= self.last_good:
            blame("ENTRY_CHANGED", index, f"prev {violation.expected}", f"prev {violation.actual}")
        elif index == 0 and not any(finding.object == layout.IDENTITY for finding in report.findings):
            report.findings.append(
                Finding("IDENTITY_CHANGED", layout.IDENTITY, f"SHA-256 {violation.actual}", violation.expected, {})
            )
        elif index:
            blame("ENTRY_CHANGED", index - 1, f"SHA-256 {violation.actual}", violation.expected)

    def _judge_bracket(
        self, checkpoint: Checkpoint, root: bytes, report: Report, blame: Callable[[str, int, str, str], None]
    ) -> None:
        """A signed root differs although the chain holds: the newest entry was changed, or history was rewritten."""
        expected, actual = f"root {checkpoint.root.hex()}", f"root {root.hex()}"
        if checkpoint.size - self.last_good == 1:
            blame("ENTRY_CHANGED", checkpoint.size - 1, expected, actual)
            return
        self.bad.update(range(self.last_good, checkpoint.size))
        where = {"size": checkpoint.size, "entries": f"{self.last_good}..{checkpoint.size - 1}"}
        key = layout.checkpoint_key(checkpoint.size)
        report.findings.append(
            Finding("CHECKPOINT_INCONSISTENT", key, expected, actual, where, self.last_good, checkpoint.size)
        )

    def _judge_key_changes(self, blame: Callable[[str, int, str, str], None]) -> None:
        self._key_changes_lost += [hole[0] for hole in self.missing]
        self._key_changes_lost += [index for index, _ in self._key_entries if index in self.bad]
        for remark in self.ring.remarks:
            if remark.discontinued and any(index < remark.index for index in self._key_changes_lost):
                continue  # what it follows from is lost, and that has a finding of its own
            if remark.index not in self.bad:
                blame(remark.code, remark.index, remark.expected, remark.actual)
            if remark.code == "KEY_CHANGE_INVALID":
                self._key_changes_lost.append(remark.index)

    def _judge_signatures(self, report: Report) -> None:
        """Checkpoints without the signatures they need, unless an entry is damaged that may have changed the keys."""
        lost = self._key_changes_lost
        unclear: list[int] = []
        if self._unbelieved:
            span = f"{self._unbelieved[0]}..{self._unbelieved[-1]}"
            report.notes.append(f"checkpoints of sizes {span} are signed by revoked keys only: they are not believed")
        for finding, stranger in self._unsigned:
            size = finding.where["size"]
            if stranger and any(index < size for index in lost):
                unclear.append(size)
            else:
                report.findings.append(finding)
        if unclear:
            report.notes.append(
                f"checkpoints of sizes {unclear[0]}..{unclear[-1]} can't be verified: entry {min(lost)} is damaged and "
                "may have changed the log's keys"
            )
        self._unsigned = [item for item in self._unsigned if item[0].where["size"] in unclear]

    def _judge_memory(self, report: Report) -> None:
        memory = self.trust.memory
        damaged = [*self.bad, *(hole[0] for hole in self.missing)]
        if memory is None or any(index < memory.size for index in damaged):
            return
        expected = f"{memory.size} entries with root {memory.root.hex()}"
        key = layout.checkpoint_key(memory.size)
        if self.tree.size < memory.size:
            report.findings.append(
                Finding("CHECKPOINT_ROLLBACK", key, expected, f"{self.tree.size} entries", {}, self.tree.size)
            )
        elif self.tree.root(memory.size) != memory.root:
            report.findings.append(
                Finding("HISTORY_REWRITTEN", key, expected, f"root {self.tree.root(memory.size).hex()}", {})
            )
        elif memory.size > self.last_good and self.first_bad is None and not _about_checkpoints(report):
            report.findings.append(Finding("CHECKPOINT_MISSING", key, expected, "no such checkpoint", {}))

    def _judge_unsigned(self, report: Report) -> None:
        if self.first_bad is not None or self.missing or self._unsigned or _about_checkpoints(report):
            return
        unsigned = [index for index in range(self.last_good, self.tree.size) if index not in self.bad]
        if unsigned:
            where = {"index": unsigned[0], "entries": f"{unsigned[0]}..{unsigned[-1]}"}
            actual = f"newest checkpoint covers {self.last_good}"
            key = layout.entry_key(unsigned[0])
            report.findings.append(
                Finding("ENTRY_UNSIGNED", key, f"a checkpoint of size {self.tree.size}", actual, where, self.last_good)
            )

    def _judge_witnesses(self, report: Report) -> None:
        """Does the policy's quorum stand behind the log, and how far?"""
        policy = self.trust.policy
        if policy.quorum == "none":
            return
        found = (layout.size_of_statement(key) for key in self.listed if key.startswith(layout.COSIGNATURES))
        for size in sorted({size for size in found if size is not None}, reverse=True):
            if policy.satisfied_by(self._cosigners(size, report)) and size <= self.last_good:
                report.witnessed = max(report.witnessed, size)
                if self.asked.level == "quick":
                    break
        behind = [index for index in self.indices if index >= report.witnessed]
        if report.witnessed >= self.last_good or not behind or self.bad or self.missing or self.first_bad:
            return  # witnessed, or what keeps a quorum from counting has a finding of its own
        waiting = self.asked.now - entries.parse_timestamp(entries.decode(self._stored(behind[0])).written_at)
        said = f"entries {report.witnessed}..{self.last_good - 1} are signed but not witnessed"
        if waiting.total_seconds() <= self.asked.witness_seconds:
            report.notes.append(f"{said} yet")
            return
        key = layout.checkpoint_key(self.last_good)
        report.findings.append(
            Finding("WITNESS_MISSING", key, f"quorum {policy.quorum}", said, {"size": report.witnessed})
        )

    def _judge_timestamps(self, report: Report) -> None:
        """Do the stored timestamps hold, and since when is what the log says attested?"""
        if not self.trust.tsa_roots:
            return
        newest: tuple[int, str] | None = None
        for key in sorted(key for key in self.listed if key.startswith(layout.TIMESTAMPS)):
            size = layout.size_of_statement(key)
            if size is None:
                continue
            try:
                checkpoint = self.store.get(layout.checkpoint_key(size))
                stated = timestamps.verify(self.store.get(key), checkpoint, self.trust.tsa_roots)
                newest = (size, entries.timestamp(stated))
            except ObjectMissing:
                continue  # without its checkpoint a timestamp states nothing; that has a finding of its own
            except FormatError as error:
                expected = "a timestamp over the checkpoint"
                report.findings.append(Finding("TIMESTAMP_INVALID", key, expected, error.message, {"size": size}))
        if newest is not None:
            report.notes.append(f"newest timestamp: size {newest[0]} at {newest[1]}")

    def _cosigners(self, size: int, report: Report) -> set[str]:
        """Policy names of the witnesses with a valid cosignature over the checkpoint of `size`."""
        valid: set[str] = set()
        for info in self.store.list(f"{layout.COSIGNATURES}{size:020d}/"):
            try:
                stored = self.store.get(layout.checkpoint_key(size)) + self.store.get(info.key)
                named = {
                    witness.name
                    for witness in self.trust.policy.witnesses.values()
                    if info.key == layout.cosignature_key(size, witness.key.key_id)
                }
                found = set(cosigners(note.parse(stored), self.trust.policy))
                if not named <= found:
                    raise FormatError(f"no cosignature by {', '.join(named)}, whose key names the object")
                valid |= found
            except ObjectMissing:
                continue  # without its checkpoint a cosignature states nothing; that has a finding of its own
            except FormatError as error:
                expected = "valid signature lines over the checkpoint"
                report.findings.append(
                    Finding("COSIGNATURE_INVALID", info.key, expected, error.message, {"size": size})
                )
        return valid

    def _stored(self, index: int) -> bytes:
        return self.store.get(layout.entry_key(index))


def _fetch(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def _fingerprint(key: VerifierKey) -> str:
    return f"{key.name} ({key.type.name} {key.key_id.hex()})"


def _fingerprints(keys: Iterable[VerifierKey]) -> str:
    return ", ".join(sorted(map(_fingerprint, keys)))


def _span(window: tuple[int, int | None] | None) -> str:
    first, last = window or (0, 0)
    return f"in force from size {first}" + (f" to {last}" if last is not None else "")


def _about_checkpoints(report: Report) -> bool:
    return any(finding.code.startswith(("CHECKPOINT_", "KEY_OUT")) for finding in report.findings)
