"""Requests of visitors: counted by minute from what hosts tell, and the last ones listed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from headway.buckets import bucket_of
from store.models import Environment
from tests.api.test_broker import Roles, failure
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


class Visited:
    def __init__(self, api: World, roles: Roles, site: Json) -> None:
        self.api, self.roles = api, roles
        self.env_id = site["production_env_id"]
        self.path = f"/v1/sites/{site['id']}/environments/{self.env_id}"
        self.now = int(time.time() // 60)

    def batch(self, upto: int, ok: int = 1, bad: int = 0, ago: int = 0, ms: float = 10.0, **more: Any) -> Json:
        minute = {"minute": self.now - ago, "classes": [0, 0, ok, 0, 0, bad], "size": 100, "durations": {}}
        minute["durations"] = {str(bucket_of(ms)): ok + bad}
        line = {"ts": "2026-06-24T14:31:00.000Z", "hostname": "shop.test", "method": "GET", "path": f"/{upto}"}
        line |= {"status": 200, "duration_ms": ms, "size": 100}
        return {"host_id": "local", "upto": [5.5, upto], "minutes": [minute], "lines": [line], **more}

    async def tell(self, body: Json) -> list[float]:
        role = "host" if body["host_id"] == "local" else f"host:{body['host_id']}"
        answer = await self.roles.ask(role, "POST", f"/environments/{self.env_id}/requests", body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["upto"])


@pytest.fixture
async def visited(api: World) -> Visited:
    return Visited(api, Roles(api), await api.site(api.admin))


async def test_metrics_add_up_batches_hosts_and_minutes(visited: Visited) -> None:
    assert await visited.tell({"host_id": "local", "upto": [0, 0]}) == [0, 0]
    await visited.tell(visited.batch(1, ok=3))
    assert await visited.tell(visited.batch(2, ok=96, bad=1)) == [5.5, 2]
    await visited.tell(visited.batch(2, ok=96, bad=1))
    await visited.tell(visited.batch(1, ok=5))
    await visited.tell(visited.batch(3, ok=1, ago=2, ms=500))
    visited.api.change(Environment, visited.env_id, hosts=["local", "other"])
    await visited.tell(visited.batch(1, ok=1, ago=100, host_id="other"))
    found = data(await visited.api.admin.get(visited.path + "/metrics"))
    assert found["access_log"] == "services"
    assert [one["requests"] for one in found["minutes"]] == [1, 100]
    total = found["total"]
    assert (total["requests"], total["status_2xx"], total["status_5xx"], total["bytes"]) == (101, 100, 1, 300)
    assert 10 <= total["p50_ms"] <= 11
    assert 10 <= total["p99_ms"] <= 11
    assert 500 <= found["minutes"][0]["p50_ms"] <= 550
    assert data(await visited.api.admin.get(visited.path + "/metrics?minutes=200"))["total"]["requests"] == 102


async def test_nothing_asked(visited: Visited) -> None:
    found = data(await visited.api.admin.get(visited.path + "/metrics?minutes=1"))
    assert (found["minutes"], found["total"]["requests"], found["total"]["p50_ms"]) == ([], 0, None)
    assert data(await visited.api.admin.get(visited.path + "/request-logs")) == []


async def test_the_last_requests_and_those_before(visited: Visited) -> None:
    for at in range(1, 6):
        await visited.tell(visited.batch(at, unlisted=at))
    page = (await visited.api.admin.get(visited.path + "/request-logs?tail=2")).json()
    assert [row["path"] for row in page["data"]] == ["/4", "/5"]
    assert page["data"][1] == {
        "id": 5, "ts": "2026-06-24T14:31:00.000Z", "hostname": "shop.test", "method": "GET", "path": "/5",
        "status": 200, "duration_ms": 10.0, "bytes": 100, "unlisted": 5,
    }  # fmt: skip
    cursor = page["pagination"]["next_cursor"]
    before = await visited.api.admin.get(f"{visited.path}/request-logs?tail=3&cursor={cursor}")
    assert [row["path"] for row in data(before)] == ["/1", "/2", "/3"]
    assert before.json()["pagination"] == {"next_cursor": None, "has_more": False}
    none = (await visited.api.admin.get(visited.path + "/request-logs?tail=0")).json()
    assert (none["data"], none["pagination"]) == ([], {"next_cursor": None, "has_more": False})


@pytest.mark.parametrize("noun", ["metrics", "request-logs"])
async def test_404_before_403_and_the_scope(visited: Visited, noun: str) -> None:
    api = visited.api
    _, stranger = await api.tenant("Strangers")
    assert error(await stranger.get(f"{visited.path}/{noun}"), 404)["code"] == "site.not_found"
    _, owner = await api.tenant("Owners", scopes=["sites:write", "environments:read"])
    site = await api.site(owner, "Own")
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/{noun}"
    assert error(await owner.get(path), 403)["param"] == "scope"
    bad = "minutes=0" if noun == "metrics" else "tail=5000"
    assert error(await api.admin.get(f"{visited.path}/{noun}?{bad}"), 400)["code"] == "request.invalid_parameter"


async def test_the_broker_takes_requests_of_hosts_alone(visited: Visited) -> None:
    path = f"/environments/{visited.env_id}/requests"
    assert failure(await visited.roles.ask("builder", "POST", path, visited.batch(1)), 403) == "role.insufficient"
    gone = await visited.roles.ask("host", "POST", "/environments/env_01NOTHERE/requests", visited.batch(1))
    assert failure(gone, 404) == "environment.not_found"
    long = visited.batch(1)
    long["lines"][0]["path"] = "/" * 600
    assert failure(await visited.roles.ask("host", "POST", path, long), 400) == "request.invalid_parameter"
