"""The state folder: everything a node keeps outside its archive, and how it comes into being.

    node.json              origin of the log, name of this node's writer; written first, so a crash half-way repeats
    keys/log.pem           the log's keys, mode 0600     keys/next.pem   those to come, during a change
    keys/receipts.pem      the receipts' key
    signer/memory.json     the last checkpoint the signer signed
    verifier/policy        whose signatures count, in C2SP tlog-policy form; written once, when the keys are made
    verifier/policy.memory.json   the newest checkpoint a sound verification has seen (what else lies beside the policy:
                           service/checking/verification.py)
    verifier/runs/         verifications of this node     verifier/alerts.json   what was told to whom
    tokens.json            bearer tokens, hashed
    writers/<writer>/      spool and batch index of each writer     acts/   administrative acts not yet in the archive
    query/                 caches of the query engine; may be deleted at any time
    jobs/                  jobs and their results, until they expire     saved/   saved questions
    evidence/              bundles on their way to whoever asked; emptied at each start

Whoever holds this folder can extend the log and write its memory anew; whoever holds the archive alone cannot.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from strongroom.archive import durable, keys
from strongroom.archive.encryption.wrapping import NO_KEYS, WrappingKeys
from strongroom.archive.keyring import Keyring
from strongroom.archive.keys import HeldSigner
from strongroom.archive.locks import exclusive
from strongroom.archive.log import Log, holds_archive, read_identity
from strongroom.archive.policy import Policy
from strongroom.archive.retention.rules import Retention
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.errors import StateUnusable
from strongroom.service.log_keys import KeyRules, LogKeys


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Names in the state folder."""

    root: Path

    @property
    def node(self) -> Path:
        return self.root / "node.json"

    @property
    def log_key(self) -> Path:
        return self.root / "keys" / "log.pem"

    @property
    def next_log_key(self) -> Path:
        return self.root / "keys" / "next.pem"

    @property
    def receipts_key(self) -> Path:
        return self.root / "keys" / "receipts.pem"

    @property
    def signer_memory(self) -> Path:
        return self.root / "signer" / "memory.json"

    @property
    def signer_lock(self) -> Path:
        return self.signer_memory.with_suffix(".lock")

    @property
    def policy(self) -> Path:
        return self.root / "verifier" / "policy"

    @property
    def runs(self) -> Path:
        return self.root / "verifier" / "runs"

    @property
    def alerts(self) -> Path:
        return self.root / "verifier" / "alerts.json"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def acts(self) -> Path:
        return self.root / "acts"

    @property
    def query(self) -> Path:
        return self.root / "query"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def saved(self) -> Path:
        return self.root / "saved"

    def writer(self, writer: str) -> Path:
        return self.root / "writers" / writer


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: the log it extends, its writer's name, and its keys.

    `log_signers` are the keys in force when the identity was opened; `log_keys` knows them at any time.
    """

    origin: str
    writer: str
    log: Log
    log_keys: LogKeys
    log_signers: tuple[HeldSigner, ...]
    receipts_signer: HeldSigner


def open_or_create(
    folder: StateFolder,
    store: ObjectStore,
    *,
    origin: str,
    writer: str,
    now: datetime,
    rules: KeyRules = KeyRules(),  # noqa: B008 (frozen)
    retention: Retention = Retention(),  # noqa: B008 (frozen)
    wrapping_keys: WrappingKeys = NO_KEYS,
) -> Identity:
    """The node's identity, made on the first start. `origin` and `writer` ("" for random) only matter then.

    Every step is repeated harmlessly after a crash. Raises StateUnusable when folder and archive don't belong
    together, KeyUnusable, FormatError.
    """
    names = _names(folder, store, origin, writer)
    log_keys = LogKeys(folder.log_key, folder.next_log_key, folder.policy, names.origin, rules)
    with exclusive(folder.signer_lock):
        if not holds_archive(store):
            signers = log_keys.open_or_create()
            log = Log.create(
                store, names.origin, [signer.key.vkey() for signer in signers], now, retention, wrapping_keys
            )
        else:  # never make keys for an archive that has some
            log = Log.create(store, names.origin, [], now, retention, wrapping_keys)
        signers = log_keys.settled(log)
    receipts = keys.load_or_create(
        folder.receipts_key, f"{names.origin}/receipts", rules.receipt_types, rules.passphrase
    )
    rules.admit(receipts)
    known = frozenset(signer.key for signer in signers)
    first = Keyring.follow(names.origin, known, log.key_changes).at(0).may
    if folder.signer_memory.exists() is False and not {key.vkey() for key in first} & set(log.identity.keys):
        raise StateUnusable(
            f"the keys in {folder.log_key} are not this archive's keys",
            hint="use the state folder that this archive was made with",
        )
    if not folder.policy.exists():
        _write(folder.policy, Policy(tuple(signer.key for signer in signers)).text().encode())
    return Identity(names.origin, names.writer, log, log_keys, signers, receipts[0])


@dataclass(frozen=True, slots=True)
class _Names:
    origin: str
    writer: str


def _names(folder: StateFolder, store: ObjectStore, origin: str, writer: str) -> _Names:
    if folder.node.exists():
        try:
            value = json.loads(folder.node.read_bytes())
            return _Names(str(value["origin"]), str(value["writer"]))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StateUnusable(f"{folder.node}: {error}", hint="restore the state folder from its backup") from None
    if holds_archive(store) and folder.log_key.exists():
        # A further replica, or one whose disk was lost: it was given the keys, and `open_or_create` sees whether they
        # are this archive's.
        origin = read_identity(store).origin
    elif holds_archive(store):
        # Made elsewhere. Signing it with fresh keys would look like a forgery to everybody who knows the old ones.
        raise StateUnusable(
            f"{folder.root} has no keys for the archive {read_identity(store).origin!r} in {store.description}",
            hint="use the state folder this archive was made with, or another archive folder",
        )
    names = _Names(origin or f"strongroom/{secrets.token_hex(6)}", writer or f"w{secrets.token_hex(4)}")
    _write(folder.node, json.dumps({"origin": names.origin, "writer": names.writer}).encode() + b"\n")
    return names


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(path, content)
