"""404 before 403: nobody learns of another tenant's rows; a visible row needs the right scope and role."""

from __future__ import annotations

import pytest

from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def test_every_path_of_another_tenants_site_is_not_found(api: World) -> None:
    _, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    site = await api.site(alice)
    env = site["production_env_id"]
    artifact = api.artifact(site["id"], env)
    await alice.post(f"/v1/sites/{site['id']}/environments/{env}/deployments", json={"artifact_id": artifact})
    base = f"/v1/sites/{site['id']}"
    for path in ("", "/capabilities", "/environments", f"/environments/{env}"):
        assert error(await bob.get(base + path), 404)["code"] == "site.not_found"
    for noun in ("builds", "artifacts", "deployments", "releases", f"artifacts/{artifact}"):
        assert error(await bob.get(f"{base}/environments/{env}/{noun}"), 404)["param"] == "site_id"
    for path, body in (
        (f"/environments/{env}/builds", {}),
        (f"/environments/{env}/deployments", {"artifact_id": artifact}),
        (f"/environments/{env}/promote", {"to_env": "staging"}),
        ("/environments", {"kind": "staging", "branch": "s"}),
        ("/deployments", {"ref": "main"}),
        (f"/environments/{env}/cron", {}),
    ):
        assert error(await bob.post(base + path, json=body), 404)["code"] == "site.not_found"
    assert error(await bob.delete(base), 404)["code"] == "site.not_found"
    assert error(await bob.patch(base, json={"name": "mine"}), 404)["code"] == "site.not_found"


async def test_jobs_projects_teams_and_keys_of_another_tenant_are_hidden(api: World) -> None:
    team, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    job = data(await alice.post("/v1/sites", json={"name": "A"}))
    project = data(await alice.get("/v1/projects"))[0]
    admin_of_alice = api.client(await api.key(team, None, ["keys:write"]))
    key = data(await admin_of_alice.get("/v1/api-keys"))[0]
    keeper_of_bob = api.client(await api.key(data(await bob.get("/v1/teams"))[0]["id"], None, ["keys:write"]))
    assert error(await bob.get(f"/v1/jobs/{job['id']}"), 404)["code"] == "job.not_found"
    assert error(await bob.get(f"/v1/jobs/{job['id']}/stream"), 404)["code"] == "job.not_found"
    assert error(await bob.post(f"/v1/jobs/{job['id']}/cancel"), 404)["code"] == "job.not_found"
    assert error(await bob.get(f"/v1/projects/{project['id']}"), 404)["code"] == "project.not_found"
    assert error(await bob.get(f"/v1/teams/{team}"), 404)["code"] == "team.not_found"
    assert error(await bob.get(f"/v1/teams/{team}/members"), 404)["code"] == "team.not_found"
    assert error(await keeper_of_bob.get(f"/v1/api-keys/{key['id']}"), 404)["code"] == "api_key.not_found"
    assert error(await keeper_of_bob.delete(f"/v1/api-keys/{key['id']}"), 404)["code"] == "api_key.not_found"
    body = {"name": "B", "project_id": project["id"]}
    assert error(await bob.post("/v1/sites", json=body), 404)["code"] == "project.not_found"
    for path in ("/v1/jobs", "/v1/sites"):
        assert data(await bob.get(path)) == []
    assert len(data(await bob.get("/v1/projects"))) == 1


async def test_an_artifact_of_another_tenant_is_unknown_and_of_another_site_a_conflict(api: World) -> None:
    _, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    mine, other = await api.site(alice, "Mine"), await api.site(alice, "Other")
    theirs = await api.site(bob, "Theirs")
    path = f"/v1/sites/{mine['id']}/environments/{mine['production_env_id']}/deployments"
    foreign = api.artifact(theirs["id"], theirs["production_env_id"])
    of_other = api.artifact(other["id"], other["production_env_id"])
    assert error(await alice.post(path, json={"artifact_id": foreign}), 404)["code"] == "artifact.not_found"
    assert error(await alice.post(path, json={"artifact_id": of_other}), 409)["code"] == "artifact.site_mismatch"
    env_of_other = f"/v1/sites/{mine['id']}/environments/{other['production_env_id']}"
    assert error(await alice.get(env_of_other), 404)["code"] == "environment.not_found"


