"""`strongroom keys`: who may sign the log, now and before, and changing that. Every use is an act for the audit.

A change works beside a running service and without one (service/key_change.py). Which keys the log has, the node's
policy and the log's own key entries say; that is also what any verifier goes by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from strongroom.archive import durable, policy
from strongroom.archive.encryption.policy import Declared
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyUnusable, StrongroomError
from strongroom.archive.keyring import Change, Keyring, in_order
from strongroom.archive.keys import HeldSigner, LocalSigner
from strongroom.archive.locks import exclusive
from strongroom.archive.log import Log
from strongroom.archive.note import VerifierKey
from strongroom.archive.policy import Policy
from strongroom.service import acts, key_change, log_keys, settings
from strongroom.service.commands.options import ArchiveOption, ConfigOption, JsonOption, StateOption
from strongroom.service.keeping.storage import open_log
from strongroom.service.key_change import Wish
from strongroom.service.log_keys import LogKeys
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

app = typer.Typer(help="Keys that sign the log: show, rotate, revoke, hand out.", no_args_is_help=True)
screen = Console(soft_wrap=True)

SizeOption = Annotated[int | None, typer.Option("--size", min=1, help="Tree size; default: the log's size now.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="One line that the log keeps for ever.")]
KeysOption = Annotated[
    str | None,
    typer.Option("--keys", help="What signs from now on, as in the setting signing_keys; `none` for no new key."),
]


@app.command("list")
def list_keys(
    config: ConfigOption = None, archive: ArchiveOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Show every key the log has or had: where it is, and for which tree sizes it signs."""
    place = _open(config, archive, state)
    with _act(place, "keys.list"):
        known = [*_describe(place)]
    if as_json:
        print(json.dumps(known))
        return
    table = Table("key id", "algorithm", "sizes", "state", "private half")
    for item in known:
        sizes = f"{item['from']}–{item['to'] or ''}" if item["from"] else "–"
        table.add_row(item["key_id"], item["algorithm"], sizes, item["state"], item["held"] or "not here")
    screen.print(table)


