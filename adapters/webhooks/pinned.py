"""A transport that connects to the very address that was looked at, and to none that is private unless allowed."""

from __future__ import annotations

import ssl

import httpx

from adapters.egress.policy import normal
from adapters.webhooks.targets import Targets


class Refused(Exception):
    """The name leads to nothing that may be connected to."""


class PinnedTransport(httpx.AsyncBaseTransport):
    """Resolves, refuses what is private, and sends to the first address; the certificate has to be the name's.

    Raises Refused, and OSError where a name cannot be resolved.
    """

    def __init__(self, targets: Targets, context: ssl.SSLContext) -> None:
        self._targets = targets
        self._inner = httpx.AsyncHTTPTransport(verify=context, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        where = request.url
        host, port = normal(where.host), where.port or (443 if where.scheme == "https" else 80)
        found = await self._targets.addresses(host, port)
        if not found:
            raise Refused(f"{host} leads to no public address")
        request.url = where.copy_with(host=found[0])
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def told(failure: httpx.HTTPError) -> str:
    """In words, without addresses that a resolver gave, which are nobody's business."""
    if isinstance(failure, httpx.ConnectError):
        reason = "its certificate is not trusted" if "CERTIFICATE" in str(failure) else "no connection"
        return f"could not connect: {reason}"
    return f"the connection broke: {type(failure).__name__}"
