"""What the HTTP parser refuses is answered like any other bad request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from api.app import create_app
from api.main import _server, listen_tcp
from api.unparsed import protocol
from tests.api.world import World

pytestmark = pytest.mark.anyio
FINE = (
    "HTTP/1.1\r\nHost: a",
    "HTTP/1.1\r\nhOST:  [::1]:7070",
    "HTTP/1.1\r\nHost:",
    "HTTP/1.0",
    "HTTP/1.0\r\nHost: a.b.:1",
)
ODD = {
    "a method that there is not": b"GE\x01T /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "a control byte in a header": b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n",
    "no host": b"GET /v1/jobs HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "no name of a host": b"GET /v1/jobs HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two in one": b"GET /git/acme.git/info/refs HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a bad chunk": b"POST /v1/sites HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


@contextlib.asynccontextmanager
async def asking(api: World) -> AsyncIterator[Callable[[bytes], Awaitable[tuple[bytes, bytes]]]]:
    server = _server(create_app(api.parts), protocol("https://docs.test"))
    with listen_tcp("127.0.0.1", 0) as door:

        async def ask(raw: bytes) -> tuple[bytes, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", door.getsockname()[1])
            writer.write(raw)
            head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
            writer.close()
            return head, body

        serving = asyncio.create_task(server.serve_quietly(sockets=[door]))
        await server.up.wait()
        try:
            yield ask
        finally:
            server.should_exit = True
            await serving


async def test_each_gets_the_envelope_and_the_connection_is_over(api: World) -> None:
    async with asking(api) as ask:
        for what, raw in ODD.items():
            head, body = await ask(raw)
            assert head.startswith(b"HTTP/1.1 400 "), what
            found = json.loads(body)
            assert found["error"]["code"] == "request.malformed", what
            assert found["error"]["doc_url"] == "https://docs.test/reference/error-codes/#request.malformed"
            assert f"x-request-id: {found['request_id']}".encode() in head
            assert ("Host" in found["error"]["message"]) == ("host" in what or "two" in what), what


async def test_a_host_is_needed_by_http_1_1_alone(api: World) -> None:
    async with asking(api) as ask:
        for fine in FINE:
            head, _ = await ask(f"GET /v1/jobs {fine}\r\nConnection: close\r\n\r\n".encode())
            assert head.startswith(b"HTTP/1.1 401 "), fine
