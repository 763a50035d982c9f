"""The Merkle tree and its proofs, against two other implementations, at every size up to 70."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tamperlog import merkle
from tlog_scales.tlog import ConsistencyProof, InclusionProof

from adapters.ledger import tree
from adapters.ledger.proofs import ProofError, check_consistency, root_from_inclusion
from adapters.ledger.tree import EMPTY_ROOT, Coordinate, consistency_proof, grow, inclusion_proof, root_of

MOST = 70
BODIES = [f"entry {number}".encode() for number in range(MOST)]
LEAVES = [tree.leaf_hash(body) for body in BODIES]
GROWN = grow(0, (), LEAVES)


def nodes(wanted: Sequence[Coordinate]) -> Mapping[Coordinate, bytes]:
    return {one: GROWN.nodes[one] for one in wanted}


ROOTS = [root_of(nodes, size) for size in range(MOST + 1)]


def test_roots_are_those_of_the_definition() -> None:
    assert ROOTS[0] == EMPTY_ROOT == hashlib.sha256(b"").digest()
    assert [merkle.merkle_root(LEAVES[:size]) for size in range(MOST + 1)] == ROOTS


def test_leaf_by_leaf_and_at_once_make_the_same_tree() -> None:
    peaks: tuple[bytes, ...] = ()
    for size, leaf in enumerate(LEAVES):
        step = grow(size, peaks, [leaf])
        peaks = step.peaks
        assert step.root == ROOTS[size + 1]
        assert len(step.nodes) <= (size + 1).bit_length()
        assert step.nodes.items() <= GROWN.nodes.items()
        assert tree.peaks_of(nodes, size + 1) == peaks
    assert len(GROWN.nodes) < 2 * MOST


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_inclusion_at_every_size(size: int) -> None:
    for index in range(size):
        proof = inclusion_proof(nodes, index, size)
        assert proof == merkle.inclusion_proof(index, LEAVES[:size])
        assert root_from_inclusion(index, size, LEAVES[index], proof) == ROOTS[size]
        InclusionProof(index, size, proof).check(LEAVES[index], ROOTS[size])
        assert len(proof) <= (size - 1).bit_length()


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_consistency_at_every_size(size: int) -> None:
    for first in range(1, size + 1):
        proof = consistency_proof(nodes, first, size)
        assert proof == merkle.consistency_proof(first, LEAVES[:size])
        check_consistency(first, size, ROOTS[first], ROOTS[size], proof)
        ConsistencyProof(first, size, proof).check(ROOTS[first], ROOTS[size])
        assert len(proof) <= size.bit_length() + 1
    check_consistency(0, size, EMPTY_ROOT, ROOTS[size], [])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_proof_proves_nothing(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MOST))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(nodes, index, size)
    at = data.draw(st.integers(0, len(proof) - 1))
    wrong = [*proof[:at], hashlib.sha256(proof[at]).digest(), *proof[at + 1 :]]
    assert root_from_inclusion(index, size, LEAVES[index], wrong) != ROOTS[size]
    assert root_from_inclusion(index, size, LEAVES[index - 1], proof) != ROOTS[size]
    for short_or_long in (proof[:-1], [*proof, proof[-1]]):
        with pytest.raises(ProofError, match="too"):
            root_from_inclusion(index, size, LEAVES[index], short_or_long)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_rewritten_history_is_not_consistent(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MOST))
    first = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, first - 1))
    other = grow(0, (), [*LEAVES[:changed], tree.leaf_hash(b"rewritten"), *LEAVES[changed + 1 : size]])
    proof = consistency_proof(lambda wanted: {one: other.nodes[one] for one in wanted}, first, size)
    with pytest.raises(ProofError):
        check_consistency(first, size, ROOTS[first], other.root, proof)


@pytest.mark.parametrize(
    ("first", "second", "root1", "root2", "why"),
    [
        (5, 4, ROOTS[5], ROOTS[4], "shrunk"),
        (4, 4, ROOTS[4], ROOTS[5], "two roots"),
        (0, 4, ROOTS[4], ROOTS[4], "empty tree"),
        (3, 4, ROOTS[3], ROOTS[4], "too short"),
        (-1, 4, ROOTS[3], ROOTS[4], "shrunk"),
    ],
)
def test_heads_that_cannot_be(first: int, second: int, root1: bytes, root2: bytes, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        check_consistency(first, second, root1, root2, [])


@pytest.mark.parametrize("index", [-1, 4, 1 << 70])
def test_an_index_outside_of_the_tree(index: int) -> None:
    with pytest.raises(ProofError, match="outside"):
        root_from_inclusion(index, 4, LEAVES[0], [])
