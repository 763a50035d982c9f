"""Hosts: let in by the operator, each with a credential that opens what it has a part in and nothing else."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from adapters.config.sealed import make_host_key, public_of
from adapters.router.routes import add_route, leads_of, set_routes
from store.domains import DomainRequest, Looked, add_domain, note_look
from store.drifts import accept_repair, unmended
from store.fleet import settle_hosts
from store.hosts import register_host
from store.locks import set_lock
from store.models import Environment, Idempotency, Release, Rollout, Site, utcnow
from store.models_lifecycle import Drift
from store.outcomes import record_live
from tests.api.test_broker import Roles, failure
from tests.api.world import World, data, error
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio


async def a_rollout(api: World, hosts: list[str]) -> tuple[str, str]:
    """The environment, and a rollout to these hosts that is being carried out."""
    site = await api.site(api.admin, "Shop")
    env = site["production_env_id"]
    api.change(Environment, env, hosts=hosts)
    artifact = api.artifact(site["id"], env, "a" * 64)
    path = f"/v1/sites/{site['id']}/environments/{env}"
    job = data(await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}))
    with api.store.write() as session:
        claim_next(session, env)
    return env, job["resource"]["id"]


async def test_only_the_operator_lets_a_host_in_and_its_credential_is_shown_once(api: World) -> None:
    made = data(await api.admin.post("/v1/hosts", json={"id": "two", "labels": ["eu", "eu", "disk=ssd"]}))
    assert (made["id"], made["labels"], made["public_key"]) == ("two", ["disk=ssd", "eu"], None)
    assert made["credential"].startswith("hwh_")
    assert "credential" not in data(await api.admin.get("/v1/hosts/two"))
    assert error(await api.admin.post("/v1/hosts", json={"id": "two"}), 409)["code"] == "host.exists"
    for bad in ({"id": "../two"}, {"id": "x", "labels": ["a b"]}, {"id": ""}, {}):
        assert (await api.admin.post("/v1/hosts", json=bad)).status_code == 400
    renewed = data(await api.admin.post("/v1/hosts/two/credential"))["credential"]
    roles = Roles(api)
    for secret, status in ((made["credential"], 401), (renewed, 200)):
        assert (await roles.ask(secret, "GET", "/health")).status_code == status
    assert data(await api.admin.delete("/v1/hosts/two"))["deleted"] is True
    assert (await roles.ask(renewed, "GET", "/health")).status_code == 401


@pytest.mark.parametrize("noun", ["hosts", "builders"])
async def test_a_machine_is_let_in_once_under_a_key_and_its_credential_is_kept_nowhere(api: World, noun: str) -> None:
    once = {"Idempotency-Key": "first"}
    first = await api.admin.post(f"/v1/{noun}", json={"id": "two"}, headers=once)
    again = await api.admin.post(f"/v1/{noun}", json={"id": "two"}, headers=once)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    credential = data(first)["credential"]
    assert data(again) == {**data(first), "credential": ""}
    other = await api.admin.post(f"/v1/{noun}", json={"id": "three"}, headers=once)
    assert error(other, 400)["code"] == "idempotency.key_reused"

    renew, path = {"Idempotency-Key": "second"}, f"/v1/{noun}/two/credential"
    renewed = data(await api.admin.post(path, headers=renew))["credential"]
    assert data(await api.admin.post(path, headers=renew))["credential"] == ""
    roles = Roles(api)
    for secret, status in ((credential, 401), (renewed, 200)):  # a replay has ended nothing
        assert (await roles.ask(secret, "GET", "/health")).status_code == status
    with api.store.read() as session:
        kept = [json.dumps(row.body) for row in session.exec(select(Idempotency))]
    assert len(kept) == 2
    assert not [body for body in kept for secret in (credential, renewed) if secret in body]


async def test_a_host_has_no_way_to_what_it_has_no_part_in(api: World) -> None:
    roles = Roles(api)
    env, rollout = await a_rollout(api, ["two"])
    told: dict[str, Any] = {"source": f"{rollout}/three", "first": 1, "events": []}
    job = api.one(Rollout, id=rollout).job_id
    for role in ("host", "host:three"):
        for method, path, body in (
            ("POST", f"/rollouts/{rollout}/commit", None),
            ("GET", f"/rollouts/{rollout}", None),
            ("POST", f"/rollouts/{rollout}/ready", {"digest": "d", "keyring_sha256": "k"}),
            ("POST", f"/jobs/{job}/take", {}),
            ("GET", f"/rollouts/{rollout}/config", None),
            ("GET", f"/environments/{env}/hostnames", None),
            ("POST", f"/jobs/{job}/events", told),
        ):
            assert (await roles.ask(role, method, path, body)).status_code == 404, path
        assert failure(await roles.ask(role, "PUT", "/hosts/two", {"public_key": "k"}), 403) == "role.insufficient"
    assert (await roles.ask("host:two", "GET", f"/environments/{env}/hostnames")).status_code == 200
    assert (await roles.ask("host:two", "POST", f"/rollouts/{rollout}/commit")).status_code == 200


async def test_no_single_one_of_several_hosts_passes_the_gate(api: World) -> None:
    roles = Roles(api)
    _, rollout = await a_rollout(api, ["local", "two"])
    for role in ("host", "host:two"):
        answer = await roles.ask(role, "POST", f"/rollouts/{rollout}/commit")
        assert failure(answer, 404) == "deployment.not_found"
    assert (
        await roles.ask(
            "host:two",
            "POST",
            f"/jobs/{api.one(Rollout, id=rollout).job_id}/events",
            {"source": "x", "first": 1, "events": []},
        )
    ).status_code == 200


async def test_environments_go_where_their_labels_are_and_leave_where_they_were(api: World, tmp_path: Path) -> None:
    roles = Roles(api)
    env, rollout = await a_rollout(api, ["local"])
    with api.store.write() as session:
        settle_hosts(session, session.get_one(Rollout, rollout), ())
    path = f"/v1/sites/{api.one(Environment, id=env).site_id}/environments/{env}"
    refused = await api.admin.patch(path, json={"host_labels": ["eu"]})
    assert error(refused, 409)["code"] == "host.none_fits"
    data(await api.admin.post("/v1/hosts", json={"id": "two", "labels": ["eu"]}))
    assert error(await api.admin.patch(path, json={"host_labels": ["eu"]}), 409)["code"] == "host.none_fits"
    make_host_key(tmp_path / "key")
    with api.store.write() as session:
        register_host(session, "two", public_of(tmp_path / "key"))
        session.get_one(Rollout, rollout).status = "succeeded"
    row = data(await api.admin.patch(path, json={"host_labels": ["eu"], "away": "skip"}))
    assert (row["host_labels"], row["away"], row["hosts"]) == (["eu"], "skip", ["local"])
    artifact = api.artifact(row["site_id"], env, "b" * 64)
    job = data(await api.admin.post(f"{path}/deployments", json={"artifact_id": artifact}))
    with api.store.write() as session:
        claim_next(session, env)
        moved = session.get_one(Rollout, job["resource"]["id"])
        assert moved.hosts == ["two"]
        settle_hosts(session, moved, ())
        moved.status = "succeeded"
    left = await roles.ask("host", "POST", "/hosts/local/serving", {"live": {env: 1, "env_unknown": 1}})
    assert left.json() == {"environments": [env]}
    assert error(await api.admin.delete("/v1/hosts/two"), 409)["code"] == "host.in_use"


async def test_who_was_left_out_is_expected_until_a_rollout_has_reached_it(api: World) -> None:
    env, rollout = await a_rollout(api, ["local", "two"])
    with api.store.write() as session:
        settle_hosts(session, session.get_one(Rollout, rollout), ("two",))
    with api.store.read() as session:
        [drift] = session.exec(select(Drift)).all()
        assert (drift.env_id, drift.host_id, drift.kind, drift.mended_at) == (env, "two", "host", None)
    with api.store.write() as session:
        settle_hosts(session, session.get_one(Rollout, rollout), ())
    with api.store.read() as session:
        assert session.exec(select(Drift)).one().mended_at is not None


async def test_what_a_host_serves_otherwise_is_put_right_by_a_rollout(api: World) -> None:
    roles = Roles(api)
    env, rollout = await a_rollout(api, ["local", "two"])
    key = {"public_key": base64.b64encode(bytes(range(32))).decode()}
    assert (await roles.ask("host:two", "PUT", "/hosts/two", key)).status_code == 200
    with api.store.write() as session:
        settle_hosts(session, session.get_one(Rollout, rollout), ())
        record_live(session, rollout, None)

    async def told(seq: int) -> list[str]:
        assert (await roles.ask("host:two", "POST", "/hosts/two/serving", {"live": {env: seq}})).status_code == 200
        with api.store.read() as session:
            return unmended(session)

    assert await told(0) == []  # it was released just now
    long_ago = utcnow() - timedelta(minutes=5)
    api.change(Rollout, rollout, finished_at=long_ago)
    api.change(Release, api.one(Rollout, id=rollout).release_id, deployed_at=long_ago)
    assert await told(1) == []
    assert await told(0) == [env]
    assert await told(0) == [env]
    assert api.count(Drift) == 1
    with api.store.write() as session:
        assert accept_repair(session, env) is not None
    assert await told(0) == []  # what is under way is not judged


async def test_a_host_that_comes_back_hears_whose_names_or_password_were_changed(api: World, tmp_path: Path) -> None:
    roles = Roles(api)
    env, _ = await a_rollout(api, ["local"])
    with api.store.write() as session:
        environment = session.get_one(Environment, env)
        site = session.get_one(Site, environment.site_id)
        for name, policy in (("acme.test", "apex_to_www"), ("www.acme.test", "none")):
            made = add_domain(session, site, environment, DomainRequest(name, redirect_policy=policy), {})
            note_look(session, made.id, Looked(proven=True, points_here=True, seen=[]))
    routes = tmp_path / "routes"
    routes.mkdir()

    async def misled() -> list[str]:
        answer = await roles.ask(
            "host", "POST", "/hosts/local/leads", {"leads": {"env_unknown": "", **leads_of(routes)}}
        )
        assert answer.status_code == 200
        environments: list[str] = answer.json()["environments"]
        return environments

    async def follow() -> None:
        now = (await roles.ask("host", "GET", f"/environments/{env}/hostnames")).json()
        assert list(now["redirects"]) == ["acme.test"]
        set_routes(routes, env, now["hostnames"], now["redirects"], now["lock"])

    add_route(routes, "shop.localhost", env)
    assert await misled() == [env]
    await follow()
    assert await misled() == []
    with api.store.write() as session:
        set_lock(session, env, {"users": {}}, {})
    assert await misled() == [env]
    await follow()
    assert await misled() == []
    add_route(routes, "acme.test", env, locked=False)
    assert await misled() == [env]
    await follow()
    with api.store.write() as session:
        set_lock(session, env, None, {})
    assert await misled() == [env]
    await follow()
    assert await misled() == []
    (routes / "www.acme.test").unlink()
    assert await misled() == [env]
    api.change(Environment, env, status="deleting")
    assert await misled() == []


async def test_a_host_hears_how_long_ago_an_environment_was_deleted_and_nothing_of_others(api: World) -> None:
    roles = Roles(api)
    env, _ = await a_rollout(api, ["local"])

    async def deleted() -> dict[str, float]:
        answer = await roles.ask("host", "POST", "/hosts/local/mounts", {"environments": [env, "env_unknown"]})
        environments: dict[str, float] = answer.json()["environments"]
        return environments

    assert await deleted() == {}
    api.change(Environment, env, deleted_at=utcnow() - timedelta(days=2))
    assert (await deleted())[env] == pytest.approx(2 * 86400, abs=60)


async def test_a_host_that_is_forgotten_does_not_come_back_with_the_rollout_on_its_way(api: World) -> None:
    for name in ("one", "two"):
        data(await api.admin.post("/v1/hosts", json={"id": name}))
    env, rollout = await a_rollout(api, ["local", "one", "two"])
    assert data(await api.admin.delete("/v1/hosts/two"))["deleted"] is True
    with api.store.write() as session:
        settle_hosts(session, session.get_one(Rollout, rollout), ("one", "two"))
    assert api.one(Environment, id=env).hosts == ["local", "one"]
    with api.store.read() as session:
        assert [drift.host_id for drift in session.exec(select(Drift))] == ["one"]


async def test_a_tenant_chooses_no_machine(api: World) -> None:
    data(await api.admin.post("/v1/hosts", json={"id": "two"}))
    _, client = await api.tenant("Beta")
    own = await api.site(client, "Own")
    path = f"/v1/sites/{own['id']}/environments/{own['production_env_id']}"
    assert error(await client.patch(path, json={"host_labels": ["eu"]}), 403)["code"] == "role.insufficient"
    assert data(await client.patch(path, json={"away": "skip"}))["away"] == "skip"
    assert error(await client.get("/v1/hosts/two"), 404)["code"] == "host.not_found"
    assert error(await client.post("/v1/hosts", json={"id": "mine"}), 403)["code"] == "role.insufficient"
    assert error(await client.put("/v1/hosts/two/labels", json={"labels": []}), 404)["code"] == "host.not_found"
