"""The stand-alone verifier by itself: known answers for its signatures, its policy, its program, other Pythons."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive import canonical, evidence, keys, merkle, note, policy
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence.writing import STANDALONE
from strongroom.archive.note import KeyType
from tests.archive.bundles import export, members, rebuild, standalone
from tests.archive.conftest import VECTORS, Archive

SHARED = Path(os.environ.get("STRONGROOM_SHARED", Path(__file__).parents[3] / "shared")) / "vectors"
SAMPLES = json.loads((VECTORS / "signature_samples.json").read_text())
VERIFY: dict[str, Callable[..., bool]] = {
    "ed25519": standalone.ed25519_verify,
    "ecdsa-p256": standalone.ecdsa_verify,
    "ecdsa-p384": standalone.ecdsa_verify,
    "ml-dsa-44": standalone.mldsa44_verify,
}
# Signatures that some verifiers accept and a strict one must not.
LENIENT = {"low_order_A", "low_order_R", "low_order_residue", "non_canonical_A", "non_canonical_R"}


def test_imports_nothing_but_the_standard_library_of_python_3_8() -> None:
    code = ast.parse(STANDALONE.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(code) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(code) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("algorithm", sorted(VERIFY))
def test_wycheproof_samples(algorithm: str) -> None:
    assert len({case["valid"] for case in SAMPLES[algorithm]}) == 2
    for case in SAMPLES[algorithm]:
        arguments = [bytes.fromhex(case[name]) for name in ("key", "msg", "sig")]
        more = [bytes.fromhex(case["ctx"])] if "ctx" in case else []
        assert VERIFY[algorithm](*arguments, *more) == case["valid"], case


def test_cctv_ed25519_corner_cases() -> None:
    for case in [*SAMPLES["cctv-ed25519"], *shared("ed25519/cctv_ed25519vectors.json")[::4]]:
        arguments = bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"])
        assert standalone.ed25519_verify(*arguments) == (not LENIENT & set(case["flags"] or ())), case


@pytest.mark.parametrize(
    ("name", "algorithm", "key"),
    [
        ("ed25519_test", "ed25519", lambda group: group["publicKey"]["pk"]),
        ("ecdsa_secp256r1_sha256_test", "ecdsa-p256", lambda group: group["publicKeyDer"]),
        ("ecdsa_secp384r1_sha384_test", "ecdsa-p384", lambda group: group["publicKeyDer"]),
        ("mldsa_44_verify_test", "ml-dsa-44", lambda group: group["publicKey"]),
    ],
)
def test_all_of_wycheproof(name: str, algorithm: str, key: Callable[[dict], str]) -> None:
    vectors = shared(f"wycheproof/{name}.json")
    if not vectors:
        pytest.skip("the full vectors are not on this machine")
    for group in vectors["testGroups"]:
        for case in group["tests"]:
            arguments = [bytes.fromhex(text) for text in (key(group), case.get("msg", ""), case["sig"])]
            more = [bytes.fromhex(case["ctx"])] if "ctx" in case else []
            assert VERIFY[algorithm](*arguments, *more) == (case["result"] == "valid"), case


def shared(name: str) -> list | dict:
    path = SHARED / name
    return json.loads(path.read_text()) if path.exists() else []


def test_signed_notes_of_the_specification() -> None:
    """The same notes, keys and checkpoints that the archive's own reader is held against."""
    for case in json.loads((VECTORS / "cosigned_checkpoints.json").read_text())["cases"]:
        head = standalone.Head(case["checkpoint"].encode())
        assert all(head.signature_by(standalone.Key(vkey)) for vkey in case["cosigner_vkeys"])
    case = json.loads((VECTORS / "mldsa44_checkpoint.json").read_text())
    assert standalone.Head(case["checkpoint"].encode()).signature_by(standalone.Key(case["vkey"]))
    for vkey in json.loads((VECTORS / "signed_notes.json").read_text())["vkeys_to_reject"]:
        with pytest.raises(standalone.Failure):
            standalone.Key(vkey)


