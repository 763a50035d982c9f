"""Each exception of the client, raised by what it is there for; and in no answer a word of the other dialect."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import miosa.errors as errors
import pytest
from miosa import Miosa
from sqlmodel import select

from api.app import create_app
from api.limits import Budgets, RateLimiter
from headway.errors import HeadwayError
from store.models import Artifact, Build, Job, utcnow
from store.outcomes import append_release, succeed_build
from store.queue import claim_job, ready_rollout
from store.session import Store
from tests.api.test_openapi import serving
from tests.api.world import begin, make_parts
from tests.workflows.rows import claim_next

TRACES = ("doc_url", "forge", "site_", "build_", "art_", "/v1/sites", '"type"')


@dataclass
class Served:
    address: str
    key: str
    store: Store

    def client(self, **more: Any) -> Miosa:
        given = {"api_key": self.key, "base_url": self.address, "timeout": 60, "max_retries": 0, **more}
        return Miosa(**given)


class Fragile:
    """An object store that goes away when it is told to."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.away = inner, False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise HeadwayError("upload.failed", "The object store does not answer: ConnectTimeout.")
        return getattr(self.inner, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exceptions")


@pytest.fixture(scope="module")
def objects() -> list[Fragile]:
    return []


@pytest.fixture(scope="module")
def server(folder: Path, objects: list[Fragile]) -> Iterator[Served]:
    store = begin(folder)
    key = (folder / "admin.key").read_text().strip()
    parts = make_parts(folder, store, Budgets(on=False))
    objects.append(Fragile(parts.objects))
    parts = replace(parts, objects=objects[0], patience=0.2)
    with serving(create_app(parts)) as address:
        yield Served(address, key, store)
    store.close()


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Miosa]:
    with server.client() as made:
        yield made


def raised(call: Callable[[], Any], kind: type[errors.MiosaError], status: int, code: str) -> Any:
    """The exception, of exactly that class."""
    with pytest.raises(errors.MiosaError) as told:
        call()
    error = told.value
    assert (type(error), error.status_code, error.code) == (kind, status, code), error
    assert error.request_id
    assert error.request_id.startswith("req_")
    for trace in TRACES:
        assert trace not in str(error.body).replace("'", '"'), error.body
    return error


def version(server: Served, client: Miosa, promote: bool = True) -> tuple[str, str, str]:
    """A deployment with a version that is live: its id, the version's and the sandbox's."""
    box = client.sandboxes.create()
    box.files.write("/workspace/index.html", "x")
    made = client.deployments.create(name="x")
    result = client.deployments.publish(made.id, source_sandbox_id=box.id, promote=promote)
    job_id = str((result.model_extra or {})["operation_id"])
    with server.store.write() as session:
        claim_job(session, job_id)
        build = session.exec(select(Build).where(Build.job_id == job_id)).one()
        artifact = Artifact(
            id=f"art_{build.id[6:]}",
            site_id=build.site_id,
            digest=build.id[-26:].lower() * 2,
            kind="static",
            profile="static",
            size_bytes=1,
            files=1,
            build_id=build.id,
            commit_sha="c",
            ref=build.ref,
            key_hint="k",
            signed_at=utcnow(),
        )
        session.add(artifact)
        session.flush()
        build.artifact_id = artifact.id
        succeed_build(session, build.id)
        job = session.get_one(Job, job_id)
        if promote:
            ready_rollout(session, job.resource_id, artifact.id)
            assert claim_next(session, build.env_id) is not None
            append_release(session, job.resource_id, None)
    return made.id, result.version.id, box.id


def test_what_is_wrong_with_a_request(client: Miosa) -> None:
    d, box = client.deployments, client.sandboxes.create()
    error = raised(lambda: d.create(name=""), errors.ValidationError, 422, "VALIDATION_ERROR")
    assert error.details["errors"][0]["field"] == "name"
    raised(lambda: d.move("dep_X"), errors.ValidationError, 400, "MISSING_PARAM")
    raised(lambda: d.list(cursor="nonsense"), errors.ValidationError, 422, "INVALID_CURSOR")
    raised(lambda: box.files.write("/etc/passwd", "x"), errors.ValidationError, 422, "INVALID_FILE_PATH")
    raised(lambda: box.files.write("../x", "x"), errors.ValidationError, 422, "INVALID_FILE_PATH")
    box.files.write("/workspace/a", "x")
    raised(lambda: box.files.write("/workspace/a/b", "x"), errors.MiosaError, 409, "FILE_PATH_CONFLICT")
    made = d.create(name="empty")
    empty = client.sandboxes.create()
    raised(lambda: d.publish(made.id, source_sandbox_id=empty.id), errors.ValidationError, 422, "SANDBOX_EMPTY")


def test_who_asks(server: Served, client: Miosa) -> None:
    with server.client(api_key="msk_live_wrong") as stranger:
        raised(stranger.deployments.list, errors.AuthenticationError, 401, "invalid_token")
    made = client.api_keys.create(name="reader", scopes=["deployments:read"])
    with server.client(api_key=made["token"]) as reader:
        raised(lambda: reader.deployments.create(name="x"), errors.PermissionError, 403, "insufficient_scope")
        client.api_keys.delete(made["id"])
    with server.client(api_key=made["token"]) as reader:
        raised(reader.deployments.list, errors.AuthenticationError, 401, "invalid_token")
    with server.client(tenant="nowhere") as lost:
        raised(lost.deployments.list, errors.ValidationError, 422, "TENANT_RESOLUTION_FAILED")


