"""What the HTTP parser refuses is answered like any other bad request."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.app import create_app
from api.main import _server, listen_tcp
from api.unparsed import protocol
from tests.api.world import World

pytestmark = pytest.mark.anyio
ODD = {
    "a method that there is not": b"GE\x01T /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "a control byte in a header": b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n",
    "a bad chunk": b"POST /v1/sites HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


async def test_each_gets_the_envelope_and_the_connection_is_over(api: World) -> None:
    server = _server(create_app(api.parts), protocol("https://docs.test"))
    with listen_tcp("127.0.0.1", 0) as door:
        serving = asyncio.create_task(server.serve_quietly(sockets=[door]))
        await server.up.wait()
        try:
            for what, raw in ODD.items():
                reader, writer = await asyncio.open_connection("127.0.0.1", door.getsockname()[1])
                writer.write(raw)
                head, _, body = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
                writer.close()
                assert head.startswith(b"HTTP/1.1 400 "), what
                found = json.loads(body)
                assert found["error"]["code"] == "request.malformed", what
                assert found["error"]["doc_url"] == "https://docs.test/reference/error-codes/#request.malformed"
                assert f"x-request-id: {found['request_id']}".encode() in head
        finally:
            server.should_exit = True
            await serving
