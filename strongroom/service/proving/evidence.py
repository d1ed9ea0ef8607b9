"""What every export of evidence has in common: the checkpoint it leads to, its records, the custody it states.

**Which checkpoint.** The newest signed one that covers all records and that a quorum of the policy's witnesses stands
behind; where none does (or the policy asks for none), the newest signed one. What vouches for it comes along: the
witnesses' lines, appended as C2SP tlog-cosignature has it, and timestamps. The keys are those in force at its size
(archive/keyring.py), which a policy file need not name.

**Which records.** A question must answer with the two columns `_segment` and `_row`. An answer cut by a limit that
nobody asked for is refused: half the evidence that looks like all of it is worse than none.
"""

from __future__ import annotations

import asyncio
import dataclasses
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from strongroom import __version__
from strongroom.archive import layout, note
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence.timestamp import read as read_timestamp
from strongroom.archive.keyring import Keyring
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint
from strongroom.archive.policy import Policy, cosigners
from strongroom.archive.stores.store import ObjectStore
from strongroom.query.engine import QueryEngine
from strongroom.query.holdings.catalog import Snapshot
from strongroom.service.acts import Act
from strongroom.service.errors import EvidenceCut, NoAddresses, NotSignedYet

LOOKED_BACK = 1_000  # checkpoints, for one that witnesses stand behind
_CUT_MARK = b'{"$truncated":'


@dataclass(frozen=True, slots=True)
class Anchor:
    """The checkpoint that proofs lead to, and what vouches for it.

    `stored`: the note's bytes as the archive has them; `cosignatures`: lines to append; `policy`: the keys in force at
    its size and the witnesses; `witnessed`: whether the policy's quorum is met.
    """

    head: Checkpoint
    stored: bytes
    cosignatures: bytes
    timestamps: tuple[bytes, ...]
    policy: Policy
    witnessed: bool

    @property
    def note(self) -> bytes:
        """The checkpoint with its cosignatures."""
        return self.stored + self.cosignatures

    @property
    def checked_policy(self) -> Policy:
        """What we can hold our own evidence against: all of the policy, or its keys alone while witnesses lag."""
        return self.policy if self.witnessed else Policy(self.policy.logs)


def anchor(store: ObjectStore, log: Log, policy: Policy, *, covering: int, size: int | None = None) -> Anchor:
    """The checkpoint for evidence about entries below `covering`, or the one of tree size `size`.

    Raises NotSignedYet when what it must cover is not signed, ObjectMissing when there is no checkpoint of `size`,
    FormatError.
    """
    if size is not None:
        if size < covering:
            raise ObjectMissing(f"the tree of size {size} has no entry {covering - 1}", hint="name a later checkpoint")
        return _anchor_at(store, log, policy, size)
    newest: Anchor | None = None
    looked = 0
    for candidate in range(log.size, covering - 1, -1):
        try:
            found = _anchor_at(store, log, policy, candidate)
        except ObjectMissing:
            continue
        if found.witnessed:
            return found
        newest = newest or found
        looked += 1
        if looked == LOOKED_BACK:
            break
    if newest is None:
        raise NotSignedYet(
            f"no checkpoint covers entry {covering - 1} yet", hint="ask again; see that the signer runs if it stays so"
        )
    return newest


def _anchor_at(store: ObjectStore, log: Log, policy: Policy, size: int) -> Anchor:
    stored = store.get(layout.checkpoint_key(size))
    head = note.parse_checkpoint(note.parse(stored).text)
    keys = Keyring.follow(log.origin, policy.logs, log.key_changes).believed(size)
    # In the policy's own order where it names them, so that an unchanged log gives an unchanged policy.
    ordered = [key for key in policy.logs if key in keys] + sorted(keys - set(policy.logs), key=lambda key: key.vkey())
    if not ordered:
        raise FormatError(f"no key of the log is believed at size {size}", hint="run `strongroom verify`")
    in_force = dataclasses.replace(policy, logs=tuple(ordered))
    lines = b"".join(_good_cosignatures(store, stored, in_force, size))
    cosigned = cosigners(note.parse(stored + lines), in_force)
    return Anchor(
        head, stored, lines, tuple(_timestamps(store, stored, size)), in_force, in_force.satisfied_by(set(cosigned))
    )


def _good_cosignatures(store: ObjectStore, stored: bytes, policy: Policy, size: int) -> Iterator[bytes]:
    """Lines by the policy's witnesses. One that does not verify would make the whole note worthless: left out here,
    found by verification."""
    for info in store.list(f"{layout.COSIGNATURES}{size:020d}/"):
        lines = store.get(info.key)
        try:
            if cosigners(note.parse(stored + lines), policy):
                yield lines
        except FormatError:
            continue


def _timestamps(store: ObjectStore, stored: bytes, size: int) -> Iterator[bytes]:
    try:
        response = store.get(layout.timestamp_key(size))
        if read_timestamp(response).covers(stored) is not None:
            yield response
    except (ObjectMissing, FormatError):
        return


class _Address(msgspec.Struct):
    segment: str = msgspec.field(name="_segment")
    row: int = msgspec.field(name="_row")


