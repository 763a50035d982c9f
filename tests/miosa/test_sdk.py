"""The vendor's own client, unchanged, against the embedded stack: what it publishes is fetched at its `public_url`."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from miosa import Miosa

from bench.stack import Stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="hwm-") as folder:
        made = Stack.start(Path(folder))
        try:
            yield made
        finally:
            made.stop()


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
