"""The OpenAPI document of this dialect, true to what is served: `/api/v1/openapi.json`."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, create_model

from api.miosa.answers import PageBlock, Problem

Json = dict[str, Any]
Operation = dict[str, Any]
METHODS: Final = ("get", "post", "patch", "put", "delete")
_SECURITY: Final = {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key: msk_…"}}
_HEADERS: Final = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Also `error.request_id`."},
    "X-RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests a minute in this bucket."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer"}, "description": "What is left of them."},
    "X-RateLimit-Reset": {"schema": {"type": "integer"}, "description": "Unix seconds when the bucket is full."},
}
_ERRORS: Final = {
    400: "The body is malformed, or a required field is missing.",
    401: "The credential is missing, unknown, expired or revoked.",
    403: "The resource is visible; a scope is missing.",
    404: "Absent, or another organisation's.",
    405: "The path does not take this method.",
    409: "Clashes with the current state, or is out of this platform's scope.",
    410: "The artifact has been collected.",
    413: "The body, a file or a sandbox is too large.",
    415: "The body is not application/json.",
    422: "A field is invalid: `error.details` names it.",
    429: "The rate limit's bucket is empty: wait for Retry-After seconds.",
    500: "A fault on our side.",
    503: "The database or the object store does not answer.",
}


@cache
def one_of(row: type[BaseModel]) -> type[BaseModel]:
    return create_model(f"{row.__name__.removesuffix('Row')}Answer", data=(row, ...))


@cache
def many_of(row: type[BaseModel]) -> type[BaseModel]:
    return create_model(
        f"{row.__name__.removesuffix('Row')}List",
        data=(list[row], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, ...),
        page=(PageBlock, ...),
    )


def gives(row: type[BaseModel], summary: str, *statuses: int) -> Operation:
    """A route that answers with one row; the first status is the usual one (200)."""
    first, *others = statuses or (200,)
    texts = {200: "Done.", 201: "Made.", 202: "Accepted: it goes on."}
    answers = {one: {"model": one_of(row), "description": texts[one], "headers": _HEADERS} for one in (first, *others)}
    return {"summary": summary, "status_code": first, "responses": answers}


def lists(row: type[BaseModel], summary: str) -> Operation:
    answer = {"model": many_of(row), "description": "A page, newest first.", "headers": _HEADERS}
    return {"summary": summary, "responses": {200: answer}}


def gives_raw(summary: str, *media: str) -> Operation:
    """A route that answers with a document or a stream."""
    content = {one: {"schema": {"type": "string"} if one.startswith("text/") else {}} for one in media}
    return {"summary": summary, "responses": {200: {"description": "Its bytes.", "content": content}}}


def takes(body: type[BaseModel]) -> Json:
    """`openapi_extra` of a route that reads its JSON body itself."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def openapi_of(app: FastAPI, version: str) -> Json:
    """Made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="Headway, MIOSA dialect",
            version=version,
            summary="Sandboxes, deployments, versions.",
            openapi_version="3.1.0",
            routes=app.routes,
        )
        components = made.setdefault("components", {})
        components["securitySchemes"] = _SECURITY
        components["responses"] = {f"Error{status}": _error(status, text) for status, text in _ERRORS.items()}
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = components.setdefault("schemas", {})
        schemas |= {**problem.pop("$defs", {}), "Problem": problem}
        for extra in EXTRA:
            schema = extra.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**schema.pop("$defs", {}), extra.__name__: schema}
        made["security"] = [{"bearer": []}]
        for item in made["paths"].values():
            for method in METHODS:
                if method in item:
                    _correct(item[method])
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema


EXTRA: list[type[BaseModel]] = []


def _correct(operation: Json) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    for status in _ERRORS:
        if "requestBody" in operation or status not in (413, 415):
            answers.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})


def _error(status: int, text: str) -> Json:
    headers = dict(_HEADERS)
    if status == 429:
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": text, "headers": headers, "content": content}
