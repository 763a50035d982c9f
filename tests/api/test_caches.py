"""Caches of builds by the broker: who reads and who writes which, and what a quota takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import select

from activities.retention import Retention
from headway.broker import StoredCache
from headway.ids import new_id
from store.caches import CacheRules
from store.collection import Rules
from store.models import Environment, utcnow
from store.models_caches import BuildCache
from store.models_retention import Doomed
from temporal.messages import RetentionOrder
from tests.api.test_broker import Roles, failure
from tests.api.world import World, data

pytestmark = pytest.mark.anyio
KEY, OTHER = "a" * 32, "b" * 32
RULES = CacheRules(size=100, idle=timedelta(days=14))


@dataclass
class Builder:
    """A builder at one build."""

    roles: Roles
    build: str
    attempt: int = 1
    leaves_cache: bool = True

    async def ask(self, what: str, **body: Any) -> httpx.Response:
        return await self.roles.ask(
            "builder", "POST", f"/builds/{self.build}/{what}", {"attempt": self.attempt, **body}
        )

    async def find(self, key: str = KEY) -> StoredCache:
        return StoredCache.model_validate((await self.ask("cache", key=key)).json())

    async def upload(self, raw: bytes, key: str = KEY, **more: Any) -> httpx.Response:
        sha256 = hashlib.sha256(raw).hexdigest()
        return await self.ask("uploads", kind="cache", sha256=sha256, size=len(raw), cache=key, **more)

    async def keep(self, api: World, raw: bytes, key: str = KEY) -> httpx.Response:
        answer = (await self.upload(raw, key)).json()
        name = answer["url"].removeprefix("http://objects.test/").partition("?")[0]
        api.objects.put_new(name, raw, hashlib.sha256(raw).hexdigest())
        return await self.ask("cached", key=key, sha256=hashlib.sha256(raw).hexdigest())


@pytest.fixture
async def roles(api: World) -> Roles:
    api.parts = replace(api.parts, caches=RULES)
    return Roles(api)


@pytest.fixture
async def site(api: World) -> dict[str, Any]:
    return await api.site(api.admin)


async def begun(
    api: World, roles: Roles, site: dict[str, Any], env_id: str | None = None, ref: str | None = None
) -> Builder:
    path = f"/v1/sites/{site['id']}/environments/{env_id or site['production_env_id']}/builds"
    job = data(await api.admin.post(path, json={"ref": ref} if ref else None))
    build = job["resource"]["id"]
    answer = await roles.ask("builder", "POST", f"/builds/{build}/begin", {"attempt": 1, "worker": "w"})
    assert answer.status_code == 200, answer.text
    return Builder(roles, build, leaves_cache=answer.json()["leaves_cache"])


def preview_of(api: World, site: dict[str, Any]) -> str:
    made = Environment(
        id=new_id("env"), site_id=site["id"], kind="preview", slug="preview", branch="other", status="active"
    )
    with api.store.write() as session:
        session.add(made)
    return made.id


async def test_a_preview_reads_productions_cache_and_writes_its_own(
    api: World, roles: Roles, site: dict[str, Any]
) -> None:
    production = await begun(api, roles, site)
    assert await production.find() == StoredCache(most=100)
    assert (await production.keep(api, b"production")).status_code == 200
    preview = await begun(api, roles, site, preview_of(api, site))
    found = await preview.find()
    assert (found.size, found.own, found.sha256) == (10, False, hashlib.sha256(b"production").hexdigest())
    assert (await preview.find(OTHER)).sha256 is None
    assert (await preview.keep(api, b"preview")).status_code == 200
    assert ((await preview.find()).size, (await preview.find()).own) == (7, True)
    # Whatever a preview says, what production's builds read is production's.
    again = await begun(api, roles, site)
    assert ((await again.find()).size, (await again.find()).own) == (10, True)
    names = sorted(name for name in api.objects.held if "/caches/" in name)
    assert len(names) == 2
    assert all(name.startswith(f"sites/{site['id']}/caches/env_") for name in names)


async def test_what_is_not_productions_branch_reads_its_cache_and_leaves_none(
    api: World, roles: Roles, site: dict[str, Any]
) -> None:
    assert (await (await begun(api, roles, site)).keep(api, b"production")).status_code == 200
    other = await begun(api, roles, site, ref="feature")
    assert other.leaves_cache is False
    found = await other.find()
    assert (found.sha256, found.own, found.most) == (hashlib.sha256(b"production").hexdigest(), True, 0)
    refused = await other.upload(b"poison")
    assert refused.json()["error"]["code"] == "upload.failed"
    named = await begun(api, roles, site, ref="main")
    assert named.leaves_cache is True
    assert (await named.find()).sha256 == hashlib.sha256(b"production").hexdigest()
    # What a preview's builds leave is read by nobody but its own.
    preview = await begun(api, roles, site, preview_of(api, site), ref="whatever")
    assert (preview.leaves_cache, (await preview.keep(api, b"preview")).status_code) == (True, 200)


async def test_no_site_reads_anothers(api: World, roles: Roles, site: dict[str, Any]) -> None:
    first = await begun(api, roles, site)
    await first.keep(api, b"one")
    stranger = await begun(api, roles, await api.site(api.admin, "Other"))
    assert (await stranger.find()).sha256 is None
    sha256 = hashlib.sha256(b"one").hexdigest()
    assert failure(await stranger.ask("cached", key=KEY, sha256=sha256), 500) == "upload.failed"
    assert (await first.find()).sha256 == sha256


async def test_only_what_was_uploaded_counts(api: World, roles: Roles, site: dict[str, Any]) -> None:
    builder = await begun(api, roles, site)
    sha256 = hashlib.sha256(b"one").hexdigest()
    assert failure(await builder.ask("cached", key=KEY, sha256=sha256), 500) == "upload.failed"
    assert (await builder.upload(b"one")).json()["url"]
    assert failure(await builder.ask("cached", key=KEY, sha256=sha256), 500) == "upload.failed"
    assert (await builder.find()).sha256 is None
    assert failure(await builder.upload(b"x" * 101), 400) == "request.invalid_parameter"
    assert failure(await builder.upload(b"x", key="../../other"), 400) == "request.invalid_parameter"
    assert failure(await builder.ask("cache", key="x"), 400) == "request.invalid_parameter"
    stale = replace(builder, attempt=7)
    for answer in (
        await stale.ask("cache", key=KEY),
        await stale.upload(b"one"),
        await stale.ask("cached", key=KEY, sha256=sha256),
    ):
        assert failure(answer, 409) == "attempt.stale"
    assert failure(await roles.ask("host", "POST", f"/builds/{builder.build}/cache", {}), 403) == "role.insufficient"


async def test_a_newer_one_takes_the_place_of_the_older(api: World, roles: Roles, site: dict[str, Any]) -> None:
    builder = await begun(api, roles, site)
    await builder.keep(api, b"one")
    assert (await builder.upload(b"one")).json()["url"] is None
    await builder.keep(api, b"two!")
    assert (await builder.find()).size == 4
    assert api.count(BuildCache) == 1
    doomed = api.one(Doomed, site_id=site["id"]).key
    assert doomed.endswith(hashlib.sha256(b"one").hexdigest())
    # It is on its way out: nobody may count on it, or write it anew, until it is gone.
    assert failure(await builder.upload(b"one"), 500) == "upload.failed"


async def test_the_longest_unused_goes_past_the_quota_and_productions_last(
    api: World, roles: Roles, site: dict[str, Any]
) -> None:
    production = await begun(api, roles, site)
    await production.keep(api, b"p" * 40)
    preview = await begun(api, roles, site, preview_of(api, site))
    await preview.keep(api, b"1" * 30, "1" * 32)
    await preview.keep(api, b"2" * 30, "2" * 32)
    assert (await preview.find("1" * 32)).own
    await preview.keep(api, b"3" * 30, "3" * 32)
    assert [(await preview.find(n * 32)).own for n in "123"] == [True, False, True]
    assert (await production.find()).size == 40
    assert api.count(BuildCache) == 3


def collected(api: World) -> list[str]:
    retention = Retention(api.store, api.objects, Rules(), RULES)
    retention.collect(RetentionOrder(""))
    retention.delete(RetentionOrder(""))
    return sorted(name for name in api.objects.held if "/caches/" in name)


async def test_a_collection_takes_what_nobody_asks_for(api: World, roles: Roles, site: dict[str, Any]) -> None:
    builder = await begun(api, roles, site)
    await builder.keep(api, b"one")
    await builder.keep(api, b"two", OTHER)
    preview_env = preview_of(api, site)
    preview = await begun(api, roles, site, preview_env)
    await preview.keep(api, b"three")
    await builder.upload(b"never uploaded", "c" * 32)
    assert len(collected(api)) == 3
    with api.store.write() as session:
        session.get_one(Environment, preview_env).deleted_at = utcnow()
        rows = session.exec(select(BuildCache)).all()
        for row in rows:
            if row.key == OTHER:
                row.used_at = utcnow() - timedelta(days=15)
            if not row.ready:
                row.created_at = utcnow() - timedelta(days=2)
    (left,) = collected(api)
    assert left.endswith(hashlib.sha256(b"one").hexdigest())
    assert api.count(BuildCache) == 1
    assert api.count(Doomed) == 0


async def test_a_sites_caches_are_listed_and_dropped(api: World, roles: Roles, site: dict[str, Any]) -> None:
    production, preview = site["production_env_id"], preview_of(api, site)
    builder = await begun(api, roles, site)
    await builder.keep(api, b"one")
    await builder.keep(api, b"other", OTHER)
    await (await begun(api, roles, site, preview)).keep(api, b"preview")
    other = await api.site(api.admin, "Other")
    await (await begun(api, roles, other)).keep(api, b"theirs")
    path = f"/v1/sites/{site['id']}/caches"
    rows = data(await api.admin.get(path))
    assert [(row["env_id"], row["key"], row["size_bytes"]) for row in rows] == [
        (preview, KEY, 7),
        (production, OTHER, 5),
        (production, KEY, 3),
    ]
    assert rows[-1]["build_id"] == builder.build
    first = (await api.admin.get(path, params={"limit": 2})).json()
    rest = (await api.admin.get(path, params={"limit": 2, "cursor": first["pagination"]["next_cursor"]})).json()
    assert [*first["data"], *rest["data"]] == rows

    assert data(await api.admin.delete(path, params={"env_id": preview})) == {"dropped": 1, "size_bytes": 7}
    assert data(await api.admin.delete(path)) == {"dropped": 2, "size_bytes": 8}
    assert data(await api.admin.delete(path)) == {"dropped": 0, "size_bytes": 0}
    assert data(await api.admin.get(path)) == []
    assert (await builder.find()).sha256 is None
    assert len(data(await api.admin.get(f"/v1/sites/{other['id']}/caches"))) == 1
    with api.store.read() as session:
        assert sorted(one.key for one in session.exec(select(Doomed)).all() if "/caches/" in one.key) != []
    elsewhere = await api.admin.delete(path, params={"env_id": other["production_env_id"]})
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "environment.not_found")
