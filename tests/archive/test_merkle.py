"""RFC 6962 trees: the RFC's own answers, and that every mutation of a proof is refused."""

import base64
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive.merkle import (
    EMPTY_ROOT,
    ProofError,
    Tree,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.archive.conftest import VECTORS

HEADS = json.loads((VECTORS / "tree_heads.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in HEADS["leaf_inputs_hex"]]


def test_rfc6962_hashes_and_roots() -> None:
    assert EMPTY_ROOT.hex() == HEADS["empty_root"] == Tree().root().hex() == root_of([]).hex()
    for case in HEADS["leaf_hashes"]:
        assert leaf_hash(bytes.fromhex(case["input_hex"])).hex() == case["hash"]
    for case in HEADS["node_hashes"]:
        assert node_hash(bytes.fromhex(case["left"]), bytes.fromhex(case["right"])).hex() == case["hash"]
    for size, root in enumerate(HEADS["roots_by_size_1_to_8"], 1):
        assert root_of(LEAVES[:size]).hex() == Tree(LEAVES).root(size).hex() == root


def test_rfc6962_proofs() -> None:
    tree = Tree(LEAVES)
    for case in HEADS["inclusion_paths"]:
        index, size = case["leaf_index_1based"] - 1, case["tree_size"]
        if 0 <= index < size:
            assert [node.hex() for node in tree.inclusion_proof(index, size)] == case["path"]
    for case in HEADS["consistency_proofs"]:
        assert [node.hex() for node in tree.consistency_proof(case["size1"], case["size2"])] == case["proof"]


@pytest.mark.parametrize("line", (VECTORS / "inclusion.jsonl").read_text().splitlines())
def test_transparency_dev_inclusion_vectors(line: str) -> None:
    case = json.loads(line)
    leaf, root = (base64.b64decode(case[name] or "") for name in ("leafHash", "root"))
    proof = [base64.b64decode(node) for node in case["proof"] or []]
    try:
        verify_inclusion(case["leafIdx"], case["treeSize"], leaf, proof, root)
    except ProofError:
        assert case["wantErr"], case["desc"]
    else:
        assert not case["wantErr"], case["desc"]


sizes = st.integers(1, 200)


@given(st.data(), sizes)
def test_any_inclusion_proof_verifies_and_no_mutation_does(data: st.DataObject, size: int) -> None:
    leaves = [sha256(bytes([number % 256, number // 256])).digest() for number in range(size)]
    tree, index = Tree(leaves), data.draw(st.integers(0, size - 1))
    proof, root = tree.inclusion_proof(index, size), tree.root()
    assert root == root_of(leaves)
    verify_inclusion(index, size, leaves[index], proof, root)
    bad_byte = data.draw(st.integers(0, 31))
    mutations = [
        (index, size, leaves[index], [*proof, proof[-1] if proof else root], root),
        (index, size, flipped(leaves[index], bad_byte), proof, root),
        (index, size, leaves[index], proof, flipped(root, bad_byte)),
        (size, size, leaves[index], proof, root),
        (-1, size, leaves[index], proof, root),
    ]
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        mutations += [
            (index, size, leaves[index], proof[:-1], root),
            (index, size, leaves[index], [*proof[:place], flipped(proof[place], bad_byte), *proof[place + 1 :]], root),
            (index, size, leaves[index], [*proof[:place], b"", *proof[place + 1 :]], root),
            (
                data.draw(st.integers(0, size - 1).filter(lambda other: other != index)),
                size,
                leaves[index],
                proof,
                root,
            ),
        ]
    for mutation in mutations:
        with pytest.raises(ProofError):
            verify_inclusion(*mutation)


@given(st.data(), sizes)
def test_any_consistency_proof_verifies_and_no_mutation_does(data: st.DataObject, new: int) -> None:
    leaves = [sha256(bytes([number % 256, number // 256])).digest() for number in range(new)]
    tree, old = Tree(leaves), data.draw(st.integers(1, new))
    proof, before, after = tree.consistency_proof(old, new), tree.root(old), tree.root(new)
    verify_consistency(old, new, proof, before, after)
    bad_byte = data.draw(st.integers(0, 31))
    mutations = [
        (old, new, [*proof, after], before, after),
        (old, new, proof, flipped(before, bad_byte), after),
        (old, new, proof, before, flipped(after, bad_byte)),
        (0, new, proof, before, after),
        (new + 1, new, proof, before, after),
    ]
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        mutations += [
            (old, new, proof[:-1], before, after),
            (old, new, [*proof[:place], flipped(proof[place], bad_byte), *proof[place + 1 :]], before, after),
            (old, new, [*proof[:place], b"", *proof[place + 1 :]], before, after),
        ]
    for mutation in mutations:
        with pytest.raises(ProofError):
            verify_consistency(*mutation)


def flipped(value: bytes, place: int) -> bytes:
    return value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
