"""RFC 6962 Merkle trees over SHA-256: roots, inclusion and consistency proofs. Pure.

Rules, each from the RFC that states it:

* leaf hash  = SHA-256(0x00 ‖ data), node hash = SHA-256(0x01 ‖ left ‖ right)             RFC 6962 §2.1
* a tree of n > 1 leaves splits at the largest power of two smaller than n                 RFC 6962 §2.1
* the root of no leaves is SHA-256 of the empty string                                     RFC 6962 §2.1
* proofs are generated as PATH and PROOF define them                                       RFC 6962 §2.1.1, §2.1.2
* proofs are verified by the iterative algorithms                                          RFC 9162 §2.1.3.2, §2.1.4.2

Verification is stricter than the text where the text is silent: every hash must be 32 bytes, and a consistency proof
from size 0 is refused because it states nothing.

This is the only implementation of these rules in the service. (The stand-alone verifier of evidence bundles has its
own on purpose, so that neither can hide the other's mistake.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


class ProofError(ValueError):
    """A proof that does not prove what it was presented for."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf's data."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root over leaf hashes (or over the roots of equal, complete subtrees), in bulk.

    Pairs level by level and lifts an odd last node unchanged: that is the RFC's left-full shape, without recursion.
    """
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        lifted = level[-1:] if len(level) % 2 else []
        level = [sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)] + lifted
    return level[0]


class Tree:
    """An append-only tree that keeps every complete subtree's hash, so roots and proofs of any size cost O(log n).

    Memory: 64 bytes of hash a leaf. Not thread-safe.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # _levels[k][i]: root of leaves [i·2^k, (i+1)·2^k)
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the end."""
        node = leaf
        for level in range(len(self._levels) + 1):
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(node)
            if len(row) % 2:
                return
            node = node_hash(row[-2], row[-1])

    def root(self, size: int | None = None) -> bytes:
        """Root over the first `size` leaves (all by default). Raises ValueError beyond the tree."""
        size = self.size if size is None else size
        self._check(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def row(self, level: int, start: int, stop: int) -> list[bytes]:
        """Hashes of the complete subtrees of 2^level leaves with numbers start … stop-1, as far as they exist."""
        return self._levels[level][start:stop] if level < len(self._levels) else []

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]): sibling hashes from the leaf upwards."""
        self._check(size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[new]): hashes showing that the first `old` leaves of both trees are the same."""
        self._check(new)
        if not 0 < old <= new:
            raise ValueError(f"no consistency proof from {old} to {new}")
        path: list[bytes] = []
        start, end, complete = 0, new, True
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start, complete = middle, False
        if not complete:
            path.append(self._subtree(start, end))
        return path[::-1]

    def _subtree(self, start: int, end: int) -> bytes:
        width = end - start
        level = width.bit_length() - 1
        if width == 1 << level:
            return self._levels[level][start >> level]
        middle = start + _split(width)
        return node_hash(self._subtree(start, middle), self._subtree(middle, end))

    def _check(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ValueError(f"size {size} is outside a tree of {self.size}")


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` (a leaf hash) is at `index` of the tree of `size` with `root`. Raises ProofError."""
    _check_hashes([leaf, *proof, root])
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} can't be in a tree of {size}")
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofError("the path is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofError("the path is too short")
    if node != root:
        raise ProofError("the path leads to another root")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree of `new` leaves extends the tree of `old`. Raises ProofError."""
    _check_hashes([*proof, old_root, new_root])
    if not 0 < old <= new:
        raise ProofError(f"nothing can be proven from size {old} to size {new}")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("two roots for one size")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the proof is empty")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    left = right = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("the proof is too long")
        if fn & 1 or fn == sn:
            left, right = node_hash(sibling, left), node_hash(sibling, right)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            right = node_hash(right, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofError("the proof is too short")
    if left != old_root:
        raise ProofError("the proof leads to another old root")
    if right != new_root:
        raise ProofError("the proof leads to another new root")


def _split(width: int) -> int:
    """Largest power of two smaller than `width` (width > 1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError("a hash is not 32 bytes long")