async def test_missing_scope_is_403_and_names_it(api: World) -> None:
    team, alice = await api.tenant("Alice")
    site = await api.site(alice)
    reader = api.client(await api.key(team, None, ["sites:read"]))
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    assert (await reader.get(f"/v1/sites/{site['id']}")).status_code == 200
    refused = error(await reader.post(f"{env}/builds"), 403)
    assert refused["code"] == "scope.insufficient"
    assert refused["type"] == "permission"
    assert refused["param"] == "scope"
    assert "deployments:write" in refused["message"]
    assert error(await reader.get(env), 403)["code"] == "scope.insufficient"
    assert error(await reader.get("/v1/jobs"), 403)["code"] == "scope.insufficient"
    unknown = env.replace(site["production_env_id"], "env_01J8AA1B2C3D4E5F6G7H8J9K0L")
    assert error(await reader.post(f"{unknown}/builds"), 404)["code"] == "environment.not_found"


async def test_write_implies_read_and_the_star_leaves_isolated_scopes_out(api: World) -> None:
    team, alice = await api.tenant("Alice")
    site = await api.site(alice)
    writer = api.client(await api.key(team, None, ["deployments:write"]))
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"
    assert (await writer.get(path)).status_code == 200
    assert error(await alice.get("/v1/api-keys"), 403)["code"] == "scope.insufficient"


@pytest.mark.parametrize(
    ("role", "reads", "deploys", "makes_sites"),
    [
        ("owner", True, True, True),
        ("admin", True, True, True),
        ("site_manager", True, True, False),
        ("observer", True, False, False),
        ("billing", False, False, False),
    ],
)
async def test_roles_bound_what_a_key_may_do(
    api: World, role: str, reads: bool, deploys: bool, makes_sites: bool
) -> None:
    team, member = await api.tenant("Team", role)
    boss = api.client(await api.key(team, None, ["*"]))
    site = await api.site(boss)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    read = await member.get(env)
    assert read.status_code == (200 if reads else 404)
    build = await member.post(f"{env}/builds")
    expected = 202 if deploys else 403 if reads else 404
    assert build.status_code == expected
    if expected == 403:
        assert error(build, 403)["code"] == "role.insufficient"
    made = await member.post("/v1/sites", json={"name": "New"})
    assert (made.status_code == 202) is makes_sites


async def test_a_pinned_key_sees_its_site_alone(api: World) -> None:
    team, alice = await api.tenant("Alice")
    one, two = await api.site(alice, "One"), await api.site(alice, "Two")
    pinned = api.client(await api.key(team, None, ["*"], resource={"type": "site", "id": one["id"]}))
    assert [row["id"] for row in data(await pinned.get("/v1/sites"))] == [one["id"]]
    assert error(await pinned.get(f"/v1/sites/{two['id']}"), 404)["code"] == "site.not_found"
    assert {row["resource"]["id"] for row in data(await pinned.get("/v1/jobs"))} == {one["id"]}
    assert error(await pinned.post("/v1/sites", json={"name": "Three"}), 403)["code"] == "scope.insufficient"
    env = f"/v1/sites/{one['id']}/environments/{one['production_env_id']}"
    assert (await pinned.post(f"{env}/builds")).status_code == 202


