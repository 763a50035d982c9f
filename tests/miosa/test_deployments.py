"""Deployments over HTTP: full rows, ownership, filters, both ways of paging, and errors of this dialect alone."""

from __future__ import annotations

import pytest

from store.models import Environment, Job, Site
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio


async def test_a_deployment_is_a_full_row_and_the_same_site(org: Org) -> None:
    made = await org.deployment("Smile Dental", external_workspace_id="clinic_123", metadata={"a": 1})
    assert made["id"].startswith("dep_")
    assert (made["tenant_id"], made["slug"], made["state"], made["source_type"]) == (
        org.team_id,
        "smile-dental",
        "pending",
        "sandbox",
    )
    assert made["public_url"] == "http://smile-dental.sites.test:7071"
    assert (made["auto_deploy"], made["metadata"], made["active_version_id"]) == (True, {"a": 1}, None)
    site = org.api.one(Site, id=made["id"].replace("dep_", "site_"))
    assert (site.name, site.external_workspace_id) == ("Smile Dental", "clinic_123")
    assert await org.call("GET", f"/deployments/{made['id']}") == made
    twin = await org.deployment("Smile Dental")
    assert twin["slug"] != made["slug"]


async def test_ownership_finds_or_makes_workspace_and_project(org: Org) -> None:
    words = {"workspace_slug": "dr-smith", "workspace_name": "Dr. Smith", "project_slug": "landing"}
    first = await org.deployment("One", **words)
    second = await org.deployment("Two", **words)
    assert (first["workspace_id"], first["project_id"]) == (second["workspace_id"], second["project_id"])
    plain = await org.deployment("Three")
    assert plain["workspace_id"] != first["workspace_id"]
    external = await org.deployment("Four", external_workspace_id="clinic", external_project_id="p")
    again = await org.deployment("Five", external_workspace_id="clinic", external_project_id="p")
    assert (external["workspace_id"], external["project_id"]) == (again["workspace_id"], again["project_id"])
    below = await org.call("POST", f"/projects/{first['project_id']}/deployments", {"name": "Six"}, 201)
    assert below["project_id"] == first["project_id"]
    listed = await org.call("GET", f"/deployments?workspace_id={first['workspace_id']}")
    assert {row["name"] for row in listed} == {"One", "Two", "Six"}
    assert await org.call("GET", f"/workspaces/{first['workspace_id']}/deployments") == listed
    moved = await org.call(
        "POST", f"/deployments/{plain['id']}/move", {"target_workspace_id": external["workspace_id"]}
    )
    assert moved["workspace_id"] == external["workspace_id"]
    unknown = await org.http.post("/api/v1/deployments", json={"name": "x", "project_id": "proj_unknown"})
    problem(unknown, 404, "NOT_FOUND")


async def test_lists_filter_and_page_both_ways(org: Org) -> None:
    for number in range(5):
        await org.deployment(f"Site {number}", external_user_id="even" if number % 2 == 0 else "odd")
    even = await org.call("GET", "/deployments?external_user_id=even")
    assert [row["name"] for row in even] == ["Site 4", "Site 2", "Site 0"]
    answer = (await org.http.get("/api/v1/deployments?limit=2")).json()
    assert [row["name"] for row in answer["data"]] == ["Site 4", "Site 3"]
    rest = (await org.http.get(f"/api/v1/deployments?limit=3&cursor={answer['next_cursor']}")).json()
    assert [row["name"] for row in rest["data"]] == ["Site 2", "Site 1", "Site 0"]
    assert rest["next_cursor"] is None
    page = (await org.http.get("/api/v1/deployments?page=2&page_size=2")).json()
    assert [row["name"] for row in page["data"]] == ["Site 2", "Site 1"]
    assert page["page"] == {"page": 2, "page_size": 2, "total": 5}
    problem(await org.http.get("/api/v1/deployments?page_size=1000"), 422, "VALIDATION_ERROR")
    problem(await org.http.get("/api/v1/deployments?cursor=nonsense"), 422, "INVALID_CURSOR")
    problem(await org.http.get("/api/v1/deployments?state=asleep"), 422, "VALIDATION_ERROR")


async def test_the_state_follows_the_rows_and_filters_agree(org: Org) -> None:
    rows = {name: (await org.deployment(name))["id"] for name in ("idle", "busy", "up", "broken")}
    sandbox = await org.sandbox({"index.html": "x"})
    await org.publish(rows["busy"], sandbox)
    await org.live(rows["up"], "u")
    failing = await org.publish(rows["broken"], sandbox)
    org.fail(failing["operation_id"])
    expected = {"idle": "pending", "busy": "building", "up": "running", "broken": "failed"}
    for name, state in expected.items():
        assert (await org.call("GET", f"/deployments/{rows[name]}"))["state"] == state
        assert [row["name"] for row in await org.call("GET", f"/deployments?state={state}")] == [name]
    failing = await org.publish(rows["up"], sandbox)
    org.fail(failing["operation_id"])
    assert (await org.call("GET", f"/deployments/{rows['up']}"))["state"] == "running"


