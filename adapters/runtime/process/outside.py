"""The instance's way out: the egress proxy, in a thread that stays in the host's network."""

from __future__ import annotations

import socket
import threading
from queue import SimpleQueue

from adapters.egress.join import listen
from adapters.egress.listener import PROXY_ADDRESS
from adapters.egress.policy import EgressPolicy, Rule
from adapters.egress.proxy import Door, EgressProxy
from adapters.runtime.process.recipe import Outside

CONNECTIONS = 1024
UNBOUNDED = 1 << 62


class WayOut:
    """Make it before the process enters its own network; `open` comes after."""

    def __init__(self, asked: Outside) -> None:
        policy = EgressPolicy(
            rules=tuple(Rule(host, port) for host, port in asked.rules),
            private_ok=frozenset(asked.private_ok),
            budget=UNBOUNDED,
            connections=CONNECTIONS,
            public=asked.public,
        )
        self._asked = asked
        self._proxy = EgressProxy(policy)
        self._sockets: SimpleQueue[list[socket.socket]] = SimpleQueue()
        # A thread is in the network of the thread that made it: this one, and so the proxy's, in the host's.
        self._thread = threading.Thread(target=self._serve, name="outside", daemon=True)
        self._thread.start()

    def open(self) -> None:
        """Listen inside, serve from outside. Errors: OSError."""
        addresses = [PROXY_ADDRESS, *((address, port) for address, _, port in self._asked.doors)]
        self._sockets.put([socket.socket(fileno=number) for number in listen(addresses)])
        self._thread.join()

    def notices(self) -> list[str]:
        return self._proxy.notices()

    def _serve(self) -> None:
        first, *others = self._sockets.get()
        doors = [Door(one, host, port) for one, (_, host, port) in zip(others, self._asked.doors, strict=True)]
        self._proxy.start(first, doors)