async def test_a_key_pinned_to_an_environment_changes_nothing_above_it(api: World) -> None:
    team, alice = await api.tenant("Alice")
    site = await api.site(alice)
    staging = await api.environment(alice, site["id"], "staging", "main")
    pinned = api.client(await api.key(team, None, ["*"], resource={"type": "environment", "id": staging["id"]}))
    base = f"/v1/sites/{site['id']}"
    assert (await pinned.get(base)).status_code == 200
    assert [row["id"] for row in data(await pinned.get(f"{base}/environments"))] == [staging["id"]]
    hidden = f"{base}/environments/{site['production_env_id']}"
    assert error(await pinned.get(hidden), 404)["code"] == "environment.not_found"
    assert error(await pinned.patch(base, json={"name": "x"}), 403)["code"] == "scope.insufficient"
    assert error(await pinned.delete(base), 403)["code"] == "scope.insufficient"
    assert (await pinned.post(f"{base}/environments/{staging['id']}/builds")).status_code == 202
    api.artifact(site["id"], staging["id"])
    refused = await pinned.post(f"{base}/deployments", json={"ref": "main", "target": "production"})
    assert error(refused, 404)["code"] == "environment.not_found"


async def test_project_members_see_their_projects_alone(api: World) -> None:
    team, boss = await api.tenant("Team")
    project = data(await boss.post("/v1/projects", json={"name": "Side"}))
    inside = await api.site(boss, "Inside", project_id=project["id"])
    outside = await api.site(boss, "Outside")
    body = {"email": "m@example.test", "name": "M", "role": "site_manager", "project_ids": [project["id"]]}
    member = data(await api.admin.post(f"/v1/teams/{team}/members", json=body))
    assert member["project_ids"] == [project["id"]]
    key = api.client(await api.key(team, member["account_id"], ["*"]))
    assert [row["id"] for row in data(await key.get("/v1/sites"))] == [inside["id"]]
    assert error(await key.get(f"/v1/sites/{outside['id']}"), 404)["code"] == "site.not_found"
    assert [row["id"] for row in data(await key.get("/v1/projects"))] == [project["id"]]


async def test_the_operator_sees_all_teams(api: World) -> None:
    _, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    sites = {(await api.site(alice, "A"))["id"], (await api.site(bob, "B"))["id"]}
    assert {row["id"] for row in data(await api.admin.get("/v1/sites"))} == sites
    assert len(data(await api.admin.get("/v1/teams"))) == 3


async def test_members_are_managed_and_the_owner_stays(api: World) -> None:
    team, owner = await api.tenant("Team")
    path = f"/v1/teams/{team}/members"
    me = data(await owner.get(path))[0]["account_id"]
    email = "second@example.test"
    second = data(await api.admin.post(path, json={"email": email, "name": "S", "role": "admin"}))["account_id"]
    assert (
        error(await owner.post(path, json={"account_id": second, "role": "observer"}), 409)["code"] == "member.exists"
    )
    assert error(await owner.delete(f"{path}/{me}"), 409)["code"] == "team.last_owner"
    assert error(await owner.patch(f"{path}/{me}", json={"role": "admin"}), 409)["code"] == "team.last_owner"
    admin = api.client(await api.key(team, second, ["*"]))
    assert error(await admin.patch(f"{path}/{me}", json={"role": "observer"}), 403)["code"] == "role.insufficient"
    assert error(await admin.patch(f"{path}/{second}", json={"role": "owner"}), 403)["code"] == "role.insufficient"
    assert data(await owner.patch(f"{path}/{second}", json={"role": "owner"}))["role"] == "owner"
    roles = {row["account_id"]: row["role"] for row in data(await owner.get(path))}
    assert roles == {me: "admin", second: "owner"}
    assert data(await admin.delete(f"{path}/{me}")) == {"id": me, "deleted": True}
    assert error(await owner.get("/v1/account"), 401)["code"] == "auth.revoked_key"
    unknown = {"email": "nobody@example.test", "name": "N", "role": "admin"}
    assert error(await admin.post(path, json=unknown), 404)["code"] == "account.not_found"


async def test_teams_are_the_operators_to_make(api: World) -> None:
    _, owner = await api.tenant("Team")
    assert error(await owner.post("/v1/teams", json={"name": "Other"}), 403)["code"] == "role.insufficient"
    taken = await api.admin.post("/v1/teams", json={"name": "x", "slug": "default"})
    assert error(taken, 409)["code"] == "team.slug_taken"
    first, second = [data(await api.admin.post("/v1/teams", json={"name": "Same"})) for _ in range(2)]
    assert first["slug"] != second["slug"]
