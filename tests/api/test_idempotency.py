"""Contract section 4: one key and one request have one outcome, also under concurrency."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlmodel import select

from store.models import ApiKey, Build, Idempotency, Job, Rollout, Site, utcnow
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def env_of(api: World) -> str:
    site = await api.site(api.admin)
    return f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"


async def test_a_replay_is_the_same_job_as_it_is_now(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "once"}
    first = await api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key)
    job = data(first)
    api.change(Job, job["id"], status="running", progress=35)
    again = await api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"] == f"/v1/jobs/{job['id']}"
    assert again.headers["etag"] != first.headers["etag"]
    assert data(again) == {**job, "status": "running", "progress": 35}
    assert again.json()["request_id"] != first.json()["request_id"]
    assert "idempotent-replayed" not in first.headers
    assert api.count(Build) == 1
    assert api.starts.started.count((job["id"], "build.run")) == 1


async def test_a_failed_job_is_replayed_not_run_again(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "k"}
    job = data(await api.admin.post(f"{env}/builds", headers=key))
    api.change(Job, job["id"], status="failed", error={"code": "build.timeout", "message": "m"}, finished_at=utcnow())
    again = data(await api.admin.post(f"{env}/builds", headers=key))
    assert again["id"] == job["id"]
    assert again["error"]["code"] == "build.timeout"
    assert again["error"]["type"] == "invalid_request"


async def test_a_key_is_not_for_another_request(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "k"}
    await api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key)
    for path, body in ((f"{env}/builds", {"ref": "other"}), (f"{env}/builds", {}), ("/v1/sites", {"name": "x"})):
        refused = error(await api.admin.post(path, json=body, headers=key), 400)
        assert refused["code"] == "idempotency.key_reused"
        assert refused["param"] == "Idempotency-Key"


async def test_the_order_of_fields_and_spaces_do_not_matter(api: World) -> None:
    env = await env_of(api)
    headers = {"Idempotency-Key": "k", "content-type": "application/json"}
    one = data(await api.admin.post(f"{env}/builds", content=b'{"ref":"main","clean":true}', headers=headers))
    two = data(await api.admin.post(f"{env}/builds", content=b'{ "clean" : true, "ref": "main" }', headers=headers))
    assert one["id"] == two["id"]


@pytest.mark.parametrize("key", ["", " ", "x" * 256])
async def test_a_key_has_1_to_255_bytes(api: World, key: str) -> None:
    env = await env_of(api)
    refused = error(await api.admin.post(f"{env}/builds", headers={"Idempotency-Key": key}), 400)
    assert refused["param"] == "Idempotency-Key"


async def test_what_failed_validation_may_be_corrected_under_the_same_key(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "x" * 255}
    assert (await api.admin.post(f"{env}/builds", json={"ref": 7}, headers=key)).status_code == 400
    assert (await api.admin.post(f"{env}/promote", json={"to_env": "nowhere"}, headers=key)).status_code == 404
    assert (await api.admin.post(f"{env}/promote", json={"to_env": "production"}, headers=key)).status_code == 400
    assert api.count(Idempotency) == 0
    assert (await api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key)).status_code == 202


async def test_a_replay_comes_before_what_the_first_request_has_changed(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"
    body, key = {"kind": "preview", "branch": "feature/x"}, {"Idempotency-Key": "k"}
    first = data(await api.admin.post(path, json=body, headers=key))
    assert data(await api.admin.post(path, json=body, headers=key))["id"] == first["id"]
    assert error(await api.admin.post(path, json=body), 409)["code"] == "environment.branch_taken"


async def test_concurrent_replays_make_one_job(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "race"}
    answers = await asyncio.gather(
        *(api.admin.post(f"{env}/builds", json={"ref": "main"}, headers=key) for _ in range(24))
    )
    assert {data(answer)["id"] for answer in answers} == {data(answers[0])["id"]}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 23
    assert api.count(Build) == 1


async def test_concurrent_creations_make_one_site_and_one_push(api: World) -> None:
    key = {"Idempotency-Key": "race"}
    answers = await asyncio.gather(
        *(api.admin.post("/v1/sites", json={"name": "Race"}, headers=key) for _ in range(12))
    )
    assert len({data(answer)["resource"]["id"] for answer in answers}) == 1
    assert api.count(Site) == 1
    api.provision(data(answers[0])["id"])
    push = f"/v1/sites/{data(answers[0])['resource']['id']}/deployments"
    pushes = await asyncio.gather(
        *(api.admin.post(push, json={"ref": "main"}, headers={"Idempotency-Key": "p"}) for _ in range(12))
    )
    assert len({data(answer)["id"] for answer in pushes}) == 1
    assert (api.count(Build), api.count(Rollout)) == (1, 1)


async def test_after_a_day_a_key_is_fresh(api: World) -> None:
    env = await env_of(api)
    key = {"Idempotency-Key": "old"}
    first = data(await api.admin.post(f"{env}/builds", headers=key))
    with api.store.write() as session:
        for row in session.exec(select(Idempotency)):
            row.created_at = utcnow() - timedelta(hours=24, seconds=1)
    second = await api.admin.post(f"{env}/builds", json={"clean": True}, headers=key)
    assert data(second)["id"] != first["id"]
    assert "idempotent-replayed" not in second.headers
    assert data(await api.admin.post(f"{env}/builds", json={"clean": True}, headers=key))["id"] == data(second)["id"]


async def test_keys_of_two_tenants_do_not_meet(api: World) -> None:
    _, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    key = {"Idempotency-Key": "same"}
    one = data(await alice.post("/v1/sites", json={"name": "x"}, headers=key))
    two = await bob.post("/v1/sites", json={"name": "x"}, headers=key)
    assert data(two)["id"] != one["id"]
    assert "idempotent-replayed" not in two.headers


async def test_a_secret_is_shown_once_and_kept_nowhere(api: World) -> None:
    key = {"Idempotency-Key": "mint"}
    body = {"name": "ci", "scopes": ["sites:read"], "kind": "service"}
    first = data(await api.admin.post("/v1/api-keys", json=body, headers=key))
    again = await api.admin.post("/v1/api-keys", json=body, headers=key)
    assert again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert "secret" not in data(again)
    assert data(again)["id"] == first["id"]
    kept = api.one(Idempotency, key="mint")
    assert first["secret"] not in str(kept.body)
    api.store.engine.dispose()
    for file in api.folder.glob("headway.db*"):
        assert first["secret"].encode() not in file.read_bytes()
    assert api.one(ApiKey, id=first["id"]).secret_sha256 not in ("", first["secret"])


async def test_gets_patches_and_deletes_ignore_the_key(api: World) -> None:
    site = await api.site(api.admin)
    key = {"Idempotency-Key": "k"}
    for name in ("one", "two"):
        row = data(await api.admin.patch(f"/v1/sites/{site['id']}", json={"name": name}, headers=key))
        assert row["name"] == name
    assert (await api.admin.get("/v1/sites", headers=key)).status_code == 200
    assert api.count(Idempotency) == 0


async def test_no_fingerprint_is_made_of_a_secret(api: World) -> None:
    """A digest of a value that people choose can be guessed: under one key another value is the same request."""
    _, client = await api.tenant("Acme")
    site = await api.site(client, repository="https://git.example.com/a/b.git")
    mail = "mailtos://me:{}@mail.example.com?to=you@example.com"
    for path, first, second in (
        ("/v1/notifications", {"url": mail.format("one"), "events": ["*"]}, {"url": mail.format("two")}),
        (f"/v1/sites/{site['id']}/repository/credentials", {"kind": "token", "token": "one"}, {"token": "two"}),
    ):
        keyed = {"headers": {"Idempotency-Key": path}}
        made = data(await client.post(path, json=first, **keyed))
        again = await client.post(path, json={**first, **second}, **keyed)
        assert (data(again), again.headers["idempotent-replayed"]) == (made, "true")
