"""The OpenAPI document, true to what is served, and a page that shows it without reaching any other host."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.managed.documents import error_answers, error_schemas, errors

Json = dict[str, Any]
METHODS = ("get", "post", "patch", "put", "delete")
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: mfk_live_… or mfs_live_…"},
}
VERSION_HEADER = {
    "name": "Forge-Version",
    "in": "header",
    "required": False,
    "description": "Pins the behaviour to a date.",
    "schema": {"type": "string", "enum": ["2026-06-23"]},
}
# What changes only for `/v2`, by tag; everything else may still be found to be better otherwise (contract section 1).
STABLE = frozenset(
    (
        *("builds", "artifacts", "deployments", "jobs", "sites", "environments", "configuration", "domains"),
        *("api-keys", "account", "teams", "projects", "webhooks"),
    )
)


def openapi_of(app: FastAPI, version: str) -> Json:
    """Made once. Validation answers 400 here, so the 422 of the framework is taken out."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="Headway",
            version=version,
            summary="From a git ref to a live URL, durably.",
            openapi_version="3.1.0",
            routes=app.routes,
        )
        made.setdefault("components", {})["securitySchemes"] = SECURITY
        made["components"]["responses"] = error_answers()
        made["components"]["schemas"] |= error_schemas()
        made["security"] = [{"bearer": []}]
        for path, item in made["paths"].items():
            for method in METHODS:
                if method in item:
                    _correct(item[method], secured=path.startswith("/v1"))
        for name in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema


def _correct(operation: Json, *, secured: bool) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    if secured:
        for status in errors(body="requestBody" in operation):
            answers[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
        operation.setdefault("parameters", []).append(VERSION_HEADER)
        operation["x-stability"] = _stability(operation.get("tags", ()))
    else:
        operation["security"] = []


def _stability(tags: Iterable[str]) -> str:
    if "unsupported" in tags:
        return "experimental"
    return "stable" if STABLE.issuperset(tags) else "beta"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d8dee4}"
    "code{font:13px ui-monospace,monospace}summary{cursor:pointer;padding:.2rem 0}"
    "b{display:inline-block;width:4.5rem;font:600 12px ui-monospace,monospace}"
    "table{border-collapse:collapse;margin:.4rem 0 1rem}td,th{text-align:left;padding:.15rem .8rem .15rem 0;"
    "vertical-align:top}@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}"
)


def docs_page(document: Json) -> str:
    """Every operation by its tag: parameters, body fields, answers."""
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                shown = _operation(document, path, method, operation)
                groups.setdefault((operation.get("tags") or ["other"])[0], []).append(shown)
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(parts)}" for tag, parts in groups.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Headway API</title><style>{_STYLE}</style>'
        f"<h1>Headway API</h1><p>{html.escape(document['info'].get('summary', ''))} "
        'The whole document: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{body}</html>"
    )


def _operation(document: Json, path: str, method: str, operation: Json) -> str:
    rows = [
        (one["name"], one["in"], one.get("description", "")) for one in operation.get("parameters", []) if "name" in one
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    rows += [(name, "body", field.get("description", "")) for name, field in _fields(document, content.get("schema"))]
    table = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    answers = ", ".join(
        f"<code>{status}</code> {html.escape(answer.get('description', ''))}"
        for status, answer in operation["responses"].items()
        if "$ref" not in answer
    )
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> "
        f"{html.escape(operation.get('summary', ''))}</summary><table>{table}</table><p>{answers}</p></details>"
    )


def _fields(document: Json, schema: Json | None) -> list[tuple[str, Json]]:
    if not schema:
        return []
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            found = document["components"]["schemas"][option["$ref"].rsplit("/", 1)[1]]
            return list(found.get("properties", {}).items())
    return []
