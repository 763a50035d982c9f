"""What the OpenAPI document says about every route: envelopes, errors, headers."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel, create_model

from api.managed.answers import JobRow, Pagination, Problem

Responses = dict[int | str, dict[str, Any]]
Operation = dict[str, Any]

_HEADERS: Final = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Also `request_id` in the body."},
    "Forge-Version": {"schema": {"type": "string"}, "description": "The version that answered."},
    "X-RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests a minute in this bucket."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer"}, "description": "What is left of them."},
    "X-RateLimit-Reset": {"schema": {"type": "integer"}, "description": "Unix seconds when the bucket is full."},
}
_JOB_HEADERS: Final = {
    **_HEADERS,
    "Location": {"schema": {"type": "string"}, "description": "The job's path."},
    "ETag": {"schema": {"type": "string"}, "description": "Changes with the job."},
    "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true` where this is a replay."},
}
_REPLAYED: Final = {name: _JOB_HEADERS[name] for name in ("Idempotent-Replayed",)}
_LOCATED: Final = {"Location": {"schema": {"type": "string"}, "description": "The path of what was made."}}
_ERRORS: Final = {
    400: "The request is malformed, or a parameter of it.",
    401: "The credential is missing, unknown, expired or revoked.",
    403: "The resource is visible; a scope or role is missing.",
    404: "Absent, or hidden from this key.",
    405: "The path does not take this method.",
    409: "Clashes with the current state.",
    410: "The artifact has been collected.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not application/json.",
    429: "A rate limit's bucket is empty: wait for Retry-After seconds.",
    500: "A fault on our side.",
    503: "The database does not answer.",
}


@cache
def one_of(row: type[BaseModel]) -> type[BaseModel]:
    """The envelope of one row."""
    return create_model(f"{row.__name__.removesuffix('Row')}Answer", data=(row, ...), request_id=(str, ...))


@cache
def many_of(row: type[BaseModel]) -> type[BaseModel]:
    """The envelope of a list."""
    return create_model(
        f"{row.__name__.removesuffix('Row')}List",
        data=(list[row], ...),  # type: ignore[valid-type]
        pagination=(Pagination, ...),
        request_id=(str, ...),
    )


def error_answers() -> dict[str, dict[str, Any]]:
    """The error answers, for the document's `components.responses`: operations refer to them by `Error<status>`."""
    found = {}
    for status, text in _ERRORS.items():
        headers = dict(_HEADERS)
        if status == 429:
            headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[f"Error{status}"] = {"description": text, "headers": headers, "content": content}
    return found


def error_schemas() -> dict[str, Any]:
    """`Problem` and what it is made of."""
    made = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**made.pop("$defs", {}), "Problem": made}


def errors(*, body: bool) -> list[int]:
    """The statuses that an operation may fail with."""
    return [status for status in _ERRORS if body or status not in (413, 415)]


def gives(row: type[BaseModel], summary: str, *, status: int = 200, located: bool = False) -> Operation:
    """A route that answers with one row; `located` as for `Call.create`."""
    headers = _HEADERS | (_REPLAYED if status == 201 else {}) | (_LOCATED if located else {})
    answer = {"model": one_of(row), "description": "Done.", "headers": headers}
    return {"summary": summary, "status_code": status, "responses": {status: answer}}


def lists(row: type[BaseModel], summary: str) -> Operation:
    """A route that answers with a page of rows, newest first."""
    answer = {"model": many_of(row), "description": "A page, newest first.", "headers": _HEADERS}
    return {"summary": summary, "responses": {200: answer}}


def lists_or_streams(row: type[BaseModel], summary: str) -> Operation:
    """A route that answers with rows, oldest first, or with `Accept: text/event-stream` follows them."""
    operation = lists(row, summary)
    answer = {**operation["responses"][200], "description": "Rows, oldest first; `next_cursor` leads to earlier ones."}
    answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return {**operation, "responses": {200: answer}}


def starts_job(summary: str) -> Operation:
    """A route that starts work and answers 202 with its job."""
    answer = {"model": one_of(JobRow), "description": "Accepted: follow the job.", "headers": _JOB_HEADERS}
    return {"summary": summary, "status_code": 202, "responses": {202: answer}}


def gives_raw(summary: str, media: str, what: str) -> Operation:
    """A route that answers with a document or a stream."""
    schema = {"type": "string"} if media.startswith("text/") else {}
    answer = {"description": what, "content": {media: {"schema": schema}}, "headers": _HEADERS}
    return {"summary": summary, "responses": {200: answer}}
