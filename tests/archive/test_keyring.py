"""The key history: who must have signed what, whatever was changed, and wherever the policy stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import keyring, keys
from strongroom.archive.errors import FormatError
from strongroom.archive.keyring import Change, Keyring, Keys
from strongroom.archive.keys import LocalSigner
from strongroom.archive.note import KeyType

ORIGIN = "logs.example.org/keys-test"


@cache
def signer(number: int) -> LocalSigner:
    """A key; every fourth is of the kind that can sign nothing but tree heads."""
    return keys.generate(ORIGIN, [KeyType.ML_DSA_44 if number % 4 == 3 else KeyType.ED25519])[0]


@dataclass(frozen=True)
class Step:
    """One change of keys: by number, who goes (and how) and who comes, `gap` entries after the one before."""

    gap: int
    retire: frozenset[int]
    revoke: Mapping[int, int]  # number -> how many sizes before the change it is not believed any more
    silent: frozenset[int]  # of the revoked ones, who does not sign
    add: tuple[int, ...]


@dataclass(frozen=True)
class History:
    entries: list[tuple[int, dict[str, Any]]]
    sets: list[frozenset[int]]  # keys in force, by period
    firsts: list[int]  # first tree size of each period
    revoked: dict[int, int]
    silent: list[frozenset[int]]  # at each change


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Random rotations and revocations that leave at least one key that can vouch."""
    size, unused = 0, iter(range(100))
    current = frozenset(next(unused) for _ in range(draw(st.integers(1, 3))))
    made = History([], [current], [0], {}, [])
    for _ in range(draw(st.integers(0, 5))):
        index = size + draw(st.integers(1, 4))
        size = index + 1
        gone = draw(st.sets(st.sampled_from(sorted(current))))
        revoked = draw(st.sets(st.sampled_from(sorted(gone)))) if gone else set()
        silent = draw(st.sets(st.sampled_from(sorted(revoked)))) if revoked else set()
        silent -= {max(current)}
        added = tuple(next(unused) for _ in range(draw(st.integers(0 if gone < current and gone else 1, 2))))
        froms = {number: draw(st.integers(max(1, made.firsts[-1]), size)) for number in sorted(revoked)}
        change = statement(current, index, retire=gone - revoked, revoke=froms, add=added)
        vouching = [signer(number) for number in sorted((current - silent) | set(added))]
        made.entries.append((index, keyring.sign(change, vouching)))
        current = (current - gone) | set(added)
        made.sets.append(current)
        made.firsts.append(size)
        made.revoked.update(froms)
        made.silent.append(frozenset(silent))
    return made


def statement(
    current: frozenset[int],
    index: int,
    *,
    retire: frozenset[int] | set[int] = frozenset(),
    revoke: Mapping[int, int] = {},
    add: tuple[int, ...] = (),
    reason: str = "test",
) -> Change:
    """The change as a statement."""
    kept = current - retire - set(revoke)
    return Change(
        ORIGIN,
        index + 1,
        reason,
        kept=public(kept),
        retired=public(retire),
        revoked=tuple((signer(number).key, size) for number, size in sorted(revoke.items())),
        added=public(add),
    )


def public(numbers: Any) -> tuple[Any, ...]:
    return tuple(signer(number).key for number in sorted(numbers))


def in_force(history: History, size: int) -> frozenset[int]:
    """Straight from the drawn history: who is in force at `size`, revoked or not."""
    return next(keys for first, keys in reversed(list(zip(history.firsts, history.sets, strict=True))) if first <= size)


@given(histories(), st.data())
def test_any_policy_of_any_time_knows_who_signs_what(history: History, data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(history.sets) - 1))
    ring = Keyring.follow(ORIGIN, public(history.sets[where]), history.entries)
    for size in range(1, history.firsts[-1] + 3):
        true = in_force(history, size)
        believed = {number for number in true if history.revoked.get(number, size + 1) > size}
        assert ring.at(size).may == set(public(true))
        assert ring.believed(size) == set(public(believed))
        sound = ring.judge(size, [signer(number).key for number in true])
        assert not sound.missing and not sound.out_of_window
        others = {number for keys in history.sets for number in keys}
        signed = data.draw(st.sets(st.sampled_from(sorted(others))))
        verdict = ring.judge(size, public(signed))
        assert (not verdict.missing and not verdict.out_of_window) == (believed <= signed <= true)
        assert verdict.out_of_window == set(public(signed - true))
    # Only what lacks a signature this policy asks for is to be confirmed by a person.
    doubted = [
        index for (index, _), silent in list(zip(history.entries, history.silent, strict=True))[where:] if silent
    ]
    assert [(remark.code, remark.index) for remark in ring.remarks] == [
        ("KEY_CHANGE_UNCONFIRMED", index) for index in doubted
    ]


@given(histories().filter(lambda history: history.entries), st.data())
def test_a_damaged_statement_changes_nothing(history: History, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(history.entries) - 1))
    index, entry = history.entries[number]
    member = data.draw(st.sampled_from(sorted(entry)))
    text = entry[member].encode()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + bytes([text[place] ^ (1 << data.draw(st.integers(0, 6)))]) + text[place + 1 :]
    try:
        damaged = entry | {member: changed.decode()}
    except UnicodeDecodeError:
        return
    try:
        found = keyring.read(index, ORIGIN, damaged)
    except FormatError:
        return
    # A signature line that no longer belongs to a known key counts as absent, which a revoked key may be.
    assert member == "signed" and found.signed < keyring.read(index, ORIGIN, entry).signed


