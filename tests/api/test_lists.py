"""Contract section 2: pages by position, newest first."""

from __future__ import annotations

import base64
import json

import pytest

from adapters.artifact.manifest import File, make_manifest
from store.artifacts import object_key
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def builds(api: World, number: int) -> tuple[str, list[str]]:
    site = await api.site(api.admin)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    made = [data(await api.admin.post(f"{env}/builds", json={"ref": f"r{n}"}))["resource"]["id"] for n in range(number)]
    return env, made


async def test_pages_go_on_while_rows_are_added(api: World) -> None:
    env, made = await builds(api, 7)
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        body = (await api.admin.get(f"{env}/builds", params=params)).json()
        seen += [row["id"] for row in body["data"]]
        await api.admin.post(f"{env}/builds", json={"ref": "later"})
        cursor = body["pagination"]["next_cursor"]
        assert body["pagination"]["has_more"] is (cursor is not None)
        if cursor is None:
            break
        assert cursor.startswith("eyJ0")
    assert seen == made[::-1]


async def test_the_default_is_twenty(api: World) -> None:
    env, _ = await builds(api, 21)
    body = (await api.admin.get(f"{env}/builds")).json()
    assert len(body["data"]) == 20
    assert body["pagination"]["has_more"] is True


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "9" * 40, ""])
async def test_a_limit_outside_of_1_to_100_is_refused(api: World, limit: str) -> None:
    refused = error(await api.admin.get("/v1/sites", params={"limit": limit}), 400)
    assert refused["param"] == "limit"


async def test_a_cursor_belongs_to_its_list(api: World) -> None:
    env, _ = await builds(api, 3)
    cursor = (await api.admin.get(f"{env}/builds?limit=1")).json()["pagination"]["next_cursor"]
    for path in ("/v1/jobs", "/v1/sites", f"{env}/deployments", f"{env}/releases"):
        refused = error(await api.admin.get(path, params={"cursor": cursor}), 400)
        assert refused["code"] == "pagination.invalid_cursor"
        assert refused["param"] == "cursor"


@pytest.mark.parametrize("cursor", ["x", "", "eyJ0", "e30", "bnVsbA", "W10", "!!", "é"])
async def test_an_odd_cursor_is_refused(api: World, cursor: str) -> None:
    refused = error(await api.admin.get("/v1/sites", params={"cursor": cursor}), 400)
    assert refused["code"] == "pagination.invalid_cursor"


async def test_a_forged_position_is_refused_not_believed(api: World) -> None:
    env, _ = await builds(api, 3)
    cursor = (await api.admin.get(f"{env}/builds?limit=1")).json()["pagination"]["next_cursor"]
    known = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    for change in ({"t": "0001-01-01T00:00:00+23:59"}, {"t": 7}, {"id": 7}, {"id": "x\0"}, {"id": "é"}):
        forged = base64.urlsafe_b64encode(json.dumps(known | change).encode()).decode().rstrip("=")
        refused = error(await api.admin.get(f"{env}/builds", params={"cursor": forged}), 400)
        assert refused["code"] == "pagination.invalid_cursor"


async def test_a_list_that_is_known_as_a_whole_has_pages_too(api: World) -> None:
    whole = [row["runtime"] for row in data(await api.admin.get("/v1/runtimes"))]
    first = (await api.admin.get("/v1/runtimes?limit=4")).json()
    rest = (await api.admin.get("/v1/runtimes", params={"cursor": first["pagination"]["next_cursor"]})).json()
    assert [row["runtime"] for row in (*first["data"], *rest["data"])] == whole
    assert rest["pagination"] == {"next_cursor": None, "has_more": False}
    other = (await api.admin.get("/v1/jobs?limit=1", params={"cursor": first["pagination"]["next_cursor"]})).json()
    assert other["error"]["code"] == "pagination.invalid_cursor"


async def test_the_files_of_an_artifact_have_pages(api: World) -> None:
    site = await api.site(api.admin)
    manifest = make_manifest([File(f"{number:03}.txt", "644", 1, "a" * 64) for number in range(7)])
    artifact = api.artifact(site["id"], site["production_env_id"], manifest.digest)
    api.objects.held[object_key(site["id"], manifest.digest, "manifest")] = manifest.raw
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/artifacts/{artifact}/files"
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = (await api.admin.get(path, params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        seen += [row["path"] for row in body["data"]]
        cursor = body["pagination"]["next_cursor"]
        assert body["pagination"]["has_more"] is (cursor is not None)
    assert seen == [entry.path for entry in manifest.entries]


async def test_filters(api: World) -> None:
    env, made = await builds(api, 2)
    site = await api.environment(api.admin, env.split("/")[3], "preview", "feature/x")
    assert [row["id"] for row in data(await api.admin.get(f"{env}/builds?ref=r0"))] == [made[0]]
    assert data(await api.admin.get(f"{env}/builds?status=failed")) == []
    assert error(await api.admin.get(f"{env}/builds?status=odd"), 400)["param"] == "status"
    kinds = data(await api.admin.get("/v1/jobs?resource_type=build"))
    assert {row["type"] for row in kinds} == {"build.run"}
    assert {row["status"] for row in data(await api.admin.get("/v1/jobs?status=succeeded"))} == {"succeeded"}
    found = data(await api.admin.get(f"{env.rsplit('/', 1)[0]}?branch=feature/x"))
    assert [row["id"] for row in found] == [site["id"]]
    assert data(await api.admin.get("/v1/sites?slug=acme-store"))[0]["slug"] == "acme-store"
    assert data(await api.admin.get("/v1/sites?slug=other")) == []


@pytest.mark.parametrize("query", ["limt=5", "limit=5&colour=red", "release_id=rel_1"])
async def test_a_parameter_that_no_list_has_is_refused(api: World, query: str) -> None:
    refused = error(await api.admin.get(f"/v1/jobs?{query}"), 400)
    named = query.rpartition("&")[2].partition("=")[0]
    assert (refused["code"], refused["param"]) == ("request.unknown_parameter", named)
    assert (await api.admin.get("/v1/jobs?limit=5&status=queued")).status_code == 200


async def test_work_is_not_accepted_with_a_parameter_that_nobody_reads(api: World) -> None:
    refused = error(await api.admin.post("/v1/sites?dry_run=1", json={"name": "Acme"}), 400)
    assert refused["param"] == "dry_run"
    assert data(await api.admin.get("/v1/sites")) == []
