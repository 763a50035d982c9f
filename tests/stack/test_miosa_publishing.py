"""Publishing apps and under difficulties, through the vendor's client: health, order, replays, a sandbox that goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from miosa import Miosa
from miosa.errors import MiosaError, NotFoundError

from bench.stack import Stack
from tests.stack.sdk_surface import app, fetch

RUN: dict[str, Any] = {"run_command": "exec python3 app.py", "port": 8000, "health_check_path": "/_health"}


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Miosa]:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as made:
        yield made


def test_an_app_is_judged_before_it_is_visited(stack: Stack, client: Miosa) -> None:
    box = client.sandboxes.create(name="judged")
    box.files.write("/workspace/app.py", app("first"))
    first = box.deploy(name="Judged", **RUN)
    assert (first["promoted"], first["version"]["kind"]) == (True, "dynamic")
    assert first["services"][0]["type"] == "web"
    assert fetch(stack, first["public_url"])[1].startswith("first")
    deployment, version = first["deployment_id"], first["version_id"]
    assert first["version"]["runtime_port"] == 8000

    box.files.write("/workspace/app.py", app("ill", status=500) + "\n# ill")
    box.files.write(
        "/workspace/headway.toml", '[build]\ncommand = ""\n\n[run]\ncommand = "x"\nhealth_check_timeout = 3\n'
    )
    ill = box.deploy(deployment_id=deployment, **RUN)
    assert (ill["promoted"], ill["version"]["state"]) == (False, "failed")
    assert ill["version"]["error_message"].startswith("ROLL_HEALTH_FAILED: ")
    assert (ill["state"], ill["deployment"]["active_version_id"]) == ("running", version)
    assert fetch(stack, first["public_url"])[1].startswith("first"), "the old version serves"
    with pytest.raises(MiosaError) as refused:
        client.deployments.versions(deployment).promote(ill["version_id"])
    assert (refused.value.status_code, refused.value.code, refused.value.retryable) == (409, "VERSION_NOT_READY", False)

    box.files.write("/workspace/app.py", app("third"))
    third = box.deploy(deployment_id=deployment, **RUN)
    assert (third["promoted"], third["version"]["version_number"]) == (True, 3)
    assert fetch(stack, first["public_url"])[1].startswith("third")
    releases = client.deployments.releases(deployment)
    one, three = (client.deployments.versions(deployment).get(of) for of in (version, third["version_id"]))
    by_version = {row.deployment_version_id: row.id for row in releases.list()}
    for of, text in ((one, "first"), (three, "third"), (one, "first")):
        live = releases.promote(by_version[of.id])
        assert live.active_release_id == by_version[of.id]
        assert fetch(stack, live.public_url)[1].startswith(text)


def test_two_publishes_at_once_end_in_their_order(stack: Stack, client: Miosa) -> None:
    made = client.deployments.create(name="Twice")
    boxes = [client.sandboxes.create() for _ in range(2)]
    for number, box in enumerate(boxes):
        box.files.write("/workspace/index.html", str(number))

    def publish(box: Any) -> Any:
        with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as one:
            return one.deployments.publish(made.id, source_sandbox_id=box.id)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(publish, boxes))
    assert sorted(one.version.version_number for one in results) == [1, 2]
    last = max(results, key=lambda one: one.version.version_number)
    assert last.promoted
    now = client.deployments.get(made.id)
    assert now.active_version_id == last.version.id
    assert fetch(stack, now.public_url) == (200, str(results.index(last)))
    # The earlier one was rolled before, or its place was taken: it can be had either way.
    first = min(results, key=lambda one: one.version.version_number)
    back = client.deployments.versions(made.id).promote(first.version.id)
    assert fetch(stack, back.public_url) == (200, str(results.index(first)))


def test_a_replayed_key_joins_and_a_sandbox_may_go_meanwhile(stack: Stack, client: Miosa) -> None:
    box = client.sandboxes.create()
    box.files.write("/workspace/index.html", "kept")
    made = client.deployments.create(name="Slow", build_command="sleep 3; mkdir -p dist; cp index.html dist/")
    results: list[Any] = []

    def publish() -> None:
        with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as one:
            results.append(one.deployments.publish(made.id, source_sandbox_id=box.id, idempotency_key="once"))

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not client.deployments.versions(made.id).list():
        assert any(thread.is_alive() for thread in threads), results
    box.destroy()
    with pytest.raises(NotFoundError):
        client.sandboxes.get(box.id)
    for thread in threads:
        thread.join(120)
    assert len({one.version.id for one in results}) == 1
    assert [one.promoted for one in results] == [True] * 3
    assert len(client.deployments.versions(made.id).list()) == 1
    assert fetch(stack, results[0].deployment.public_url) == (200, "kept")