async def test_patch_changes_what_is_given_and_takes_no_body(org: Org) -> None:
    made = await org.deployment()
    path = f"/deployments/{made['id']}"
    changed = await org.call("PATCH", path, {"name": "New", "metadata": {"b": 2}, "external_user_id": "u"})
    assert (changed["name"], changed["metadata"], changed["external_user_id"]) == ("New", {"b": 2}, "u")
    assert (changed["slug"], changed["auto_deploy"]) == (made["slug"], True)
    assert (await org.call("PATCH", path))["name"] == "New"
    problem(await org.http.patch(f"/api/v1{path}", json={"slug": "other"}), 409, "NOT_SUPPORTED")
    problem(await org.http.patch(f"/api/v1{path}", json={"branch": "a..b"}), 422, "VALIDATION_ERROR")


async def test_delete_hides_at_once_and_starts_the_teardown(org: Org) -> None:
    made = await org.deployment()
    gone = (await org.http.delete(f"/api/v1/deployments/{made['id']}")).json()
    assert gone == {"data": {"id": made["id"], "deleted": True}, "id": made["id"], "deleted": True}
    assert org.api.starts.started[-1][1] == "site.delete"
    problem(await org.http.get(f"/api/v1/deployments/{made['id']}"), 404, "NOT_FOUND")
    assert await org.call("GET", "/deployments") == []
    assert await org.call("GET", "/deployment-environments") == []
    again = await org.deployment("Again")
    keyed = {"headers": {"Idempotency-Key": "k"}}
    for _ in range(2):
        assert (await org.call("DELETE", f"/deployments/{again['id']}", **keyed))["deleted"] is True
    problem(await org.http.delete(f"/api/v1/deployments/{again['id']}"), 404, "NOT_FOUND")


async def test_a_key_joins_and_a_reused_one_is_refused(org: Org) -> None:
    keyed = {"headers": {"Idempotency-Key": "a" * 32}}
    first = await org.call("POST", "/deployments", {"name": "Once"}, 201, **keyed)
    again = await org.call("POST", "/deployments", {"name": "Once"}, 201, **keyed)
    assert first["id"] == again["id"]
    assert org.api.count(Site) == 1
    other = await org.http.post("/api/v1/deployments", json={"name": "Twice"}, **keyed)
    problem(other, 409, "IDEMPOTENCY_KEY_REUSED")


async def test_a_workspace_is_made_once_under_a_key(org: Org) -> None:
    keyed = {"headers": {"Idempotency-Key": "k"}}
    for body in ({"name": "Clinic"}, {"name": "Clinic 7", "external_workspace_id": "7"}):
        first = await org.call("POST", "/workspaces", body, 201, headers={"Idempotency-Key": body["name"]})
        again = await org.call("POST", "/workspaces", body, 201, headers={"Idempotency-Key": body["name"]})
        assert (first, first["reused"]) == (again, False)
    found = await org.call("POST", "/workspaces", {"name": "Other", "external_workspace_id": "7"}, 200, **keyed)
    assert (found["id"], found["reused"]) == (first["id"], True)
    problem(await org.http.post("/api/v1/workspaces", json={"name": "Clinic"}), 409, "WORKSPACE_NAME_EXISTS")


async def test_another_organisation_sees_nothing(org: Org) -> None:
    made = await org.deployment()
    version = await org.live(made["id"], "m")
    stranger = await org.other()
    for path in ("", "/versions", f"/versions/{version['id']}", "/releases", "/builds", "/logs", "/proof", "/routes"):
        problem(await stranger.get(f"/api/v1/deployments/{made['id']}{path}"), 404, "NOT_FOUND")
    for path in ("/publish", "/rollback", "/redeploy", f"/versions/{version['id']}/promote"):
        body = {"source_sandbox_id": "sbx_x"} if path == "/publish" else {}
        problem(await stranger.post(f"/api/v1/deployments/{made['id']}{path}", json=body), 404, "NOT_FOUND")
    assert (await stranger.get("/api/v1/deployments")).json()["data"] == []
    other = {"headers": {"X-MIOSA-Tenant": org.team_id}}
    problem(await stranger.get("/api/v1/deployments", **other), 422, "TENANT_RESOLUTION_FAILED")
    chosen = await org.api.admin.get("/api/v1/deployments", **other)
    assert [row["id"] for row in chosen.json()["data"]] == [made["id"]]
    assert (await org.api.admin.get("/api/v1/deployments")).json()["data"] == []


