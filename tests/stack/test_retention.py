"""Collection on a stack of its own, where nothing is kept for long: by hand and by itself, during builds and rolls."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from miosa import Miosa
from miosa.errors import MiosaError

from bench.client import Caller
from bench.stack import HEADWAY, Stack
from tests.stack.sdk_surface import fetch

pytestmark = pytest.mark.slow
SETTINGS = {
    "HEADWAY_ARTIFACT_RETENTION_DAYS": "0",
    "HEADWAY_COLLECTION_WAIT_HOURS": "0",
    "HEADWAY_WARM_SECONDS": "0.1",
    "HEADWAY_DRAIN_SECONDS": "0.5",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="hwk-") as folder:
        made = Stack.start(Path(folder), env=SETTINGS)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Miosa]:
    with Miosa(api_key=stack.key, base_url=stack.api, timeout=120, max_retries=0) as made:
        yield made


def headway(stack: Stack, *words: str) -> Any:
    done = subprocess.run(
        [*HEADWAY, *words, "--json", "--api-url", stack.api, "--token", stack.key],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(stack: Stack, *more: str) -> Any:
    return headway(stack, "retention", "run", "--wait", *more)["result"]


def test_what_was_replaced_goes_and_says_so_in_both_dialects(stack: Stack, client: Miosa) -> None:
    box = client.sandboxes.create()
    made = client.deployments.create(name="Forgetful")
    versions = []
    for text in ("kept", "gone", "live"):
        box.files.write("/workspace/index.html", text)
        versions.append(client.deployments.publish(made.id, source_sandbox_id=box.id).version)
    kept, gone, live = versions
    artifacts = {row.deployment_version_id: f"art_{row.id[4:]}" for row in client.deployments.releases(made.id).list()}
    assert headway(stack, "artifacts", "keep", artifacts[kept.id])["kept"] is True
    counted = run(stack, "--dry-run")
    assert (counted["marked"], counted["collected"]) == (1, 0)
    assert run(stack)["marked"] == 1
    done = run(stack)
    assert (done["collected"], done["objects"] >= 3) == (1, True)
    report = headway(stack, "retention", "report")
    assert (report["totals"]["collected"], report["totals"]["kept"]) == (1, 1)
    assert report["last_run"]["collected"] == 1

    with pytest.raises(MiosaError) as refused:
        client.deployments.rollback(made.id, version_id=gone.id)
    assert (refused.value.status_code, refused.value.code) == (410, "ARTIFACT_COLLECTED")
    assert client.deployments.versions(made.id).get(gone.id).state.value == "archived"
    caller = Caller(stack)
    site_id = f"site_{made.id[4:]}"
    env_id = caller.http.get(f"/v1/sites/{site_id}").json()["data"]["production_env_id"]
    path = f"/v1/sites/{site_id}/environments/{env_id}"
    answer = caller.http.post(f"{path}/deployments", json={"artifact_id": artifacts[gone.id]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "artifact.collected")
    assert caller.http.get(f"{path}/artifacts/{artifacts[gone.id]}/manifest").status_code == 410
    assert artifacts[gone.id] not in caller.http.get(f"{path}/artifacts").text
    caller.http.close()

    back = client.deployments.rollback(made.id, version_id=kept.id)
    assert fetch(stack, back.public_url) == (200, "kept")
    # The same bytes once more: what was collected is made anew, and can be had again.
    box.files.write("/workspace/index.html", "gone")
    again = client.deployments.publish(made.id, source_sandbox_id=box.id)
    assert again.promoted, again.version.model_extra
    assert again.version.artifact_sha256 == gone.artifact_sha256
    assert fetch(stack, again.deployment.public_url) == (200, "gone")
    assert live.id


def test_what_a_deleted_sandbox_held_goes_and_what_a_version_came_from_stays(stack: Stack, client: Miosa) -> None:
    run(stack)
    run(stack)
    before = headway(stack, "retention", "report")["totals"]
    box, lost = client.sandboxes.create(), client.sandboxes.create()
    box.files.write("/workspace/index.html", "a source that stays")
    box.files.write("/workspace/index.txt", "one that was never published")
    lost.files.write("/workspace/index.html", "a sandbox that goes")
    made = client.deployments.create(name="Sourced")
    box.files.write("/workspace/index.txt", "")
    first = client.deployments.publish(made.id, source_sandbox_id=box.id)
    assert first.promoted, first.version.model_extra
    box.destroy()
    lost.destroy()
    run(stack)
    counted = run(stack, "--dry-run")
    assert counted["sandbox_packs"] == 0, "they are marked"
    told = run(stack)
    assert told["sandbox_packs"] >= 2, told
    after = headway(stack, "retention", "report")["totals"]
    assert after["sandbox_packs"] == before["sandbox_packs"] + 2, "the page, and the emptied file"
    assert after["snapshots"] == before["snapshots"] + 1
    again = client.deployments.redeploy(made.id)
    assert again.state.value == "running"
    assert fetch(stack, again.public_url) == (200, "a source that stays")


def test_a_collection_that_runs_all_the_time_takes_nothing_from_builds_and_rolls(stack: Stack, client: Miosa) -> None:
    """Two sites are published and promoted without a pause, back to bytes that may just be going; beside them
    sandboxes of the same contents are written, read and deleted."""
    over, taken = threading.Event(), []

    def collect() -> None:
        while not over.is_set():
            taken.append(run(stack))

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    try:
        sites = [(client.deployments.create(name=f"Busy {n}").id, client.sandboxes.create()) for n in range(2)]
        for number in range(12):
            for site, box in sites:
                text = f"edition {number % 3}"
                box.files.write("/workspace/index.html", text)
                box.files.write(f"/workspace/assets/{number % 2}.txt", "a" * 1_000)
                short = client.sandboxes.create()
                short.files.write("/workspace/index.html", text)
                short.files.write("/workspace/other.html", f"other {number % 3}")
                assert short.files.read("/workspace/other.html").decode() == f"other {number % 3}"
                short.destroy()
                result = client.deployments.publish(site, source_sandbox_id=box.id)
                assert result.promoted, result.version.model_extra
                assert fetch(stack, result.deployment.public_url) == (200, text)
    finally:
        over.set()
        collector.join(180)
    assert sum(one["collected"] for one in taken) > 0
    assert sum(one["sandbox_packs"] for one in taken) > 0
    for site, _ in sites:
        live = client.deployments.get(site)
        assert fetch(stack, live.public_url) == (200, "edition 2")
        assert (client.deployments.redeploy(site)).state.value == "running"
