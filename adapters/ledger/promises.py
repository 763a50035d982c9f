"""Checking promises by the thousand: an ECDSA signature each, so in as many processes as there are processors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.ledger.entry import Logged, check_promise
from adapters.ledger.note import Log
from adapters.ledger.proofs import ProofError

SLICE: Final = 1000
# A process starts in a third of a second: less than that is sooner done here.
WORTH_IT: Final = 5
Slice = list[Logged]
# Where in the slice the first promise does not hold, and why.
Fault = tuple[int, str] | None


def checked(entries: Iterable[Logged], log: Log, processes: int | None = None) -> Iterator[tuple[Slice, Fault]]:
    """Every entry, in slices and in order, each with the first fault in it. `processes`: as this machine has."""
    slices = _slices(entries)
    count = processes or len(os.sched_getaffinity(0))
    first = list(islice(slices, WORTH_IT if count > 1 else 0))
    if count == 1 or len(first) < WORTH_IT:
        for some in chain(first, slices):
            yield some, fault_in(some, log)
        return
    der = log.public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    # Started anew: a fork would have the locks of this process's threads.
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (der, log.host)) as pool:
        waiting: deque[tuple[Slice, Future[Fault]]] = deque()
        for some in chain(first, slices):
            waiting.append((some, pool.submit(_fault, some)))
            if len(waiting) > 2 * count:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)


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


_log: Log | None = None


def _begin(der: bytes, host: str) -> None:
    """In a process of the pool: who the ledger is."""
    global _log
    public = serialization.load_der_public_key(der)
    assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101
    _log = Log(public, host)


def _fault(some: Slice) -> Fault:
    assert _log is not None  # noqa: S101
    return fault_in(some, _log)
