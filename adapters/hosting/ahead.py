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
from dataclasses import dataclass
from typing import Final, Protocol

from adapters.hosting.host import Examined, Host
from headway.broker import Coming, Parcel, Ready
from headway.errors import HeadwayError

# What is verified counts for the rollout that it was told for, and for no later one.
COUNTS_SECONDS: Final = 20.0
MOST_KEPT: Final = 16
MOST_BYTES: Final = 64 << 20
AT_ONCE: Final = 2
PAUSE_SECONDS: Final = 1.0
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def coming(self, host_id: str) -> Coming: ...


@dataclass(frozen=True)
class Begun:
    """A parcel that is looked at. `until`: when what was found is over, by the clock that does not jump."""

    until: float
    parcel: Parcel
    examined: Future[Examined]


class Ahead:
    """Thread-safe. `run` asks the broker for as long as the process lives; `take` is the rollouts' side."""

    def __init__(self, host_id: str, host: Host, broker: Broker) -> None:
        self._host_id = host_id
        self._host = host
        self._broker = broker
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ahead")
        self._lock = threading.Lock()
        self._begun: OrderedDict[tuple[str, str], Begun] = OrderedDict()

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
        for parcel in parcels:
            if not parcel.bundle_url:
                self._pool.submit(self._host.prepare, parcel, MOST_BYTES)
                continue
            future = self._pool.submit(self._examine, parcel)
            with self._lock:
                until = time.monotonic() + COUNTS_SECONDS
                self._begun[parcel.site_id, parcel.digest] = Begun(until, parcel, future)
                while len(self._begun) > MOST_KEPT:
                    self._begun.popitem(last=False)

    def ready(self, rollout_id: str) -> Ready | None:
        """What a rollout needs nothing more for than to be placed: static, examined, its tree made."""
        with self._lock:
            begun = next((one for one in self._begun.values() if one.parcel.rollout_id == rollout_id), None)
        if begun is None or time.monotonic() > begun.until or not begun.examined.done():
            return None
        if begun.examined.cancelled() or begun.examined.exception() is not None:
            return None
        if begun.examined.result().manifest.kind != "static" or not self._host.trees.exists(begun.parcel.digest):
            return None
        keyring = hashlib.sha256(begun.parcel.keyring.encode()).hexdigest()
        return Ready(digest=begun.parcel.digest, keyring_sha256=keyring)

    def take(self, parcel: Parcel, check: Callable[[], None]) -> Examined | None:
        """What was found of it, once; None where nothing was begun. Waits, with `check`, for what is under way."""
        with self._lock:
            begun = self._begun.pop((parcel.site_id, parcel.digest), None)
        if begun is None or time.monotonic() > begun.until or begun.parcel.keyring != parcel.keyring:
            return None
        future = begun.examined
        if future.cancel():
            return None
        while not future.done():
            check()
            wait((future,), timeout=0.5)
        return future.result() if future.exception() is None else None

    def _examine(self, parcel: Parcel) -> Examined:
        examined = self._host.examine(parcel)
        self._host.prepare(parcel, MOST_BYTES, examined.manifest)
        return examined
