"""Restart, scale, suspend and resume as jobs; an environment's settings; what hosts found and mended."""

from __future__ import annotations

from typing import Any

import pytest

from headway.ids import new_id
from store.drifts import accept_repair, unmended
from store.models import Environment, Job, Rollout
from store.models_lifecycle import Drift
from tests.api.test_broker import Roles
from tests.api.test_deployments import path_of, two_environments
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def an_app(api: World, kind: str = "dynamic") -> tuple[str, str, str]:
    """The path, id and current release of a production environment that runs something."""
    site_id, env_id, _ = await two_environments(api)
    artifact = api.artifact(site_id, env_id, kind=kind)
    await api.admin.post(f"{path_of(site_id, env_id)}/deployments", json={"artifact_id": artifact})
    return path_of(site_id, env_id), env_id, api.roll(env_id)


@pytest.mark.parametrize("action", ["restart", "scale", "suspend"])
async def test_an_action_is_a_queued_job_and_one_per_idempotency_key(api: World, action: str) -> None:
    path, env_id, release = await an_app(api)
    body = {"instances": 3} if action == "scale" else {}
    headers = {"Idempotency-Key": "once-and-for-all"}
    answers = [await api.admin.post(f"{path}/{action}", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = [data(answer) for answer in answers]
    assert first["id"] == second["id"]
    assert (first["type"], first["status"]) == (f"environment.{action}", "queued")
    assert first["resource"]["type"] == "deployment"
    assert api.starts.started[-1] == (first["id"], f"environment.{action}")
    rollout = api.one(Rollout, id=first["resource"]["id"])
    assert (rollout.kind, rollout.env_id, rollout.artifact_id) == (action, env_id, None)
    api.roll(env_id)
    assert api.one(Rollout, id=rollout.id).source_release_id == release
    shown = data(await api.admin.get(f"{path}/deployments/{rollout.id}"))
    assert (shown["kind"], shown["status"]) == (action, "succeeded")
    assert data(await api.admin.get(path))["instances"] == (3 if action == "scale" else None)


async def test_an_action_is_refused_where_there_is_nothing_to_act_on(api: World) -> None:
    site_id, env_id, staging = await two_environments(api)
    for action, body in (("restart", {}), ("scale", {"instances": 2}), ("suspend", {})):
        refused = await api.admin.post(f"{path_of(site_id, staging)}/{action}", json=body)
        assert error(refused, 409)["code"] == "release.none"
    path = path_of(site_id, env_id)
    await api.admin.post(f"{path}/deployments", json={"artifact_id": api.artifact(site_id, env_id)})
    api.roll(env_id)
    for action, body in (("restart", {}), ("scale", {"instances": 2})):
        refused = await api.admin.post(f"{path}/{action}", json=body)
        assert error(refused, 409)["code"] == "environment.capability_unsupported"
    assert error(await api.admin.post(f"{path}/resume"), 409)["code"] == "environment.not_suspended"
    assert api.count(Job) == 3


@pytest.mark.parametrize("body", [{}, {"instances": 0}, {"instances": 9}, {"instances": "2"}, {"instances": 2, "x": 1}])
async def test_a_number_of_instances_is_between_one_and_eight(api: World, body: dict[str, Any]) -> None:
    path, _, _ = await an_app(api)
    assert error(await api.admin.post(f"{path}/scale", json=body), 400)["param"] in ("instances", "x")


async def test_a_suspended_environment_is_resumed_and_nothing_else(api: World) -> None:
    path, env_id, release = await an_app(api)
    first, again = [data(await api.admin.post(f"{path}/suspend")) for _ in range(2)]
    assert first["id"] == again["id"]
    api.roll(env_id)
    for action, body in (("restart", {}), ("scale", {"instances": 2}), ("suspend", {})):
        assert error(await api.admin.post(f"{path}/{action}", json=body), 409)["code"] == "environment.suspended"
    row = data(await api.admin.get(path))
    assert (row["status"], row["active_release_id"]) == ("suspended", release)
    await api.admin.post(f"{path}/resume")
    resumed = api.roll(env_id)
    row = data(await api.admin.get(path))
    assert (row["status"], row["active_release_id"]) == ("active", resumed)


async def test_a_resume_may_be_asked_for_behind_its_suspension(api: World) -> None:
    path, env_id, _ = await an_app(api)
    await api.admin.post(f"{path}/suspend")
    assert (await api.admin.post(f"{path}/resume")).status_code == 202
    api.roll(env_id)
    api.roll(env_id)
    assert data(await api.admin.get(path))["status"] == "active"


async def test_a_restart_does_not_take_the_place_of_a_push(api: World) -> None:
    path, env_id, _ = await an_app(api)
    site_id = path.split("/")[3]
    push = data(await api.admin.post(f"/v1/sites/{site_id}/deployments", json={"ref": "main", "target": env_id}))
    await api.admin.post(f"{path}/restart")
    api.roll(env_id)
    api.change(Rollout, push["resource"]["id"], status="queued", artifact_id=api.artifact(site_id, env_id, "b" * 64))
    api.roll(env_id)
    assert api.one(Rollout, id=push["resource"]["id"]).status == "succeeded"


async def test_a_rollback_of_what_is_watched_goes_to_the_current_release(api: World) -> None:
    path, env_id, release = await an_app(api)
    site_id = path.split("/")[3]
    newer = api.artifact(site_id, env_id, "b" * 64, kind="dynamic")
    job = data(await api.admin.post(f"{path}/deployments", json={"artifact_id": newer}))
    watched = job["resource"]["id"]
    refused = await api.admin.post(f"{path}/deployments/{watched}/rollback")
    assert error(refused, 409)["code"] == "deployment.in_progress"
    api.change(Rollout, watched, status="running", stage="bake")
    back = data(await api.admin.post(f"{path}/deployments/{watched}/rollback"))
    assert api.one(Rollout, id=back["resource"]["id"]).source_release_id == release


async def test_a_bake_time_is_set_within_bounds_by_who_may(api: World) -> None:
    path, env_id, _ = await an_app(api)
    assert data(await api.admin.get(path))["bake_seconds"] == 0
    assert data(await api.admin.patch(path, json={"bake_seconds": 300}))["bake_seconds"] == 300
    assert data(await api.admin.patch(path, json={}))["bake_seconds"] == 300
    for body in ({"bake_seconds": -1}, {"bake_seconds": 3601}, {"bake_seconds": True}, {"bake": 1}):
        assert error(await api.admin.patch(path, json=body), 400)["param"] in ("bake_seconds", "bake")
    assert api.one(Environment, id=env_id).bake_seconds == 300


async def test_only_who_may_write_environments_acts_and_a_stranger_sees_nothing(api: World) -> None:
    team, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    site = await api.site(alice)
    path = path_of(site["id"], site["production_env_id"])
    reader = api.client(await api.key(team, None, ["environments:read"]))
    for action, body in (("restart", {}), ("scale", {"instances": 2}), ("suspend", {}), ("resume", {})):
        assert error(await bob.post(f"{path}/{action}", json=body), 404)["code"] == "site.not_found"
        assert error(await reader.post(f"{path}/{action}", json=body), 403)["code"] == "scope.insufficient"
    assert error(await bob.get(f"{path}/drifts"), 404)["code"] == "site.not_found"
    assert error(await bob.patch(path, json={"bake_seconds": 1}), 404)["code"] == "site.not_found"
    assert error(await reader.patch(path, json={"bake_seconds": 1}), 403)["code"] == "scope.insufficient"
    assert data(await reader.get(f"{path}/drifts")) == []


# drifts


def note(env_id: str, **more: Any) -> dict[str, Any]:
    found = {"seq": 1, "kind": "contents", "what": "index.html: changed", "found_at": 1.7e9, "mended_at": None}
    return {"id": new_id("drift"), "env_id": env_id, **found, **more}


async def test_what_a_host_tells_is_one_row_and_gets_its_end(api: World) -> None:
    path, env_id, _ = await an_app(api)
    roles = Roles(api)
    found, current = note(env_id), note(env_id, kind="current", mended_at=1.7e9 + 1)
    for batch in ([found, current], [found], [{**found, "mended_at": 1.7e9 + 5}]):
        answer = await roles.ask("host", "POST", "/hosts/local/drifts", {"drifts": batch})
        assert answer.json() == {"noted": len(batch)}
    rows = {row["kind"]: row for row in data(await api.admin.get(f"{path}/drifts"))}
    assert set(rows) == {"contents", "current"}
    assert rows["contents"]["found_at"] == "2023-11-14T22:13:20.000Z"
    assert rows["contents"]["mended_at"] == "2023-11-14T22:13:25.000Z"
    assert (rows["contents"]["host_id"], rows["contents"]["job_id"]) == ("local", None)
    assert (await roles.ask("builder", "POST", "/hosts/local/drifts", {"drifts": []})).status_code == 403


async def test_a_host_tells_nothing_about_what_is_not_its_own(api: World) -> None:
    _, env_id, _ = await an_app(api)
    roles = Roles(api)
    batch = {"drifts": [note(env_id), note("env_00000000000000000000000000")]}
    assert (await roles.ask("host", "POST", "/hosts/elsewhere/drifts", batch)).status_code == 403
    assert (await roles.ask("host:elsewhere", "POST", "/hosts/elsewhere/drifts", batch)).json() == {"noted": 0}
    assert api.count(Drift) == 0
    bad = {"drifts": [note(env_id, kind="weather")]}
    assert (await roles.ask("host", "POST", "/hosts/local/drifts", bad)).status_code == 400


async def test_a_repair_is_queued_once_and_not_on_what_is_suspended(api: World) -> None:
    path, env_id, _ = await an_app(api)
    await Roles(api).ask("host", "POST", "/hosts/local/drifts", {"drifts": [note(env_id)]})
    with api.store.write() as session:
        assert unmended(session) == [env_id]
        job = accept_repair(session, env_id)
        assert job is not None
        assert (job.type, job.actor) == ("environment.repair", {"type": "system", "id": "repair"})
    with api.store.write() as session:
        assert unmended(session) == []
        assert accept_repair(session, env_id) is None
    [row] = data(await api.admin.get(f"{path}/drifts"))
    assert row["job_id"] == job.id
    assert data(await api.admin.get(f"/v1/jobs/{job.id}"))["actor"]["type"] == "system"
    api.roll(env_id)
    api.change(Environment, env_id, status="suspended")
    with api.store.write() as session:
        assert unmended(session) == []
