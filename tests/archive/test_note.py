"""Signed notes and checkpoints: the specifications' own vectors, and that no changed byte passes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import keys, note
from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.archive.note import Checkpoint, KeyType
from tests.archive.conftest import VECTORS

NOTES = json.loads((VECTORS / "signed_notes.json").read_text())
TESSERA = json.loads((VECTORS / "tessera-log.json").read_text())


@pytest.mark.parametrize("case", NOTES["notes"], ids=lambda case: case["name"])
def test_signed_notes(case: dict) -> None:
    try:
        signed = note.verify(note.parse(case["note"].encode()), [note.parse_vkey(key) for key in case["vkeys"]])
    except FormatError:
        signed = []
    assert bool(signed) == case["valid"], case["why"]


@pytest.mark.parametrize("vkey", NOTES["vkeys_to_reject"])
def test_bad_verification_keys(vkey: str) -> None:
    with pytest.raises(FormatError):
        note.parse_vkey(vkey)


def test_tessera_log_at_every_size() -> None:
    key = note.parse_vkey(TESSERA["public_key"])
    tree = Tree()
    for size, leaf in enumerate([None, *TESSERA["leaves_in_order"]]):
        if leaf is not None:
            tree.append(leaf_hash(leaf.encode()))
        stored = (VECTORS / f"tlog/checkpoint.{size}").read_bytes()
        if not stored:
            continue
        signed = note.parse(stored)
        assert note.verify(signed, [key]) == [key]
        assert note.parse_checkpoint(signed.text) == Checkpoint(key.name, size, tree.root())
        assert signed.encode().encode() == stored


def test_cosigned_checkpoints() -> None:
    for case in json.loads((VECTORS / "cosigned_checkpoints.json").read_text())["cases"]:
        cosigners = [note.parse_vkey(key) for key in case["cosigner_vkeys"]]
        assert note.verify(note.parse(case["checkpoint"].encode()), cosigners) == cosigners


def test_ml_dsa_44_checkpoint() -> None:
    case = json.loads((VECTORS / "mldsa44_checkpoint.json").read_text())
    key = note.parse_vkey(case["vkey"])
    assert key.type is KeyType.ML_DSA_44
    assert note.verify(note.parse(case["checkpoint"].encode()), [key]) == [key]


SIGNERS = keys.generate("log.example")
CHECKPOINT = Checkpoint("log.example", 7, bytes(range(32)))
SIGNED = note.sign(CHECKPOINT.text(), SIGNERS).encode().encode()


def test_signed_by_both_keys() -> None:
    parsed = note.parse(SIGNED)
    assert note.verify(parsed, [signer.key for signer in SIGNERS]) == [signer.key for signer in SIGNERS]
    assert note.parse_checkpoint(parsed.text) == CHECKPOINT
    assert [note.parse_vkey(signer.key.vkey()) for signer in SIGNERS] == [signer.key for signer in SIGNERS]


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_changed_byte_keeps_both_signatures(place: int, flip: int) -> None:
    changed = SIGNED[:place] + bytes([SIGNED[place] ^ flip]) + SIGNED[place + 1 :]
    try:
        signed = note.verify(note.parse(changed), [signer.key for signer in SIGNERS])
    except FormatError:
        return
    assert len(signed) < 2


@pytest.mark.parametrize(
    "text",
    [
        "log\n1\n",
        "log\n01\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n1\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n1\n" + base64.b64encode(bytes(32)).decode() + "\nextension\n",
    ],
)
def test_malformed_checkpoints(text: str) -> None:
    with pytest.raises(FormatError):
        note.parse_checkpoint(text)
