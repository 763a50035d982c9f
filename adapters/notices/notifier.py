"""Starts the process that says a notice, and bounds it. The address goes in by stdin: arguments are everybody's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapters.egress.policy import normal
from adapters.notices.schemes import check
from adapters.webhooks.sending import Outcome
from headway.errors import HeadwayError

CHILD: Final = Path(__file__).with_name("child.py")
COMMAND: Final = (sys.executable, "-I", "-B", str(CHILD))
# A process is started, and a library read, before anything is sent.
START_SECONDS: Final = 20.0
MAX_ANSWER: Final = 64 << 10
AT_ONCE: Final = 4


@dataclass(frozen=True)
class Notice:
    """`level`: info | success | warning | failure."""

    title: str
    body: str
    level: str


class Notifier:
    """`private_ok` are names, or addresses, that may be private and may be spoken to without TLS."""

    def __init__(self, private_ok: Iterable[str] = (), seconds: float = 10.0, command: Sequence[str] = COMMAND) -> None:
        self.private_ok = frozenset(normal(name) for name in private_ok)
        self._seconds = seconds + START_SECONDS
        self._command = command
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def check(self, url: str) -> str:
        """`url` itself. Raises notification.url_refused."""
        check(url, self.private_ok)
        answer = await self._run({"url": url, "check": True})
        if not answer["good"]:
            raise HeadwayError("notification.url_refused", f"It cannot be used: {answer['error']}.", param="url")
        return url

    async def send(self, url: str, notice: Notice) -> Outcome:
        """Never raises for what the other side does."""
        began = time.monotonic()
        try:
            check(url, self.private_ok)
            answer = await self._run({"url": url, "title": notice.title, "body": notice.body, "level": notice.level})
        except HeadwayError as error:
            answer = {"status": None, "error": error.message}
        spent = round((time.monotonic() - began) * 1000)
        return Outcome(spent, answer["status"], answer["error"])

    async def _run(self, order: dict[str, Any]) -> dict[str, Any]:
        given = json.dumps({**order, "private_ok": sorted(self.private_ok)}).encode()
        async with self._turns:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(self._seconds):
                    said, _ = await process.communicate(given)
            except TimeoutError:
                return {"good": False, "status": None, "error": f"not said within {self._seconds:g} s"}
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            answer = json.loads(said[:MAX_ANSWER])
            return {"good": bool(answer["good"]), "status": answer["status"], "error": answer["error"]}
        except (ValueError, KeyError, TypeError):
            return {"good": False, "status": None, "error": "could not be said: its process has died"}


def _environment() -> dict[str, str]:
    """No proxy, and none of our own settings; roots of trust as everywhere else."""
    found = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    if roots := os.environ.get("SSL_CERT_FILE"):
        found |= {"SSL_CERT_FILE": roots, "REQUESTS_CA_BUNDLE": roots}
    return found
