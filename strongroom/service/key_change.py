"""Changing the log's keys: rotation, and revocation of a key that leaked or was lost.

The steps, under the signer's lock, so that nothing is signed in between:

1. `keys/next.pem`, all keys to come, becomes durable.
2. The keys in force sign the log as it is, unless one of them is lost.
3. The statement (archive/keyring.py), signed by both sides, is committed as an entry at the very index it speaks of.
   When another writer takes that index first: back to 2.
4. Where the log alone could not convince the node's own verifier (a lost key), its policy is pinned anew.
5. `next.pem` takes the name `log.pem`. The old private keys are gone with it: what they signed nobody can sign again.
6. The new keys sign.

A crash leaves one of three states, each visible in `strongroom keys list`: no `next.pem` (not begun, or done);
`next.pem` without its entry (begun: asking for the change again goes on with the same keys); `next.pem` with its entry
(committed: steps 4 and 5 are done at every start and before every signature, by `LogKeys.settled`). A running service
needs no restart: it reads `log.pem` again when it is another file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from strongroom.archive import keyring
from strongroom.archive.entry import Draft
from strongroom.archive.errors import KeyUnusable, ObjectExists
from strongroom.archive.keyring import Change, Keyring
from strongroom.archive.keys import HeldSigner
from strongroom.archive.log import Log
from strongroom.archive.note import VerifierKey
from strongroom.archive.signer import Signer
from strongroom.service.log_keys import LogKeys, make


@dataclass(frozen=True, slots=True)
class Wish:
    """What a change is to bring.

    `kinds`: keys to come (as in the setting `signing_keys`). `leave`: keys to go. `revoke`: which of those are not
    believed, and from which size (None: from the change on). `lost`: which of those will not sign for their going.
    """

    kinds: tuple[str, ...]
    leave: frozenset[VerifierKey]
    reason: str
    revoke: Mapping[VerifierKey, int | None] = field(default_factory=dict)
    lost: frozenset[VerifierKey] = frozenset()


def change(held: LogKeys, log: Log, ring: Keyring, wish: Wish, signer_memory: Path) -> Change:
    """Change the log's keys; returns the statement that was committed. The caller holds the signer's lock.

    `ring`: the key history as the log has it. Raises KeyUnusable when the wish can't be granted, SignerRefused,
    StoreUnavailable; after any failure, asking again goes on where it stopped.
    """
    own = {signer.key: signer for signer in (held.held() if held.exists else ())}
    before = ring.at(log.size).may
    if missing := before - own.keys() - wish.lost:
        raise KeyUnusable(
            f"{_names(missing)} can't sign here", hint="a key that is gone: strongroom keys revoke --lost"
        )
    waiting = held.waiting()
    coming = _coming(own, before, ring, wish, log.origin) if waiting is None else waiting
    after = {signer.key: signer for signer in coming}
    if kept := wish.revoke.keys() & after.keys():
        raise KeyUnusable(f"{_names(kept)} would stay", hint="an earlier change is under way: strongroom keys rotate")
    if waiting is None:
        held.prepare(coming)
    signing = {key: signer for key, signer in (own | after).items() if key not in wish.lost}
    while (statement := _commit(log, before, after, signing, wish, signer_memory)) is None:
        if held.finish(log):  # the answer to the commit was lost, its effect was not
            index, data = log.key_changes[-1]
            statement = keyring.read(index, log.origin, data)
            break
    Signer(log.store, held.settled(log), signer_memory).sign()
    return statement


def resume(held: LogKeys, log: Log, signer_memory: Path) -> bool:
    """Steps 4 to 6 of a change that is committed but not carried out; False when there is none."""
    if not held.finish(log):
        return False
    Signer(log.store, held.held(), signer_memory).sign()
    return True


def _coming(
    own: Mapping[VerifierKey, HeldSigner], before: Collection[VerifierKey], ring: Keyring, wish: Wish, origin: str
) -> tuple[HeldSigner, ...]:
    """The keys after the change: those that stay, then new ones. A KMS key that is named again stays."""
    made = {signer.key: signer for signer in (make(kind, origin) for kind in wish.kinds)}
    if returning := (made.keys() & ring.keys) - frozenset(before):
        raise KeyUnusable(f"{_names(returning)} was retired: a key that went never returns", hint="name another")
    stays = frozenset(before) - (wish.leave - made.keys())
    every = {**own, **made}
    coming = (*(key for key in every if key in stays), *(key for key in made if key not in stays))
    if not coming:
        raise KeyUnusable("no key would be left to sign the log", hint="name its successor with --keys")
    return tuple(every[key] for key in coming)


def _commit(
    log: Log,
    before: Collection[VerifierKey],
    after: Mapping[VerifierKey, HeldSigner],
    signing: Mapping[VerifierKey, HeldSigner],
    wish: Wish,
    signer_memory: Path,
) -> Change | None:
    """Steps 2 and 3, once; None when another entry took the index."""
    if not wish.lost:
        Signer(log.store, [signing[key] for key in before], signer_memory).sign()
    index = log.refresh()  # the size of the log is the index of the next entry
    gone = [key for key in keyring.in_order(before) if key not in after]
    statement = Change(
        log.origin,
        index + 1,
        wish.reason,
        kept=tuple(key for key in after if key in before),
        retired=tuple(key for key in gone if key not in wish.revoke),
        revoked=tuple((key, wish.revoke[key] or index + 1) for key in gone if key in wish.revoke),
        added=tuple(key for key in after if key not in before),
    )
    data = keyring.sign(statement, [signing[key] for key in (*before, *statement.added) if key in signing])
    try:
        log.append(Draft("key", datetime.now(UTC), data=data), at=index)
    except ObjectExists:
        return None
    return statement


def _names(wanted: Collection[VerifierKey]) -> str:
    return ", ".join(sorted(f"{key.type.name} {key.key_id.hex()}" for key in wanted))