_address = msgspec.json.Decoder(_Address)


@dataclass(slots=True)
class Addresses:
    """Rows by segment, gathered from an answer in NDJSON as it comes: eight bytes a row."""

    _rows: dict[str, array[int]] = field(default_factory=dict)
    _rest: bytes = b""
    _line: bytes = b""

    def add(self, segment: str, rows: Iterable[int]) -> None:
        """Rows that somebody named."""
        self._rows.setdefault(segment, array("q")).extend(rows)

    def feed(self, chunk: bytes) -> None:
        """The next bytes of an answer. Raises NoAddresses."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if self._line:
                self._take(self._line)
            self._line = line

    def finish(self, *, cut: bool) -> None:
        """The answer has ended; `cut` when its last line says that it was cut."""
        if self._line and not (cut and self._line.startswith(_CUT_MARK)):
            self._take(self._line)
        self._line = b""

    def _take(self, line: bytes) -> None:
        try:
            found = _address.decode(line)
        except msgspec.ValidationError as error:
            raise NoAddresses(
                f"the answer does not say which records it is about: {error}",
                hint="add `_segment, _row` to the SELECT list (without GROUP BY or DISTINCT), as in: "
                "SELECT _segment, _row FROM cloudtrail WHERE …",
            ) from None
        self.add(found.segment, (found.row,))

    def picks(self) -> list[tuple[str, array[int]]]:
        """Each segment with its rows, ascending, each once."""
        return [(segment, array("q", sorted(set(rows)))) for segment, rows in self._rows.items()]


@dataclass(frozen=True, slots=True)
class Selection:
    """Records that somebody chose. `asked` is how, as custody states it; `snapshot` what a question was asked of."""

    picks: list[tuple[str, array[int]]]
    asked: Mapping[str, Any]
    snapshot: Snapshot | None = None

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(len(rows) for _, rows in self.picks)

    def placed(self, places: Mapping[str, tuple[int, int]]) -> list[tuple[tuple[int, int], Sequence[int]]]:
        """The picks by place, which spares evidence.write a walk over the log."""
        return [(places[segment], rows) for segment, rows in self.picks]


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer is evidence."""

    sql: str
    parameters: list[Any] | dict[str, Any] | None = None
    as_of: int | None = None
    limit: int | None = None


async def selected(engine: QueryEngine, question: Question, *, user: str) -> Selection:
    """The records a question answers with. Raises what the engine raises, NoAddresses, EvidenceCut."""
    limit = engine.limits.rows if question.limit is None else question.limit
    answer = await engine.run(
        question.sql, question.parameters, format="ndjson", user=user, limit=limit, as_of=question.as_of
    )
    addresses = Addresses()
    try:
        async for chunk in answer.body:
            addresses.feed(chunk)
    finally:
        await answer.body.aclose()
    outcome = await answer.finished
    if outcome.error is not None:
        raise outcome.error
    as_asked = outcome.truncated == "rows" and question.limit is not None and limit <= engine.limits.rows
    if outcome.truncated and not as_asked:
        bound = engine.limits.rows if outcome.truncated == "rows" else engine.limits.bytes
        raise EvidenceCut(
            f"the answer was cut at {bound} {outcome.truncated}: the evidence would not be all of it",
            hint="select only _segment and _row, narrow the question, or state a limit",
        )
    addresses.finish(cut=bool(outcome.truncated))
    asked: dict[str, Any] = {"sql": question.sql}
    if question.parameters:
        # As text: parameters may hold what canonical JSON has no form for (null, fractions).
        asked["parameters"] = msgspec.json.encode(question.parameters).decode()
    if question.limit is not None:
        asked |= {"limit": question.limit, "cut_at_limit": bool(outcome.truncated)}
    # Sorting a million rows takes a moment that belongs to deliveries.
    return Selection(await asyncio.to_thread(addresses.picks), asked, answer.snapshot)


def named(rows: Iterable[tuple[str, Iterable[int]]]) -> Selection:
    """Records that somebody named one by one."""
    addresses = Addresses()
    for segment, numbers in rows:
        addresses.add(segment, numbers)
    return Selection(addresses.picks(), {"rows": "named one by one"})


def custody(
    selection: Selection, act: Act, *, case: str, purpose: str, writer: str, audit: Mapping[str, Any]
) -> dict[str, Any]:
    """custody.json: who exported what, when and why, and where the archive's own audit says so.

    `audit`: where the record of `act` is: its batch and entry when it was sealed before this export.
    """
    stated: dict[str, Any] = {
        "exported_by": act.actor,
        "role": str(act.detail["role"]),
        "address": act.address,
        "exported_at": act.time,
        "case": case,
        "purpose": purpose,
        "question": dict(selection.asked),
        "records": selection.records,
        "audit": {"act": act.id, **audit},
        "software": f"strongroom {__version__}",
        "writer": writer,
    }
    if selection.snapshot is not None:
        stated["snapshot"] = {"size": selection.snapshot.size, "root": selection.snapshot.root}
    return {name: value for name, value in stated.items() if value != ""}
