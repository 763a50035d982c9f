"""The OpenAPI document is complete, and what is served is what it says (schemathesis, seeded and bounded)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
import uvicorn
from schemathesis.checks import CHECKS, load_all_checks

from activities.ledger import Ledger
from activities.recorder import Recorder
from adapters.signer.keys import create_key
from api.app import create_app
from api.limits import Budgets
from store.outcomes import activate, end_job
from store.queue import claim_job
from store.session import Store
from tests.api.doubles import MemoryObjects
from tests.api.world import begin, make_parts

load_all_checks()
CHECKED = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "missing_required_header", "negative_data_rejection"),
)


UNPROBED = ("prefer", "forge-version", "accept")


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a port of its own, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass(frozen=True)
class Served:
    address: str
    store: Store
    headers: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openapi")
    store = begin(folder)
    key = (folder / "admin.key").read_text().strip()
    signing = create_key(folder / "keys")
    ledger = Ledger.open(store, folder / "ledger", "ledger.example.test")
    recorder = Recorder(store, MemoryObjects(), ledger, signing, folder / "ledger")
    recorder.adopt()
    recorder.announce()
    with serving(create_app(make_parts(folder, store, Budgets(on=False)))) as address:
        yield Served(address, store, {"Authorization": f"Bearer {key}"})
    store.close()


@pytest.fixture(scope="module")
def document(server: Served) -> dict[str, Any]:
    return dict(httpx.get(f"{server.address}/openapi.json", timeout=60).json())


def below(document: dict[str, Any], path: str) -> list[str]:
    """The path of one row of a collection."""
    return [one for one in document["paths"] if one.startswith(path + "/{") and one.count("/") == path.count("/") + 1]


def test_every_operation_says_what_it_takes_and_gives(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    names = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names.append(operation["operationId"])
            assert operation["summary"], f"{method} {path}"
            assert operation["tags"]
            answers = operation["responses"]
            assert "422" not in answers
            assert {"400", "401", "403", "404", "429", "500"} <= set(answers)
            headers = {one["name"].lower() for one in operation.get("parameters", []) if one["in"] == "header"}
            assert "forge-version" in headers
            assert ("idempotency-key" in headers) is (method == "post"), f"{method} {path}"
            if "202" in answers:
                assert {"Location", "ETag"} <= set(answers["202"]["headers"])
            if "201" in answers and any("get" in document["paths"][one] for one in below(document, path)):
                assert "Location" in answers["201"]["headers"], f"{method} {path}"
    assert len(names) == len(set(names))
    job = document["paths"]["/v1/jobs/{job_id}"]["get"]
    assert {"prefer", "if-none-match"} <= {one["name"] for one in job["parameters"] if one["in"] == "header"}
    assert "304" in job["responses"]
    stream = document["paths"]["/v1/jobs/{job_id}/stream"]["get"]
    assert "last-event-id" in {one["name"] for one in stream["parameters"] if one["in"] == "header"}


def test_the_seeds_paths_are_there(document: dict[str, Any]) -> None:
    e = "/v1/sites/{site_id}/environments/{env_id}"
    wanted = {
        f"{e}/builds": {"get", "post"},
        f"{e}/builds/{{build_id}}": {"get"},
        f"{e}/artifacts": {"get"},
        f"{e}/deployments": {"get", "post"},
        f"{e}/deployments/{{deployment_id}}/rollback": {"post"},
        f"{e}/promote": {"post"},
        f"{e}/releases": {"get"},
    }
    for path, methods in wanted.items():
        assert methods <= set(document["paths"][path]), path


def test_the_page_of_the_documents_reaches_no_other_host(server: Served) -> None:
    page = httpx.get(f"{server.address}/docs", timeout=60).text
    assert "/v1/sites/{site_id}" in page
    for part in ("<script", "<link", "src=", 'href="http', "@import", "url("):
        assert part not in page


@pytest.mark.slow
@pytest.mark.parametrize("most", [2, 10])
def test_what_is_served_is_what_the_document_says(server: Served, document: dict[str, Any], most: int) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = server.address
    checks = [CHECKS.get_one(name) for name in CHECKED]
    known = a_site(server, f"Known {most}")
    asked: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.endswith("/stream") and operation.method.upper() != "DELETE":
            probe(operation, server, known, checks, asked, most=most)
    assert len(asked) > 45
    assert sum(asked.values()) > 2 * len(asked) - 20


def probe(
    operation: Any, server: Served, known: dict[str, str], checks: list[Any], asked: Counter[str], *, most: int
) -> None:
    """A few cases of one operation, good and bad ones."""

    @hypothesis.seed(20260623)
    @hypothesis.settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        # Ids that exist, where there are any: behind them lies more than a 404.
        case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if case.query and "wait" in case.query:
            case.query["wait"] = 0
        kept = {name: value for name, value in (case.headers or {}).items() if name.lower() not in UNPROBED}
        case.headers = {**kept, **server.headers}
        answer = case.call(timeout=60)
        asked[operation.label] += 1
        case.validate_response(answer, checks=checks)

    ask()


def a_site(server: Served, name: str) -> dict[str, str]:
    """Ids of a site that is active, of its team and of a job."""
    made = httpx.post(f"{server.address}/v1/sites", json={"name": name}, headers=server.headers).json()["data"]
    with server.store.write() as session:
        job = claim_job(session, made["id"])
        activate(session, job.env_id or "")
        end_job(session, job, "succeeded", result={})
    team = httpx.get(f"{server.address}/v1/account", headers=server.headers).json()["data"]["team"]["id"]
    site = made["resource"]
    return {"site_id": site["id"], "env_id": site["env_id"], "team_id": team, "job_id": made["id"]}


def test_deletions_answer_as_the_document_says(server: Served) -> None:
    made = httpx.post(f"{server.address}/v1/sites", json={"name": "Doomed"}, headers=server.headers)
    site = made.json()["data"]["resource"]["id"]
    answer = httpx.delete(f"{server.address}/v1/sites/{site}", headers=server.headers)
    assert (answer.status_code, answer.json()["data"]["type"]) == (202, "site.delete")
    unknown = httpx.delete(f"{server.address}/v1/api-keys/key_0000", headers=server.headers)
    assert unknown.status_code == 404


def test_no_name_of_ours_stands_in_the_document(document: dict[str, Any]) -> None:
    """Two models of one name would be told apart by the modules that they are in."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_each_operation_says_how_stable_it_is(document: dict[str, Any]) -> None:
    said = {
        (method.upper(), path): operation.get("x-stability")
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/v1/")
    }
    env = "/v1/sites/{site_id}/environments/{env_id}"
    assert said["POST", f"{env}/builds"] == said["GET", "/v1/jobs/{job_id}"] == "stable"
    assert said["GET", "/v1/ledger/checkpoint"] == "beta"
    assert said["POST", f"{env}/clone-content"] == "experimental"
    assert set(said.values()) == {"stable", "beta", "experimental"}
