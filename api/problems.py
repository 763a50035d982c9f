"""Failures on the wire: the error envelope of contract section 5, and what becomes of every exception."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headway.errors import HeadwayError, error_object

Json = dict[str, Any]
JSON_TYPE: Final = "application/json"
log = logging.getLogger("headway.api")
# In the place of a complaint: which of several types was tried, not a part of the body.
_KINDS: Final = ("function-", "constrained-", "list[")


def problem(error: HeadwayError, request_id: str, docs_url: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"error": error_object(error, docs_url), "request_id": request_id}
    return Response(json_bytes(body), error.status, media_type=JSON_TYPE, headers=dict(headers or {}))


def json_bytes(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def as_headway_error(error: Exception) -> HeadwayError:
    """Expected failures as they are; a database that is away as 503; all else as 500 without a word of the inside."""
    if isinstance(error, HeadwayError):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    if isinstance(error, HTTPException):
        return _from_http(error)
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    ):
        log.error("database: %s", type(error).__name__)
        return HeadwayError("service.unavailable", "The database does not answer. Nothing was changed.")
    log.error("unexpected failure", exc_info=error)
    return HeadwayError("internal.error", "Something went wrong on our side. The request id finds it in the logs.")


def _from_http(error: HTTPException) -> HeadwayError:
    if error.status_code == 404:
        return HeadwayError("route.not_found", "There is nothing at this path.")
    if error.status_code == 405:
        return HeadwayError("request.method_not_allowed", "This path does not take that method.")
    if error.status_code == 400:
        return HeadwayError("request.malformed_json", "The body is not JSON.")
    log.error("unexpected HTTP failure %s", error.status_code)
    return HeadwayError("internal.error", "Something went wrong on our side.")


def from_validation(found: Sequence[Any]) -> HeadwayError:
    """The first complaint, in the words of contract section 5.3: validation is 400, never 422."""
    first = found[0]
    place = [str(part) for part in first["loc"][1:] if not str(part).startswith(_KINDS)]
    param = ".".join(place) or None
    where = str(first["loc"][0]) if first["loc"] else "body"
    kind = first["type"]
    if kind == "json_invalid":
        return HeadwayError("request.malformed_json", "The body is not JSON.")
    if kind == "extra_forbidden":
        return HeadwayError("request.unknown_parameter", f"There is no parameter {param!r} here.", param=param)
    if kind == "missing":
        if param is None and where == "body":
            return HeadwayError("request.missing_parameter", "The body is empty: send a JSON object.")
        name = param or where
        return HeadwayError("request.missing_parameter", f"The parameter {name!r} is required.", param=name)
    message = str(first["msg"]).removeprefix("Value error, ")
    return HeadwayError("request.invalid_parameter", f"{param or where}: {message}", param=param or where)
