"""Keys of this dialect: one table, one set of rules, another look."""

from __future__ import annotations

import httpx
import pytest

from tests.api.world import data, error
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio


async def test_the_operators_keys_command_makes_msk_keys(org: Org) -> None:
    made = data(
        await org.api.admin.post(
            "/v1/api-keys", json={"name": "k", "scopes": ["deployments:read"], "team_id": org.team_id, "family": "msk"}
        )
    )
    assert (made["secret"].startswith("msk_live_"), len(made["secret"])) == (True, 52)
    assert made["prefix"] == made["secret"][:13]
    client = org.api.client(made["secret"])
    assert (await client.get("/api/v1/deployments")).status_code == 200
    rolled = data(await org.api.admin.post(f"/v1/api-keys/{made['id']}/roll", json={"grace_period": "0s"}))
    assert rolled["secret"].startswith("msk_live_")
    org.api.parts.auth.forget()
    problem(await client.get("/api/v1/deployments"), 401, "invalid_token")
    fresh = org.api.client(rolled["secret"])
    assert (await fresh.get("/api/v1/deployments")).status_code == 200
    await org.api.admin.delete(f"/v1/api-keys/{made['id']}")
    problem(await fresh.get("/api/v1/deployments"), 401, "invalid_token")
    assert error(await fresh.get("/v1/sites"), 401)["code"] == "auth.revoked_key"


async def test_a_key_makes_keys_for_no_more_than_itself(org: Org) -> None:
    maker = await org.key("keys:write", "deployments:write")
    made = (await maker.post("/api/v1/api-keys", json={"name": "k", "scopes": ["deployments:read"]})).json()["data"]
    assert made["key"] == made["token"]
    listed = (await maker.get("/api/v1/api-keys")).json()["data"]
    assert made["id"] in [row["id"] for row in listed]
    assert made["token"] not in (await maker.get("/api/v1/api-keys")).text
    beyond = await maker.post("/api/v1/api-keys", json={"name": "k", "scopes": ["sandboxes:write"]})
    problem(beyond, 403, "FORBIDDEN")
    unknown = await maker.post("/api/v1/api-keys", json={"name": "k", "scopes": ["castles:build"]})
    problem(unknown, 422, "VALIDATION_ERROR")
    stranger = await org.other()
    problem(await stranger.delete(f"/api/v1/api-keys/{made['id']}"), 404, "NOT_FOUND")
    rotated = (await maker.post(f"/api/v1/api-keys/{made['id']}/rotate")).json()["data"]
    assert rotated["token"] != made["token"]
    assert (await org.api.client(rotated["token"]).get("/api/v1/deployments")).status_code == 200
    keyed = {"headers": {"Idempotency-Key": "k"}}
    once, again = [(await maker.post(f"/api/v1/api-keys/{made['id']}/rotate", **keyed)).json()["data"] for _ in "ab"]
    assert (again["id"], "token" in again) == (made["id"], False), "a secret is shown once"
    assert (await org.api.client(once["token"]).get("/api/v1/deployments")).status_code == 200


async def test_nobody_takes_over_the_key_of_another_person(org: Org) -> None:
    """Who has its new secret would speak for that account: approve, for one."""
    members = f"/v1/teams/{org.team_id}/members"
    owner = next(one for one in data(await org.api.admin.get(members)) if one["role"] == "owner")
    body = {"name": "k", "scopes": ["deployments:read"], "team_id": org.team_id, "account_id": owner["account_id"]}
    made = data(await org.api.admin.post("/v1/api-keys", json=body))
    robot = await org.key("*", "keys:write")
    problem(await robot.post(f"/api/v1/api-keys/{made['id']}/rotate"), 403, "FORBIDDEN")
    assert (await org.api.client(made["secret"]).get("/api/v1/deployments")).status_code == 200


async def test_a_pinned_key_sees_its_own_part(org: Org) -> None:
    one, two = await org.deployment("One"), await org.deployment("Two")
    pin = {"type": "site", "id": one["id"].replace("dep_", "site_")}
    secret = await org.api.key(org.team_id, None, ("*",), kind="service", family="msk", resource=pin)
    pinned = org.api.client(secret)
    assert [row["id"] for row in (await pinned.get("/api/v1/deployments")).json()["data"]] == [one["id"]]
    problem(await pinned.get(f"/api/v1/deployments/{two['id']}"), 404, "NOT_FOUND")
    assert (await pinned.patch(f"/api/v1/deployments/{one['id']}", json={"name": "Own"})).status_code == 200
    problem(await pinned.post("/api/v1/deployments", json={"name": "Three"}), 403, "insufficient_scope")


async def limited(org: Org, project_id: str) -> tuple[str, httpx.AsyncClient]:
    """An admin who is limited to one project, and whose key may make keys."""
    members = f"/v1/teams/{org.team_id}/members"
    body = {"email": "m@example.test", "name": "M", "role": "admin", "project_ids": [project_id]}
    account = data(await org.api.admin.post(members, json=body))["account_id"]
    return account, org.api.client(await org.api.key(org.team_id, account, ["*", "keys:write"]))


async def test_who_is_limited_to_a_project_makes_no_token_for_its_workspace(org: Org) -> None:
    mine = await org.deployment("Mine")
    theirs = await org.deployment("Theirs", project_name="Secret")
    _, client = await limited(org, mine["project_id"])
    problem(await client.get(f"/api/v1/deployments/{theirs['id']}"), 404, "NOT_FOUND")
    body = {"user_id": "u", "workspace_id": mine["workspace_id"]}
    problem(await client.post("/api/v1/tokens/scoped", json=body), 403, "FORBIDDEN")


async def test_a_limit_does_not_end_with_its_project(org: Org) -> None:
    hidden = await org.deployment("Hidden")
    own = await org.call("POST", "/projects", {"name": "Own"}, 201)
    account, client = await limited(org, own["id"])
    problem(await client.get(f"/api/v1/deployments/{hidden['id']}"), 404, "NOT_FOUND")
    problem(await org.http.delete(f"/api/v1/projects/{own['id']}"), 409, "PROJECT_NOT_EMPTY")
    org.api.parts.auth.forget()
    problem(await client.get(f"/api/v1/deployments/{hidden['id']}"), 404, "NOT_FOUND")
    other = await org.call("POST", "/projects", {"name": "Other"}, 201)
    change = {"project_ids": [own["id"], other["id"]]}
    data(await org.api.admin.patch(f"/v1/teams/{org.team_id}/members/{account}", json=change))
    assert (await org.call("DELETE", f"/projects/{own['id']}"))["id"] == own["id"]
    org.api.parts.auth.forget()
    problem(await client.get(f"/api/v1/deployments/{hidden['id']}"), 404, "NOT_FOUND")