def test_what_is_not_there(client: Miosa) -> None:
    for call in (
        lambda: client.deployments.get("dep_00000000000000000000000000"),
        lambda: client.deployments.get("site_00000000000000000000000000"),
        lambda: client.sandboxes.get("sbx_0"),
        lambda: client.operations.get("job_0"),
        lambda: client.projects.get("proj_0"),
        lambda: client.workspaces.get("ws_0"),
        lambda: client.api_keys.get("key_0"),
        lambda: client.sandboxes.create().files.read("/workspace/none"),
    ):
        raised(call, errors.NotFoundError, 404, "NOT_FOUND")


def test_what_clashes(server: Served, client: Miosa) -> None:
    d, name = client.deployments, "the one"
    client.workspaces.create(name)
    raised(lambda: client.workspaces.create(name), errors.WorkspaceNameExistsError, 409, "WORKSPACE_NAME_EXISTS")
    client.sandboxes.create(name="once")
    raised(lambda: client.sandboxes.create(name="once"), errors.MiosaError, 409, "SANDBOX_NAME_TAKEN")
    made = d.create(name="x", idempotency_key="k")
    assert d.create(name="x", idempotency_key="k").id == made.id
    raised(lambda: d.create(name="y", idempotency_key="k"), errors.MiosaError, 409, "IDEMPOTENCY_KEY_REUSED")
    raised(lambda: d.rollback(made.id), errors.MiosaError, 409, "NO_ACTIVE_VERSION")
    raised(lambda: d.create(name="x", database=True), errors.MiosaError, 409, "NOT_SUPPORTED")
    live, only, box = version(server, client)
    raised(lambda: d.rollback(live), errors.MiosaError, 409, "NO_PREVIOUS_VERSION")
    slow = d.publish(live, source_sandbox_id=box, promote=False)
    early = raised(lambda: d.versions(live).promote(slow.version.id), errors.MiosaError, 409, "VERSION_NOT_READY")
    assert early.retryable is True
    assert only


def test_what_was_collected(server: Served, client: Miosa) -> None:
    d = client.deployments
    made, held, _ = version(server, client, promote=False)
    with server.store.write() as session:
        row = session.exec(select(Artifact).where(Artifact.build_id == f"build_{held[4:]}")).one()
        row.collected_at = utcnow()
    raised(lambda: d.versions(made).promote(held), errors.MiosaError, 410, "ARTIFACT_COLLECTED")
    raised(lambda: d.rollback(made, version_id=held), errors.MiosaError, 410, "ARTIFACT_COLLECTED")
    release = d.releases(made).list()[0]
    assert release.state == "archived"
    raised(lambda: d.releases(made).promote(release.id), errors.MiosaError, 410, "ARTIFACT_COLLECTED")
    assert d.versions(made).get(held).state.value == "archived"


@pytest.mark.slow
def test_what_is_too_much(client: Miosa) -> None:
    box = client.sandboxes.create()
    raised(
        lambda: box.files.write("/workspace/large", b"x" * ((64 << 20) + 1)),
        errors.PayloadTooLargeError,
        413,
        "PAYLOAD_TOO_LARGE",
    )
    made = client.deployments.create(name="x")
    big = {f"V{n}": "x" for n in range(200)}
    client.deployments.set_env(made.id, big)
    raised(
        lambda: client.deployments.set_env(made.id, {"MORE": "x"}),
        errors.InsufficientCreditsError,
        402,
        "QUOTA_EXCEEDED",
    )
    assert len(client.deployments.list_env(made.id)) == 200


def test_too_fast(folder: Path, server: Served) -> None:
    with server.client() as operator:
        key = operator.api_keys.create(name="fast", scopes=["deployments:read"])["token"]
    parts = make_parts(folder, server.store, Budgets(read=2, write=2))
    assert isinstance(parts.limiter, RateLimiter)
    with serving(create_app(parts)) as address, Miosa(api_key=key, base_url=address, max_retries=0) as client:
        client.deployments.list()
        client.deployments.list()
        with pytest.raises(errors.RateLimitError) as told:
            client.deployments.list()
    assert (told.value.status_code, told.value.code) == (429, "rate_limit_exceeded")


def test_what_is_our_fault(objects: list[Fragile], client: Miosa) -> None:
    box = client.sandboxes.create()
    objects[0].away = True
    try:
        error = raised(lambda: box.files.write("/workspace/a", "x"), errors.ServerError, 503, "SERVICE_UNAVAILABLE")
        assert error.retryable is True
    finally:
        objects[0].away = False
    box.files.write("/workspace/a", "x")


def test_nobody_answers() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with Miosa(api_key="msk_live_x", base_url=address, max_retries=0) as client:
            with pytest.raises(errors.ConnectionError):
                client.deployments.list()
            held.listen()
            hasty = Miosa(api_key="msk_live_x", base_url=address, max_retries=0, timeout=0.3)
            with hasty, pytest.raises(errors.TimeoutError):
                hasty.deployments.list()


def test_a_replay_while_the_first_one_runs_waits_for_it(client: Miosa) -> None:
    """Two threads with one key make one deployment."""
    found: list[str] = []

    def make() -> None:
        found.append(client.deployments.create(name="together", idempotency_key="together").id)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
