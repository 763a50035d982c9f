"""What hosts will be asked to place, told while the run's first steps are on their way (docs/decisions/0050).

A help only: it is kept in this process, for seconds, and whoever misses it fetches in the rollout's own turn.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from api.starting import Starts
from headway.broker import Coming, Parcel
from store.models import Job
from temporal.messages import Ahead, Labels

TYPES: Final = frozenset({"deployment.roll", "deployment.promote", "deployment.rollback"})
# A host that has just been answered asks again within this time.
FRESH_SECONDS: Final = 5.0
MOST_KEPT: Final = 16
# A burst of rollouts is faster done than told of.
AT_ONCE: Final = 2
# Whose acceptance has failed is not waited for.
LOST_SECONDS: Final = 1.0
MOST_RUNS: Final = 10_000
MOST_TOLD: Final = 64
# What a start takes while its host looks at the artifact.
MOMENT_SECONDS: Final = 0.1
JUST_SECONDS: Final = 1.0
log = logging.getLogger("headway.ahead")


@dataclass(eq=False)
class _Place:
    """One host's. `left`: when it was answered last, by the clock that does not jump."""

    left: float = 0.0
    waiting: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    parcels: deque[tuple[float, Parcel]] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))

    def listens(self) -> bool:
        return self.waiting > 0 or time.monotonic() < self.left + FRESH_SECONDS


class Board:
    """For one event loop; `post` from any thread."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._known = threading.Condition()
        self._runs: OrderedDict[str, float] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def listens(self, host_id: str) -> bool:
        """Whether a host waits, or did a moment ago."""
        return host_id in self._places and self._places[host_id].listens()

    def has_listeners(self) -> bool:
        return any(map(self.listens, list(self._places)))

    def post(self, hosts: Iterable[str], make: Callable[[], Parcel]) -> bool:
        """Tell those of them that listen; whether there is one. `make` is called then."""
        loop, listening = self._loop, list(filter(self.listens, hosts))
        if loop is None or not listening:
            return False
        parcel = make()
        with self._known:
            self._told[parcel.job_id] = None
            if len(self._told) > MOST_TOLD:
                self._told.popitem(last=False)
        loop.call_soon_threadsafe(self._put, listening, parcel)
        return True

    async def wait(self, host_id: str, seconds: float) -> Coming:
        """What has come for a host, or nothing after so long."""
        self._loop = asyncio.get_running_loop()
        place = self._places.setdefault(host_id, _Place())
        place.waiting += 1
        try:
            if not place.parcels and not self._closed:
                await asyncio.wait_for(place.told.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            place.waiting, place.left = place.waiting - 1, time.monotonic()
            place.told.clear()
        fresh = [parcel for at, parcel in place.parcels if at > time.monotonic() - FRESH_SECONDS]
        place.parcels.clear()
        return Coming(parcels=fresh)

    def note_run(self, job_id: str) -> None:
        """A run exists that will carry the job to its end, whatever becomes of who begins with it. Once noted."""
        with self._known:
            self._runs.setdefault(job_id, time.monotonic())
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
            self._known.notify_all()

    def has_run(self, job_id: str) -> bool:
        """Whether this process has just started it, or does so within a moment: once, and of what it has told of.

        For threads, of which nobody is to hold many. Who asks late may have been frozen: the run has gone on by itself
        then, or was ended.
        """
        with self._known:
            told = self._told.pop(job_id, job_id) is None
            self._known.wait_for(lambda: job_id in self._runs, MOMENT_SECONDS if told else 0)
            return time.monotonic() < self._runs.get(job_id, -math.inf) + JUST_SECONDS

    def close(self) -> None:
        """Let everybody go who waits: the process stops."""
        self._closed = True
        for place in self._places.values():
            place.told.set()

    def _put(self, hosts: Iterable[str], parcel: Parcel) -> None:
        for host in hosts:
            place = self._places[host]
            place.parcels.append((time.monotonic(), parcel))
            place.told.set()


@dataclass(frozen=True)
class Telling:
    """What to tell which hosts of; `needs_no_start`: one that has it may only have to show it."""

    hosts: list[str]
    parcel: Parcel
    needs_no_start: bool


Find = Callable[[Session, Job], Telling | None]


class Announcing:
    """Starts runs, and tells hosts of the rollouts among them. `find` says what a job will place, and where."""

    def __init__(self, starts: Starts, board: Board, find: Find) -> None:
        self._starts = starts
        self._board = board
        self._find = find
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._first: set[str] = set()

    def foresee(self, session: Session, job: Job) -> None:
        """Tell hosts of a rollout that this transaction is about to accept; of what is refused after all in vain."""
        if job.type not in TYPES or not self._board.has_listeners() or not self._is_next(job.id):
            return
        try:
            found = self._find(session, job)
        except DBAPIError:
            raise  # the transaction's own
        except Exception as error:
            log.info("nobody is told of %s: %s", job.id, type(error).__name__)
            return
        if found is not None and self._board.post(found.hosts, lambda: found.parcel) and found.needs_no_start:
            with self._lock:
                self._first.add(job.id)

    async def start(self, job_id: str, job_type: str, *, labels: Labels, behind: bool = False) -> object:
        """A rollout that its host may have shown before its run's first step begins behind that: both need the same
        processors (docs/decisions/0055).
        """
        with self._lock:
            behind = behind or (job_id in self._first and bool(labels.host))
        started = await self._starts.start(job_id, job_type, labels=labels, behind=behind)
        with self._lock:
            self._told.pop(job_id, None)
            self._first.discard(job_id)
        if started and job_type in TYPES:
            self._board.note_run(job_id)
        return started

    async def cancel(self, job_id: str) -> object:
        return await self._starts.cancel(job_id)

    async def give_turn(self, ahead: Ahead) -> object:
        return await self._starts.give_turn(ahead)

    def _is_next(self, job_id: str) -> bool:
        """Whether it is to be told of now: at once some are, until their runs are started."""
        now = time.monotonic()
        with self._lock:
            self._told = {one: at for one, at in self._told.items() if at > now - LOST_SECONDS}
            self._first &= self._told.keys()
            if len(self._told) >= AT_ONCE:
                return False
            self._told[job_id] = now
            return True
