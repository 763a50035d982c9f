"""Where a site reports to: a token that goes in and never comes out, places that are refused, and what was reported."""

from __future__ import annotations

import json

import pytest
from sqlmodel import select

from api.managed.forge_reports import report_row
from store import forge_links, reports
from store.models import Job, Site
from store.models_reports import ForgeLink, ForgeReport
from store.outcomes import end_job
from tests.api.world import Json, World, data, error

pytestmark = pytest.mark.anyio
CANARY = "ghp_canary_0123456789"
COMMIT = "a" * 40


async def linked(api: World, client, **more: object) -> tuple[Json, str, Json]:
    site = await api.site(client, repository="https://github.com/acme/store.git")
    path = f"/v1/sites/{site['id']}/forge"
    return site, path, data(await client.put(path, json={"provider": "github", "token": CANARY, **more}))


async def test_a_token_goes_in_and_never_comes_out(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path, made = await linked(api, client)
    assert (made["api_url"], made["repository"]) == ("https://api.github.com", "acme/store")
    assert data(await client.get(path)) == made
    reports_shown = data(await client.get(path + "/reports"))
    assert [(row["kind"], row["status"]) for row in reports_shown] == [("check", "pending")]
    assert CANARY not in json.dumps([made, reports_shown])
    row = api.one(ForgeLink, site_id=site["id"])
    assert CANARY.encode() not in row.ciphertext
    assert forge_links.token_of(api.parts.webhook_vault, row) == CANARY
    for file in api.folder.glob("headway.db*"):
        assert CANARY.encode() not in file.read_bytes()
    changed = data(await client.put(path, json={"provider": "github", "comments": False}))
    assert changed["comments"] is False
    assert forge_links.token_of(api.parts.webhook_vault, api.one(ForgeLink, site_id=site["id"])) == CANARY
    odd = await client.put(path, json={"provider": "github", "token": f"{CANARY}\n"})
    assert error(odd, 400)["param"] == "token"
    assert CANARY not in odd.text
    assert data(await client.delete(path)) == {"id": site["id"], "deleted": True}
    assert error(await client.get(path), 404)["code"] == "forge_link.not_found"
    assert (api.count(ForgeLink), api.count(ForgeReport)) == (0, 0)


async def test_a_token_goes_to_no_other_place(api: World) -> None:
    """Whoever may change a site, and has not got the token, cannot have it sent to himself."""
    _, client = await api.tenant("Acme")
    _, path, _ = await linked(api, client)
    for body in ({"provider": "gitea"}, {"provider": "github", "api_url": "https://thief.example/api"}):
        assert error(await client.put(path, json=body), 400)["param"] == "token"
    same = data(await client.put(path, json={"provider": "github", "repository": "acme/other"}))
    assert same["repository"] == "acme/other"


async def test_places_that_are_refused(api: World) -> None:
    _, client = await api.tenant("Acme")
    site = await api.site(client)
    path = f"/v1/sites/{site['id']}/forge"
    body = {"provider": "gitea", "token": CANARY}
    assert error(await client.put(path, json=body), 400)["code"] == "forge_link.repository_unknown"
    for url in (
        "http://git.example/api/v1",
        "https://10.0.0.7/api/v1",
        "https://localhost/",
        "https://u:p@git.example/",
    ):
        refused = error(await client.put(path, json={**body, "api_url": url, "repository": "a/b"}), 400)
        assert (refused["code"], refused["param"]) == ("forge_link.url_refused", "api_url")
    odd = error(await client.put(path, json={**body, "api_url": "https://git.example", "repository": "a/../b"}), 400)
    assert odd["param"] == "repository"
    allowed = {**body, "api_url": "http://127.0.0.1:3000/api/v1", "repository": "a/b"}
    assert data(await client.put(path, json=allowed))["repository"] == "a/b"


async def test_tenants_and_scopes(api: World) -> None:
    team, client = await api.tenant("Acme")
    site, path, _ = await linked(api, client)
    _, other = await api.tenant("Other")
    for answer in (
        await other.get(path),
        await other.put(path, json={"provider": "github", "token": "x"}),
        await other.delete(path),
        await other.get(path + "/reports"),
        await other.post(path + "/reports/rep_1/retry", json={}),
    ):
        assert error(answer, 404)["code"] == "site.not_found"
    reader = api.client(await api.key(team, None, ["sites:read"], kind="service"))
    assert data(await reader.get(path))["site_id"] == site["id"]
    assert error(await reader.put(path, json={"provider": "github"}), 403)["code"] == "scope.insufficient"


async def test_what_a_job_is_to_show_is_noted_with_it(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, path, _ = await linked(api, client)
    preview = await api.environment(client, site["id"], "preview", "feature/x")
    job = data(
        await client.post(f"/v1/sites/{site['id']}/deployments", json={"ref": COMMIT, "target": preview["slug"]})
    )
    with api.store.write() as session:
        end_job(session, session.get_one(Job, job["id"]), "failed", error={"code": "build.timeout", "message": "m"})
    rows = {row["kind"]: row for row in data(await client.get(path + "/reports"))}
    assert set(rows) == {"check", "status", "comment"}
    for kind in ("status", "comment"):
        assert (rows[kind]["state"], rows[kind]["job_id"]) == ("failure", job["id"])
        assert (rows[kind]["commit_sha"], rows[kind]["branch"]) == (COMMIT, "feature/x")
    assert data(await client.get(path + "/reports?status=failed")) == []
    error(await client.post(f"{path}/reports/{rows['status']['id']}/retry", json={}), 409)
    with api.store.write() as session:
        row = session.get_one(ForgeReport, rows["status"]["id"])
        row.state, row.ended_at = "failed", row.created_at
    again = data(await client.post(f"{path}/reports/{rows['status']['id']}/retry", json={}))
    assert (again["status"], again["attempts"]) == ("pending", 0)


async def test_an_older_job_has_nothing_more_to_say(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, _, _ = await linked(api, client)
    body = {"ref": COMMIT, "target": "production"}
    first, second = [data(await client.post(f"/v1/sites/{site['id']}/deployments", json=body)) for _ in range(2)]
    for job, status in ((second, "succeeded"), (first, "failed")):
        with api.store.write() as session:
            end_job(session, session.get_one(Job, job["id"]), status, result={"url": "http://x.test"})
    with api.store.read() as session:
        [row] = session.exec(select(ForgeReport).where(ForgeReport.kind == "status")).all()
    assert (row.job_id, report_row(row)["state"]) == (second["id"], "success")


async def test_a_sites_token_goes_with_it(api: World) -> None:
    _, client = await api.tenant("Acme")
    site, _, _ = await linked(api, client)
    with api.store.write() as session:
        forge_links.forget_link(session, site["id"])
        forge_links.forget_link(session, site["id"])
    assert (api.count(ForgeLink), api.count(ForgeReport)) == (0, 0)


async def test_a_site_that_reports_nowhere_pays_one_question(api: World) -> None:
    _, client = await api.tenant("Acme")
    site = await api.site(client)
    job = data(await client.post(f"/v1/sites/{site['id']}/deployments", json={"ref": COMMIT, "target": "production"}))
    with api.store.write() as session:
        found = session.get_one(Job, job["id"])
        reports.note_job(session, found)
        assert session.get_one(Site, site["id"]) is not None
    assert api.count(ForgeReport) == 0
