"""Witnesses and policies: append-only logs are cosigned, rewritten ones are refused and reported."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.archive import keys, layout, note, policy
from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import Tree
from strongroom.archive.note import KeyType
from strongroom.archive.policy import Group, Policy, Witness, cosigners
from strongroom.archive.witness import Submission, WitnessRefusal, WitnessServer, parse_submission
from tests.archive.conftest import Archive

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture(params=[KeyType.ED25519_COSIGNATURE, KeyType.ML_DSA_44])
def witness(request: pytest.FixtureRequest, tmp_path: Path, archive: Archive) -> WitnessServer:
    [signer] = keys.generate("witness.example", [request.param])
    return WitnessServer(signer, [archive.trust.keys], tmp_path / "witness")


def submission(archive: Archive, old: int, new: int) -> Submission:
    proof = archive.log.consistency_proof(old, new) if old else []
    return Submission(old, tuple(proof), note.parse(archive.store.get(layout.checkpoint_key(new))))


def test_cosigns_each_extension(archive: Archive, witness: WitnessServer) -> None:
    for old, new in ((0, 2), (2, 2), (2, 5), (5, 6)):
        sent = submission(archive, old, new)
        assert parse_submission(sent.encode()) == sent
        lines = witness.add_checkpoint(sent.encode(), NOW)
        cosigned = note.parse((sent.note.encode() + lines).encode())
        asked = Policy(archive.trust.keys, {"w": Witness("w", witness.key)}, quorum="w")
        assert cosigners(cosigned, asked) == {"w": int(NOW.timestamp())}
    last = witness.last(archive.log.origin)
    assert last is not None
    assert last.size == 6


def refusal(witness: WitnessServer, body: bytes) -> WitnessRefusal:
    with pytest.raises(WitnessRefusal) as caught:
        witness.add_checkpoint(body, NOW)
    return caught.value


def test_refusals_of_the_protocol(archive: Archive, witness: WitnessServer, new_archive: Callable[[], Archive]) -> None:
    good = submission(archive, 0, 4)
    assert refusal(witness, b"new 1\n\n").status == 400
    assert refusal(witness, b"old x\n\n" + good.note.encode().encode()).status == 400
    assert refusal(witness, good.encode().replace(b"old 0", b"old 9")).status == 400
    witness.add_checkpoint(good.encode(), NOW)
    stale = refusal(witness, good.encode())
    assert (stale.status, stale.size) == (409, 4)
    assert refusal(witness, Submission(4, (bytes(32),), submission(archive, 4, 6).note).encode()).status == 422
    forged = note.Note(good.note.text.replace("\n4\n", "\n5\n"), good.note.signatures)
    assert refusal(witness, Submission(4, (), forged).encode()).status == 403
    half = note.Note(good.note.text, good.note.signatures[:1])
    assert refusal(witness, Submission(4, (), half).encode()).status == 403
    unknown = note.sign("other.log\n1\n" + good.note.text.split("\n")[2] + "\n", keys.generate("other.log"))
    assert refusal(witness, Submission(0, (), unknown).encode()).status == 404
    last = witness.last(archive.log.origin)
    assert last is not None
    assert last.size == 4, "a refusal leaves the memory as it was"


@pytest.mark.adversarial
def test_an_insider_with_the_signing_key_is_refused_and_reported(archive: Archive, witness: WitnessServer) -> None:
    """Who holds the keys and rewrites history can fool every signature check, but not who saw the log before."""
    witness.add_checkpoint(submission(archive, 0, 5).encode(), NOW)
    forged = Archive(archive.root.parent / "forged", archive.root.parent / "forged.json", archive.signers)
    for _ in range(6):
        forged.commit(count=2)
    assert refusal(witness, submission(forged, 5, 7).encode()).status == 422
    same_size = Submission(5, (), note.parse(forged.store.get(layout.checkpoint_key(5))))
    assert refusal(witness, same_size.encode()).status == 409
    reports = [json.loads(path.read_text()) for path in sorted((archive.root.parents[1] / "witness").glob("fork-*"))]
    assert len(reports) == 2
    for report in reports:
        for name in ("cosigned", "offered"):
            assert len(note.verify(note.parse(report[name].encode()), archive.trust.keys)) == 2


def test_policies() -> None:
    log = keys.generate("log.example")
    cosigning = {f"w{n}": keys.generate(f"w{n}.example", [KeyType.ED25519_COSIGNATURE])[0].key for n in range(3)}
    witnesses = {name: Witness(name, key, "https://w.example/") for name, key in cosigning.items()}
    asked = Policy(
        tuple(signer.key for signer in log),
        witnesses,
        {"inside": Group(1, ("w0", "w1")), "both": Group(2, ("inside", "w2"))},
        "both",
    )
    assert policy.parse(asked.text()) == asked
    assert [asked.satisfied_by(names) for names in ({"w0", "w2"}, {"w1", "w2"}, {"w0", "w1"}, {"w2"}, set())] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert policy.parse(f"log {log[0].key.vkey()} # ours\n\nquorum none\n").satisfied_by(set())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("witness w {log}", "don't cosign"),
        ("witness none {w}", "has a meaning"),
        ("witness a {w}\nwitness a {w}", "has a meaning"),
        ("group g 2 a", "not defined|threshold"),
        ("witness a {w}\ngroup g 2 a", "threshold"),
        ("witness a {w}\ngroup g any g", "not defined"),
        ("quorum a", "not defined"),
        ("log {log}", "given twice"),
        ("log {w}", "cosigner"),
        ("witness a {w}\ngroup g ² a", "threshold"),
        ("witness a {w}\ngroup g 1 a a", "not understood"),
        ("quorum none\nquorum none", "not understood"),
        ("nonsense", "not understood"),
        ("", "exactly one log"),
    ],
)
def test_bad_policies_name_the_line(line: str, reason: str) -> None:
    log = keys.generate("log.example")[0].key.vkey()
    w = keys.generate("w.example", [KeyType.ED25519_COSIGNATURE])[0].key.vkey()
    with pytest.raises(FormatError, match=reason):
        policy.parse(f"log {log}\n" + line.format(log=log, w=w) + "\n")


def test_merkle_root_of_nothing_starts_every_witness(archive: Archive) -> None:
    assert Tree().root().hex().startswith("e3b0c442")
