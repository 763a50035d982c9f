"""One question to the broker as a route: read, admit, validate, answer. Everything but the reading is in one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import zstandard
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.gate import read_body
from api.internal.doorkeeper import Asker, Doorkeeper, Shown
from api.problems import JSON_TYPE, as_headway_error, from_validation, json_bytes
from headway.broker import Wire
from headway.errors import HeadwayError

MAX_BODY: Final = 64 << 20
Body = TypeVar("Body", bound=Wire)
log = logging.getLogger("headway.broker")


@dataclass(frozen=True)
class Question:
    """A row of the wire's table. `do` gets who asks, the path's name, and the body (None where there is none).

    `role` is the one that may ask, None: any. `wakes` names whose followers have something new to read.
    """

    method: str
    path: str
    role: str | None
    do: Callable[[Asker, str, Any], Wire]
    body: type[Wire] | None = None
    wakes: Callable[[str, Wire], str] | None = None


def route(question: Question, doorkeeper: Doorkeeper, poke: Callable[[str], None]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            shown, name = Shown.of(request.headers), request.path_params.get("id", "")
            raw = b""
            if question.body is not None:
                raw = await read_body(dict(request.scope["headers"]), request.receive, MAX_BODY)
            if request.headers.get("content-encoding") == "zstd":
                raw = await anyio.to_thread.run_sync(unpacked, raw)
            wire, text = await anyio.to_thread.run_sync(_work, question, doorkeeper, shown, name, raw)
        except Exception as error:
            return refuse(request, error)
        if question.wakes is not None:
            poke(question.wakes(name, wire))
        return Response(text, media_type=JSON_TYPE)

    return Route(question.path, answer, methods=[question.method])


def unpacked(raw: bytes) -> bytes:
    """A body that came compressed. Raises request.malformed_json, request.too_large."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
            body = reader.read(MAX_BODY + 1)
    except zstandard.ZstdError as error:
        raise HeadwayError("request.malformed_json", "The body is not what its encoding says.") from error
    if len(body) > MAX_BODY:
        raise HeadwayError("request.too_large", f"A body has at most {MAX_BODY} bytes.")
    return body


def _work(question: Question, doorkeeper: Doorkeeper, shown: Shown, name: str, raw: bytes) -> tuple[Wire, str]:
    asker = doorkeeper.admit(shown, question.role)
    wire = question.do(asker, name, parsed(question.body, raw) if question.body is not None else None)
    return wire, wire.model_dump_json()


def parsed(kind: type[Body], raw: bytes) -> Body:
    """Raises as a request's validation does."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise from_validation([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


def refuse(request: Request, error: Exception) -> Response:
    found = as_headway_error(error)
    if found.status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, found.code)
    return Response(json_bytes({"error": found.as_dict()}), found.status, media_type=JSON_TYPE)
