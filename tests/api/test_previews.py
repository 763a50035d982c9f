"""Previews: as many as a site may have, and no longer than somebody uses them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from api.housekeeping import Housekeeping
from store.hostnames import release_hostnames
from store.models import Environment, Job, utcnow
from store.models_pushes import Push
from store.pushes import Previews
from tests.api.git_server import git_world
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio


async def test_an_idle_preview_ends_unless_it_is_renewed_or_pushed_to(tmp_path: Path) -> None:
    async with git_world(tmp_path, previews=Previews(idle=timedelta(hours=100))) as server:
        site = await server.site()
        work = server.repository()
        commit = work.commit({"index.html": "one"})
        assert (await server.push(work, "main:idle", "main:renewed", "main:pushed")).ok
        rows = await server.environments(site["id"])
        assert all(rows[name]["ephemeral"] for name in ("idle", "renewed", "pushed"))
        for row in rows.values():
            server.api.change(Environment, row["id"], expires_at=utcnow() - timedelta(seconds=1))
        path = f"/v1/sites/{site['id']}/environments/{rows['renewed']['id']}/renew"
        renewed = data(await server.api.admin.post(path))
        assert renewed["expires_at"] > rows["renewed"]["created_at"]
        work.commit({"index.html": "two"})
        assert (await server.push(work, "main:pushed")).ok
        parts = server.api.parts
        housekeeping = Housekeeping(parts.store, parts.events, timedelta(days=30), starts=parts.starts)
        assert await housekeeping.end_idle() == 1
        job = server.api.one(Job, type="environment.delete")
        assert (job.env_id, job.actor["id"]) == (rows["idle"]["id"], "expiry")
        await server.until(lambda: server.ended(job.id), "it has ended")
        assert set(await server.environments(site["id"])) == {"main", "renewed", "pushed"}
        assert (await server.seen(site["id"]))["idle"] == commit, "its branch stays"
        assert server.api.one(Environment, id=rows["renewed"]["id"]).expires_at > utcnow() + timedelta(hours=99)


@pytest.mark.slow
async def test_previews_may_live_as_long_as_their_branch(tmp_path: Path) -> None:
    async with git_world(tmp_path, previews=Previews(idle=None)) as server:
        site = await server.site()
        work = server.repository()
        work.commit({"index.html": "one"})
        assert (await server.push(work, "main:feature")).ok
        row = (await server.environments(site["id"]))["feature"]
        assert (row["ephemeral"], row["expires_at"]) == (False, None)
        assert server.api.one(Push, branch="feature").moved is True


async def test_the_limit_is_for_the_api_too(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"
    for number in range(20):
        data(await api.admin.post(path, json={"kind": "preview", "branch": f"b{number}"}))
    refused = await api.admin.post(path, json={"kind": "preview", "branch": "one-more"})
    assert error(refused, 409)["code"] == "environment.too_many"
    data(await api.admin.post(path, json={"kind": "staging", "branch": "staging"}))


async def test_routes_are_bounded_and_the_default_branch_takes_production_along(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/branch-routes"
    for routes in ([{"pattern": "", "target": "live"}], [{"pattern": "a", "target": "moon"}], [{"pattern": "a"}]):
        assert error(await api.admin.put(path, json={"routes": routes}), 400)["param"].startswith("routes.0")
    many = [{"pattern": f"b{number}", "target": "ignore"} for number in range(101)]
    assert error(await api.admin.put(path, json={"routes": many}), 400)["param"] == "routes"
    assert error(await api.admin.put(path, json={"routes": [{"pattern": "\x1b[2J", "target": "live"}]}), 400)
    data(await api.admin.patch(f"/v1/sites/{site['id']}", json={"default_branch": "trunk"}))
    assert data(await api.admin.get(path))["routes"][0] == {"pattern": "trunk", "target": "live"}
    assert api.one(Environment, id=site["production_env_id"]).branch == "trunk"


async def test_an_address_is_the_branchs_whatever_others_there_are(api: World) -> None:
    """`upper/case` beside `UPPER/Case` has another slug than alone, and the same address."""
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"

    async def make(branch: str) -> tuple[str, list[str]]:
        job = data(await api.admin.post(path, json={"kind": "preview", "branch": branch}))
        row = data(await api.admin.get(f"{path}/{job['resource']['id']}"))
        assert len(row["hostnames"]) == len(set(row["hostnames"]))
        return row["slug"], [row["preview_url"], job["resource"]["id"]]

    first, (url, env_id) = await make("upper/case")
    api.change(Environment, env_id, deleted_at=utcnow(), slug=f"gone-{env_id}")
    with api.store.write() as session:
        release_hostnames(session, env_id)
    _, (other, _) = await make("UPPER/Case")
    second, (again, _) = await make("upper/case")
    assert (again, first != second, again != other) == (url, True, True)
