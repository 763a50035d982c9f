"""One try: resolve, refuse what is private, connect to the very address that was looked at, send, read little.

Redirects are not followed: the address that was checked is the only one that is spoken to.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from adapters.webhooks.pinned import PinnedTransport, Refused, told
from adapters.webhooks.targets import Targets
from headway import __version__

AGENT: Final = f"Headway-Webhooks/{__version__}"
# What is read of an answer: nobody looks at it, but a receiver that is cut off may take it for a failure of its own.
MAX_ANSWER: Final = 64 << 10


@dataclass(frozen=True)
class Outcome:
    """`error` is None where a 2xx came in time."""

    milliseconds: int
    status: int | None = None
    error: str | None = None


class Sender:
    """Sends from an event loop. `seconds` is the bound of a whole try, resolving included."""

    def __init__(self, targets: Targets, seconds: float = 10.0) -> None:
        self._targets = targets
        self._seconds = seconds
        self._tls: ssl.SSLContext | None = None

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Never raises for what the other side does."""
        began = time.monotonic()
        status, error = None, None
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._send(self._targets.check(url), body, headers)
            if not 200 <= status < 300:
                error = f"answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")
        except TimeoutError:
            error = f"no answer within {self._seconds:g} s"
        except Refused as refusal:
            error = str(refusal)
        except OSError as failure:
            error = f"{httpx.URL(url).host} cannot be resolved: {failure.strerror or type(failure).__name__}"
        except httpx.HTTPError as failure:
            error = told(failure)
        except Exception as failure:
            error = f"could not be sent: {type(failure).__name__}"
        return Outcome(round((time.monotonic() - began) * 1000), status, error)

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        sent = {
            "User-Agent": AGENT,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **headers,
        }
        transport = PinnedTransport(self._targets, self._context())
        # Timeouts of single steps are no bound of the whole: that is the caller's.
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client:  # noqa: S113
            request = client.build_request("POST", url, content=body, headers=sent)
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                read = 0
                async for part in answer.aiter_raw():
                    read += len(part)
                    if read > MAX_ANSWER:
                        break
            finally:
                await answer.aclose()
            return answer.status_code

    def _context(self) -> ssl.SSLContext:
        """Roots of the system's own choice where SSL_CERT_FILE names them."""
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=True)
        return self._tls
