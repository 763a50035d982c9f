"""HTTP over unix sockets on which perhaps nobody listens: the library leaves open what it could not connect."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import httpx


class AnySocket(httpx.BaseTransport):
    """One unix socket, or of those in a folder the first that takes a connection; the last that did is asked first."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self._ways: dict[Path, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()
        self._best: Path | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        failure: httpx.ConnectError | None = None
        for path in self._sockets():
            try:
                response = self._way(path).handle_request(request)
            except httpx.ConnectError as error:
                failure, self._best = error, None
                continue
            self._best = path
            return response
        raise failure or httpx.ConnectError("no socket is there")

    def close(self) -> None:
        for way in self._ways.values():
            way.close()

    def _sockets(self) -> list[Path]:
        """The last that answered as it is, then every other that listens."""
        best = self._best
        all_of_them = sorted(self._at.glob("*.sock")) if self._at.is_dir() else [self._at]
        others = [path for path in all_of_them if path != best and _listens(path)]
        return [best, *others] if best in all_of_them else others

    def _way(self, path: Path) -> httpx.HTTPTransport:
        with self._lock:
            if path not in self._ways:
                self._ways[path] = httpx.HTTPTransport(uds=str(path))
            return self._ways[path]


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
