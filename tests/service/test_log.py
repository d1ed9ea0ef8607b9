"""Checkpoints, entries and proofs over HTTP, checked as a stranger would: with the public key and RFC 6962 alone."""

from __future__ import annotations

from strongroom.archive import merkle, note
from strongroom.archive.entry import decode
from strongroom.service.checking.verification import read_trust
from strongroom.service.state import StateFolder
from tests.service.conftest import Service
from tests.service.test_ingest import push


def test_the_public_checkpoint_is_signed_by_every_key(service: Service) -> None:
    signed = note.parse(service.call("GET", "/v1/checkpoint", role=None).content)
    keys = read_trust(StateFolder(service.folder / "state").policy).keys
    assert note.verify(signed, keys) == list(keys)
    assert note.parse_checkpoint(signed.text).size > 0


def test_an_entry_is_proven_to_be_under_the_checkpoint(service: Service) -> None:
    sealed = push(service, "json", b'{"proven": true}', params={"wait": "sealed"})
    checkpoint = note.parse_checkpoint(note.parse(service.call("GET", "/v1/checkpoint").content).text)
    stored = service.call("GET", f"/v1/entries/{sealed['entry']}").content
    assert decode(stored).index == sealed["entry"]
    params = {"entry": sealed["entry"], "size": checkpoint.size}
    proof = service.call("GET", "/v1/proofs/inclusion", params=params).json()
    path = [bytes.fromhex(node) for node in proof["path"]]
    merkle.verify_inclusion(sealed["entry"], checkpoint.size, merkle.leaf_hash(stored), path, checkpoint.root)


def test_a_later_tree_is_proven_to_extend_an_earlier_one(service: Service) -> None:
    before = note.parse_checkpoint(note.parse(service.call("GET", "/v1/checkpoint").content).text)
    push(service, "json", b'{"more": true}', params={"wait": "sealed"})
    answer = service.call("GET", "/v1/proofs/consistency", params={"old": before.size}).json()
    assert answer["new"] > before.size
    assert bytes.fromhex(answer["roots"][0]) == before.root
    proof = [bytes.fromhex(node) for node in answer["proof"]]
    merkle.verify_consistency(before.size, answer["new"], proof, before.root, bytes.fromhex(answer["roots"][1]))
