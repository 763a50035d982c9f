"""Checking proofs (RFC 9162, section 2.1): pure, and all that an outsider needs beside the signed checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.ledger.tree import EMPTY_ROOT, node_hash


class ProofError(ValueError):
    """A proof that proves nothing; the text says why and repeats nothing of it."""


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to: the caller compares it. Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError("the index lies outside of the tree")
    at, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the proof is too long")
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    return root


def check_consistency(first: int, second: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """That the first tree is a prefix of the second. Raises ProofError."""
    if not 0 <= first <= second:
        raise ProofError("the tree has shrunk")
    if first == second:
        if proof or root1 != root2:
            raise ProofError("two roots of one size")
        return
    if first == 0:
        if proof or root1 != EMPTY_ROOT:
            raise ProofError("the empty tree has another root")
        return
    path = [root1, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the proof is too short")
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if old != root1 or new != root2 or last:
        raise ProofError("the trees differ")