def test_rotation_and_what_it_takes() -> None:
    change = statement(frozenset({0, 3}), 9, retire={0, 3}, add=(1, 7))
    everyone = [signer(number) for number in (0, 3, 1, 7)]
    data = keyring.sign(change, everyone)
    ring = Keyring.follow(ORIGIN, public({0, 3}), [(9, data)])
    assert ring.believed(9) == set(public({0, 3})) and ring.believed(10) == set(public({1, 7}))
    assert ring.window(signer(0).key) == (1, 9) and ring.window(signer(1).key) == (10, None)
    assert ring.window(signer(5).key) is None
    for lacking in everyone:
        with pytest.raises(FormatError, match=f"not signed by .*{lacking.key.key_id.hex()}"):
            keyring.sign(change, [one for one in everyone if one is not lacking])
    for index, origin in ((8, ORIGIN), (9, "logs.example.org/other")):  # a statement is for one place in one log
        with pytest.raises(FormatError, match="made for"):
            keyring.read(index, origin, data)


@pytest.mark.parametrize(
    "broken",
    [
        statement(frozenset({0}), 9),  # changes nothing
        statement(frozenset(), 9, add=(1,)),  # comes from nobody
        statement(frozenset({0}), 9, retire={0}),  # leaves nobody
        statement(frozenset({0}), 9, retire={0}, add=(0,)),  # the same key twice
        statement(frozenset({0}), 9, add=(1,), revoke={0: 11}),  # from beyond the change
        statement(frozenset({0}), 9, add=(1,), reason="two\nlines"),
        statement(frozenset({0}), 9, add=(1,), reason=""),
        replace(statement(frozenset({0}), 9), added=(keys.generate("logs.example.org/other")[0].key,)),
    ],
)
def test_statements_without_meaning(broken: Change) -> None:
    with pytest.raises(FormatError):
        keyring.sign(broken, [signer(0), signer(1)])


def test_a_stranger_can_say_nothing() -> None:
    """Statements by nobody the policy knows: about other keys, about its keys, and around its keys."""
    real = keyring.sign(statement(frozenset({0, 1}), 20, retire={0}, add=(2,)), [signer(n) for n in (0, 1, 2)])
    forgeries = [
        keyring.sign(statement(frozenset({8}), 10, retire={8}, add=(9,)), [signer(8), signer(9)]),
        keyring.sign(statement(frozenset({0, 1}), 10, revoke={0: 1, 1: 1}, add=(9,)), [signer(9)]),
        keyring.sign(statement(frozenset({0, 1, 8}), 10, revoke={0: 1, 1: 1}, add=(9,)), [signer(8), signer(9)]),
    ]
    for forged in forgeries:
        for pinned in ({0, 1}, {1, 2}):
            ring = Keyring.follow(ORIGIN, public(pinned), [(10, forged), (20, real)])
            assert [(remark.code, remark.index) for remark in ring.remarks] == [("KEY_CHANGE_INVALID", 10)]
            assert (ring.believed(20), ring.believed(21)) == (set(public({0, 1})), set(public({1, 2})))
        assert Keyring.follow(ORIGIN, public({0, 1}), [(10, forged)]).believed(99) == set(public({0, 1}))


def test_a_lost_key_is_followed_but_said_until_it_is_pinned() -> None:
    entries = [(9, keyring.sign(statement(frozenset({0, 1}), 9, revoke={0: 4}, add=(2,)), [signer(1), signer(2)]))]
    ring = Keyring.follow(ORIGIN, public({0, 1}), entries)
    assert [remark.code for remark in ring.remarks] == ["KEY_CHANGE_UNCONFIRMED"]
    assert signer(0).key.key_id.hex() in ring.remarks[0].expected
    assert ring.believed(3) == set(public({0, 1})) and ring.believed(4) == set(public({1}))
    assert ring.believed(10) == set(public({1, 2}))
    assert not ring.judge(5, public({0, 1})).out_of_window  # it did sign then; it only proves nothing
    for pinned in ({1, 2}, {2}, {1}):  # whoever trusts these does not rest on the lost key
        assert Keyring.follow(ORIGIN, public(pinned), entries).remarks == []


def test_when_every_key_was_lost_only_a_new_policy_helps() -> None:
    entries = [(9, keyring.sign(statement(frozenset({0, 1}), 9, revoke={0: 4, 1: 4}, add=(2,)), [signer(2)]))]
    old = Keyring.follow(ORIGIN, public({0, 1}), entries)
    assert [remark.code for remark in old.remarks] == ["KEY_CHANGE_INVALID"]
    assert old.believed(10) == set(public({0, 1}))
    new = Keyring.follow(ORIGIN, public({2}), entries)
    assert new.remarks == [] and new.believed(10) == set(public({2}))
    assert new.believed(3) == set(public({0, 1})) and new.believed(5) == frozenset()


def test_a_key_that_went_does_not_come_back() -> None:
    entries = [
        (9, keyring.sign(statement(frozenset({0}), 9, retire={0}, add=(1,)), [signer(0), signer(1)])),
        (19, keyring.sign(statement(frozenset({1}), 19, retire={1}, add=(0,)), [signer(0), signer(1)])),
    ]
    ring = Keyring.follow(ORIGIN, public({0}), entries)
    assert [remark.index for remark in ring.remarks] == [19] and ring.believed(99) == set(public({1}))


def test_a_policy_may_rest_on_some_of_the_keys() -> None:
    rotated = keyring.sign(statement(frozenset({0, 3}), 9, retire={0}, add=(1,)), [signer(n) for n in (0, 3, 1)])
    ring = Keyring.follow(ORIGIN, public({0}), [(9, rotated)])
    assert ring.remarks == [] and ring.believed(9) == set(public({0})) and ring.believed(10) == set(public({1, 3}))
    signed: Keys = frozenset(public({0, 3}))
    assert not ring.judge(9, signed).out_of_window and not ring.judge(9, signed).missing
