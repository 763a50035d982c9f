"""Retention over HTTP: the operator sees and starts it, a tenant keeps its own artifacts."""

from __future__ import annotations

from typing import Any

import pytest

from headway.ids import new_id
from store.models import Artifact, Job, utcnow
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def test_the_operator_sees_the_rules_and_starts_a_run(api: World) -> None:
    told = data(await api.admin.get("/v1/retention"))
    assert (told["after_seconds"], told["wait_seconds"], told["last_run"]) == (30 * 86_400, 86_400, None)
    assert told["totals"]["artifacts"] == 0
    answer = await api.admin.post("/v1/retention/runs", json={"dry_run": True}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202
    job = answer.json()["data"]
    assert (job["type"], job["resource"]["type"]) == ("retention.run", "retention")
    assert (job["id"], "retention.run") in api.starts.started
    assert api.one(Job, id=job["id"]).input == {"dry_run": True}
    again = await api.admin.post("/v1/retention/runs", json={"dry_run": True}, headers={"Idempotency-Key": "k"})
    assert again.json()["data"]["id"] == job["id"]
    assert error(await api.admin.post("/v1/retention/runs", json={"dry": True}), 400)["code"].startswith("request.")


async def test_it_is_nobody_elses(api: World) -> None:
    _, tenant = await api.tenant("Other")
    assert error(await tenant.get("/v1/retention"), 403)["code"] == "role.insufficient"
    assert error(await tenant.post("/v1/retention/runs"), 403)["code"] == "role.insufficient"


async def test_an_artifact_is_kept_while_it_is_there(api: World) -> None:
    team_id, tenant = await api.tenant("Keeper")
    site = data(await tenant.post("/v1/sites", json={"name": "Kept"}))["resource"]
    made: dict[str, Any] = {"digest": "a" * 64, "kind": "static", "profile": "static", "size_bytes": 1, "files": 1}
    row = Artifact(
        id=new_id("art"),
        site_id=site["id"],
        build_id=new_id("build"),
        commit_sha="c" * 40,
        ref="main",
        key_hint="k",
        signed_at=utcnow(),
        **made,
    )
    artifact_id = row.id
    with api.store.write() as session:
        session.add(row)
    path = f"/v1/sites/{site['id']}/environments/{site['env_id']}/artifacts/{artifact_id}"
    assert data(await tenant.get(path))["kept"] is False
    assert data(await tenant.patch(path, json={"kept": True}))["kept"] is True
    assert data(await tenant.patch(path, json={"kept": False}))["kept"] is False
    _, other = await api.tenant("Stranger")
    assert error(await other.patch(path, json={"kept": True}), 404)["code"].endswith("not_found")
    reader = api.client(await api.key(team_id, None, ["deployments:read"], kind="service"))
    assert error(await reader.patch(path, json={"kept": True}), 403)["code"] == "scope.insufficient"
    api.change(Artifact, artifact_id, collected_at=utcnow())
    assert error(await tenant.patch(path, json={"kept": True}), 410)["code"] == "artifact.collected"
