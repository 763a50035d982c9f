"""The Merkle tree of RFC 6962, section 2: hashes, growth, and the proofs that a tree gives.

Only complete subtrees are kept: the node `(level, index)` is the root over the leaves `index << level` up to
`(index + 1) << level`. It never changes, so that a leaf adds at most one node a level, and every proof is a few nodes
read by their coordinates. `Nodes` reads them, all at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

Coordinate = tuple[int, int]
Nodes = Callable[[Sequence[Coordinate]], Mapping[Coordinate, bytes]]

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def subtrees(start: int, end: int) -> list[Coordinate]:
    """The complete subtrees that leaves `[start, end)` consist of, left to right; `start` is aligned as in the RFC."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, given left to right."""
    if not hashes:
        return EMPTY_ROOT
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes[:-1]), hashes[-1])


@dataclass(frozen=True)
class Growth:
    """What leaves add to a tree: the new complete nodes, the new size, and its peaks (left to right)."""

    size: int
    peaks: tuple[bytes, ...]
    nodes: dict[Coordinate, bytes]

    @property
    def root(self) -> bytes:
        return fold(self.peaks)


def grow(size: int, peaks: Sequence[bytes], leaves: Iterable[bytes]) -> Growth:
    """Append leaf hashes to a tree of `size` leaves with these peaks: O(log n) each, nothing is hashed again."""
    standing, nodes = list(peaks), {}
    for leaf in leaves:
        level, index, node = 0, size, leaf
        nodes[0, index] = node
        while index & 1:
            level, index, node = level + 1, index >> 1, node_hash(standing.pop(), node)
            nodes[level, index] = node
        standing.append(node)
        size += 1
    return Growth(size, tuple(standing), nodes)


def peaks_of(nodes: Nodes, size: int) -> tuple[bytes, ...]:
    return _read(nodes, [(0, size)])[0]


def root_of(nodes: Nodes, size: int) -> bytes:
    return fold(peaks_of(nodes, size))


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """RFC 6962, section 2.1.1: the siblings from the leaf up. `0 <= index < size`."""
    spans, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return [fold(hashes) for hashes in _read(nodes, spans[::-1])]


def consistency_proof(nodes: Nodes, first: int, second: int) -> list[bytes]:
    """RFC 6962, section 2.1.2: that `first` leaves are a prefix of `second` leaves. `0 < first <= second`."""
    spans, start, end, whole = [], 0, second, True
    while first != end - start:
        middle = start + _split(end - start)
        if first <= middle - start:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            first, start, whole = first - (middle - start), middle, False
    if not whole:
        spans.append((start, end))
    return [fold(hashes) for hashes in _read(nodes, spans[::-1])]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _read(nodes: Nodes, spans: Sequence[tuple[int, int]]) -> list[tuple[bytes, ...]]:
    wanted = [subtrees(*span) for span in spans]
    flat = [coordinate for one in wanted for coordinate in one]
    found = nodes(flat) if flat else {}
    return [tuple(found[coordinate] for coordinate in one) for one in wanted]
