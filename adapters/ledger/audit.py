"""Reading a whole ledger again: every promise, every hash, and every checkpoint that was ever seen outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from adapters.ledger.entry import Logged
from adapters.ledger.note import Checkpoint, Log
from adapters.ledger.promises import SLICE, Fault, Slice, checked
from adapters.ledger.tree import grow, leaf_hash
from headway.errors import HeadwayError


@dataclass(frozen=True)
class Audited:
    """What was found right. Times are Unix seconds, None for an empty ledger."""

    size: int
    root: bytes
    first_at: int | None
    last_at: int | None
    older: int


def audit(
    entries: Iterable[Logged],
    log: Log,
    head: Checkpoint,
    older: Sequence[Checkpoint] = (),
    *,
    threads: int | None = None,
) -> Audited:
    """Recompute the tree from its entries. Raises ledger.inconsistent with the first thing that is wrong.

    No entry behind the head is read. `threads` check signatures (as many as processors); the rest is done here.

    `older` are checkpoints from elsewhere, signatures checked: only they show a tail that was cut off, or a history
    that was written anew by somebody with the ledger's key.
    """
    for one in older:
        if one.size > head.size:
            raise _wrong(f"a checkpoint from outside has {one.size} entries, the ledger {head.size}: its end is gone")
    rest = _checked(checked(islice(entries, head.size), log, threads))
    grown, times = grow(0, (), []), _Times()
    for seen in sorted({*older, head}, key=lambda one: one.size):
        while grown.size < seen.size:
            some = list(islice(rest, min(SLICE, seen.size - grown.size)))
            if not some:
                raise _wrong(f"it ends at {grown.size}, and its checkpoint says {seen.size}")
            times.note(some)
            grown = grow(grown.size, grown.peaks, [leaf_hash(one.body) for one in some])
        if grown.root != seen.root:
            whose = "its own checkpoint" if seen == head else "a checkpoint from outside"
            raise _wrong(f"its first {seen.size} entries are not those of {whose}: it was rewritten")
    return Audited(head.size, grown.root, times.first, times.last, len(older))


class _Times:
    first: int | None = None
    last: int | None = None

    def note(self, some: Sequence[Logged]) -> None:
        self.first = some[0].at if self.first is None else self.first
        self.last = some[-1].at


def _checked(slices: Iterable[tuple[Slice, Fault]]) -> Iterator[Logged]:
    last, number = 0, 0
    for some, fault in slices:
        for position, entry in enumerate(some):
            if entry.index != number:
                raise _wrong(f"entry {number} is missing")
            if fault is not None and fault[0] == position:
                raise _wrong(f"entry {number}: {fault[1]}")
            if entry.at < last:
                raise _wrong(f"entry {number} is dated before the one in front of it")
            last, number = entry.at, number + 1
            yield entry


def _wrong(why: str) -> HeadwayError:
    return HeadwayError("ledger.inconsistent", f"The ledger does not hold: {why}.")
