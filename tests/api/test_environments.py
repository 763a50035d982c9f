"""Sites, environments and their names (contract sections 9 and 10)."""

from __future__ import annotations

import asyncio
import re

import pytest

from activities.environments import EnvironmentRecords
from store.models import Environment, Hostname, Job, Site
from store.queue import claim_job
from temporal.messages import PlaceOrder
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


async def test_a_site_comes_with_production_and_its_names(api: World) -> None:
    job = data(await api.admin.post("/v1/sites", json={"name": "Acme  Störe!"}))
    assert job["type"] == "site.create"
    assert job["resource"]["slug"] == "acme-store"
    site = data(await api.admin.get(f"/v1/sites/{job['resource']['id']}"))
    assert site["status"] == "provisioning"
    assert site["production_env_id"] == job["resource"]["env_id"]
    env = data(await api.admin.get(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"))
    assert (env["kind"], env["slug"], env["branch"], env["status"]) == ("production",) * 2 + ("main", "provisioning")
    assert env["url"] == "http://acme-store.sites.test:7071"
    assert env["hostnames"] == ["acme-store.sites.test", "acme-store-production.sites.test"]
    assert env["preview_url"] is None


async def test_slugs_are_unique_in_the_team_and_names_in_the_world(api: World) -> None:
    _, alice = await api.tenant("Alice")
    _, bob = await api.tenant("Bob")
    one = await api.site(alice, "Shop")
    two = await api.site(bob, "Shop")
    assert one["slug"] == two["slug"] == "shop"
    assert error(await alice.post("/v1/sites", json={"name": "shop"}), 409)["code"] == "site.slug_taken"
    path = "/v1/sites/{id}/environments/{production_env_id}"
    names = [data(await client.get(path.format(**site)))["hostnames"] for client, site in ((alice, one), (bob, two))]
    assert len({*names[0], *names[1]}) == 4
    assert names[0] == ["shop.sites.test", "shop-production.sites.test"]
    assert re.fullmatch(r"shop-[0-9a-f]{6}\.sites\.test", names[1][0])


@pytest.mark.parametrize("name", ["api", "www", "admin", "app", "git", "temporal", "localhost"])
async def test_reserved_labels_get_a_hash(api: World, name: str) -> None:
    site = await api.site(api.admin, name)
    env = data(await api.admin.get(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"))
    assert re.fullmatch(rf"{name}-[0-9a-f]{{6}}\.sites\.test", env["hostnames"][0])


@pytest.mark.parametrize(
    ("branch", "slug"),
    [
        ("feature/checkout", "feature-checkout"),
        ("Release-1.2", "release-1-2"),
        ("production", "production-[0-9a-f]{6}"),
        ("staging", "staging-[0-9a-f]{6}"),
        ("live", "live-[0-9a-f]{6}"),
        ("日本語", "branch-[0-9a-f]{6}"),
        ("ünïcode", "unicode-[0-9a-f]{6}"),
        ("x" * 250, "x{33}-[0-9a-f]{6}"),
        ("xn--80ak6aa92e", "xn-80ak6aa92e"),
    ],
)
async def test_previews_are_named_after_their_branch(api: World, branch: str, slug: str) -> None:
    site = await api.site(api.admin, "A site whose name is as long as a name may well be in practice")
    env = await api.environment(api.admin, site["id"], "preview", branch)
    assert re.fullmatch(slug, env["slug"])
    assert env["branch"] == branch
    for hostname in env["hostnames"]:
        assert LABEL.fullmatch(hostname.removesuffix(".sites.test"))
    assert re.search(r"-[0-9a-f]{6}\.sites\.test:7071$", env["preview_url"])
    # A slug that had to be told from others is the branch's own address already.
    own = branch in ("production", "staging", "live")
    assert len(env["hostnames"]) == (1 if own else 2)


@pytest.mark.parametrize(
    "branch",
    [
        *("a..b", "/a", "a/", "a//b", "-a", "a b", "a\tb", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a.lock"),
        *(".a", "a/.b", "a@{1}", "@", "HEAD", "a.", "", "é" * 126),
    ],
)
async def test_what_git_takes_for_no_branch_is_refused(api: World, branch: str) -> None:
    site = await api.site(api.admin)
    body = {"kind": "preview", "branch": branch}
    refused = error(await api.admin.post(f"/v1/sites/{site['id']}/environments", json=body), 400)
    assert refused["param"] == "branch"


async def test_branches_that_look_alike_get_environments_of_their_own(api: World) -> None:
    site = await api.site(api.admin)
    slugs = set()
    for branch in ("feature/checkout", "feature-checkout", "Feature/Checkout", "feature_checkout"):
        slugs.add((await api.environment(api.admin, site["id"], "preview", branch))["slug"])
    assert len(slugs) == 4


async def test_a_preview_keeps_its_address_for_the_life_of_the_branch(api: World) -> None:
    site = await api.site(api.admin)
    first = await api.environment(api.admin, site["id"], "preview", "feature/x")
    with api.store.write() as session:
        from store.outcomes import retire_environment

        retire_environment(session, first["id"])
    second = await api.environment(api.admin, site["id"], "preview", "feature/x")
    assert second["id"] != first["id"]
    assert second["preview_url"] == first["preview_url"]


async def test_one_staging_one_preview_a_branch_and_no_second_production(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"
    await api.environment(api.admin, site["id"], "staging", "main")
    staging = await api.admin.post(path, json={"kind": "staging", "branch": "other"})
    assert error(staging, 409)["code"] == "environment.kind_singleton"
    await api.environment(api.admin, site["id"], "preview", "b")
    preview = await api.admin.post(path, json={"kind": "preview", "branch": "b"})
    assert error(preview, 409)["code"] == "environment.branch_taken"
    main = await api.admin.post(path, json={"kind": "preview", "branch": "main"})
    assert error(main, 409)["code"] == "environment.branch_taken"
    assert error(await api.admin.post(path, json={"kind": "production", "branch": "x"}), 400)["param"] == "kind"
    production = await api.admin.delete(f"{path}/{site['production_env_id']}")
    assert error(production, 409)["code"] == "environment.protected"


async def test_a_race_for_a_branch_has_one_winner(api: World) -> None:
    site = await api.site(api.admin)
    body = {"kind": "preview", "branch": "race"}
    path = f"/v1/sites/{site['id']}/environments"
    answers = await asyncio.gather(*(api.admin.post(path, json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7


async def test_deletion_is_a_job_and_a_second_request_finds_it(api: World) -> None:
    site = await api.site(api.admin)
    env = await api.environment(api.admin, site["id"], "preview", "b")
    path = f"/v1/sites/{site['id']}/environments/{env['id']}"
    first, second = data(await api.admin.delete(path)), data(await api.admin.delete(path))
    assert first["id"] == second["id"]
    assert first["type"] == "environment.delete"
    assert data(await api.admin.get(path))["status"] == "deleting"
    assert error(await api.admin.post(f"{path}/builds"), 409)["code"] == "environment.not_active"
    gone = data(await api.admin.delete(f"/v1/sites/{site['id']}"))
    assert gone["type"] == "site.delete"
    body = {"kind": "preview", "branch": "c"}
    late = await api.admin.post(f"/v1/sites/{site['id']}/environments", json=body)
    assert error(late, 409)["code"] == "environment.not_active"


async def test_canceling_what_has_not_started_puts_everything_back(api: World) -> None:
    job = data(await api.admin.post("/v1/sites", json={"name": "Shop"}))
    canceled = data(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"))
    assert canceled["status"] == "canceled"
    assert error(await api.admin.get(f"/v1/sites/{job['resource']['id']}"), 404)["code"] == "site.not_found"
    assert api.count(Hostname) == 0
    site = await api.site(api.admin, "Shop")
    assert api.one(Site, id=site["id"]).slug == "shop"
    deletion = data(await api.admin.delete(f"/v1/sites/{site['id']}"))
    await api.admin.post(f"/v1/jobs/{deletion['id']}/cancel")
    assert data(await api.admin.get(f"/v1/sites/{site['id']}"))["status"] == "active"
    assert api.one(Environment, id=site["production_env_id"]).status == "active"
    again = data(await api.admin.delete(f"/v1/sites/{site['id']}"))
    api.change(Job, again["id"], status="running")
    refused = await api.admin.post(f"/v1/jobs/{again['id']}/cancel")
    assert error(refused, 409)["code"] == "job.not_cancelable"


async def test_ephemeral_environments_are_renewed(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"
    job = data(await api.admin.post(path, json={"kind": "preview", "branch": "b", "ephemeral": True}))
    env_id = job["resource"]["id"]
    first = data(await api.admin.get(f"{path}/{env_id}"))
    assert first["ephemeral"] is True
    later = data(await api.admin.post(f"{path}/{env_id}/renew"))
    assert later["expires_at"] > first["expires_at"]
    lasting = await api.admin.post(f"{path}/{site['production_env_id']}/renew")
    assert lasting.status_code == 409


async def test_a_site_is_renamed_and_moved(api: World) -> None:
    site = await api.site(api.admin)
    project = data(await api.admin.post("/v1/projects", json={"name": "Other"}))
    changed = data(await api.admin.patch(f"/v1/sites/{site['id']}", json={"project_id": project["id"], "name": "New"}))
    assert (changed["project_id"], changed["name"], changed["slug"]) == (project["id"], "New", "acme-store")
    again = await api.admin.post("/v1/projects", json={"name": "Other"})
    assert error(again, 409)["code"] == "project.slug_taken"
    assert error(await api.admin.patch(f"/v1/sites/{site['id']}", json={"slug": "x"}), 400)["param"] == "slug"


async def test_the_job_that_made_an_environment_ends_with_it(api: World) -> None:
    """Contract section 8.2: the result is the environment object, as far as it is fixed by then."""
    site = await api.site(api.admin)
    body = {"kind": "preview", "branch": "feature/x", "ephemeral": True}
    job = data(await api.admin.post(f"/v1/sites/{site['id']}/environments", json=body))
    with api.store.write() as session:
        claim_job(session, job["id"])
    records = EnvironmentRecords(api.store, api.folder, api.parts.addresses.site_url)
    env_id = job["resource"]["id"]
    order = PlaceOrder(job["id"], env_id, (), site["id"])
    for _ in range(2):
        await asyncio.to_thread(records.activate, order)
    ended = data(await api.admin.get(f"/v1/jobs/{job['id']}"))
    shown = data(await api.admin.get(f"/v1/sites/{site['id']}/environments/{env_id}"))
    assert ended["status"] == "succeeded"
    assert ended["result"].pop("env_id") == env_id
    assert ended["result"] == {name: shown[name] for name in ended["result"]}
    assert {"id", "site_id", "kind", "branch", "status", "preview_url", "created_at"} <= set(ended["result"])
    assert ended["result"]["preview_url"].startswith("http://acme-store-feature-x-")


async def test_what_is_being_deleted_is_not_renewed(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments"
    job = data(await api.admin.post(path, json={"kind": "preview", "branch": "a", "ephemeral": True}))
    api.provision(job["id"])
    preview = f"{path}/{job['resource']['id']}"
    data(await api.admin.post(f"{preview}/renew"))
    data(await api.admin.delete(preview))
    assert error(await api.admin.post(f"{preview}/renew"), 409)["code"] == "environment.not_active"
