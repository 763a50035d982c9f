"""Watching a release that has just become live: its health path again and again, and what its visitors get."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters.artifact.run import HealthCheck
from adapters.hosting.durable import write_file
from adapters.hosting.probing import Probe, look
from adapters.hosting.services import DEATHS, Services, Story
from adapters.hosting.turns import Turns
from adapters.runtime.driver import Status
from headway.errors import HeadwayError

FILE: Final = "bake"
# Looks in a row that have to be bad: one may hit a pause.
BAD: Final = 3
# Of so many visits at least, this share may end as server errors.
VISITS, ERRORS = 20, 0.05
PAUSE: Final = 0.1
# An undo follows a bake: what it goes back to stays ready for so long after it.
SLACK: Final = 120.0
# Watched at once, and of those a team has half at most. In seconds: how long one waits before it is tried again; with
# an hour's bake that is less than a try may take.
AT_ONCE, WAITING, SHARE, PATIENCE = 64, 96, 0.5, 540.0

# `(env_id, since)` → requests and server errors since that Unix time; None where nobody counts them.
Visits = Callable[[str, float], tuple[int, int] | None]


@dataclass
class Watched:
    """`why` is empty where all was well; `slowest` in seconds."""

    seconds: float = 0.0
    looks: int = 0
    bad: int = 0
    restarts: int = 0
    slowest: float = 0.0
    requests: int | None = None
    errors: int | None = None
    why: str = ""


class Bakery:
    """Thread-safe. What is static has no health path: only its visitors speak for it, where they are counted, too."""

    def __init__(
        self,
        services: Services,
        visits: Visits = lambda _env, _since: None,
        *,
        static_counted: bool = True,
        turns: Turns | None = None,
    ) -> None:
        self._services = services
        self._visits = visits
        self._static_counted = static_counted
        self._turns = turns or Turns(AT_ONCE, WAITING, PATIENCE, share=SHARE, noun="bakes", code="roll.host_busy")

    def watch(
        self, env_id: str, seq: int, release: Path, seconds: float, hostname: str, story: Story, owner: str = ""
    ) -> Watched:
        """For `seconds` from its first turn on, or until it is bad. The story can stop it.

        `owner`: whose share of this host's bakes it takes, and waits for; empty: nobody's. Raises roll.host_busy.
        """
        with self._turn(owner, release, seconds, story):
            return self._watch(env_id, seq, release, seconds, hostname, story)

    @contextlib.contextmanager
    def _turn(self, owner: str, release: Path, seconds: float, story: Story) -> Iterator[None]:
        """What was replaced stays ready while its successor waits to be watched. One that has begun waits no more."""
        if not owner or _begun(release) > 0:
            with self._turns.counted(owner):
                yield
            return

        def waits(ahead: int) -> None:
            others = f", {ahead} wait before it" if ahead else ""
            story.line(f"waits for its turn: this host watches {self._turns.at_once} releases at once{others}")
            _keep(release, time.time() + PATIENCE + seconds, waits=True)

        with self._turns.turn(owner, waits, story.check):
            yield

    def _watch(self, env_id: str, seq: int, release: Path, seconds: float, hostname: str, story: Story) -> Watched:
        began = _began(release, seconds)
        seen, row = Watched(), 0
        instances = self._services.instances(env_id, seq)
        health = self._services.health(env_id, seq)
        restarts = {one.ref: one.restarts for one in instances}
        if health is None and (not self._static_counted or self._visits(env_id, began) is None):
            story.line("nothing to watch: static files have no health path, and nobody counts visits here")
            return seen
        story.line(f"watching release {seq} for {seconds:.0f} s")
        next_look = 0.0
        while not seen.why and (now := time.time()) < began + seconds:
            story.check()
            if health is not None and now >= next_look:
                next_look = now + max(health.interval_ms / 1000, PAUSE)
                instances = self._services.instances(env_id, seq)
                good = self._look(instances, health, hostname, seen, story)
                row = 0 if good else row + 1
                seen.restarts = sum(max(0, one.restarts - restarts.get(one.ref, 0)) for one in instances)
                seen.why = _verdict(seen, row, health)
            self._count(env_id, began, seen)
            time.sleep(PAUSE)
        seen.seconds = round(time.time() - began, 1)
        story.line(
            f"watched for {seen.seconds:.0f} s: {seen.looks} looks, {seen.bad} bad. {seen.why or 'All is well.'}"
        )
        return seen

    def _look(self, instances: list[Status], health: HealthCheck, host: str, seen: Watched, story: Story) -> bool:
        good = True
        for one in instances:
            missing = Probe(0.0, 0.0, None, "not running")
            probe = look(one.endpoint, health.path, host, 0.0) if one.endpoint else missing
            seen.looks += 1
            seen.slowest = max(seen.slowest, probe.seconds)
            if probe.status is None or not health.low <= probe.status <= health.high:
                good = False
                seen.bad += 1
                story.line(f"health of {one.ref.process}.{one.ref.index}: {health.path} {probe}")
        return good

    def _count(self, env_id: str, began: float, seen: Watched) -> None:
        counted = self._visits(env_id, began)
        if counted is None:
            return
        seen.requests, seen.errors = counted
        if seen.requests >= VISITS and seen.errors > seen.requests * ERRORS:
            seen.why = seen.why or f"{seen.errors} of {seen.requests} visitors got a server error"


def baking_until(release: Path) -> float:
    """Until when what a release has replaced must stay ready, in Unix seconds; 0 where it is not watched."""
    return _kept(release)[0]


def _began(release: Path, seconds: float) -> float:
    """A bake that was interrupted goes on where it was."""
    if (until := _begun(release)) > 0:
        return until - SLACK - seconds
    now = time.time()
    _keep(release, now + seconds)
    return now


def _begun(release: Path) -> float:
    """As `baking_until`, and 0 while it waits for its first turn."""
    until, waits = _kept(release)
    return 0.0 if waits else until


def _kept(release: Path) -> tuple[float, bool]:
    """Until when what it has replaced stays ready, and whether it waits for its first turn. 0: it is not watched."""
    try:
        kept = json.loads((release / FILE).read_bytes())
        return float(kept["until"]) + SLACK, bool(kept.get("waits"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, False


def _keep(release: Path, until: float, *, waits: bool = False) -> None:
    try:
        write_file(release / FILE, json.dumps({"until": until} | ({"waits": True} if waits else {})).encode())
    except OSError as error:
        raise HeadwayError("roll.place_failed", f"The host cannot write: {error.strerror}.") from error


def _verdict(seen: Watched, row: int, health: HealthCheck) -> str:
    if row >= BAD:
        return f"{health.path} was bad {row} times in a row"
    return f"it ended and was started again {seen.restarts} times" if seen.restarts >= DEATHS else ""
