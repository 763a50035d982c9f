"""JSON over HTTP with a forge: one bounded request, and what its failure means."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from adapters.forges.forge import ForgeAway, ForgeRefused
from adapters.webhooks.pinned import PinnedTransport, Refused, told
from adapters.webhooks.targets import Targets
from headway import __version__

AGENT: Final = f"Headway/{__version__}"
MAX_ANSWER: Final = 4 << 20
PAGE: Final = 100
MAX_PAGES: Final = 200
# Answers after which nothing gets better by itself. 404 is no such: a commit may take a moment to be everywhere.
_FINAL: Final = frozenset((400, 401, 403, 405, 409, 410, 422))
_HINTS: Final = {
    401: "the token is not accepted",
    403: "the token may not do this",
    404: "there is no such repository or commit, or the token may not see it",
}


class Wire:
    """One forge's API. `seconds` is the bound of a request, resolving included; redirects are not followed."""

    def __init__(
        self, targets: Targets, base: str, headers: Mapping[str, str], secret: str, seconds: float = 10.0
    ) -> None:
        self._targets = targets
        self._base = base.rstrip("/")
        # As it is: a few coded bytes may stand for more than there is memory.
        self._headers = {"User-Agent": AGENT, "Accept": "application/json", **headers, "Accept-Encoding": "identity"}
        self._secret = secret
        self._seconds = seconds
        self._tls: ssl.SSLContext | None = None

    async def get(self, path: str, **params: Any) -> Any:
        return await self.ask("GET", path, params=params)

    async def ask(self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """What it answers; None where that is nothing. Raises ForgeRefused and ForgeAway."""
        try:
            async with asyncio.timeout(self._seconds):
                status, headers, raw = await self._send(method, self._base + path, body, params)
        except TimeoutError:
            raise ForgeAway(f"no answer within {self._seconds:g} s") from None
        except Refused as refusal:
            raise ForgeAway(str(refusal)) from None
        except OSError as failure:
            raise ForgeAway(f"the forge cannot be resolved: {failure.strerror or type(failure).__name__}") from None
        except httpx.HTTPError as failure:
            raise ForgeAway(told(failure)) from None
        if not 200 <= status < 300:
            raise self._failure(status, headers, raw)
        try:
            return json.loads(raw) if raw.strip() else None
        except (ValueError, RecursionError):
            raise ForgeAway("its answer is no JSON: is this the address of an API?", status) from None

    async def pages(self, path: str, **params: Any) -> AsyncIterator[Any]:
        """The rows of a list, some thousands at most, one page at a time.

        It ends with an empty page, or with one again: some lists of Gogs have no pages.
        """
        before: list[Any] = []
        left = MAX_PAGES * PAGE
        for page in range(1, MAX_PAGES + 1):
            rows = await self.get(path, **params, page=page)
            if not isinstance(rows, list) or not rows or rows == before:
                return
            for row in rows[:left]:
                yield row
            left -= len(rows[:left])
            before = rows

    async def _send(
        self, method: str, url: str, body: Any, params: Mapping[str, Any] | None
    ) -> tuple[int, httpx.Headers, bytes]:
        self._tls = self._tls or httpx.create_ssl_context(trust_env=True)
        transport = PinnedTransport(self._targets, self._tls)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client:  # noqa: S113
            request = client.build_request(
                method, self._targets.check(url), json=body, params=params or None, headers=self._headers
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise ForgeAway("its answer is coded, which nobody asked for", answer.status_code)
                raw = b""
                async for part in answer.aiter_raw():
                    raw += part
                    if len(raw) > MAX_ANSWER:
                        raise ForgeAway("its answer is too long", answer.status_code)
            finally:
                await answer.aclose()
            return answer.status_code, answer.headers, raw

    def _failure(self, status: int, headers: httpx.Headers, raw: bytes) -> ForgeAway | ForgeRefused:
        why = f"answered {status}"
        if 300 <= status < 400:
            return ForgeRefused(status, why + ": it has moved, and redirects are not followed")
        wait = _patience(headers)
        if status == 429 or (status == 403 and wait is not None):
            return ForgeAway(why + ": too many requests", status, wait)
        said = _said(raw, self._secret)
        why += f": {_HINTS[status]}" if status in _HINTS else ""
        why += f" ({said})" if said else ""
        return ForgeRefused(status, why) if status in _FINAL else ForgeAway(why, status, wait)


def number(row: Any, name: str) -> str:
    """What a row is called by. Raises ForgeAway where that is no number: it is kept, and is part of addresses."""
    found = row.get(name) if isinstance(row, dict) else None
    if not isinstance(found, int) or not 0 <= found < 1 << 64:
        raise ForgeAway("its answer names no number: is this the address of an API?")
    return str(found)


def _patience(headers: httpx.Headers) -> float | None:
    """For how many seconds it asks to be left alone, if it does."""
    given = headers.get("retry-after", "").strip()
    seconds: float | None = None
    if given.isascii() and given.isdigit():
        seconds = float(given)
    elif given:
        with contextlib.suppress(ValueError):
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
    elif headers.get("x-ratelimit-remaining") == "0" or headers.get("ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
        seconds = float(reset) - time.time() if reset.isascii() and reset.isdigit() else 60.0
    return None if seconds is None else math.ceil(max(0.0, seconds))


def _said(raw: bytes, secret: str) -> str:
    """The forge's own short word on it, without the token and without what a terminal would obey."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    message = found.get("message") or found.get("error") if isinstance(found, dict) else None
    if not isinstance(message, str):
        return ""
    kept = "".join(letter for letter in message.replace(secret, "…") if letter.isprintable())
    return kept[:200]