def test_inclusion_proofs_of_others() -> None:
    """transparency-dev's cases, good and mutated."""
    from base64 import b64decode

    for line in (VECTORS / "inclusion.jsonl").read_text().splitlines():
        case = json.loads(line)
        path = [b64decode(node) for node in case["proof"] or []]
        root, leaf = b64decode(case["root"] or ""), b64decode(case["leafHash"] or "")
        try:
            standalone.check_path(leaf, case["leafIdx"], case["treeSize"], path, root, "case")
            ours = len(leaf) == 32
        except standalone.Failure:
            ours = False
        assert ours == (not case["wantErr"]), case


@given(size=st.integers(1, 400), data=st.data())
@settings(max_examples=60, deadline=None)
def test_paths_of_any_tree(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    tree = merkle.Tree(merkle.leaf_hash(bytes(str(number), "ascii")) for number in range(size))
    path = tree.inclusion_proof(index, size)
    leaf = standalone.leaf_of(str(index).encode())
    standalone.check_path(leaf, index, size, path, tree.root(), "path")
    for wrong in (path[1:] if path else [leaf], [*path, leaf], [*path[:-1], leaf] if path else [leaf, leaf]):
        with pytest.raises(standalone.Failure):
            standalone.check_path(leaf, index, size, wrong, tree.root(), "path")


LOG = keys.generate("log.example")
WITNESSES = {name: keys.generate(f"{name}.example", [KeyType.ED25519_COSIGNATURE])[0] for name in ("a", "b")}


@pytest.mark.parametrize(
    "statements",
    [
        "quorum none",
        "quorum a",
        "quorum c",
        "",
        "quorum a\nquorum b",
        "group g 2 a b\nquorum g",
        "group g 3 a b\nquorum g",
        "group g 0 a b\nquorum g",
        "group g 2 a a\nquorum g",
        "group g any\nquorum g",
        "group g x a\nquorum g",
        "quorum g\ngroup g any a",
        "group g any g\nquorum g",
        "group g any h\ngroup h any a\nquorum g",
        "group a any b\nquorum a",
        "group none any b\nquorum none",
        "witness a WITNESS\nquorum none",
        "witness c LOG\nquorum none",
        "witness c\nquorum none",
        "log LOG https://log.example/\nquorum none",
        "log WITNESS\nquorum none",
        "log nonsense\nquorum none",
        "log log.example+00000000+AAAA\nquorum none",
        "# a comment\n\n   \t\nquorum none # another",
        "quorum",
        "monitor x",
    ],
)
def test_policies_mean_the_same_to_both(statements: str) -> None:
    text = "".join(f"log {signer.key.vkey()}\n" for signer in LOG)
    text += "".join(f"witness {name} {signer.key.vkey()}\n" for name, signer in WITNESSES.items())
    text += statements.replace("LOG", LOG[0].key.vkey()).replace("WITNESS", WITNESSES["a"].key.vkey()) + "\n"
    try:
        ours = policy.parse(text)
    except FormatError:
        with pytest.raises(standalone.Failure):
            standalone.Policy(text)
        return
    theirs = standalone.Policy(text)
    assert (theirs.origin, theirs.quorum) == (ours.origin, ours.quorum)
    for cosigned in ((), ("a",), ("b",), ("a", "b")):
        expected = ours.satisfied_by(set(cosigned))
        assert theirs.holds(theirs.quorum, dict.fromkeys(cosigned, b"x")) == expected


# --------------------------------------------------------------------------------------------------------- as a program


def pythons() -> list[str]:
    """Interpreters that work here: this one and, where they are, the oldest it must run on and the newest known."""
    found = [sys.executable]
    for version in ("3.8", "3.13"):
        candidates = [path for path in (shutil.which(f"python{version}"),) if path]
        candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        works = (path for path in candidates if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0)
        found += list(works)[:1]
    return found


@pytest.fixture
def evidence_folder(archive: Archive, tmp_path: Path) -> Path:
    """bundle.zip, proof.json, mine.txt and foreign.txt side by side."""
    export(archive, tmp_path / "bundle.zip", [((2, 0), [0, 2]), ((4, 0), [1])])
    proof = evidence.prove_record(archive.store, archive.log, archive.log.size, 2, 0, 1)
    (tmp_path / "proof.json").write_bytes(canonical.encode(proof))
    (tmp_path / "mine.txt").write_text(archive.trust.policy.text())
    foreign = tuple(signer.key for signer in keys.generate(archive.log.origin))
    (tmp_path / "foreign.txt").write_text(policy.Policy(foreign).text())
    contents = members(tmp_path / "bundle.zip")
    rebuild(tmp_path / "changed.zip", contents | {"records/000001": contents["records/000001"][:-1] + b"!"})
    return tmp_path


def run(python: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", STANDALONE, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("python", pythons(), ids=lambda path: "/".join(Path(path).parts[-3:]))
def test_exit_codes(python: str, evidence_folder: Path) -> None:
    expected = {
        ("bundle.zip", "--policy", "mine.txt"): (0, "PROVEN"),
        ("proof.json", "--policy", "mine.txt"): (0, "PROVEN"),
        ("bundle.zip", "--policy", "foreign.txt"): (1, "FAILED"),
        ("proof.json", "--policy", "foreign.txt"): (1, "FAILED"),
        ("changed.zip", "--policy", "mine.txt"): (1, "FAILED"),
        ("changed.zip",): (1, "FAILED"),
        ("mine.txt", "--policy", "mine.txt"): (1, "FAILED"),
        ("bundle.zip",): (3, "IDENTITY NOT ESTABLISHED"),
        ("proof.json",): (3, "IDENTITY NOT ESTABLISHED"),
        ("no-such.zip", "--policy", "mine.txt"): (2, ""),
        ("bundle.zip", "--policy", "no-such.txt"): (2, ""),
        ("bundle.zip", "--policy", "proof.json"): (2, ""),
        (".", "--policy", "mine.txt"): (2, ""),
    }
    for arguments, (code, last) in expected.items():
        ran = run(python, evidence_folder, *arguments)
        assert ran.returncode == code, (arguments, ran.stdout, ran.stderr)
        assert ran.stdout.strip().split("\n")[-1] == last
        assert "Traceback" not in ran.stderr


def test_json_and_extraction(archive: Archive, evidence_folder: Path) -> None:
    ran = run(sys.executable, evidence_folder, "bundle.zip", "--policy", "mine.txt", "--json", "--extract", "records")
    assert json.loads(ran.stdout)["status"] == "proven"
    found = {
        path.relative_to(evidence_folder / "records"): path.read_bytes() for path in evidence_folder.glob("records/*/*")
    }
    assert found == {
        Path("000001/000000000000"): b'{"name": "batch 1 record 0"}',
        Path("000001/000000000002"): b'{"name": "batch 1 record 2"}',
        Path("000002/000000000001"): b'{"name": "batch 3 record 1"}',
    }
    again = run(sys.executable, evidence_folder, "bundle.zip", "--policy", "mine.txt", "--extract", "records")
    assert again.returncode == 2  # it never overwrites
    ran = run(sys.executable, evidence_folder, "changed.zip", "--policy", "mine.txt", "--extract", "false")
    assert ran.returncode == 1 and not (evidence_folder / "false").exists()


def test_a_stranger_s_names_do_not_reach_the_terminal(evidence_folder: Path) -> None:
    rebuild(evidence_folder / "c.zip", members(evidence_folder / "bundle.zip") | {"\x1b[2J\u202eexe.txt": b""})
    ran = run(sys.executable, evidence_folder, "c.zip", "--policy", "mine.txt")
    assert ran.returncode == 1
    assert "\x1b" not in ran.stdout and "\u202e" not in ran.stdout and "does not belong" in ran.stdout


def test_note_signed_by_a_p384_and_a_p256_key_reads_alike() -> None:
    """ECDSA verification keys, as the FIPS profile signs."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    text = "log.example\n7\n" + "A" * 43 + "=\n"
    for curve, digest in ((ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())):
        private = ec.generate_private_key(curve)
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public = private.public_key().public_bytes(serialization.Encoding.DER, spki)
        key = note.verifier_key("log.example", KeyType.ECDSA, public)
        line = note.Signature(key.name, key.key_id, private.sign(text.encode(), ec.ECDSA(digest)))
        signed = note.Note(text, (line,))
        assert note.verify(signed, [key]) == [key]
        assert standalone.Head(signed.encode().encode()).signature_by(standalone.Key(key.vkey()))
