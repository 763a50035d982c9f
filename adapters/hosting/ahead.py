"""What this host will be asked for soon lies ready when it is asked: verified, fetched, its tree made.

A help only. What is not ready by then, or went wrong, the rollout does in its own turn, and says why.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from adapters.hosting.host import Examined, Host
from adapters.hosting.services import Plan
from headway.broker import Coming, Parcel, Ready
from headway.errors import HeadwayError

# What is verified counts for the rollout that it was told for, and for no later one.
COUNTS_SECONDS: Final = 20.0
# An answer of an app is soon old.
WARM_SECONDS: Final = 1.0
MOST_KEPT: Final = 16
MOST_BYTES: Final = 64 << 20
AT_ONCE: Final = 2
# About what the longer way would cost.
MOMENT_SECONDS: Final = 0.05
PAUSE_SECONDS: Final = 1.0
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def coming(self, host_id: str) -> Coming: ...


@dataclass(eq=False)
class Begun:
    """A parcel to look at. `until`: when what is found is over, by the clock that does not jump.

    `started`: somebody is at it, or was. `taken`: its rollout has come. `warm`: what a service goes back to, for as
    long as `asked` is only a moment ago; an app may take its time to answer, and `found` does not wait for it.
    """

    until: float
    parcel: Parcel
    started: bool = False
    taken: bool = False
    asked: float = 0.0
    found: Future[Examined | None] = field(default_factory=Future)
    warm: Future[Plan | None] = field(default_factory=Future)


class Ahead:
    """Thread-safe. `run` asks the broker for as long as the process lives; `take` is the rollouts' side."""

    def __init__(self, host_id: str, host: Host, broker: Broker) -> None:
        self._host_id = host_id
        self._host = host
        self._broker = broker
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ahead")
        self._asking = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="asking")
        self._lock = threading.Lock()
        self._waiting = 0
        self._begun: OrderedDict[tuple[str, str], Begun] = OrderedDict()
        # Says which instances are warm, and asks them.
        self.warm: Callable[[str, str, str], Plan | None] = lambda *_: None
        # Told of each job whose rollout lies ready.
        self.go: Callable[[str], None] = lambda _job_id: None

    def run(self) -> None:
        while True:
            try:
                self.look()
            except HeadwayError:
                time.sleep(PAUSE_SECONDS)
            except Exception:
                log.exception("what is coming is asked for again")
                time.sleep(PAUSE_SECONDS)

    def look(self) -> None:
        """Wait for what is coming and begin with it. Raises what the broker answers."""
        parcels = self._broker.coming(self._host_id).parcels
        with self._lock:
            for key in [key for key, begun in self._begun.items() if time.monotonic() > begun.until]:
                del self._begun[key]
            told = [Begun(time.monotonic() + COUNTS_SECONDS, one) for one in parcels[: MOST_KEPT - self._waiting]]
            self._waiting += len(told)
            self._begun.update(((one.parcel.site_id, one.parcel.digest), one) for one in told if one.parcel.bundle_url)
            while len(self._begun) > MOST_KEPT:
                self._begun.popitem(last=False)
        for one in told:
            self._pool.submit(self._work, one)

    def ready(self, job_id: str) -> Ready | None:
        """What a job's rollout needs nothing more for than to be placed: examined, its tree made, static or warm.

        For what is just being looked at it waits a moment.
        """
        begun = self._of(job_id)
        if begun is None or time.monotonic() > begun.until:
            return None
        if begun.started:
            both: tuple[Future[Any], ...] = (begun.found, begun.warm)
            wait(both, MOMENT_SECONDS)
        if not begun.found.done() or begun.found.exception():
            return None
        examined = begun.found.result()
        if examined is None or not self._host.trees.exists(begun.parcel.digest):
            return None
        keyring = hashlib.sha256(begun.parcel.keyring.encode()).hexdigest()
        ready = Ready(digest=begun.parcel.digest, keyring_sha256=keyring)
        if examined.manifest.kind == "static":
            return ready
        warm = self.warm_for(job_id)
        if warm is None:
            return None
        return ready.model_copy(update={"config_version": warm.config_version, "web": warm.web})

    def warm_for(self, job_id: str) -> Plan | None:
        """The instances that a job's rollout goes back to, if they have answered a moment ago."""
        begun = self._of(job_id)
        if begun is None or not begun.warm.done() or time.monotonic() > begun.asked + WARM_SECONDS:
            return None
        return begun.warm.result()

    def take(self, parcel: Parcel, check: Callable[[], None]) -> Examined | None:
        """What was found of it, once; None where nobody is at it yet. Waits, with `check`, for what is under way."""
        with self._lock:
            begun = self._begun.pop((parcel.site_id, parcel.digest), None)
            if begun is None:
                return None
            begun.taken = True
            over = time.monotonic() > begun.until or begun.parcel.keyring != parcel.keyring
            if over or not begun.started:
                return None
        while not begun.found.done():
            check()
            wait((begun.found,), timeout=0.5)
        return begun.found.result() if begun.found.exception() is None else None

    def _of(self, job_id: str) -> Begun | None:
        with self._lock:
            return next((one for one in self._begun.values() if one.parcel.job_id == job_id), None)

    def _work(self, begun: Begun) -> None:
        with self._lock:
            self._waiting -= 1
            if begun.taken or time.monotonic() > begun.until:
                return
            begun.started = True
        # An app takes its time to answer: meanwhile its artifact is looked at.
        if begun.parcel.hostname:
            self._asking.submit(self._ask, begun)
        else:
            begun.warm.set_result(None)
        try:
            begun.found.set_result(self._look_at(begun.parcel))
        except Exception as error:
            begun.found.set_exception(error)
            return
        wait((begun.warm,))
        if begun.parcel.job_id and self.ready(begun.parcel.job_id) is not None:
            self.go(begun.parcel.job_id)

    def _look_at(self, parcel: Parcel) -> Examined | None:
        examined = self._host.examine(parcel) if parcel.bundle_url else None
        self._host.prepare(parcel, MOST_BYTES, examined.manifest if examined is not None else None)
        return examined

    def _ask(self, begun: Begun) -> None:
        begun.asked = time.monotonic()
        parcel, warm = begun.parcel, None
        try:
            warm = self.warm(parcel.env_id, parcel.digest, parcel.hostname)
        except Exception as error:
            log.info("what is warm of %s could not be asked: %s", parcel.env_id, error)
        begun.warm.set_result(warm)
