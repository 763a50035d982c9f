"""Checking promises by the thousand: an ECDSA signature each, so on as many threads as there are processors.

OpenSSL lets go of the interpreter's lock while it verifies. Two threads on two processors take 0.6 of the time of one;
processes would have to be started, and handed every entry.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

from adapters.ledger.entry import Logged, check_promise
from adapters.ledger.note import Log
from adapters.ledger.proofs import ProofError

SLICE: Final = 1000
Slice = list[Logged]
# Where in the slice the first promise does not hold, and why.
Fault = tuple[int, str] | None


def checked(entries: Iterable[Logged], log: Log, threads: int | None = None) -> Iterator[tuple[Slice, Fault]]:
    """Every entry, in slices and in order, each with the first fault in it. `threads`: as many as processors.

    A few slices are read ahead of the one that is given.
    """
    count = threads or len(os.sched_getaffinity(0))
    waiting: deque[tuple[Slice, Future[Fault]]] = deque()
    with ThreadPoolExecutor(count, "headway-promises") as pool:
        try:
            for some in _slices(entries):
                waiting.append((some, pool.submit(fault_in, some, log)))
                if len(waiting) > 2 * count:
                    yield _result(waiting)
            while waiting:
                yield _result(waiting)
        finally:
            for _, left in waiting:
                left.cancel()


def fault_in(some: Slice, log: Log) -> Fault:
    for position, entry in enumerate(some):
        try:
            check_promise(entry, log)
        except ProofError as error:
            return position, str(error)
    return None


def _slices(entries: Iterable[Logged]) -> Iterator[Slice]:
    rest = iter(entries)
    while some := list(islice(rest, SLICE)):
        yield some


def _result(waiting: deque[tuple[Slice, Future[Fault]]]) -> tuple[Slice, Fault]:
    some, found = waiting.popleft()
    return some, found.result()
