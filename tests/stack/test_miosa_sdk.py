"""The vendor's own client, unchanged, against the embedded stack: what it publishes is fetched at its `public_url`."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from miosa import AsyncMiosa, Miosa
from miosa.errors import (
    AuthenticationError,
    MiosaError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionError,
    ValidationError,
    WorkspaceNameExistsError,
)

from bench.stack import Stack
from tests.faults.parts import kill


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Miosa]:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as made:
        yield made


def fetch(stack: Stack, url: str | None, path: str = "/") -> tuple[int, str]:
    """One GET at 127.0.0.1 with the address's Host: `*.localhost` need not resolve."""
    assert url is not None
    connection = http.client.HTTPConnection("127.0.0.1", stack.sites_port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": urlsplit(url).hostname or ""})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_whole_way_of_a_static_site(stack: Stack, client: Miosa) -> None:
    sandbox = client.sandboxes.create(name="clinic", external_workspace_id="clinic_123")
    assert sandbox.wait_until_ready()
    sandbox.files.write("/workspace/index.html", "<h1>one</h1>")
    sandbox.files.write_files([{"path": "/workspace/a/b.txt", "data": "b"}, {"path": "c.bin", "data": b"\0\xff"}])
    assert sandbox.files.read("/workspace/c.bin") == b"\0\xff"
    deployment = client.deployments.create(name="Smile Dental", external_workspace_id="clinic_123")
    assert deployment.state.value == "pending"

    first = client.deployments.publish(deployment.id, source_sandbox_id=sandbox.id)
    assert first.promoted, first.version.model_extra
    assert (first.version.state.value, first.version.version_number) == ("ready", 1)
    assert first.deployment.state.value == "running"
    assert first.deployment.active_version_id == first.version.id
    assert fetch(stack, first.deployment.public_url) == (200, "<h1>one</h1>")
    assert fetch(stack, first.deployment.public_url, "/a/b.txt") == (200, "b")

    sandbox.files.write("/workspace/index.html", "<h1>two</h1>")
    held = client.deployments.publish(deployment.id, source_sandbox_id=sandbox.id, promote=False)
    assert (held.promoted, held.version.state.value) == (False, "ready")
    assert fetch(stack, first.deployment.public_url) == (200, "<h1>one</h1>")
    promoted = client.deployments.versions(deployment.id).promote(held.version.id)
    assert promoted.active_version_id == held.version.id
    assert fetch(stack, promoted.public_url) == (200, "<h1>two</h1>")

    back = client.deployments.rollback(deployment.id)
    assert back.active_version_id == first.version.id
    assert fetch(stack, back.public_url) == (200, "<h1>one</h1>")
    assert [one.version_number for one in client.deployments.versions(deployment.id).list()] == [2, 1]


def test_a_command_runs_in_the_sandbox_and_its_files_are_published(stack: Stack, client: Miosa) -> None:
    sandbox = client.sandboxes.create(name="builder", env={"WORD": "kept", "X": "0"})
    sandbox.files.write("/workspace/src/page.txt", "made by a command")
    script = (
        "mkdir -p dist && cp src/page.txt dist/index.html && rm src/page.txt && ln -s dist out"
        " && printf $WORD$X; exit 3"
    )
    result = sandbox.exec.run(script, {"env": {"X": "1"}, "timeout": 60})
    assert (result.stdout, result.exit_code) == ("kept1", 3)
    assert sandbox.files.read("/workspace/dist/index.html") == b"made by a command"
    with pytest.raises(NotFoundError):
        sandbox.files.read("/workspace/src/page.txt")
    events = list(sandbox.exec_stream("cat out/index.html; echo; echo problem >&2; id -u; ls /etc/shadow"))
    lines = [event.data.get("line") for event in events if event.type in ("stdout", "stderr")]
    assert {"made by a command", "problem"} <= set(lines)
    assert "0" not in lines
    published = sandbox.deploy(name="From a command", output_path="/workspace/dist")
    assert published["state"] == "running"
    assert fetch(stack, published["public_url"]) == (200, "made by a command")


def test_a_killed_api_loses_nothing_that_it_acknowledged(stack: Stack) -> None:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=60, max_retries=0) as client:
        sandbox = client.sandboxes.create(name="lasting")
        for number in range(5):
            sandbox.files.write(f"/workspace/{number}.txt", str(number))
        kill(stack, "api")
        deadline = time.monotonic() + 60
        while True:
            try:
                found = client.sandboxes.get_by_name("lasting")
                break
            except (MiosaError, httpx.HTTPError):
                assert time.monotonic() < deadline, "the API never came back"
                time.sleep(0.1)
        assert [found.files.read(f"/workspace/{number}.txt") for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_each_error_is_its_exception(client: Miosa, stack: Stack) -> None:
    sandbox = client.sandboxes.create()
    with pytest.raises(NotFoundError):
        client.deployments.get("dep_unknown")
    with pytest.raises(ValidationError):
        sandbox.files.write("/etc/passwd", "x")
    with pytest.raises(PayloadTooLargeError):
        sandbox.files.write("/workspace/large", b"x" * (1 << 21))
    with pytest.raises(MiosaError) as refused:
        client.deployments.create(name="x", database=True)
    assert (refused.value.status_code, refused.value.code) == (409, "NOT_SUPPORTED")
    stranger = Miosa(api_key="msk_live_wrong", base_url=stack.api, max_retries=0)
    with stranger, pytest.raises(AuthenticationError):
        stranger.deployments.list()
    made = client.api_keys.create(name="reader", scopes=["deployments:read"])
    assert made["token"].startswith("msk_live_")
    with Miosa(api_key=made["token"], base_url=stack.api, max_retries=0) as reader:
        assert isinstance(reader.deployments.list(), list)
        with pytest.raises(PermissionError):
            reader.deployments.create(name="x")
        client.api_keys.delete(made["id"])
        with pytest.raises(AuthenticationError):
            reader.deployments.list()


def test_who_things_belong_to(client: Miosa) -> None:
    home = client.workspaces.create("Dr. Smith", external_workspace_id="clinic_9")
    project = client.projects.create("Landing", workspace_id=_id(home))
    assert project["workspace_id"] == _id(home)
    assert project["id"] in [row["id"] for row in client.projects.list(workspace_id=_id(home))]
    deployment = client.deployments.create(name="Owned", external_workspace_id="clinic_9")
    assert deployment.workspace_id == _id(home)
    again = client.workspaces.create("Another name", external_workspace_id="clinic_9")
    assert _id(again) == _id(home)
    with pytest.raises(WorkspaceNameExistsError):
        client.workspaces.create("Dr. Smith")
    assert client.projects.update(project["id"], description="new")["description"] == "new"
    client.projects.delete(project["id"])
    environments = client.deployment_environments.list()
    assert deployment.id in str(environments)


def _id(row: object) -> str:
    return str(row["id"] if isinstance(row, dict) else row.id)  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_the_asynchronous_client_does_the_same(stack: Stack) -> None:
    async with AsyncMiosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as client:
        sandbox = await client.sandboxes.get_or_create("async", wait_until_ready=True)
        await sandbox.files.write("/workspace/index.html", "one")
        first = await client.deployments.publish_from_sandbox(sandbox.id, name="Async")
        deployment_id = first["deployment_id"]
        assert fetch(stack, first["public_url"]) == (200, "one")
        await sandbox.files.write("/workspace/index.html", "two")
        second = await client.deployments.publish(deployment_id, source_sandbox_id=sandbox.id)
        assert fetch(stack, second.deployment.public_url) == (200, "two")
        one, two = first["release_id"], second.release
        assert two is not None
        for release, text in ((one, "one"), (two.id, "two"), (one, "one")):
            live = await client.deployments.releases(deployment_id).promote(release)
            assert (live.active_release_id, fetch(stack, live.public_url)) == (release, (200, text))
        back = await client.deployments.rollback(deployment_id, version_id=second.version.id)
        assert back.active_version_id == second.version.id
        assert "uploaded" in await client.deployments.version_logs(deployment_id, second.version.id)
        assert (await client.deployments.prove(deployment_id))["ok"]
        assert (await client.deployments.proof(deployment_id))["ok"]
        rows = await client.deployments.list(state="running")
        assert deployment_id in [row.id for row in rows]
        assert await client.deployments.runtime_instances(deployment_id).list() == []
        stopped = await client.deployments.stop(deployment_id)
        assert (stopped.state.value, stopped.active_version_id) == ("stopped", None)
        assert fetch(stack, stopped.public_url)[0] == 404
        again = await client.deployments.versions(deployment_id).promote(second.version.id)
        assert (again.state.value, fetch(stack, again.public_url)) == ("running", (200, "two"))
        assert (await client.deployments.redeploy(deployment_id)).state.value == "running"
        assert (await client.deployments.update(deployment_id, name="Renamed")).name == "Renamed"
        await client.deployments.delete(deployment_id)
        with pytest.raises(NotFoundError):
            await client.deployments.get(deployment_id)
