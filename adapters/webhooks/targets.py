"""Where a webhook may go: https, to public addresses; what the operator names may be private, and plain http."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final
from urllib.parse import SplitResult, urlsplit

from adapters.egress.policy import NAME, is_literal, is_public, normal
from headway.errors import HeadwayError

MAX_URL: Final = 2000
MAX_HEADERS: Final = 10
AT_ONCE: Final = 32  # names that are looked up
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# What the sender says itself, and what steers the connection.
_OWN: Final = ("forge-", "miosa-", "x-miosa-", "content-", "proxy-", "sec-")
_OWN_NAMES: Final = frozenset(
    ("host", "connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect", "user-agent")
)


Resolve = Callable[[str, int], Awaitable[list[str]]]


class Targets:
    """`private_ok` are names, or addresses, that may be private and may be spoken to without TLS."""

    def __init__(self, private_ok: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self.private_ok = frozenset(normal(name) for name in private_ok)
        self._resolve = resolve or self._resolved
        # Of its own: a name whose servers never answer keeps a thread for half a minute, whoever has given up by then,
        # and the loop's own threads are those that speak with the database.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="names")

    def check(self, url: str) -> str:
        """`url` itself. Raises webhook_endpoint.url_refused; a name is judged again at each try, by its addresses."""
        parts = _parts(url)
        host = normal(parts.hostname or "")
        if parts.username is not None or parts.password is not None:
            raise _refused("A URL may not carry a user and a password: sign deliveries, or send headers.")
        if parts.fragment:
            raise _refused("A URL of a webhook has no fragment.")
        if parts.scheme != "https" and not (parts.scheme == "http" and host in self.private_ok):
            raise _refused("Webhooks go to https:// addresses.")
        if not (NAME.fullmatch(host) and not host.startswith("*.")) and not is_literal(host):
            raise _refused(f"{host[:80]!r} is no host.")
        if is_literal(host) and host not in self.private_ok and not is_public(host):
            raise _refused(f"{host} is not a public address.")
        if host == "localhost" and host not in self.private_ok:
            raise _refused("localhost is not a public address.")
        return url

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those of a host's addresses that may be connected to, in their order. Raises OSError where it has none."""
        return [one for one in await self._resolve(host, port) if host in self.private_ok or is_public(one)]

    async def _resolved(self, host: str, port: int) -> list[str]:
        """By the machine's own resolver."""
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(info[4][0]) for info in found))


def _parts(url: str) -> SplitResult:
    if len(url) > MAX_URL or any(ord(letter) <= 32 or ord(letter) > 126 for letter in url):
        raise _refused(f"A URL has at most {MAX_URL} printable ASCII characters.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _refused("This is not a URL.") from None
    if not parts.hostname:
        raise _refused("This URL names no host.")
    return parts


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The callers' own headers, as they are. Raises request.invalid_parameter."""
    if len(headers) > MAX_HEADERS:
        raise _invalid(f"At most {MAX_HEADERS} headers are sent.")
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name) or lower in _OWN_NAMES or lower.startswith(_OWN):
            raise _invalid(f"{name[:80]!r} cannot be a header of yours.")
        if len(value) > 2000 or not value.isascii() or any(not letter.isprintable() for letter in value):
            raise _invalid(f"The value of {name} has characters that a header cannot carry.")
    if len({name.lower() for name in headers}) < len(headers):
        raise _invalid("A header is named twice.")
    return dict(headers)


def _refused(why: str) -> HeadwayError:
    return HeadwayError("webhook_endpoint.url_refused", why, param="url")


def _invalid(why: str) -> HeadwayError:
    return HeadwayError("request.invalid_parameter", why, param="headers")
