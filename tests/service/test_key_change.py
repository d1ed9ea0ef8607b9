"""Rotation and revocation: by command, beside a running service, and killed at every effect on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive import keys, policy
from strongroom.archive.errors import KeyUnusable, ObjectExists, SignerRefused, StoreUnavailable
from strongroom.archive.keyring import Keyring
from strongroom.archive.locks import exclusive
from strongroom.archive.log import Log
from strongroom.archive.note import KeyType, VerifierKey
from strongroom.archive.policy import Policy
from strongroom.archive.signer import Signer
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import Report
from strongroom.archive.verification.verify import verify
from strongroom.service import key_change, log_keys
from strongroom.service.errors import StateUnusable
from strongroom.service.key_change import Wish
from strongroom.service.log_keys import KeyRules
from strongroom.service.state import Identity, StateFolder, open_or_create
from tests import kms_api
from tests.service.conftest import Done, Service, make_tokens, start_service, strongroom

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FAST = KeyRules(("ed25519", "ecdsa-p256"))


class Place:
    """An archive and its state folder, opened anew for everything that is done: as after a restart."""

    def __init__(self, folder: Path, rules: KeyRules = FAST) -> None:
        self.folder, self.rules = folder, rules
        self.state = StateFolder(folder / "state")
        self.store = DirectoryStore(folder / "archive", create=True)
        self.sign()
        self.first = policy.parse(self.state.policy.read_text())

    def open(self) -> Identity:
        return open_or_create(self.state, self.store, origin="log.example/k", writer="w", now=NOW, rules=self.rules)

    def sign(self) -> int:
        identity = self.open()
        with exclusive(self.state.signer_lock):
            return Signer(self.store, identity.log_signers, self.state.signer_memory).sign().size

    def ring(self, pinned: Policy | None = None) -> Keyring:
        log = Log.open(self.store)
        return Keyring.follow(log.origin, (pinned or self.own_policy).logs, log.key_changes)

    @property
    def own_policy(self) -> Policy:
        return policy.parse(self.state.policy.read_text())

    @property
    def in_force(self) -> frozenset[VerifierKey]:
        return self.ring().at(Log.open(self.store).size).may

    def change(self, wish: Callable[[frozenset[VerifierKey]], Wish]) -> None:
        """As the command line does it."""
        log = Log.open(self.store)
        held = log_keys.LogKeys(self.state.log_key, self.state.next_log_key, self.state.policy, log.origin, self.rules)
        with exclusive(self.state.signer_lock):
            if not key_change.resume(held, log, self.state.signer_memory):
                ring = Keyring.follow(log.origin, self.own_policy.logs, log.key_changes)
                key_change.change(held, log, ring, wish(ring.at(log.size).may), self.state.signer_memory)

    def check(self, pinned: Policy | None = None) -> Report:
        return verify(self.store, Trust(pinned or self.own_policy), "complete")


def everything(in_force: frozenset[VerifierKey]) -> Wish:
    return Wish(FAST.kinds, in_force, "yearly")


def the_classical_one(in_force: frozenset[VerifierKey]) -> Wish:
    gone = frozenset(key for key in in_force if key.type is KeyType.ED25519)
    return Wish(("ed25519",), gone, "stolen", dict.fromkeys(gone), gone)


def all_of_them(in_force: frozenset[VerifierKey]) -> Wish:
    return Wish(FAST.kinds, in_force, "fire", dict.fromkeys(in_force, 1), in_force)


class Killed(BaseException):
    pass


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The process dies at its `number`th effect on the file system: that and all later ones do not happen."""
    done: list[str] = []

    def dying(name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return effect(*arguments, **options)
            if len(done) >= number:
                raise Killed(name)
            done.append(name)
            return effect(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("link", "rename", "replace", "unlink", "fsync", "open", "mkdir", "chmod"):
            patched.setattr(os, name, dying(name, getattr(os, name)))
        with suppress(Killed):
            yield done


def effects(folder: Path, wish: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many effects a whole change has."""
    place = Place(folder)
    with killed_at(10_000, monkeypatch) as done:
        place.change(wish)
    return len(done)


@pytest.mark.adversarial
@pytest.mark.parametrize("wish", [everything, the_classical_one, all_of_them], ids=["rotate", "one lost", "all lost"])
def test_killed_at_every_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: Any) -> None:
    total = effects(tmp_path / "whole", wish, monkeypatch)
    assert total > 20
    for number in range(total):
        place = Place(tmp_path / str(number))
        before = place.in_force
        with killed_at(number, monkeypatch) as done:
            place.change(wish)
        assert len(done) == number, "it was to die"
        size = place.sign()  # a restart: whatever was committed is finished, whatever was not does no harm
        held = frozenset(signer.key for signer in place.open().log_signers)
        assert place.in_force == held and held in (before, place.in_force)
        assert place.check().sound and place.check().size == size
        if held == before:
            place.change(wish)  # asked for again
            assert not place.state.next_log_key.exists()
        final = place.check()
        assert final.sound and place.in_force.isdisjoint(wish(before).leave)
        assert len(Log.open(place.store).key_changes) == 1, "one change was asked for"
        by_the_first = {finding.code for finding in place.check(place.first).findings}
        expected = {"rotate": set(), "one lost": {"KEY_CHANGE_UNCONFIRMED"}}
        name = {everything: "rotate", the_classical_one: "one lost"}.get(wish)
        assert by_the_first == expected[name] if name else "KEY_CHANGE_INVALID" in by_the_first


def test_keys_made_for_a_change_are_the_ones_it_ends_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's answer to the commit is lost, and the commit comes true only later."""
    place = Place(tmp_path)
    append, late = Log.append, []

    def lost(log: Log, draft: Any, *, at: int | None = None) -> Any:
        late.append((draft, at))
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Log, "append", lost)
        with pytest.raises(StoreUnavailable):
            place.change(everything)
    waiting = keys.load(place.state.next_log_key, "log.example/k")
    append(Log.open(place.store), late[0][0], at=late[0][1])
    place.change(everything)
    assert place.in_force == {signer.key for signer in waiting} and place.check(place.first).sound


def test_another_writer_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    append, raced = Log.append, []

    def overtaken(log: Log, draft: Any, *, at: int | None = None) -> Any:
        if not raced:
            raced.append(append(Log.open(place.store), replace(draft, kind="heartbeat", data={})))
        return append(log, draft, at=at)

    with monkeypatch.context() as patched:
        patched.setattr(Log, "append", overtaken)
        place.change(everything)
    log = Log.open(place.store)
    assert [index for index, _ in log.key_changes] == [raced[0].index + 1]
    assert place.check(place.first).sound
    with pytest.raises(ObjectExists):
        log.append(raced[0], at=1)


def test_who_does_not_hold_the_keys_in_force_does_not_sign(tmp_path: Path) -> None:
    place = Place(tmp_path)
    old = place.open().log_signers
    place.change(everything)
    with pytest.raises(SignerRefused, match="other keys sign"):
        Signer(place.store, old, tmp_path / "elsewhere.json").sign()
    place.state.log_key.unlink()
    with pytest.raises(KeyUnusable, match="No such file"):  # never a fresh key for an archive that has some
        place.open()
    fresh = StateFolder(tmp_path / "other")
    with pytest.raises(StateUnusable):
        open_or_create(fresh, place.store, origin="log.example/k", writer="w", now=NOW)


def test_a_lost_key_file_is_not_the_end(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.state.log_key.unlink()
    with pytest.raises(KeyUnusable, match="--lost"):
        place.change(everything)
    place.change(all_of_them)
    assert place.sign() and place.check().sound


def test_wishes_that_are_not_granted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    old = place.in_force
    with pytest.raises(KeyUnusable, match="no key would be left"):
        place.change(lambda now: Wish((), now, "none"))
    with pytest.raises(KeyUnusable, match="no key is of kind 'rsa'"):
        place.change(lambda now: Wish(("rsa",), now, "none"))
    assert not place.state.next_log_key.exists() and place.in_force == old
    strict = log_keys.LogKeys(
        place.state.log_key, place.state.next_log_key, place.state.policy, "log.example/k", replace(FAST, fips=True)
    )
    with pytest.raises(KeyUnusable, match="setting fips allows ECDSA keys only, not ED25519"):
        strict.held()


# -- by command


def run(folder: Path, *arguments: str, **environment: str) -> Done:
    places = ("--archive", folder / "archive", "--state", folder / "state")
    return strongroom(*arguments, *places, **environment)


def ready(folder: Path, **environment: str) -> Path:
    (folder / "one.ndjson").write_text('{"a": 1}\n')
    done = run(folder, "ingest", str(folder / "one.ndjson"), **environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.system
def test_beside_a_running_service(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path)
    service = start_service(tmp_path)
    service.tokens = tokens
    try:
        first = (tmp_path / "state" / "verifier" / "policy").read_text()
        assert push(service) and run(tmp_path, "keys", "rotate", "--reason", "beside").returncode == 0
        assert push(service), "the running service signs with the new keys"
        report = service.call("POST", "/v1/verify", params={"level": "complete"}).json()
        assert report["sound"], report
        told = service.rows("select action, outcome from audit where action = 'keys.rotate' order by event_time")
        assert told == [["keys.rotate", "started"], ["keys.rotate", "success"]]
    finally:
        service.stop()
    (tmp_path / "first").write_text(first)
    assert run(tmp_path, "verify", "--trust", str(tmp_path / "first"), "--level", "deep").returncode == 0


def push(service: Service) -> bool:
    answer = service.call("POST", "/v1/ingest/json", role="forwarder", content=os.urandom(8).hex().join('""'))
    service.call("POST", "/v1/seal")
    size = service.call("GET", "/v1/status").json()["log"]["size"]
    return bool(answer.status_code < 300 and service.call("GET", "/v1/status").json()["checkpoint"]["size"] == size)


@pytest.mark.system
def test_the_commands(tmp_path: Path) -> None:
    ready(tmp_path)

    def listed() -> list[dict[str, Any]]:
        return list(json.loads(run(tmp_path, "keys", "list", "--json").stdout))

    first = listed()
    assert [(key["algorithm"], key["from"], key["to"], key["state"], key["held"]) for key in first] == [
        ("Ed25519", 1, None, "in force", "key file"),
        ("ML-DSA-44", 1, None, "in force", "key file"),
    ]
    done = json.loads(run(tmp_path, "keys", "rotate", "--json").stdout)
    assert done["retired"] == [key["key_id"] for key in first] and len(done["added"]) == 2
    by_id = {key["key_id"]: key for key in listed()}
    assert {by_id[key["key_id"]]["to"] for key in first} == {done["entry"]}
    assert {by_id[key_id]["from"] for key_id in done["added"]} == {done["from"]}

    public = run(tmp_path, "keys", "public").stdout.split()
    assert public == [by_id[key_id]["vkey"] for key_id in done["added"]]
    pem = run(tmp_path, "keys", "public", "--pem").stdout
    assert pem.count("BEGIN PUBLIC KEY") == 2
    old = policy.parse(run(tmp_path, "keys", "export-policy", "--size", "1").stdout)
    assert [key.vkey() for key in old.logs] == [key["vkey"] for key in first]
    assert run(tmp_path, "keys", "export-policy", "--out", str(tmp_path / "new")).returncode == 0
    assert [key.vkey() for key in policy.parse((tmp_path / "new").read_text()).logs] == public

    revoked = run(tmp_path, "keys", "revoke", done["added"][0], "--reason", "leaked", "--keys", "none", "--json")
    assert json.loads(revoked.stdout)["kept"] == [done["added"][1]]
    for trust in (tmp_path / "new", tmp_path / "state" / "verifier" / "policy"):
        assert run(tmp_path, "verify", "--trust", str(trust)).returncode == 0
    wrong = run(tmp_path, "keys", "revoke", "00000000", "--reason", "none")
    assert wrong.returncode == 2 and "no key in force has the id" in wrong.stderr


@pytest.mark.system
def test_a_passphrase_protects_the_key_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("xkcd 936\n")
    secret.chmod(0o600)
    ready(tmp_path, STRONGROOM_KEY_PASSPHRASE_FILE=str(secret))
    files = [tmp_path / "state" / "keys" / name for name in ("log.pem", "receipts.pem")]
    assert all(keys.is_encrypted(path) for path in files)
    locked = run(tmp_path, "keys", "rotate")
    assert locked.returncode == 2 and "key_passphrase_file" in locked.stderr
    assert run(tmp_path, "keys", "rotate", STRONGROOM_KEY_PASSPHRASE="xkcd 936").returncode == 0
    assert keys.is_encrypted(files[0])
    for environment in ({"KEY_PASSPHRASE": "xkcd 937"}, {"KEY_PASSPHRASE": "a", "KEY_PASSPHRASE_FILE": str(secret)}):
        refused = run(
            tmp_path, "keys", "rotate", **{f"STRONGROOM_{name}": value for name, value in environment.items()}
        )
        assert refused.returncode == 2 and "936" not in refused.stderr and "937" not in refused.stderr
    secret.chmod(0o644)
    open_to_all = run(tmp_path, "keys", "rotate", STRONGROOM_KEY_PASSPHRASE_FILE=str(secret))
    assert open_to_all.returncode == 2 and "chmod 600" in open_to_all.stderr


@pytest.mark.system
def test_the_strict_profile_signs_with_ecdsa_alone(tmp_path: Path) -> None:
    ready(tmp_path, STRONGROOM_FIPS="true")
    listed = json.loads(run(tmp_path, "keys", "list", "--json").stdout)
    assert [key["algorithm"] for key in listed] == ["ECDSA"]
    [receipts] = keys.load(tmp_path / "state" / "keys" / "receipts.pem", "any")
    assert receipts.key.type is KeyType.ECDSA
    assert run(tmp_path, "verify").returncode == 0
    assert run(tmp_path, "keys", "rotate", "--keys", "ed25519").returncode == 0  # the profile is off here …
    refused = run(tmp_path, "ingest", str(tmp_path / "one.ndjson"), STRONGROOM_FIPS="true")  # … and on here
    assert refused.returncode == 2 and "setting fips" in refused.stderr
    checks = json.loads(run(tmp_path, "doctor", "fips", "--json").stdout)
    assert any("Ed25519: signing the log" in check["check"] for check in checks)


@pytest.mark.system
def test_a_log_moves_into_kms_and_on(tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto")
    ready(tmp_path)
    first = (tmp_path / "state" / "verifier" / "policy").read_bytes()
    (tmp_path / "first").write_bytes(first)
    with kms_api.running() as url:
        environment = {**kms_api.ENVIRONMENT, "AWS_ENDPOINT_URL_KMS": url}
        with pytest.MonkeyPatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            api = boto3.client("kms")
            one, two = (
                api.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
                for spec in ("ECC_NIST_P384", "ECC_NIST_P256")
            )
        for wanted in (f"kms:{one}", f"kms:{one},kms:{two}", f"kms:{two},ml-dsa-44"):
            done = run(tmp_path, "keys", "rotate", "--keys", wanted, "--json", **environment)
            assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["kept"]) == 1, "a KMS key that is named again stays"
        held = {key["held"][:7] for key in json.loads(run(tmp_path, "keys", "list", "--json", **environment).stdout)}
        assert held == {"", "AWS KMS", "key fil"}
        (tmp_path / "two.ndjson").write_text('{"a": 2}\n')
        taken = run(tmp_path, "ingest", str(tmp_path / "two.ndjson"), **environment)
        assert taken.returncode == 0, taken.stderr
        again = run(tmp_path, "keys", "rotate", "--keys", f"kms:{one}", **environment)
        assert again.returncode == 2 and "a key that went never returns" in again.stderr
        named = run(
            tmp_path, "keys", "revoke", id_of(tmp_path, "ECDSA", environment), "--reason", "leaked", **environment
        )
        assert named.returncode == 2 and "name its successor" in named.stderr
    assert run(tmp_path, "verify", "--trust", str(tmp_path / "first"), "--level", "deep").returncode == 0


def id_of(folder: Path, algorithm: str, environment: dict[str, str]) -> str:
    """The id of the key of this kind that is in force."""
    known = json.loads(run(folder, "keys", "list", "--json", **environment).stdout)
    return next(key["key_id"] for key in known if (key["algorithm"], key["state"]) == (algorithm, "in force"))
