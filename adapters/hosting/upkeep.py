"""What a host does by itself: it compares what should run and lie there with what does, and puts it right.

What should is what the fenced switch wrote. Nothing here begins a rollout or goes against one: releases with a number
above the last step are being prepared by somebody else, and a step that is taken meanwhile wins under the same lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from adapters.hosting.baking import baking_until
from adapters.hosting.drift import DriftBook
from adapters.hosting.layout import HostFolders
from adapters.hosting.mending import MOST
from adapters.hosting.releases import is_suspended
from adapters.hosting.services import RELEASE, Plan, Services, is_command, reason_of
from adapters.hosting.switch import ReleaseSwitch, Step
from adapters.hosting.turns import AT_ONCE
from adapters.runtime.driver import InstanceRef, Status
from headway.errors import HeadwayError

EVERY = 2.0
# Seconds that the end of a one-off command is kept; and of an environment's older ones. As many as run on a host at
# once may not have been told yet when its worker is killed: those are the newest.
COMMAND_KEPT, MANY_KEPT = 3600.0, 60.0
# At once, and of one environment; nearly all of it waits, for an hour where an app is given that to stop.
STOPS, STOPS_EACH = 256, 16
log = logging.getLogger("headway.upkeep")
T = TypeVar("T")


Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Rest:
    """`seen` is how an environment's folder stood when nothing was to be done, `until` when it is looked at anyway."""

    seen: Seen
    until: float


@dataclass(frozen=True)
class Pace:
    """In seconds: how long a replaced release stays warm, and how long its visitors may take to leave after that."""

    warm: float = 600.0
    drain: float = 60.0


