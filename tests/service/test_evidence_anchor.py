"""Which checkpoint evidence leads to, and what vouches for it; which records an answer names; how large it may be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.archive import evidence, keys, layout, note, policy, timestamps
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.note import KeyType
from strongroom.archive.policy import Policy
from strongroom.service.errors import EvidenceTooLarge, NoAddresses, NotSignedYet
from strongroom.service.proving import bundling
from strongroom.service.proving.bundling import Excerpt, Job
from strongroom.service.proving.evidence import Addresses, anchor
from tests.archive.conftest import NOW, Archive
from tests.archive.test_timestamps import Authority


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Five signed sizes, 1 to 5."""
    made = Archive(tmp_path / "archive", tmp_path / "signer.json")
    made.signer.sign()
    for _ in range(4):
        made.commit()
    return made


class Witnessed:
    """An archive whose policy asks for one witness."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.witness = keys.generate("witness.example/w", [KeyType.ED25519_COSIGNATURE])[0]
        lines = [f"log {signer.key.vkey()}\n" for signer in archive.signers]
        self.policy: Policy = policy.parse("".join(lines) + f"witness w {self.witness.key.vkey()}\nquorum w\n")

    def cosign(self, size: int, broken: bool = False) -> None:
        stored = self.archive.store.get(layout.checkpoint_key(size))
        line = note.sign(note.parse(stored).text, [self.witness], 1_764_000_000).signatures[0].line()
        if broken:
            line = line[:-8] + "AAAA" + line[-4:]
        self.archive.store.create(layout.cosignature_key(size, self.witness.key.key_id), f"{line}\n".encode())


def test_the_newest_signed_one_when_no_witness_is_asked_for(archive: Archive) -> None:
    found = anchor(archive.store, archive.log, archive.trust.policy, covering=2)
    assert (found.head.size, found.witnessed, found.cosignatures, found.timestamps) == (5, True, b"", ())
    archive.commit(sign=False)
    assert anchor(archive.store, archive.log, archive.trust.policy, covering=2).head.size == 5
    with pytest.raises(NotSignedYet):
        anchor(archive.store, archive.log, archive.trust.policy, covering=6)


def test_the_newest_that_the_quorum_stands_behind_if_it_covers_the_records(archive: Archive) -> None:
    watched = Witnessed(archive)
    watched.cosign(3)
    watched.cosign(4, broken=True)
    found = anchor(archive.store, archive.log, watched.policy, covering=3)
    assert (found.head.size, found.witnessed) == (3, True)
    beyond = anchor(archive.store, archive.log, watched.policy, covering=4)
    assert (beyond.head.size, beyond.witnessed, beyond.cosignatures) == (5, False, b"")
    wanted = anchor(archive.store, archive.log, watched.policy, covering=2, size=4)
    assert (wanted.head.size, wanted.witnessed, wanted.cosignatures) == (4, False, b"")
    with pytest.raises(ObjectMissing):
        anchor(archive.store, archive.log, watched.policy, covering=4, size=3)

    proof = evidence.prove_record(archive.store, archive.log, 3, 2, 0, 1, cosignatures=found.cosignatures)
    assert note.parse(proof["checkpoint"].encode()).text.split("\n")[1] == "3"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_cosignatures_and_timestamps_come_along(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "tsa").mkdir()
    watched, authority = Witnessed(archive), Authority(tmp_path / "tsa")
    watched.cosign(5)
    stamp = authority.stamp(timestamps.request(archive.store.get(layout.checkpoint_key(5))).data)
    archive.store.create(layout.timestamp_key(5), stamp)
    found = anchor(archive.store, archive.log, watched.policy, covering=2)
    assert (found.witnessed, found.timestamps) == (True, (stamp,))
    path = tmp_path / "bundle.zip"
    evidence.write(
        path,
        store=archive.store,
        log=archive.log,
        checkpoint=found.note,
        policy=found.policy,
        picks=[((2, 0), [1])],
        custody={},
        now=NOW,
        timestamps=found.timestamps,
    )
    verdict = evidence.check(path, watched.policy, tsa_roots=authority.roots)
    assert verdict.status == "proven", verdict.problems
    assert {line.subject: line.held for line in verdict.lines}["timestamp"] is True
    assert "1 of 1 cosigned" in {line.subject: line.text for line in verdict.lines}["witnesses"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_addresses_are_read_however_the_answer_is_cut(size: int) -> None:
    answer = b'{"raw":"x","_segment":"a","_row":3}\n{"_row":1,"_segment":"a"}\n{"_segment":"b","_row":3}\n'
    addresses = Addresses()
    for start in range(0, len(answer), size):
        addresses.feed(answer[start : start + size])
    addresses.finish(cut=False)
    assert [(key, list(rows)) for key, rows in addresses.picks()] == [("a", [1, 3]), ("b", [3])]


def test_the_mark_of_a_cut_answer_is_no_record() -> None:
    addresses = Addresses()
    addresses.feed(b'{"_segment":"a","_row":3}\n{"$truncated":"rows"}\n')
    addresses.finish(cut=True)
    assert [(key, list(rows)) for key, rows in addresses.picks()] == [("a", [3])]
    whole = Addresses()
    whole.feed(b'{"$truncated":"rows"}\n')
    with pytest.raises(NoAddresses):
        whole.finish(cut=False)


def test_a_bundle_has_its_greatest_size(archive: Archive, tmp_path: Path) -> None:
    found = anchor(archive.store, archive.log, archive.trust.policy, covering=3)
    excerpt = Excerpt.of(archive.log, found.head, {2})

    def job(limit: int) -> Job:
        path = tmp_path / f"{limit}.zip"
        return Job(path, archive.store, excerpt, found, [((2, 0), [0, 2])], {"case": "c"}, limit)

    summary = bundling.write(job(10**6))
    assert (summary.records, summary.bytes) == (2, (tmp_path / "1000000.zip").stat().st_size)
    # The time it is written changes its length by a few bytes.
    with pytest.raises(EvidenceTooLarge, match=f"{summary.bytes - 200} bytes"):
        bundling.write(job(summary.bytes - 200))


def test_what_does_not_convince_us_is_not_given(archive: Archive, tmp_path: Path) -> None:
    found = anchor(archive.store, archive.log, archive.trust.policy, covering=3)
    excerpt = Excerpt.of(archive.log, found.head, {2})
    other = replace(excerpt, entries={2: (archive.log.entry_bytes(3), excerpt.entries[2][1])})
    with pytest.raises(FormatError):
        bundling.write(Job(tmp_path / "b.zip", archive.store, other, found, [((2, 0), [0])], {}, 10**6))
    with pytest.raises(FormatError, match="no such leaf"):
        bundling.must_hold(evidence.Verdict("failed", (), ("no such leaf",)))
