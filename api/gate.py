"""The gate in front of every route of both dialects: request id, credential, rate limit, body, the answer's headers.

Pure ASGI, so that streams pass through. A failure here or behind it leaves as the error envelope, never as a traceback.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, NoReturn

import anyio
import anyio.lowlevel

from api.auth import Authenticator, Caller
from api.dialect import Dialect
from api.limits import Draw, Name, RateLimiter, too_many
from headway.errors import HeadwayError
from headway.ids import new_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY: Final = 1 << 20
SINGLE: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Forge-Version")
# Lists, which may come in several lines.
LISTS: Final = frozenset((b"accept", b"content-encoding", b"if-none-match", b"prefer"))
# RFC 9110 section 15.5.2 has one with every 401.
CHALLENGE: Final = (b"www-authenticate", b"Bearer")


class Gate:
    """One for both dialects, so that what they have in common stays so; `dialect` says where they differ."""

    def __init__(self, app: App, *, dialect: Dialect, auth: Authenticator, limiter: RateLimiter) -> None:
        self.app = app
        self.dialect = dialect
        self.auth = auth
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a GET would be told, without its body. A stream ends where it would begin."""
        with anyio.CancelScope() as rest:

            async def cut(message: Message) -> None:
                if message["type"] != "http.response.body":
                    await send(message)
                    return
                await send({"type": "http.response.body", "body": b""})
                if message.get("more_body", False):
                    rest.cancel()
                    await anyio.lowlevel.checkpoint()

            await self._answer({**scope, "method": "GET"}, receive, cut)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_id("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        extra = [(b"x-request-id", request_id.encode()), *self.dialect.headers]
        began = False

        async def answer(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                asked = [CHALLENGE] if message["status"] == 401 else []
                message["headers"] = [*message.get("headers", ()), *asked, *extra]
            await send(message)

        try:
            await self._pass(scope, receive, answer, state, extra)
        except Exception as error:
            if began:
                raise
            await self.dialect.problem(error, request_id)(scope, receive, answer)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, state: dict[str, Any], extra: list[tuple[bytes, bytes]]
    ) -> None:
        check_once(scope["headers"])
        scope["headers"] = joined(scope["headers"])
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        if "\0" in path:
            raise HeadwayError("route.not_found", "There is nothing at this path.")
        if b"%00" in scope["query_string"]:
            raise HeadwayError("request.invalid_parameter", "A query may not hold a NUL character.", param="query")
        if not self.dialect.is_open(path):
            state["caller"] = await self._admit(scope, headers, extra)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not self.dialect.reads_body(path):
            body = await read_body(headers, receive)
            check_body(headers, body)
            receive = replaying(body, receive)
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], extra: list[tuple[bytes, bytes]]) -> Caller:
        client, given = scope.get("client"), headers.get(b"authorization")
        caller = await self.auth.caller(given.decode("latin-1") if given else None, client[0] if client else None)
        caller = await self.dialect.within(caller, headers)
        drawn = self._draw(caller, self.dialect.bucket(scope["method"], scope["path"]))
        extra += drawn.headers()
        if drawn.retry_after is not None:
            raise too_many(drawn)
        self.dialect.check(headers)
        return caller

    def _draw(self, caller: Caller, name: Name) -> Draw:
        return self.limiter.draw(caller.key_id, caller.team_id, name, exempt=caller.operator)


def check_once(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Of a header that stands twice one value would be lost without a word. Raises request.invalid_parameter."""
    for name in SINGLE:
        if sum(given == name.lower().encode() for given, _ in headers) > 1:
            raise HeadwayError("request.invalid_parameter", f"{name} stands twice.", param=name)


def joined(headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
    """The lines of each list as one (RFC 9110, section 5.3): whoever looks for a header finds one line of it."""
    lines = Counter(name for name, _ in headers if name in LISTS)
    again = [name for name, count in lines.items() if count > 1]
    if not again:
        return headers
    whole = [(name, b", ".join(value for of, value in headers if of == name)) for name in again]
    return [*(pair for pair in headers if pair[0] not in again), *whole]


async def read_body(headers: dict[bytes, bytes], receive: Receive, most: int = MAX_BODY) -> bytes:
    """All of it, at most 1 MiB, refused by its announced length where there is one.

    Raises request.too_large, and request.malformed where the caller hung up first: nothing is done with a part.
    """
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > most:
        raise HeadwayError("request.too_large", f"A body has at most {most} bytes.")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HeadwayError("request.malformed", "The connection ended before the body did.")
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
    """A JSON object in UTF-8, of strings that a database takes and of names that stand once, or nothing.

    Raises request.unsupported_media_type, request.malformed_json or request.invalid_parameter.
    """
    check_media(headers, body)
    if not body:
        return
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise HeadwayError("request.malformed_json", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise HeadwayError("request.malformed_json", "The body is not a JSON object.")
    if b"\\u" in body or b"\0" in body:
        _check_strings(document)


def check_media(headers: dict[bytes, bytes], body: bytes) -> None:
    """Raises request.unsupported_media_type."""
    if body and headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise HeadwayError("request.unsupported_media_type", "A body comes as it is: leave out Content-Encoding.")
    if body and media_of(headers) != b"application/json":
        raise HeadwayError("request.unsupported_media_type", "A body has to be application/json.")


def media_of(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").split(b";")[0].strip().lower()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice one value would be lost without a word, and readers differ in which."""
    made = dict(pairs)
    if len(made) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        twice = next(name for name in counted if counted[name] > 1)
        shown = twice[:100].encode("ascii", "backslashreplace").decode()
        raise HeadwayError("request.invalid_parameter", f"{shown!r} stands twice in one object.", param=shown)
    return made


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
