"""Our trees and proofs against an independent public implementation (pymerkle), both ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion

pymerkle = pytest.importorskip("pymerkle")

sizes = st.integers(1, 130)


def both(size: int) -> tuple[Tree, object]:
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    entries = [b"entry %d" % number for number in range(size)]
    for entry in entries:
        theirs.append_entry(entry)
    return Tree(leaf_hash(entry) for entry in entries), theirs


@settings(deadline=None, max_examples=40)
@given(sizes, st.data())
def test_inclusion_both_ways(size: int, data: st.DataObject) -> None:
    ours, theirs = both(size)
    index = data.draw(st.integers(0, size - 1))
    made = theirs.prove_inclusion(index + 1, size)  # type: ignore[attr-defined]
    assert theirs.get_root(size) == ours.root()  # type: ignore[attr-defined]
    # Theirs starts with the leaf itself; ours is the path of RFC 6962.
    verify_inclusion(index, size, made.path[0], made.path[1:], ours.root())
    made.path[1:] = ours.inclusion_proof(index, size)
    pymerkle.verify_inclusion(leaf_hash(b"entry %d" % index), ours.root(), made)


@settings(deadline=None, max_examples=40)
@given(sizes, st.data())
def test_roots_of_every_prefix_and_consistency(size: int, data: st.DataObject) -> None:
    ours, theirs = both(size)
    old = data.draw(st.integers(1, size))
    before, after = theirs.get_root(old), theirs.get_root(size)  # type: ignore[attr-defined]
    assert (before, after) == (ours.root(old), ours.root(size))
    verify_consistency(old, size, ours.consistency_proof(old, size), before, after)
    made = theirs.prove_consistency(old, size)  # type: ignore[attr-defined]
    pymerkle.verify_consistency(ours.root(old), ours.root(size), made)
