"""What other clients' headers and queries ask for, each in its own way of writing it."""

from __future__ import annotations

import time

import pytest

from api.preferences import wants_events
from store.models import Build, Job
from store.outcomes import end_build, end_job
from tests.api.test_jobs import build_job
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
EVENTS = "text/event-stream"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        (EVENTS, True),
        ("Text/Event-Stream; charset=utf-8", True),
        (f"{EVENTS};q=0", False),
        (f"{EVENTS}; Q=0.0, */*", False),
        (f"text/plain, {EVENTS}", True),
        (f"text/plain, {EVENTS};q=0.5", False),
        (f"text/*;q=0.4, {EVENTS};q=0.5", True),
        (f"*/*, {EVENTS};q=0.9", False),
        (f"*/*;q=0.1, {EVENTS};level=1;q=0.9", True),
    ],
)
async def test_events_are_for_who_likes_them_no_less_than_the_document(accept: str | None, wanted: bool) -> None:
    assert wants_events(accept, "text/plain") is wanted


async def test_a_log_comes_as_it_is_asked_for(api: World) -> None:
    env, job = await build_job(api)
    with api.store.write() as session:
        end_build(session, session.get_one(Build, job["resource"]["id"]), "canceled", None)
        end_job(session, session.get_one(Job, job["id"]), "canceled")
    path = f"{env}/builds/{job['resource']['id']}/log"
    for accept, media in (
        ([("Accept", f"text/plain, {EVENTS};q=0.1")], "text/plain"),
        ([("Accept", f"{EVENTS};q=0")], "text/plain"),
        ([("Accept", "TEXT/EVENT-STREAM")], EVENTS),
        ([("Accept", "text/plain;q=0.1"), ("Accept", EVENTS)], EVENTS),
    ):
        answer = await api.admin.get(path, headers=accept)
        assert answer.headers["content-type"].startswith(media), accept
    lines = await api.admin.get(f"{env}/logs", headers={"Accept": f"application/json, {EVENTS};q=0.5"})
    assert lines.headers["content-type"] == "application/json"


async def test_the_lines_of_a_list_are_one(api: World) -> None:
    _, job = await build_job(api)
    path = f"/v1/jobs/{job['id']}"
    tag = (await api.admin.get(path)).headers["etag"]
    for known in ([("If-None-Match", '"x"'), ("If-None-Match", tag)], [("If-None-Match", f'W/"x", W/{tag}')]):
        assert (await api.admin.get(path, headers=known)).status_code == 304
    begun = time.monotonic()
    asked = [("If-None-Match", tag), ("Prefer", "respond-async"), ("Prefer", "wait=1")]
    assert (await api.admin.get(path, headers=asked)).status_code == 304
    assert time.monotonic() - begun > 0.9


@pytest.mark.parametrize("query", ["status=queued&status=running", "limit=1&limit=1", "limit=1&status=queued&limit=2"])
async def test_a_parameter_that_stands_twice_is_refused(api: World, query: str) -> None:
    refused = error(await api.admin.get(f"/v1/jobs?{query}"), 400)
    assert (refused["code"], refused["param"]) == ("request.invalid_parameter", query.partition("=")[0])


async def test_two_content_types_are_none(api: World) -> None:
    for given in (("text/plain", "application/json"), ("application/json", "text/plain")):
        headers = [("Content-Type", one) for one in given]
        refused = error(await api.admin.post("/v1/sites", content=b'{"name":"x"}', headers=headers), 400)
        assert refused["param"] == "Content-Type"


@pytest.mark.parametrize(
    ("scopes", "param"), [(7, "scopes"), ([7], "scopes.0"), (["x" * 61], "scopes.0"), ([], "scopes"), ("odd", "scopes")]
)
async def test_the_field_to_blame_is_one_of_the_request(api: World, scopes: object, param: str) -> None:
    refused = error(await api.admin.post("/v1/api-keys", json={"name": "k", "scopes": scopes}), 400)
    assert refused["param"] == param
    assert "constrained" not in refused["message"]


async def test_the_default_branch_is_no_previews(api: World) -> None:
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}"
    preview = await api.environment(api.admin, site["id"], "preview", "trunk")
    refused = error(await api.admin.patch(path, json={"default_branch": "trunk", "name": "New"}), 409)
    assert (refused["code"], refused["param"]) == ("environment.branch_taken", "default_branch")
    assert preview["slug"] in refused["message"]
    kept = data(await api.admin.get(path))
    assert (kept["default_branch"], kept["name"]) == ("main", site["name"])
    assert data(await api.admin.patch(path, json={"default_branch": "stable"}))["default_branch"] == "stable"
    production = data(await api.admin.get(f"{path}/environments/{site['production_env_id']}"))
    assert production["branch"] == "stable"


async def test_what_no_site_can_do_says_so_for_every_listed_call(api: World) -> None:
    site = await api.site(api.admin, profile="dynamic")
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    records = f"/v1/sites/{site['id']}/dns/records"
    for method, path in (
        ("GET", f"{env}/cache"),
        ("POST", f"{env}/cache/purge"),
        ("GET", f"{env}/redirects"),
        ("PUT", f"{env}/redirects"),
        ("POST", records),
        ("PATCH", f"{records}/rec_1234"),
        ("DELETE", f"{records}/rec_1234"),
    ):
        refused = error(await api.admin.request(method, path), 409)
        assert refused["code"] == "environment.capability_unsupported", path
        assert "static" not in refused["message"]
    assert "headway.toml" in error(await api.admin.get(f"{env}/redirects"), 409)["message"]
    unknown = "/v1/sites/site_0000/dns/records/rec_1234"
    assert error(await api.admin.delete(unknown), 404)["code"] == "site.not_found"
    capable = data(await api.admin.get(f"/v1/sites/{site['id']}/capabilities"))["capabilities"]
    assert capable["build"]["kind"] == "dynamic"


@pytest.mark.parametrize("query", ["since=0001-01-01T00:00:00%2B14:00", "until=9999-12-31T23:59:59-14:00"])
async def test_a_time_that_utc_does_not_have_is_refused(api: World, query: str) -> None:
    assert error(await api.admin.get(f"/v1/audit?{query}"), 400)["param"] == query.partition("=")[0]
    site = await api.site(api.admin)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    freeze = {"start": "2026-12-20T00:00:00Z", "end": "9999-12-31T23:59:59-05:00"}
    refused = error(await api.admin.put(f"{path}/policy", json={"freezes": [freeze]}), 400)
    assert (refused["param"], "Value error" in refused["message"]) == ("freezes.0", False)
    assert error(await api.admin.get(f"{path}/logs?release=rel_0000"), 404)["param"] == "release"