@app.command("encryption")
def encryption(
    config: ConfigOption = None, archive: ArchiveOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Show the wrapping keys the log has taken into use, and whether each unwraps here and now."""
    place = _open(config, archive, state)
    with _act(place, "keys.encryption"):
        known = [_standing(place.log, declared) for declared in place.log.wrapping_keys]
    if as_json:
        print(json.dumps(known))
        return
    if not known:
        print("the archive is not encrypted")
        return
    table = Table("wrapping key", "from entry", "here and now")
    for item in known:
        table.add_row(item["key"], str(item["from"]), item["standing"])
    screen.print(table)


@app.command("public")
def public(
    size: SizeOption = None,
    as_pem: Annotated[bool, typer.Option("--pem", help="PEM, for openssl, instead of verification keys.")] = False,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Print the public keys in force."""
    from strongroom.archive.evidence.commands import pem

    place = _open(config, archive, state)
    with _act(place, "keys.public"):
        keys = in_order(place.ring.at(size or place.log.size).may)
    for key in keys:
        print(pem(key).decode() if as_pem else key.vkey(), end="" if as_pem else "\n")


@app.command("export-policy")
def export_policy(
    size: SizeOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output.")] = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Print the node's policy with the keys in force at a size: for witnesses, verifiers, and checkers of evidence."""
    place = _open(config, archive, state)
    with _act(place, "keys.export-policy"):
        believed = place.ring.believed(size or place.log.size)
        if not believed:
            raise KeyUnusable(f"every key of size {size} was revoked", hint="name a later size")
        text = replace(place.policy, logs=in_order(believed)).text()
        if out is not None:
            durable.replace(out, text.encode())
    if out is None:
        print(text, end="")


@app.command("rotate")
def rotate(
    reason: ReasonOption = "rotation",
    keys: KeysOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the log's keys by new ones. Verifiers follow by themselves; witnesses need the new policy."""
    place = _open(config, archive, state)
    wish = Wish(_kinds(keys, place.rules.kinds), place.ring.at(place.log.size).may, reason)
    _change(place, "keys.rotate", wish, as_json)


@app.command("revoke")
def revoke(
    key_ids: Annotated[list[str], typer.Argument(metavar="KEY-ID…", help="As `keys list` shows them.")],
    reason: ReasonOption,
    since: Annotated[
        int | None,
        typer.Option("--from", min=1, help="First tree size at which it is not believed; default: from now."),
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="It can't sign any more: verifiers will ask for a new policy.")
    ] = False,
    keys: KeysOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire keys that leaked or were lost, and put others in their place. The other keys stay."""
    place = _open(config, archive, state)
    gone = frozenset(_find(place, key_id) for key_id in key_ids)
    wish = Wish(
        _kinds(keys, tuple(_kind(place, key) for key in in_order(gone)) if keys is None else ()),
        gone,
        reason,
        dict.fromkeys(gone, since),
        gone if lost else frozenset(),
    )
    _change(place, "keys.revoke", wish, as_json)


@dataclass(frozen=True)
class _Place:
    """An archive and the state folder that belongs to it."""

    state: StateFolder
    log: Log
    held: LogKeys
    rules: log_keys.KeyRules
    policy: Policy

    @property
    def ring(self) -> Keyring:
        return Keyring.follow(self.log.origin, self.policy.logs, self.log.key_changes)


def _open(config: Path | None, archive: str | None, state: Path | None) -> _Place:
    chosen: Settings = settings.load(config, {"archive": archive, "state": state})
    folder = StateFolder(chosen.state.absolute())
    log = open_log(chosen)
    try:
        pinned = policy.parse(folder.policy.read_text("utf-8"))
    except OSError as error:
        raise KeyUnusable(
            f"policy {folder.policy}: {error.strerror}", hint="use the state folder that this archive was made with"
        ) from None
    if pinned.origin != log.origin:
        raise KeyUnusable(f"the state folder is of the log {pinned.origin}, the archive of {log.origin}")
    rules = log_keys.rules_of(chosen)
    return _Place(
        folder, log, LogKeys(folder.log_key, folder.next_log_key, folder.policy, log.origin, rules), rules, pinned
    )


def _change(place: _Place, action: str, wish: Wish, as_json: bool) -> None:
    told = {"leave": [key.key_id.hex() for key in in_order(wish.leave)], "keys": wish.kinds, "reason": wish.reason}
    with _act(place, action, wanted=told, lost=bool(wish.lost)) as outcome, exclusive(place.state.signer_lock):
        if key_change.resume(place.held, place.log, place.state.signer_memory):
            outcome["finished"] = "an earlier change was committed already; only the rest of it was done"
        else:
            done = key_change.change(place.held, place.log, place.ring, wish, place.state.signer_memory)
            outcome |= _tell(done)
    if as_json:
        print(json.dumps(outcome))
        return
    for name, value in outcome.items():
        screen.print(f"{name:<9} {', '.join(value) if isinstance(value, list) else value}", highlight=False)
    print("witnesses follow with the new policy only: strongroom keys export-policy")
    if wish.lost:
        print("verifiers say KEY_CHANGE_UNCONFIRMED or KEY_CHANGE_INVALID until they have it, too")


def _tell(done: Change) -> dict[str, Any]:
    return {
        "entry": done.effective - 1,
        "from": done.effective,
        "retired": [key.key_id.hex() for key in done.retired],
        "revoked": [f"{key.key_id.hex()} from size {size}" for key, size in done.revoked],
        "kept": [key.key_id.hex() for key in done.kept],
        "added": [key.key_id.hex() for key in done.added],
    }


@contextmanager
def _act(place: _Place, action: str, **wanted: Any) -> Iterator[dict[str, Any]]:
    """Leaves an act before and after; what the body puts into the dictionary is told with the outcome."""
    begun = acts.local_act(action, outcome="started", target=place.log.origin, **wanted)
    acts.leave(place.state.acts, begun)
    outcome: dict[str, Any] = {}
    try:
        yield outcome
    except (StrongroomError, OSError) as error:
        code = getattr(error, "code", type(error).__name__)
        failed = acts.local_act(action, outcome="failure", target=place.log.origin, id=begun.id, error=code)
        acts.leave(place.state.acts, failed)
        raise
    acts.leave(
        place.state.acts, acts.local_act(action, outcome="success", target=place.log.origin, id=begun.id, **outcome)
    )


def _describe(place: _Place) -> Iterator[dict[str, Any]]:
    from strongroom.archive.evidence.commands import algorithm, fingerprint

    held = {signer.key: signer for signer in _at_hand(place.held.held)}
    coming = {signer.key: signer for signer in _at_hand(place.held.waiting)}
    ring, size = place.ring, place.log.size
    for key in [*in_order(ring.keys), *in_order(coming.keys() - ring.keys)]:
        window = ring.window(key)
        if key in ring.revoked:
            standing = "revoked"
        elif key in ring.keys:
            standing = "in force" if key in ring.at(size).may else "retired"
        else:
            standing = "waiting"
        yield {
            "key_id": key.key_id.hex(),
            "algorithm": algorithm(key),
            "fingerprint": fingerprint(key),
            "state": standing,
            "from": window[0] if window else None,
            "to": window[1] if window else None,
            "held": _where(held.get(key) or coming.get(key)),
            "vkey": key.vkey(),
        }


def _standing(log: Log, declared: Declared) -> dict[str, Any]:
    try:
        standing = log.contents.encryption.standing(declared.key, declared.canary)
    except (KeyUnavailable, FormatError) as error:
        standing = str(error)
    return {"key": declared.key, "from": declared.index, "standing": standing}


def _at_hand(read: Callable[[], Sequence[HeldSigner] | None]) -> Sequence[HeldSigner]:
    """What a key file holds; nothing when it is not there or can't be opened, which no question here depends on."""
    try:
        return read() or ()
    except KeyUnusable:
        return ()


def _where(signer: HeldSigner | None) -> str:
    if signer is None:
        return ""
    return "key file" if isinstance(signer, LocalSigner) else f"AWS KMS {signer.arn}"


def _find(place: _Place, key_id: str) -> VerifierKey:
    found = [key for key in place.ring.at(place.log.size).may if key.key_id.hex() == key_id]
    if not found:
        raise KeyUnusable(f"no key in force has the id {key_id}", hint="strongroom keys list")
    return found[0]


def _kind(place: _Place, key: VerifierKey) -> str:
    """The kind of local key that takes the place of `key`."""
    held = {signer.key: signer for signer in _at_hand(place.held.held)}
    if key in held and not isinstance(held[key], LocalSigner):
        raise KeyUnusable(f"{key.key_id.hex()} is in AWS KMS", hint="name its successor: --keys kms:<ARN>, or none")
    return log_keys.kind_of(key)


def _kinds(asked: str | None, standard: Sequence[str]) -> tuple[str, ...]:
    if asked is None:
        return tuple(standard)
    return tuple(kind.strip() for kind in asked.split(",") if kind.strip() not in ("", "none"))