class Upkeep:
    """`book` keeps each drift; `mend` puts the files of an environment's live release right, and says whether they are
    there to serve. `rest` is how many seconds may be between two looks at what rests. `look` may be called from
    anywhere; `run` is the loop for a thread.
    """

    def __init__(
        self,
        folders: HostFolders,
        services: Services,
        pace: Pace,
        book: DriftBook,
        mend: Callable[[str], bool] = lambda _: True,
        rest: Callable[[], float] = lambda: MOST,
    ) -> None:
        self._folders = folders
        self._services = services
        self._pace = pace
        self._book = book
        self._mend = mend
        self._rest = rest
        self._rests: dict[str, Rest] = {}
        self._restarts: dict[InstanceRef, int] = {}
        self._poked: deque[str] = deque()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="upkeep")
        self._busy: dict[str, Future[None]] = {}
        # An app may take minutes to stop: meanwhile what serves is looked after, here and everywhere else.
        self._stops = ThreadPoolExecutor(STOPS, thread_name_prefix="stop")
        self._stopping: dict[InstanceRef, Future[None]] = {}
        self._lock = threading.Lock()

    def run(self, after: Callable[[], None] = lambda: None) -> None:
        """Until `close`; it begins when `after` is done. A driver that is away (an engine may be) costs a look."""
        _told(after)
        while not self._closed.is_set():
            for env in _told(self.due) or ():
                self._begin(env)
            again = time.monotonic() + EVERY
            while self._wake.wait(max(0.0, again - time.monotonic())) and not self._closed.is_set():
                self._wake.clear()
                while self._poked:
                    self._begin(self._poked.popleft())

    def _begin(self, env_id: str) -> None:
        if env_id not in self._busy or self._busy[env_id].done():
            with contextlib.suppress(RuntimeError):  # it has just been closed
                self._busy[env_id] = self._pool.submit(self._safely, env_id)

    def due(self) -> list[str]:
        """The environments to look at now: all but those that rested at their last look and were not touched since.

        Four looks at inodes tell of one; so a host of thousands that are at rest costs next to nothing.
        """
        kept = self._services.driver.environments()
        there = kept | {path.name for path in os.scandir(self._folders.environments) if not path.name.startswith(".")}
        for env in self._rests.keys() - there:
            self._rests.pop(env, None)
        now = time.monotonic()
        return [env for env in sorted(there) if env in kept or not self._rests_still(env, now)]

    def _rests_still(self, env_id: str, now: float) -> bool:
        rest = self._rests.get(env_id)
        return rest is not None and now < rest.until and rest.seen == self._seen(env_id)

    def _seen(self, env_id: str) -> Seen:
        """What changes with every step, release and damage to a link or a folder."""
        env = f"{self._folders.environments}/{env_id}"
        return tuple(_inode(f"{env}/{name}") for name in ("fence", "current", "r", "current/."))

    def poke(self, env_id: str) -> None:
        """Look at this one now: something has changed."""
        self._poked.append(env_id)
        self._wake.set()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._stops.shutdown(wait=True, cancel_futures=True)

    def look(self, env_id: str) -> None:
        """Put one environment right, and wait until what has to stop has stopped."""
        self._look_after(env_id)
        with self._lock:
            stopping = [future for ref, future in self._stopping.items() if ref.env_id == env_id]
        wait(stopping)

    def _look_after(self, env_id: str) -> None:
        """One without instances, of which nothing waits for others, rests from then on."""
        seen = self._seen(env_id)
        self._rests.pop(env_id, None)
        if self._look(env_id) and not self._book.open_in(env_id):
            # Spread, so that those that came to rest together are not looked at together for ever.
            self._rests[env_id] = Rest(seen, time.monotonic() + self._rest() * random.uniform(0.5, 1.0))  # noqa: S311

    def _look(self, env_id: str) -> bool:
        """Whether there is nothing here that may end by itself."""
        switch = ReleaseSwitch(self._folders.environment(env_id))
        last = switch.last_step()
        if (said := switch.mend()) is not None:
            self._book.mended(env_id, last.live, "current", f"`current` {said}: it leads to release {last.live} again")
        if not self._mend(env_id):
            return False  # what lies there does not say what should run: what runs goes on
        plans = self._services.origins(env_id)
        statuses, commands = list[Status](), list[Status]()
        for status in self._services.driver.list(env_id):
            if is_command(status.ref):
                commands.append(status)
            elif status.ref.process != RELEASE:
                statuses.append(status)
            elif status.ref.seq <= last.seq:
                self._stop(status.ref)  # its rollout is over
        self._forget_commands(commands, last.live)
        self._count_restarts(env_id, statuses, {plans[last.live].origin: last.live} if last.live in plans else {})
        if last.live in plans and self._should_run(env_id, last.live):
            if plans[last.live].stopping and not self._stops_any(env_id, plans[last.live].origin):
                self._services.keep(env_id, last.live)
            self._keep_running(env_id, last.live, plans[last.live], statuses)
        for origin in sorted({status.ref.seq for status in statuses}):
            of_it = [one for one in statuses if one.ref.seq == origin]
            if self._in_use(origin, plans, last):
                self._trim(env_id, origin, of_it)
            elif self._warm(env_id, origin, plans, last):
                self._rest_beside(plans[last.previous], of_it)
            else:
                self._let_go(env_id, origin, of_it)
        return not plans and not statuses

    def _forget_commands(self, commands: list[Status], live: int) -> None:
        """Results are kept for a worker that comes back; what is being taken away runs nothing any more."""
        ended = sorted((one for one in commands if one.state == "stopped"), key=lambda one: -one.since)
        for rank, one in enumerate(ended):
            if time.time() - one.since > (COMMAND_KEPT if rank < AT_ONCE else MANY_KEPT):
                self._stop(one.ref)
        for one in commands if not live else ():
            self._stop(one.ref)

    def _stop(self, ref: InstanceRef) -> None:
        """Begin to stop and forget an instance, if nobody is at it; one of many of its environment at a later look."""
        with self._lock:
            beside = sum(one.env_id == ref.env_id for one in self._stopping)
            if ref not in self._stopping and beside < STOPS_EACH:
                self._stopping[ref] = self._stops.submit(self._remove, ref)

    def _stops_any(self, env_id: str, origin: int) -> bool:
        with self._lock:
            return any((ref.env_id, ref.seq) == (env_id, origin) for ref in self._stopping)

    def _remove(self, ref: InstanceRef) -> None:
        try:
            self._services.driver.remove(ref)
        except HeadwayError as error:
            log.warning("%s: %s", ref, error.message)
        except Exception:
            log.exception("%s was not stopped", ref)
        finally:
            with self._lock:
                self._stopping.pop(ref, None)

    def _safely(self, env_id: str) -> None:
        try:
            self._look_after(env_id)
        except HeadwayError as error:
            log.warning("%s: %s", env_id, error.message)
        except Exception:
            log.exception("upkeep of %s failed", env_id)

    def _should_run(self, env_id: str, seq: int) -> bool:
        return ReleaseSwitch(self._folders.environment(env_id)).live().seq == seq

    def _keep_running(self, env_id: str, seq: int, plan: Plan, statuses: list[Status]) -> None:
        known = {status.ref: status for status in statuses}
        web = [InstanceRef(env_id, plan.origin, "web", index) for index in range(plan.web)]
        beside = [InstanceRef(env_id, plan.origin, name) for name in plan.beside]
        stopped = [ref for ref in web + beside if ref not in known or known[ref].state in ("stopped", "absent")]
        for ref in web + beside:
            if ref in known and known[ref].state == "running" and self._services.is_stale(known[ref]):
                self._book.mended(env_id, seq, "instance", f"{ref.process}.{ref.index} ran on a tree that was removed")
                self._stop(ref)
        if not stopped:
            if self._services.link(env_id, seq, plan, known):
                what = "the links to its sockets were gone, or led elsewhere: they lead there again"
                self._book.mended(env_id, seq, "release", what)
            return
        self._services.ensure(env_id, seq)
        # What stands beside a release that was taken over warm had been stopped on purpose.
        meant = {ref for ref in beside if ref not in known and plan.origin != seq}
        for ref in sorted(set(stopped) - meant):
            why = known[ref].reason or "it was stopped" if ref in known else "it was gone"
            what = f"{ref.process}.{ref.index} did not run ({why}): it was started again"
            self._book.mended(env_id, seq, "instance", what)

    def _count_restarts(self, env_id: str, statuses: list[Status], serving: dict[int, int]) -> None:
        """What the driver has started again by itself; of a crash loop not every turn.

        `serving`: by the release that started the instances, the one that is live with them.
        """
        for status in statuses:
            ref, before = status.ref, self._restarts.get(status.ref, status.restarts)
            self._restarts[ref] = status.restarts
            if status.restarts > before and (status.restarts < 4 or status.restarts & (status.restarts - 1) == 0):
                ended = f"{ref.process}.{ref.index} ended with {status.exit_code}{reason_of(status)}"
                loop = ", a crash loop: the pauses stay long" if status.state == "crash_loop" else ""
                what = f"{ended}: start number {status.restarts + 1}{loop}"
                self._book.mended(env_id, serving.get(ref.seq, ref.seq), "instance", what)
        known = {status.ref for status in statuses}
        for ref in [ref for ref in self._restarts if ref.env_id == env_id and ref not in known]:
            del self._restarts[ref]

    def _in_use(self, origin: int, plans: dict[int, Plan], last: Step) -> bool:
        """Live, or being prepared."""
        return any(plan.origin == origin and (seq > last.seq or seq == last.live) for seq, plan in plans.items())

    def _warm(self, env_id: str, origin: int, plans: dict[int, Plan], last: Step) -> bool:
        before = plans.get(last.previous)
        fits = before is not None and before.origin == origin and not before.stopping
        return fits and self._since_switch(env_id) < self._warm_for(env_id, last)

    def _warm_for(self, env_id: str, last: Step) -> float:
        """How long what was replaced stays ready: not at all behind a stop, a suspension or an undo, always behind a
        bake."""
        release = ReleaseSwitch(self._folders.environment(env_id)).release(last.live)
        if last.live == 0 or last.step == "undo" or is_suspended(release):
            return 0.0
        return max(self._pace.warm, baking_until(release) - time.time() + self._since_switch(env_id))

    def _since_switch(self, env_id: str) -> float:
        try:
            return time.time() - (self._folders.environment(env_id) / "fence").stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _let_go(self, env_id: str, origin: int, statuses: list[Status]) -> None:
        """Stop what no visitor is connected to any more, or what has had its time."""
        if not self._services.retire(env_id, origin):
            return
        last = ReleaseSwitch(self._folders.environment(env_id)).last_step()
        over = self._since_switch(env_id) > self._warm_for(env_id, last) + self._pace.drain
        # A later switch gives it no more time: who deploys all day would keep each edition that has a visitor.
        self._stop_unused(statuses, over or self._services.leaving_for(env_id, origin) > self._pace.drain)

    def _rest_beside(self, plan: Plan, statuses: list[Status]) -> None:
        """Of a warm release only what answers visitors stays: two editions of a worker would share the work."""
        for one in statuses:
            if one.ref.process in plan.beside:
                self._stop(one.ref)

    def _trim(self, env_id: str, origin: int, statuses: list[Status]) -> None:
        """Stop what a release that was scaled has no more of. Read anew: a rollout may want it again by now."""
        last = ReleaseSwitch(self._folders.environment(env_id)).last_step()
        plans = self._services.origins(env_id)
        wanted = [
            plan.web for seq, plan in plans.items() if plan.origin == origin and (seq > last.seq or seq == last.live)
        ]
        if wanted:
            surplus = [one for one in statuses if one.ref.process == "web" and one.ref.index >= max(wanted)]
            self._stop_unused(surplus, self._since_switch(env_id) > self._pace.drain)

    def _stop_unused(self, statuses: list[Status], over: bool) -> None:
        driver = self._services.driver
        for status in statuses:
            if status.state in ("stopped", "absent") or over or driver.connections(status.ref) == 0:
                self._stop(status.ref)


def _told(what: Callable[[], T]) -> T | None:
    try:
        return what()
    except HeadwayError as error:
        log.warning("%s", error.message)
    except Exception:
        log.exception("upkeep")
    return None


def _inode(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns
