"""What the client's surface keeps and shows: values of variables, how far a token reaches, events of one's own only."""

from __future__ import annotations

from typing import Any

import pytest

from api.miosa.feed import fact_key
from store.feed import Feed
from store.models import Idempotency, Site, utcnow
from store.models_configuration import ConfigValue
from store.sight import Sight
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio
CANARY = "canary-4f9a-of-the-surface"


async def test_a_value_is_set_and_never_shown_nor_digested(org: Org) -> None:
    made = await org.deployment("Configured", env={"FIRST": CANARY})
    path = f"/deployments/{made['id']}/env"
    keyed = {"headers": {"Idempotency-Key": "k"}}
    rows = await org.call("POST", path, {"env": {"SECOND": CANARY, "EMPTY": ""}}, **keyed)
    rows = await org.call("POST", path, {"key": "PLAIN", "value": "a-plain-value", "is_secret": False})
    shown = {row["name"]: row for row in rows}
    assert {name: row["is_secret"] for name, row in shown.items()} == {
        "EMPTY": False,
        "FIRST": True,
        "PLAIN": False,
        "SECOND": True,
    }
    assert (shown["PLAIN"]["preview"], shown["FIRST"]["value"]) == ("a-••••", "••••")
    told = await org.http.get(f"/api/v1{path}")
    assert CANARY not in told.text
    assert "a-plain-value" not in told.text
    assert org.api.count(Idempotency) == 0, "a fingerprint of the body would be a digest of the value"
    site_id = f"site_{made['id'][4:]}"
    versions = await org.api.admin.get(f"/v1/sites/{site_id}/environments/{_env(org, site_id)}/secrets/FIRST/versions")
    assert CANARY not in versions.text
    # A name keeps its kind, and each set is a version.
    await org.call("POST", path, {"env": {"PLAIN": "another-value"}})
    assert org.api.count(ConfigValue) == 5
    assert (await org.call("DELETE", f"{path}/PLAIN"))["deleted"] is True
    problem(await org.http.delete(f"/api/v1{path}/PLAIN"), 404, "NOT_FOUND")
    problem(await org.http.post(f"/api/v1{path}", json={"env": {"PATH": "/x"}}), 422, "VALIDATION_ERROR")
    problem(await org.http.post(f"/api/v1{path}", json={}), 400, "MISSING_PARAM")


def _env(org: Org, site_id: str) -> str:
    return str(org.api.one(Site, id=site_id).production_env_id)


async def test_variables_of_staging_are_set_before_anything_runs_there(org: Org) -> None:
    made = await org.deployment("Staged")
    path = f"/deployments/{made['id']}/env"
    await org.call("POST", path, {"env": {"A": "1"}, "environment": "staging"})
    assert [row["environment"] for row in await org.call("GET", f"{path}?environment=staging")] == ["staging"]
    assert await org.call("GET", path) == []
    problem(await org.http.get(f"/api/v1{path}?environment=nowhere"), 404, "NOT_FOUND")
    reader = await org.key("deployments:read")
    problem(await reader.post(f"/api/v1{path}", json={"env": {"A": "1"}}), 403, "insufficient_scope")
    stranger = await org.other()
    problem(await stranger.get(f"/api/v1{path}"), 404, "NOT_FOUND")


async def test_a_token_reaches_its_workspace_and_no_further(org: Org) -> None:
    outside = await org.deployment("Outside")
    maker = await org.key("keys:write", "deployments:write", "sandboxes:write", "sites:read")
    home = await org.call("POST", "/workspaces", {"name": "Clinic"}, 201)
    body = {"user_id": "u", "workspace_id": home["id"], "expires_in_seconds": 60}
    made = (await maker.post("/api/v1/tokens/scoped", json=body)).json()["data"]
    token = org.api.client(made["token"])
    inside = (await token.post("/api/v1/deployments", json={"name": "Inside"})).json()["data"]
    assert inside["workspace_id"] == home["id"]
    assert [row["id"] for row in (await token.get("/api/v1/deployments")).json()["data"]] == [inside["id"]]
    problem(await token.get(f"/api/v1/deployments/{outside['id']}"), 404, "NOT_FOUND")
    problem(await token.get("/api/v1/api-keys"), 403, "insufficient_scope")
    wide = {"name": "x", "workspace_id": outside["workspace_id"]}
    problem(await token.post("/api/v1/deployments", json=wide), 404, "NOT_FOUND")
    stranger = await org.other()
    problem(await stranger.post("/api/v1/tokens/scoped", json=body), 404, "NOT_FOUND")
    too_much = {**body, "scopes": ["secrets:write"]}
    assert (await maker.post("/api/v1/tokens/scoped", json=too_much)).status_code == 403
    problem(await maker.post("/api/v1/tokens/scoped", json={**body, "scopes": ["moon:write"]}), 422, "VALIDATION_ERROR")
    reading = org.api.client(
        (
            await maker.post("/api/v1/api-keys/scoped", json={"external_user_id": "u", "scopes": ["deployments:read"]})
        ).json()["data"]["token"]
    )
    assert len((await reading.get("/api/v1/deployments")).json()["data"]) == 2
    problem(await reading.post("/api/v1/deployments", json={"name": "x"}), 403, "insufficient_scope")


