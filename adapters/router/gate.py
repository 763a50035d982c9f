"""The rules socket's answer for environments with a password: 204 to pass, 401 to ask, 503 where it cannot be said.

Caddy asks with `Headway-Gate`, and nothing else of the visitor's but his credentials; what it does not get a 204 for is
not served.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters.router.locks import COOKIE, SECONDS, Visits, password_in
from adapters.router.routes import LOCK
from headway.passwords import Lock

GATE: Final = "headway-gate"
# Wrong passwords cost as much as right ones: what waits is bounded, in all and for one name, and one processor is
# enough for it.
MOST_WAITING, MOST_EACH = 32, 8
MAX_LOCK: Final = 4096
log = logging.getLogger("headway.rules")


@dataclass(frozen=True)
class Verdict:
    """`fields` are the answer's headers."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""


class Gatekeeper:
    """Answers from an event loop; hashes in a thread of its own."""

    def __init__(self, routes: Path) -> None:
        self._routes = routes
        self._visits = Visits()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="gate")
        self._waiting: Counter[str] = Counter()

    async def look(self, host: str, fields: Mapping[str, str]) -> Verdict:
        """`host` is a plain name; names of `fields` are in lower case."""
        try:
            lock = Lock.read(self._read(host))
        except (OSError, ValueError) as error:
            log.warning("a lock cannot be read: %s", type(error).__name__)
            return _later()
        if self._visits.knows_cookie(lock, host, fields.get("cookie", "")):
            return Verdict(204)
        password = password_in(fields.get("authorization", ""))
        if password is None:
            return _ask(host)
        if not self._visits.knows_password(lock, password):
            if self._waiting.total() >= MOST_WAITING or self._waiting[host] >= MOST_EACH:
                return _later()
            self._waiting[host] += 1
            try:
                right = await asyncio.get_running_loop().run_in_executor(self._hashing, lock.opens, password)
            finally:
                self._waiting -= Counter((host,))
            if not right:
                return _ask(host)
            self._visits.keep_password(lock, password)
        return Verdict(204, (("Set-Cookie", self._cookie(lock, host, fields)), ("Headway-Strip", "1")))

    def _read(self, host: str) -> bytes:
        with open(self._routes / host / LOCK, "rb") as file:
            return file.read(MAX_LOCK)

    def _cookie(self, lock: Lock, host: str, fields: Mapping[str, str]) -> str:
        secure = "; Secure" if fields.get("headway-scheme") == "https" else ""
        value = self._visits.cookie(lock, host)
        return f"{COOKIE}={value}; Path=/; Max-Age={SECONDS}; HttpOnly; SameSite=Lax{secure}"


def _ask(host: str) -> Verdict:
    fields = (("WWW-Authenticate", f'Basic realm="{host}", charset="UTF-8"'), *_PAGE)
    return Verdict(401, fields, "This preview asks for a password.\n")


def _later() -> Verdict:
    return Verdict(503, (("Retry-After", "1"), *_PAGE), "Try again in a moment.\n")


_PAGE: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
