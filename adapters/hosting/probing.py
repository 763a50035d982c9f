"""Asking an instance whether it is healthy: through its endpoint, as visitors will (DESIGN section 7)."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from adapters.artifact.run import HealthCheck
from headway.errors import HeadwayError

ONE_LOOK: Final = 5.0
# Bytes of an answer's head.
MOST: Final = 256 << 10
# Until an app listens it is looked for more often than its interval says: a start is over in milliseconds.
FIRST_PAUSE: Final = 0.02
# As far as can be told: whoever listens for the app closes what nobody takes behind it.
NOT_LISTENING: Final = ("not listening", "not listening yet")


@dataclass(frozen=True)
class Probe:
    """One look. `status` is None where no answer came: `why` says what was there instead."""

    at: float
    seconds: float
    status: int | None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.status or self.why} in {self.seconds * 1000:.0f} ms"


class _Bounded(socket.socket):
    """Ends ONE_LOOK after it was made, and after MOST bytes: an app may send its head a byte at a time, or one
    `100 Continue` after the other for ever.
    """

    def __init__(self, *how: Any, **more: Any) -> None:
        super().__init__(*how, **more)
        self.settimeout(ONE_LOOK)
        self._until, self._room = time.monotonic() + ONE_LOOK, MOST

    def recv_into(self, *how: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._room <= 0:
            raise http.client.LineTooLong("head")
        self.settimeout(left)
        count = super().recv_into(*how)
        self._room -= count
        return count


class _Connection(http.client.HTTPConnection):
    """HTTP/1.1 to `unix:/path` or `tcp:host:port`."""

    def __init__(self, endpoint: str) -> None:
        super().__init__("localhost", timeout=ONE_LOOK)
        self._endpoint = endpoint

    def connect(self) -> None:
        kind, _, place = self._endpoint.partition(":")
        if kind == "unix":
            self.sock = _Bounded(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(place)
        else:
            host, _, port = place.rpartition(":")
            self.sock = _Bounded(fileno=socket.create_connection((host, int(port)), ONE_LOOK).detach())


def look(endpoint: str, path: str, hostname: str, began: float) -> Probe:
    """One GET. Never raises for what the app does."""
    start = time.monotonic()
    connection = _Connection(endpoint)
    try:
        connection.request("GET", path, headers={"Host": hostname, "User-Agent": "headway-health", "Accept": "*/*"})
        answer = connection.getresponse()
        return Probe(start - began, time.monotonic() - start, answer.status)
    except (OSError, http.client.HTTPException) as error:
        return Probe(start - began, time.monotonic() - start, None, _why(error))
    finally:
        connection.close()


def wait_until_healthy(
    endpoint: str,
    health: HealthCheck,
    hostname: str,
    tell: Callable[[Probe], None],
    check: Callable[[], None],
) -> None:
    """Look until `passes` answers in a row are good. `check` is called between looks and raises to stop.

    Raises roll.health_failed when the time is up.
    """
    began = time.monotonic()
    good, pause = 0, FIRST_PAUSE
    while True:
        check()
        probe = look(endpoint, health.path, hostname, began)
        tell(probe)
        good = good + 1 if probe.status is not None and health.low <= probe.status <= health.high else 0
        if good >= health.passes:
            return
        if time.monotonic() - began > health.timeout:
            raise HeadwayError(
                "roll.health_failed",
                f"{health.path} was not healthy within {health.timeout} s: the last look gave {probe}. "
                f"Wanted: {health.passes} answers in a row between {health.low} and {health.high}.",
            )
        pause = health.interval_ms / 1000 if probe.status is not None else min(2 * pause, health.interval_ms / 1000)
        time.sleep(pause)


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer"
        case FileNotFoundError() | ConnectionRefusedError():
            return "not listening"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "not listening yet"
    return f"no HTTP ({type(error).__name__})"
