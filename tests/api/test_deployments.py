"""Accepting work: rows, order, and what is refused (contract section 7)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from store.models import Artifact, Build, Environment, Job, Release, Rollout, utcnow
from tests.api.doubles import RecordingStarts
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio


async def two_environments(api: World) -> tuple[str, str, str]:
    site = await api.site(api.admin)
    staging = await api.environment(api.admin, site["id"], "staging", "main")
    return site["id"], site["production_env_id"], staging["id"]


def path_of(site_id: str, env_id: str) -> str:
    return f"/v1/sites/{site_id}/environments/{env_id}"


async def test_a_build_is_a_queued_job_of_the_seeds_shape(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    answer = await api.admin.post(f"{path_of(site_id, env_id)}/builds", json={"ref": "feature/checkout"})
    job = data(answer)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"] == '"queued-1"'
    assert job["type"] == "build.run"
    assert (job["status"], job["progress"], job["result"], job["error"]) == ("queued", 0, None, None)
    assert job["resource"]["type"] == "build"
    assert job["resource"]["env_id"] == env_id
    assert job["links"] == {"self": f"/v1/jobs/{job['id']}", "stream": f"/v1/jobs/{job['id']}/stream"}
    build = data(await api.admin.get(f"{path_of(site_id, env_id)}/builds/{job['resource']['id']}"))
    assert (build["status"], build["ref"], build["clean"]) == ("queued", "feature/checkout", False)
    assert build["job_id"] == job["id"]
    assert api.starts.started[-1] == (job["id"], "build.run")
    assert api.starts.labels[-1].site == "acme-store"


async def test_without_a_ref_the_environments_branch_is_built(api: World) -> None:
    site = await api.site(api.admin, default_branch="trunk")
    job = data(await api.admin.post(f"{path_of(site['id'], site['production_env_id'])}/builds"))
    assert job["resource"]["ref"] == "trunk"


async def test_a_rollout_has_the_next_number_and_becomes_a_release(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    path = path_of(site_id, env_id)
    artifact = api.artifact(site_id, env_id)
    answers = await asyncio.gather(
        *(api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}) for _ in range(8))
    )
    jobs = [data(answer) for answer in answers]
    assert {job["type"] for job in jobs} == {"deployment.roll"}
    rows = [api.one(Rollout, id=job["resource"]["id"]) for job in jobs]
    assert sorted(row.accept_seq for row in rows) == list(range(1, 9))
    assert {row.branch for row in rows} == {None}
    release = api.roll(env_id)
    first = min(rows, key=lambda row: row.accept_seq)
    shown = data(await api.admin.get(f"{path}/deployments/{first.id}"))
    assert (shown["status"], shown["release_id"], shown["kind"]) == ("succeeded", release, "deploy")
    releases = data(await api.admin.get(f"{path}/releases"))
    assert [(row["id"], row["current"], row["ref"]) for row in releases] == [(release, True, "main")]
    assert releases[0]["actor"] == {"type": "api_key", "id": shown["actor"]["id"], "label": "operator"}
    assert data(await api.admin.get(path))["active_release_id"] == release


async def test_promote_rolls_what_runs_there_without_a_build(api: World) -> None:
    site_id, production, staging = await two_environments(api)
    path = path_of(site_id, staging)
    assert error(await api.admin.post(f"{path}/promote", json={"to_env": "production"}), 409)["code"] == "release.none"
    artifact = api.artifact(site_id, staging, ref="v1")
    await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact})
    api.roll(staging)
    builds = api.count(Build)
    for name in ("production", production, "live"):
        job = data(await api.admin.post(f"{path}/promote", json={"to_env": name}))
        row = api.one(Rollout, id=job["resource"]["id"])
        assert job["type"] == "deployment.promote"
        assert (row.kind, row.env_id, row.source_env_id) == ("promote", production, staging)
        assert (row.artifact_id, row.ref) == (artifact, "v1")
    assert api.count(Build) == builds
    for itself in ("staging", staging):
        assert error(await api.admin.post(f"{path}/promote", json={"to_env": itself}), 400)["param"] == "to_env"
    assert error(await api.admin.post(f"{path}/promote", json={"to_env": "preview"}), 400)["param"] == "to_env"
    assert error(await api.admin.post(f"{path}/promote", json={"to_env": "qa"}), 404)["param"] == "to_env"


async def test_a_rollback_of_what_is_live_is_one_also_when_it_is_asked_for_after_its_end(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    path = f"{path_of(site_id, env_id)}/deployments"
    assert error(await api.admin.post(f"{path}/current/rollback"), 409)["code"] == "release.none"
    artifacts = [api.artifact(site_id, env_id, letter * 64) for letter in "ab"]
    for artifact in artifacts:
        data(await api.admin.post(path, json={"artifact_id": artifact}))
        api.roll(env_id)
    once = {"Idempotency-Key": "back"}
    back = data(await api.admin.post(f"{path}/current/rollback", headers=once))
    assert api.one(Rollout, id=back["resource"]["id"]).artifact_id == artifacts[0]
    api.roll(env_id)
    again = await api.admin.post(f"{path}/current/rollback", headers=once)
    assert (data(again)["id"], again.headers["Idempotent-Replayed"]) == (back["id"], "true")


async def test_rollback_goes_to_the_release_before_that_deployment(api: World) -> None:
    site_id, env_id, staging = await two_environments(api)
    path = path_of(site_id, env_id)
    artifacts = [api.artifact(site_id, env_id, letter * 64) for letter in "abc"]
    deployments, releases = [], []
    for artifact in artifacts:
        job = data(await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}))
        deployments.append(job["resource"]["id"])
        releases.append(api.roll(env_id))
    first = await api.admin.post(f"{path}/deployments/{deployments[0]}/rollback")
    assert error(first, 409)["code"] == "release.no_previous"
    back = data(await api.admin.post(f"{path}/deployments/{deployments[2]}/rollback"))
    row = api.one(Rollout, id=back["resource"]["id"])
    assert back["type"] == "deployment.rollback"
    assert (row.kind, row.artifact_id, row.source_release_id) == ("rollback", artifacts[1], releases[1])
    known = {"release_id": releases[0]}
    to_first = data(await api.admin.post(f"{path}/deployments/{deployments[2]}/rollback", json=known))
    assert api.one(Rollout, id=to_first["resource"]["id"]).artifact_id == artifacts[0]
    current = {"release_id": releases[2]}
    refused = await api.admin.post(f"{path}/deployments/{deployments[2]}/rollback", json=current)
    assert error(refused, 409)["code"] == "release.already_current"
    other = await api.admin.post(f"{path_of(site_id, staging)}/deployments/{deployments[0]}/rollback")
    assert error(other, 404)["code"] == "deployment.not_found"
    unknown = {"release_id": "rel_00000000000000000000000000"}
    missing = await api.admin.post(f"{path}/deployments/{deployments[2]}/rollback", json=unknown)
    assert error(missing, 404)["code"] == "release.not_found"
    api.roll(env_id)
    api.roll(env_id)
    assert [row["current"] for row in data(await api.admin.get(f"{path}/releases"))] == [True] + [False] * 4
    assert api.count(Release) == 5


async def test_a_deployment_that_never_became_a_release_has_nothing_before_it(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    path = path_of(site_id, env_id)
    artifact = api.artifact(site_id, env_id)
    job = data(await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}))
    back = f"{path}/deployments/{job['resource']['id']}/rollback"
    assert error(await api.admin.post(back), 409)["code"] == "deployment.in_progress", "it may become one"
    data(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"))
    assert error(await api.admin.post(back), 409)["code"] == "release.no_previous"


async def test_collected_artifacts_are_gone(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    path = path_of(site_id, env_id)
    artifact = api.artifact(site_id, env_id)
    api.change(Artifact, artifact, collected_at=utcnow())
    refused = error(await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}), 410)
    assert refused["code"] == "artifact.collected"
    assert data(await api.admin.get(f"{path}/artifacts")) == []
    assert error(await api.admin.get(f"{path}/artifacts/{artifact}/manifest"), 410)["type"] == "conflict"


async def test_a_push_builds_then_deploys_as_one_job(api: World) -> None:
    site_id, env_id, staging = await two_environments(api)
    job = data(await api.admin.post(f"/v1/sites/{site_id}/deployments", json={"ref": "main", "target": "staging"}))
    assert job["type"] == "deployment.push"
    rollout = api.one(Rollout, id=job["resource"]["id"])
    build = api.one(Build, id=rollout.build_id)
    assert (rollout.status, rollout.branch, rollout.env_id, rollout.accept_seq) == ("waiting", "main", staging, 1)
    assert (build.job_id, rollout.job_id) == (job["id"], job["id"])
    assert job["resource"]["build_id"] == build.id
    assert api.starts.started[-1] == (job["id"], "deployment.push")
    pinned = data(await api.admin.post(f"/v1/sites/{site_id}/deployments", json={"ref": "a" * 40, "target": env_id}))
    assert api.one(Rollout, id=pinned["resource"]["id"]).branch is None
    tag = data(await api.admin.post(f"/v1/sites/{site_id}/deployments", json={"ref": "v1~2", "target": env_id}))
    assert api.one(Rollout, id=tag["resource"]["id"]).branch is None


async def test_a_site_deployment_takes_exactly_one_source(api: World) -> None:
    site_id, env_id, _ = await two_environments(api)
    path = f"/v1/sites/{site_id}/deployments"
    artifact = api.artifact(site_id, env_id)
    build = api.one(Artifact, id=artifact).build_id
    assert error(await api.admin.post(path, json={}), 400)["code"] == "request.missing_parameter"
    both = {"ref": "main", "artifact_id": artifact}
    assert error(await api.admin.post(path, json=both), 400)["code"] == "request.invalid_parameter"
    clean = {"artifact_id": artifact, "clean": True}
    assert error(await api.admin.post(path, json=clean), 400)["param"] == "clean"
    for body in ({"build_id": build}, {"artifact_id": artifact, "target": "production"}):
        job = data(await api.admin.post(path, json=body))
        assert api.one(Rollout, id=job["resource"]["id"]).artifact_id == artifact
    running = data(await api.admin.post(f"{path_of(site_id, env_id)}/builds"))["resource"]["id"]
    assert error(await api.admin.post(path, json={"build_id": running}), 409)["code"] == "build.not_succeeded"
    unknown = {"build_id": "build_00000000000000000000000000"}
    assert error(await api.admin.post(path, json=unknown), 404)["code"] == "build.not_found"


async def test_environments_that_are_not_active_take_no_work(api: World) -> None:
    site_id, env_id, staging = await two_environments(api)
    path = path_of(site_id, env_id)
    artifact = api.artifact(site_id, env_id)
    await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact})
    api.roll(env_id)
    assert data(await api.admin.post(f"{path}/suspend"))["type"] == "environment.suspend"
    assert api.roll(env_id) == ""
    assert data(await api.admin.get(path))["status"] == "suspended"
    for suffix, body in (("builds", {}), ("deployments", {"artifact_id": artifact})):
        assert error(await api.admin.post(f"{path}/{suffix}", json=body), 409)["code"] == "environment.suspended"
    await api.admin.post(f"{path_of(site_id, staging)}/deployments", json={"artifact_id": artifact})
    api.roll(staging)
    onto = await api.admin.post(f"{path_of(site_id, staging)}/promote", json={"to_env": "production"})
    assert error(onto, 409)["code"] == "environment.suspended"
    assert data(await api.admin.post(f"{path}/resume"))["type"] == "environment.resume"
    api.roll(env_id)
    assert data(await api.admin.get(path))["status"] == "active"
    assert (await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact})).status_code == 202
    fresh = data(await api.admin.post("/v1/sites", json={"name": "Fresh"}))["resource"]
    early = await api.admin.post(f"{path_of(fresh['id'], fresh['env_id'])}/builds")
    assert error(early, 409)["code"] == "environment.not_active"


async def test_temporal_being_away_does_not_keep_work_from_being_accepted(api: World) -> None:
    from api.starting import Outbox

    site_id, env_id, _ = await two_environments(api)
    api.starts.away = True
    job = data(await api.admin.post(f"{path_of(site_id, env_id)}/builds"))
    artifact = api.artifact(site_id, env_id)
    rolls = [
        data(await api.admin.post(f"{path_of(site_id, env_id)}/deployments", json={"artifact_id": artifact}))["id"]
        for _ in range(3)
    ]
    # The application's own outbox sweeps meanwhile, by its own door.
    starts = RecordingStarts()
    outbox = Outbox(api.store, starts)
    with api.store.write() as session:
        for one in (job["id"], *rolls):
            session.get_one(Job, one).created_at = utcnow() + timedelta(minutes=1)
    assert await outbox.sweep() == 0, "what is younger than a second is left to its own request"
    with api.store.write() as session:
        for one in (job["id"], *rolls):
            row = session.get_one(Job, one)
            row.created_at = row.created_at.replace(year=2020)
    assert not starts.started
    assert await outbox.sweep() == 2, "one build, and one ring for the environment"
    assert (job["id"], "build.run") in starts.started
    with api.store.write() as session:
        session.get_one(Job, job["id"]).started_at = utcnow()
        claim_next(session, env_id)
    starts.started.clear()
    await outbox.sweep()
    assert job["id"] not in {started for started, _ in starts.started}
    assert api.one(Environment, id=env_id).accept_seq == 3
