"""Verification of logs whose keys were changed: sound ones, forged ones, damaged ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest

from strongroom.archive import canonical, keyring, keys, layout, note
from strongroom.archive import entry as entries
from strongroom.archive.entry import Draft
from strongroom.archive.errors import SignerRefused
from strongroom.archive.keyring import Change
from strongroom.archive.keys import LocalSigner
from strongroom.archive.note import Checkpoint, KeyType, VerifierKey
from strongroom.archive.policy import Policy
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import Finding, Level
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import NOW, ORIGIN, Archive, rederive


def rotate(
    archive: Archive,
    new: list[LocalSigner] | None = None,
    *,
    revoke: Mapping[VerifierKey, int] = {},
    silent: tuple[LocalSigner, ...] = (),
    index: int | None = None,
) -> list[LocalSigner]:
    """Change all keys (but those in `new` already) and go on with the new ones; returns the old."""
    old, new = archive.signers, new or keys.generate(ORIGIN)
    at = archive.log.refresh() if index is None else index
    change = Change(
        ORIGIN,
        at + 1,
        "test",
        kept=tuple(one.key for one in old if one in new),
        retired=tuple(one.key for one in old if one not in new and one.key not in revoke),
        revoked=tuple(revoke.items()),
        added=tuple(one.key for one in new if one not in old),
    )
    vouching = [*(one for one in old if one not in silent), *(one for one in new if one not in old)]
    archive.log.append(Draft("key", NOW, data=keyring.sign(change, vouching)))
    archive.signers = new
    archive.signer.use(new)
    return old


@pytest.fixture
def rotated(archive: Archive) -> tuple[Archive, Trust]:
    """Two rotations between commits, and the policy of the first day."""
    first = archive.trust
    for types in ([KeyType.ED25519, KeyType.ML_DSA_44], [KeyType.ECDSA]):
        rotate(archive, keys.generate(ORIGIN, types))
        archive.signer.sign()
        archive.commit()
    return archive, first


def check(archive: Archive, trust: Trust, level: Level = "complete") -> list[Finding]:
    return verify(archive.store, trust, level, rederive=rederive).findings


def only(findings: list[Finding], code: str, key: str) -> Finding:
    assert [(finding.code, finding.object) for finding in findings] == [(code, key)]
    return findings[0]


def resign(archive: Archive, size: int, signers: list[LocalSigner]) -> str:
    """Put another checkpoint of the true tree in the place of the one of `size`."""
    key = layout.checkpoint_key(size)
    checkpoint = Checkpoint(ORIGIN, size, archive.log.root(size))
    archive.path(key).write_text(note.sign(checkpoint.text(), signers).encode())
    return key


@pytest.mark.parametrize("level", get_args(Level))
def test_a_rotated_log_is_sound_under_policies_of_any_time(rotated: tuple[Archive, Trust], level: Level) -> None:
    archive, first = rotated
    assert archive.log.size == 10 and [index for index, _ in archive.log.key_changes] == [6, 8]
    for trust in (first, archive.trust):
        report = verify(archive.store, trust, level, rederive=rederive)
        assert report.sound and report.checkpoint is not None and report.checkpoint.size == 10, report.findings


def test_the_same_with_a_memory(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    for size in range(1, 11):
        remembering = Trust(first.policy, Checkpoint(ORIGIN, size, archive.log.root(size)))
        assert check(archive, remembering, "quick") == []


@pytest.mark.adversarial
def test_a_new_key_over_an_old_size(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    key = resign(archive, 4, archive.signers)
    for trust in (first, archive.trust):
        finding = only(check(archive, trust), "KEY_OUT_OF_WINDOW", key)
        assert "in force from size 9" in finding.actual and finding.where == {"size": 4}
        for one in archive.signers:
            assert one.key.key_id.hex() in finding.actual


@pytest.mark.adversarial
def test_an_old_key_over_a_new_size(archive: Archive) -> None:
    first = archive.trust
    old = rotate(archive)
    archive.signer.sign()
    archive.commit()
    key = resign(archive, 8, old)
    finding = only(check(archive, first), "KEY_OUT_OF_WINDOW", key)
    assert "in force from size 1 to 6" in finding.actual
    resign(archive, 8, [*archive.signers, old[0]])  # all who must, and one who must not
    only(check(archive, first), "KEY_OUT_OF_WINDOW", key)
    resign(archive, 8, archive.signers[:1])  # one who must is lacking
    only(check(archive, first), "CHECKPOINT_SIGNATURE", key)
    resign(archive, 8, archive.signers)
    assert check(archive, first) == []


@pytest.mark.adversarial
def test_whoever_stole_the_new_key_can_not_rewrite_what_was_before(rotated: tuple[Archive, Trust]) -> None:
    """Every checkpoint signed again with the newest keys: each old size is found."""
    archive, first = rotated
    for size in range(1, 9):
        if archive.path(layout.checkpoint_key(size)).exists():
            resign(archive, size, archive.signers)
    found = check(archive, first)
    assert {finding.code for finding in found} == {"KEY_OUT_OF_WINDOW"}
    assert [finding.where["size"] for finding in found] == list(range(1, 9))


@pytest.mark.adversarial
@pytest.mark.parametrize("tail", [0, 1, 3])
def test_any_changed_byte_of_a_key_entry_is_that_entry_s_finding(archive: Archive, tail: int) -> None:
    """Also where it takes the later keys away with it: their checkpoints are a note, not an avalanche."""
    first = archive.trust
    rotate(archive)
    archive.signer.sign()
    for _ in range(tail):
        archive.commit()
    key = layout.entry_key(6)
    path = archive.path(key)
    stored = path.read_bytes()
    statement, signed = stored.index(b"strongroom keys v1"), stored.index(b"/keys")
    for place in (0, 40, 200, statement, statement + 60, signed, signed + 90, len(stored) - 400, len(stored) - 3):
        path.write_bytes(stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :])
        report = verify(archive.store, first, "complete")
        assert len(report.findings) == 1, report.findings
        assert report.findings[0].object == key and report.findings[0].where["index"] == 6
        assert report.verdict == "tampered"
    path.write_bytes(stored)
    assert check(archive, first) == []


@pytest.mark.adversarial
def test_a_removed_key_entry(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    archive.path(layout.entry_key(6)).unlink()
    report = verify(archive.store, first, "complete")
    assert [finding.code for finding in report.findings] == ["ENTRY_MISSING"]
    assert any("may have changed the log's keys" in remark for remark in report.notes)


@pytest.mark.adversarial
def test_two_changes_and_the_first_is_damaged(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    path = archive.path(layout.entry_key(6))
    stored = path.read_bytes()
    path.write_bytes(stored.replace(b"reason test", b"reason rest"))
    only(check(archive, first), "ENTRY_CHANGED", layout.entry_key(6))


@pytest.mark.adversarial
def test_a_key_entry_by_a_writer_without_keys(archive: Archive) -> None:
    """It can append what it likes; the signer stops, and whoever signs in its place is found."""
    first = archive.trust
    stranger = keys.generate(ORIGIN)
    gone = tuple((one.key, 1) for one in archive.signers)
    takeover = Change(ORIGIN, 7, "mine", revoked=gone, added=tuple(one.key for one in stranger))
    archive.log.append(Draft("key", NOW, data=keyring.sign(takeover, stranger)))
    with pytest.raises(SignerRefused, match="KEY_CHANGE_INVALID"):
        archive.signer.sign()
    assert [finding.code for finding in check(archive, first)] == ["KEY_CHANGE_INVALID"]
    signed = note.sign(Checkpoint(ORIGIN, 7, archive.log.root(7)).text(), stranger)
    archive.store.create(layout.checkpoint_key(7), signed.encode().encode())
    report = verify(archive.store, first, "complete")
    only(report.findings, "KEY_CHANGE_INVALID", layout.entry_key(6))
    assert report.verdict == "tampered" and any("sizes 7..7 can't be verified" in remark for remark in report.notes)


@pytest.mark.adversarial
def test_a_statement_replayed_elsewhere(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    replayed = canonical.decode(archive.store.get(layout.entry_key(6)))["data"]
    archive.log.append(Draft("key", NOW, data=replayed))
    finding = next(f for f in check(archive, first) if f.code == "KEY_CHANGE_INVALID")
    assert finding.where["index"] == 10 and "from size 7" in finding.actual


def test_a_lost_key_is_a_warning_until_the_policy_says_so(archive: Archive) -> None:
    first, lost = archive.trust, archive.signers[0]
    rotate(
        archive, [archive.signers[1], *keys.generate(ORIGIN, [KeyType.ED25519])], revoke={lost.key: 3}, silent=(lost,)
    )
    archive.signer.sign()
    archive.commit()
    report = verify(archive.store, first, "complete")
    only(report.findings, "KEY_CHANGE_UNCONFIRMED", layout.entry_key(6))
    assert report.verdict == "warning" and report.checkpoint is not None and report.checkpoint.size == 8
    assert check(archive, archive.trust) == []
    resign(archive, 4, [archive.signers[0]])  # the revoked signature is not needed from size 3 on
    assert check(archive, archive.trust) == []
    resign(archive, 2, [archive.signers[0]])  # before, it is
    only(check(archive, archive.trust), "CHECKPOINT_SIGNATURE", layout.checkpoint_key(2))


def test_all_keys_lost_pin_anew(archive: Archive) -> None:
    first = archive.trust
    old = archive.signers
    rotate(archive, revoke={one.key: 4 for one in old}, silent=tuple(old))
    archive.signer.sign()
    archive.commit()
    assert "KEY_CHANGE_INVALID" in {finding.code for finding in check(archive, first)}
    report = verify(archive.store, archive.trust, "complete")
    assert report.sound and any("revoked keys only" in remark for remark in report.notes)


def test_a_policy_with_one_of_the_keys_follows_too(rotated: tuple[Archive, Trust]) -> None:
    archive, first = rotated
    for key in first.keys:
        assert check(archive, Trust(Policy((key,)))) == []


def test_a_key_entry_fits_an_entry(archive: Archive) -> None:
    rotate(archive)
    assert len(archive.store.get(layout.entry_key(6))) < entries.MAX_ENTRY_BYTES / 3