async def test_scopes_come_after_sight(org: Org) -> None:
    made = await org.deployment()
    reader = await org.key("deployments:read")
    assert (await reader.get(f"/api/v1/deployments/{made['id']}")).status_code == 200
    problem(await reader.patch(f"/api/v1/deployments/{made['id']}", json={}), 403, "insufficient_scope")
    problem(await reader.post("/api/v1/deployments", json={"name": "x"}), 403, "insufficient_scope")
    problem(await reader.get("/api/v1/sandboxes"), 403, "insufficient_scope")
    problem(await reader.delete("/api/v1/deployments/dep_0000"), 404, "NOT_FOUND")


async def test_errors_have_this_dialects_codes(org: Org) -> None:
    nobody = org.api.client(None)
    problem(await nobody.get("/api/v1/deployments"), 401, "invalid_token")
    problem(await org.api.client("msk_live_nothing").get("/api/v1/deployments"), 401, "invalid_token")
    missing = problem(await org.http.post("/api/v1/deployments", json={}), 400, "MISSING_PARAM")
    assert missing["details"]["field"] == "name"
    wrong = problem(await org.http.post("/api/v1/deployments", json={"name": ""}), 422, "VALIDATION_ERROR")
    assert wrong["details"]["errors"][0]["field"] == "name"
    typed = {"content": b"{", "headers": {"content-type": "application/json"}}
    problem(await org.http.post("/api/v1/deployments", **typed), 400, "MALFORMED_JSON")
    problem(await org.http.get("/api/v1/nothing"), 404, "NOT_FOUND")
    refused = await org.http.put("/api/v1/deployments", json={})
    problem(refused, 405, "METHOD_NOT_ALLOWED")
    assert refused.headers["allow"] == "GET, HEAD, POST"
    made = await org.deployment()
    for body in ({"database": True}, {"metadata": {"deployment_product": "docker_deploy"}}):
        problem(await org.http.post("/api/v1/deployments", json={"name": "x", **body}), 409, "NOT_SUPPORTED")
    problem(await org.http.post(f"/api/v1/deployments/{made['id']}/database", json={}), 409, "NOT_SUPPORTED")
    assert org.api.count(Site) == 1


async def test_a_doubled_prefix_is_taken_for_one(org: Org) -> None:
    made = await org.deployment()
    assert (await org.http.get(f"/api/v1/api/v1/deployments/{made['id']}")).json()["data"]["id"] == made["id"]


async def test_what_can_be_told_of_a_deployment(org: Org) -> None:
    made = await org.deployment()
    path = f"/deployments/{made['id']}"
    assert (await org.call("GET", f"{path}/proof"))["ok"] is False
    version = await org.live(made["id"], "t")
    proof = await org.call("GET", f"{path}/proof")
    assert (proof["ok"], proof["public_url"]) == (True, made["public_url"])
    routes = (await org.call("GET", f"{path}/routes"))["routes"]
    assert {(row["hostname"], row["version_id"]) for row in routes} == {
        ("smile.sites.test", version["id"]),
        ("smile-production.sites.test", version["id"]),
    }
    assert (await org.call("GET", f"{path}/observability"))["available"] is True
    assert (await org.call("GET", f"{path}/request-logs"))["requests"] == []
    assert (await org.call("GET", f"{path}/logs?lines=5"))["lines"] == []


async def test_temporal_being_away_keeps_nobody_waiting(org: Org) -> None:
    org.api.starts.away = True
    made = await org.deployment()
    result = await org.publish(made["id"], await org.sandbox({"index.html": "x"}))
    assert result["version"]["state"] == "created"
    assert org.api.one(Job, id=result["operation_id"]).status == "queued"


async def test_another_branch_is_productions_too_and_no_previews(org: Org) -> None:
    made = await org.deployment()
    path = f"/deployments/{made['id']}"
    assert (await org.call("PATCH", path, {"branch": "trunk"}))["branch"] == "trunk"
    site_id = made["id"].replace("dep_", "site_")
    site = org.api.one(Site, id=site_id)
    assert org.api.one(Environment, id=site.production_env_id).branch == "trunk"
    await org.api.environment(org.api.admin, site_id, "preview", "feature")
    taken = problem(await org.http.patch(f"/api/v1{path}", json={"branch": "feature"}), 409, "ENVIRONMENT_BRANCH_TAKEN")
    assert "preview" in taken["message"]
