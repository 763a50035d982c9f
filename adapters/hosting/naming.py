"""Which names lead to an environment on this host: as the rows say at that moment."""

from __future__ import annotations

import threading
from typing import Final, Protocol

from adapters.hosting.host import Host
from headway.broker import Hostnames

STRIPES: Final = 64


class Broker(Protocol):
    def get_hostnames(self, env_id: str) -> Hostnames: ...


class Naming:
    """Thread-safe: who asks later also writes later, so that an older answer never takes the place of a newer one."""

    def __init__(self, host: Host, broker: Broker) -> None:
        self._host = host
        self._broker = broker
        self._locks = tuple(threading.Lock() for _ in range(STRIPES))

    def route(self, env_id: str) -> None:
        """Let exactly the environment's names lead to it. Raises environment.not_found."""
        with self._locks[hash(env_id) % STRIPES]:
            found = self._broker.get_hostnames(env_id)
            self._host.route(env_id, found.hostnames, found.redirects, found.lock)
