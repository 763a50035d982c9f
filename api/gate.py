"""The gate in front of every route: request id, version, credential, rate limit, body. Then the answer's headers.

Pure ASGI, so that streams pass through. A failure here or behind it leaves as the error envelope, never as a traceback.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NoReturn

from api.auth import Authenticator, Caller
from api.limits import Draw, RateLimiter, bucket_of, too_many
from api.problems import as_headway_error, problem
from headway.errors import HeadwayError
from headway.ids import new_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSION: Final = "2026-06-23"
MAX_BODY: Final = 1 << 20
log = logging.getLogger("headway.api")


class Gate:
    """`prefix` is where credentials are asked for; outside of it lie the documents and the health check."""

    def __init__(
        self, app: App, *, auth: Authenticator, limiter: RateLimiter, docs_url: str, prefix: str = "/v1"
    ) -> None:
        self.app = app
        self.auth = auth
        self.limiter = limiter
        self.docs_url = docs_url
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = new_id("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode()), (b"forge-version", VERSION.encode())]
        began = False

        async def answer(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._pass(scope, receive, answer, state, extra)
        except Exception as error:
            if began:
                raise
            refused = problem(as_headway_error(error), request_id, self.docs_url)
            await refused(scope, receive, answer)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, state: dict[str, Any], extra: list[tuple[bytes, bytes]]
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        if "\0" in path:
            raise HeadwayError("route.not_found", "There is nothing at this path.")
        if b"%00" in scope["query_string"]:
            raise HeadwayError("request.invalid_parameter", "A query may not hold a NUL character.", param="query")
        if path == self.prefix or path.startswith(self.prefix + "/"):
            caller = await self._admit(scope, headers, extra)
            state["caller"] = caller
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            body = await read_body(headers, receive)
            check_body(headers, body)
            receive = replaying(body, receive)
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], extra: list[tuple[bytes, bytes]]) -> Caller:
        client = scope.get("client")
        authorization = headers.get(b"authorization")
        caller = await self.auth.caller(
            authorization.decode("latin-1") if authorization else None, client[0] if client else None
        )
        drawn = self._draw(caller, scope)
        extra += drawn.headers()
        if drawn.retry_after is not None:
            raise too_many(drawn)
        asked = headers.get(b"forge-version")
        if asked is not None and asked.decode("latin-1") != VERSION:
            raise HeadwayError("version.invalid", f"The only version is {VERSION}.", param="Forge-Version")
        return caller

    def _draw(self, caller: Caller, scope: Scope) -> Draw:
        name = bucket_of(scope["method"], scope["path"])
        return self.limiter.draw(caller.key_id, caller.team_id, name, exempt=caller.operator)


async def read_body(headers: dict[bytes, bytes], receive: Receive, most: int = MAX_BODY) -> bytes:
    """At most 1 MiB, refused by its announced length where there is one. Raises request.too_large."""
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > most:
        raise HeadwayError("request.too_large", f"A body has at most {most} bytes.")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > most:
            raise HeadwayError("request.too_large", f"A body has at most {most} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def replaying(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def check_body(headers: dict[bytes, bytes], body: bytes) -> None:
    """A JSON object in UTF-8, of strings that a database takes, or nothing.

    Raises request.unsupported_media_type or request.malformed_json.
    """
    if not body:
        return
    media = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media != b"application/json":
        raise HeadwayError("request.unsupported_media_type", "A body has to be application/json.")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise HeadwayError("request.malformed_json", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise HeadwayError("request.malformed_json", "The body is not a JSON object.")
    if b"\\u" in body or b"\0" in body:
        _check_strings(document)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _check_strings(value: object) -> None:
    """No NUL and no half of a surrogate pair, which no database takes."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and ("\0" in one or any("\ud800" <= letter <= "\udfff" for letter in one)):
            raise HeadwayError("request.malformed_json", "A string holds a NUL or half of a surrogate pair.")