async def test_a_limited_token_sees_its_own_workspace_only(org: Org) -> None:
    home = await org.call("POST", "/workspaces", {"name": "Mine"}, 201)
    other = await org.call("POST", "/workspaces", {"name": "Theirs"}, 201)
    maker = await org.key("keys:write", "sites:read", "deployments:read")
    body = {"user_id": "u", "workspace_id": home["id"], "scopes": ["sites:read", "deployments:read"]}
    token = org.api.client((await maker.post("/api/v1/tokens/scoped", json=body)).json()["data"]["token"])
    assert [row["id"] for row in (await token.get("/api/v1/workspaces")).json()["data"]] == [home["id"]]
    for below in ("", "/deployments"):
        problem(await token.get(f"/api/v1/workspaces/{other['id']}{below}"), 404, "NOT_FOUND")


async def test_each_fact_is_told_once_and_to_whom_it_concerns(org: Org) -> None:
    feed, strangers = Feed(Sight(team_id=org.team_id), org.team_id), Feed(Sight(team_id="team_x"), "team_x")
    await org.deployment("Before")
    for one in (feed, strangers):
        assert look(org, one) == []
    made = await org.deployment("After")
    await org.live(made["id"], "x")
    kinds = [fact.kind for fact in look(org, feed)]
    assert kinds.count("site.created") == 1
    assert {"sandbox.created", "build.succeeded", "rollout.succeeded", "job.ended"} <= set(kinds)
    assert look(org, feed) == look(org, strangers) == []
    failing = await org.publish(made["id"], await org.sandbox({"index.html": "y"}))
    look(org, feed)
    org.fail(failing["operation_id"])
    told = {fact.kind: fact for fact in look(org, feed)}
    assert {"build.failed", "job.ended"} <= set(told)
    assert (told["build.failed"].error or {})["code"] == "build.step_failed"
    assert told["job.ended"].moment <= utcnow()


async def test_who_was_away_hears_what_came_behind_the_last_event(org: Org) -> None:
    first = Feed(Sight(team_id=org.team_id), org.team_id)
    look(org, first)
    made = await org.deployment("Away")
    await org.live(made["id"], "x")
    one = look(org, first)
    running = await org.publish(made["id"], await org.sandbox({"index.html": "y"}))
    two = look(org, first)
    org.finish(running["operation_id"], "b" * 64)
    three = look(org, first)
    assert {"build.succeeded", "rollout.succeeded", "job.ended"} <= {fact.kind for fact in three}
    told = [fact.key for fact in sorted((*one, *two, *three), key=lambda fact: (fact.moment, fact.key))]
    for place in (0, len(told) // 2, len(told) - 1):
        again = Feed(Sight(team_id=org.team_id), org.team_id)
        with org.api.store.read() as session:
            again.resume(session, fact_key(f"evt_{told[place].replace(':', '_')}") or "")
        assert [fact.key for fact in look(org, again)] == told[place + 1 :]
        assert look(org, again) == []
    stranger = Feed(Sight(team_id="team_x"), "team_x")
    for reader, key in ((stranger, told[0]), (Feed(Sight(team_id=org.team_id), org.team_id), "job_01NONE:job.ended")):
        with org.api.store.read() as session:
            reader.resume(session, key)
        assert look(org, reader) == [], "what is not known to this reader begins now"
    assert [fact_key(odd) for odd in (None, "", "evt_", "7", "evt_job_1_A", "evt_team_1_x")] == [None] * 6


def look(org: Org, feed: Feed) -> list[Any]:
    with org.api.store.read() as session:
        return feed.look(session)


async def test_what_is_refused_is_this_dialects_409(org: Org) -> None:
    made = await org.deployment("Refusing")
    project = made["project_id"]
    for method, path in (
        ("POST", f"/projects/{project}/environments"),
        ("PUT", f"/projects/{project}/shared-variables"),
        ("POST", f"/deployments/{made['id']}/database"),
    ):
        problem(await org.http.request(method, f"/api/v1{path}", json={}), 409, "NOT_SUPPORTED")


async def test_a_client_that_asks_first_is_told_what_its_key_may(org: Org) -> None:
    """As the vendor's MCP server does before each call."""
    reader = await org.key("deployments:read")
    catalogue = {row["name"]: row for row in (await reader.get("/api/v1/actions/catalog")).json()["data"]}
    assert {"deployment.publish", "sandbox.write.file", "deployment.env.set"} <= set(catalogue)

    async def ask(name: str, fingerprint: str | None = None) -> Any:
        given = {"name": name, "fingerprint": fingerprint or catalogue[name]["fingerprint"]}
        return await reader.post("/api/v1/actions/authorize", json={"capability": given, "surface": "mcp"})

    assert (await ask("deployment.list")).json()["data"]["decision"] == "allow"
    problem(await ask("deployment.publish"), 403, "insufficient_scope")
    problem(await ask("deployment.list", "sha256:old"), 422, "VALIDATION_ERROR")
    problem(await ask("computer.create", "x"), 409, "NOT_SUPPORTED")
    made, box = await org.deployment("Named otherwise"), await org.sandbox({"index.html": "x"})
    path = f"/deployments/{made['id']}/publish"
    result = await org.call("POST", path, {"source": {"sandbox_id": box}}, 202)
    assert result["version"]["source_sandbox_id"] == box
    assert result["version"]["status"] == result["version"]["state"]
    problem(await org.http.post(f"/api/v1{path}", json={}), 400, "MISSING_PARAM")
