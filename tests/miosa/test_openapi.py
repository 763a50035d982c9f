"""The OpenAPI document of this dialect is complete, and what is served is what it says (seeded and bounded)."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.checks import CHECKS

from api.app import create_app
from api.limits import Budgets
from tests.api.test_openapi import Served, probe, serving
from tests.api.world import begin, make_parts

CHECKED = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
# They wait for a builder, or follow what goes on.
SHORTEST = (
    "/api/v1/sandboxes",
    "/api/v1/sandboxes/{sandbox_id}/fs/write",
    "/api/v1/deployments",
    "/api/v1/deployments/{deployment_id}",
    "/api/v1/deployments/{deployment_id}/versions",
)
WAITING = ("/exec", "/exec/stream", "/logs", "/events", "/events/stream", "/readiness/stream")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("miosa")
    store = begin(folder)
    key = (folder / "admin.key").read_text().strip()
    with serving(create_app(make_parts(folder, store, Budgets(on=False)))) as address:
        yield Served(address, store, {"Authorization": f"Bearer {key}"})
    store.close()


@pytest.fixture(scope="module")
def document(server: Served) -> dict[str, Any]:
    return dict(httpx.get(f"{server.address}/api/v1/openapi.json", timeout=60).json())


def test_the_document_is_this_dialects_alone(server: Served, document: dict[str, Any]) -> None:
    assert all(path.startswith("/api/v1/") for path in document["paths"])
    assert "forge-version" not in str(document).lower()
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names)) > 60
    other = httpx.get(f"{server.address}/openapi.json", timeout=60).json()
    assert not [path for path in other["paths"] if path.startswith("/api/v1")]
    for path, methods in {
        "/api/v1/projects/{project_id}/deployments": {"post"},
        "/api/v1/deployments": {"get", "post"},
        "/api/v1/deployments/{deployment_id}": {"get", "patch", "delete"},
        "/api/v1/deployments/{deployment_id}/publish": {"post"},
        "/api/v1/deployments/{deployment_id}/rollback": {"post"},
        "/api/v1/sandboxes/{sandbox_id}/deploy": {"post"},
    }.items():
        assert methods <= set(document["paths"][path]), path
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], f"{method} {path}"
            assert {"401", "403", "404", "429"} <= set(operation["responses"])


@pytest.mark.slow
def test_what_is_served_is_what_the_document_says(server: Served, document: dict[str, Any]) -> None:
    asked = probed(server, document, lambda _: True, most=6)
    assert len(asked) > 50


def test_the_shortest_way_is_what_the_document_says(server: Served, document: dict[str, Any]) -> None:
    """From a sandbox to the versions of a deployment: the rest is in the longer tier."""
    asked = probed(server, document, lambda label: label.removeprefix("POST ").removeprefix("GET ") in SHORTEST, most=2)
    assert len(asked) >= len(SHORTEST)


def probed(server: Served, document: dict[str, Any], wanted: Callable[[str], bool], *, most: int) -> Counter[str]:
    """How often each operation was asked; what was answered is what the document says."""
    known = known_ids(server)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = server.address
    checks = [CHECKS.get_one(name) for name in CHECKED]
    asked: Counter[str] = Counter()
    untrue: dict[str, str] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        waits = operation.method.upper() == "DELETE" or operation.path.endswith(WAITING)
        if waits or not wanted(operation.label):
            continue
        try:
            probe(operation, server, known, checks, asked, most=most)
        except (Exception, BaseExceptionGroup) as failure:
            untrue[operation.label] = "".join(traceback.format_exception(failure))[-1500:]
    assert untrue == {}
    return asked


def known_ids(server: Served) -> dict[str, str]:
    """A deployment with a version, and a sandbox with a file."""
    with httpx.Client(base_url=f"{server.address}/api/v1", headers=server.headers, timeout=60) as http:
        deployment = http.post("/deployments", json={"name": "Known"}).json()["data"]
        sandbox = http.post("/sandboxes", json={}).json()["data"]["id"]
        http.post(f"/sandboxes/{sandbox}/fs/write", json={"path": "index.html", "content": "x"})
        body = {"source_sandbox_id": sandbox}
        result = http.post(f"/deployments/{deployment['id']}/publish", json=body).json()["data"]
    return {
        "deployment_id": deployment["id"],
        "sandbox_id": sandbox,
        "version_id": result["version"]["id"],
        "build_id": result["version"]["id"],
        "workspace_id": deployment["workspace_id"],
        "project_id": deployment["project_id"],
        "operation_id": result["operation_id"],
    }
