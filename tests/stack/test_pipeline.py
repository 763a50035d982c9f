"""The main way, on the whole embedded stack: a git ref becomes an artifact, a live page, and an earlier page again."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.artifact.manifest import parse_manifest
from bench.client import Caller
from bench.stack import Stack
from headway.cli.demo_source import make_repository
from headway.errors import HeadwayError
from tests.adapters.repositories import Repository
from tests.stack.conftest import NewPlace
from tests.stack.sites import Page, Place, end_of, refusal, visit

Json = dict[str, Any]
PAGE = "<!doctype html>\n<title>{0}</title>\n<h1>{0}</h1>\n"
FILES = {
    "index.html": PAGE.format("one"),
    "about/index.html": PAGE.format("about"),
    "style.css": "h1 { color: teal }\n",
}
RULES = """[static]
spa = true
not_found = "lost.html"

[[static.headers]]
for = "/*"
values = { "X-Frame-Options" = "DENY" }

[[static.redirects]]
from = "/old/*"
to = "/new/:splat"
status = 308
"""


def accepted(answer: httpx.Response) -> Json:
    """A 202 as the contract has it: the job, where to find it, and its tag."""
    assert answer.status_code == 202, answer.text
    job: Json = answer.json()["data"]
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert answer.headers["ETag"]
    assert job["status"] in ("queued", "running")
    return job


def assert_digest_tag(page: Page) -> None:
    assert page.status == 200
    assert page.etag is not None
    assert page.etag.strip('"') == page.sha256


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    """A site that was built once and runs nowhere yet."""
    return new_place(FILES)


@pytest.fixture(scope="module")
def first(place: Place) -> Json:
    return place.build()


def test_an_unchanged_commit_uploads_nothing_and_is_the_same_artifact(place: Place, first: Json) -> None:
    staging = place.site.staging
    assert first["commit_sha"] == place.repository.git("rev-parse", "HEAD")
    row = place.get(staging, "builds", first["build_id"])
    assert row["status"] == "succeeded"
    assert row["uploaded_bytes"] > 0
    for clean in (False, True):
        again = place.build(clean=clean)
        assert again["build_id"] != first["build_id"]
        assert (again["artifact_id"], again["digest"]) == (first["artifact_id"], first["digest"])
        row = place.get(staging, "builds", again["build_id"])
        assert row["uploaded_bytes"] == 0
        assert row["clean"] is clean
    artifact = place.get(staging, "artifacts", first["artifact_id"])
    assert artifact["digest"] == first["digest"]
    assert artifact["files"] == len(FILES)
    manifest = place.caller.http.get(artifact["links"]["manifest"]).content
    assert parse_manifest(manifest, digest=first["digest"].removeprefix("sha256:")).raw == manifest


def test_from_staging_to_production_and_back(new_place: NewPlace) -> None:
    place = new_place(FILES)
    staging, production = place.site.staging, place.site.production
    artifact = place.build()["artifact_id"]
    assert place.page(env=staging).status == 404
    place.roll(artifact, staging)
    assert_digest_tag(place.page(env=staging))
    assert place.page(env=staging).text == FILES["index.html"]
    assert place.page(env=production).status == 404

    place.caller.finish(place.start_promotion())
    assert place.page().body == place.page(env=staging).body
    (release,) = place.releases(production)
    assert (release["artifact_id"], release["current"]) == (artifact, True)
    assert len(place.artifacts()) == 1

    place.repository.commit({"index.html": PAGE.format("two")})
    pushed = place.push()
    assert place.page().text == PAGE.format("two")
    assert_digest_tag(place.page())
    assert place.page(env=staging).text == PAGE.format("one")
    assert pushed["result"]["artifact_id"] != artifact

    back = place.caller.finish(place.start_rollback(production))
    assert back["type"] == "deployment.rollback"
    assert place.page().text == PAGE.format("one")
    second = pushed["result"]["release_id"]
    place.caller.finish(place.start_rollback(production, second))
    assert place.page().text == PAGE.format("two")

    rows = place.releases(production)
    assert [row["current"] for row in rows] == [True, False, False, False]
    assert [row["artifact_id"] == artifact for row in rows] == [False, True, False, True]
    assert len({row["id"] for row in rows}) == 4
    assert all(row["actor"]["id"] and row["ref"] == "main" for row in rows)
    kinds = [row["kind"] for row in place.get(production, "deployments")]
    assert kinds == ["rollback", "rollback", "deploy", "promote"]


def test_a_repository_that_the_platform_hosts(stack: Stack, caller: Caller, tmp_path: Path) -> None:
    job = accepted(caller.http.post("/v1/sites", json={"name": "Own ground", "default_branch": "trunk"}))
    assert job["type"] == "site.create"
    site_id, env_id = caller.finish(job)["resource"]["id"], job["resource"]["env_id"]
    path = f"/v1/sites/{site_id}/environments/{env_id}"
    empty = end_of(caller, caller.post(f"{path}/builds"))
    assert (empty["status"], empty["error"]["code"]) == ("failed", "repository.empty")

    local = Repository(tmp_path / "work")
    local.commit({"index.html": PAGE.format("hosted")})
    at = str(caller.get(f"/v1/sites/{site_id}")["git_url"]).replace("://", f"://any:{stack.key}@")
    local.git("push", "-q", "-o", "skip", at, "main:trunk")
    build = caller.finish(accepted(caller.http.post(f"{path}/builds")))
    assert build["result"]["commit_sha"] == local.git("rev-parse", "HEAD")
    roll = caller.http.post(f"{path}/deployments", json={"artifact_id": build["result"]["artifact_id"]})
    result = caller.finish(accepted(roll))["result"]
    host = httpx.URL(result["url"])
    assert host.port == stack.sites_port
    own, _, domain = host.host.partition(".")
    assert (own, domain) in (("own-ground", "localhost"), ("own-ground", "sites.test")), "the compose file's domain"
    for name in (host.host, f"own-ground-production.{domain}"):
        assert visit(stack, name).text == PAGE.format("hosted")


def test_every_accepted_call_says_where_its_job_is(place: Place, first: Json) -> None:
    staging, http = place.site.staging, place.caller.http
    bodies = [
        ("builds", {"ref": "main"}, "build.run"),
        ("deployments", {"artifact_id": first["artifact_id"]}, "deployment.roll"),
        ("promote", {"to_env": "production"}, "deployment.promote"),
    ]
    for route, body, kind in bodies:
        job = accepted(http.post(place.path(staging, route), json=body))
        assert job["type"] == kind
        assert job["resource"]["env_id"] in (staging, place.site.production)
        place.caller.finish(job)
    pushed = accepted(http.post(f"/v1/sites/{place.site.id}/deployments", json={"ref": "main", "target": "staging"}))
    assert pushed["type"] == "deployment.push"
    place.caller.finish(pushed)
    last = place.releases(staging)[0]["deployment_id"]
    rolled = accepted(http.post(place.path(staging, "deployments", last, "rollback")))
    assert rolled["type"] == "deployment.rollback"
    place.caller.finish(rolled)
    preview = accepted(
        http.post(f"/v1/sites/{place.site.id}/environments", json={"kind": "preview", "branch": "feature/checkout"})
    )
    assert preview["type"] == "environment.create"
    env = place.get(place.caller.finish(preview)["resource"]["id"])
    assert (env["slug"], env["status"]) == ("feature-checkout", "active")
    removed = accepted(http.delete(place.path(env["id"])))
    place.caller.finish(removed)
    assert refusal(http.get(place.path(env["id"])), 404)["code"] == "environment.not_found"


def events(lines: Iterator[str]) -> Iterator[Json]:
    """The events of a stream, `{"id", "event", "data"}`."""
    fields: Json = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("id", "event", "data"):
            fields[name] = json.loads(value) if name != "event" else value
        if not line and "event" in fields:
            yield fields
            fields = {}


STAGES = ("fetch", "detect", "build", "pack", "sign", "verify", "switch")


def test_the_stream_of_a_push_is_whole_and_resumes_where_it_was(new_place: NewPlace) -> None:
    command = "for n in 1 2 3 4 5 6 7 8; do echo line $n; sleep 0.1; done; mkdir out; cp page.html out/index.html"
    place = new_place({"headway.toml": f'[build]\ncommand = "{command}"\n', "page.html": PAGE.format("streamed")})
    job = place.start_push()
    http = place.caller.http
    with http.stream("GET", job["links"]["stream"]) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        whole = list(events(answer.iter_lines()))
    assert whole[0]["event"] == "job"
    assert whole[-1] == {"event": "end", "data": {"status": "succeeded"}}
    numbers = [one["id"] for one in whole if "id" in one]
    assert numbers == sorted(set(numbers))
    said = [one["data"]["line"] for one in whole if one["event"] == "log" and one["data"]["stream"] == "stdout"]
    assert said == [f"line {n}" for n in range(1, 9)]
    assert {one["data"]["stage"] for one in whole if one["event"] == "log"} == {"fetch", "detect", "build", "pack"}
    jobs = [one["data"] for one in whole if one["event"] == "job"]
    assert jobs[-1]["status"] == "succeeded"
    assert [one["progress"] for one in jobs] == sorted(one["progress"] for one in jobs)
    stages = [one["stage"] for one in jobs if one["stage"]]
    # One that is over before anybody looks is not told: the command's alone takes its time.
    assert "build" in stages
    assert stages == sorted(stages, key=STAGES.index)

    at = next(one["id"] for one in whole if one["event"] == "log" and one["data"]["line"] == "line 4")
    with http.stream("GET", job["links"]["stream"], headers={"Last-Event-ID": str(at)}) as answer:
        rest = list(events(answer.iter_lines()))
    lines = [one for one in rest if one["event"] == "log"]
    assert lines == [one for one in whole if one["event"] == "log" and one["id"] > at]
    assert rest[-1] == whole[-1]

    row = place.get(place.site.production, "builds")[0]
    log = http.get(row["links"]["log"])
    assert log.headers["Content-Type"].startswith("text/plain")
    assert [line for line in log.text.splitlines() if line.startswith("line ")] == said
    with http.stream("GET", row["links"]["log"], headers={"Accept": "text/event-stream"}) as answer:
        followed = [one["data"]["line"] for one in events(answer.iter_lines()) if one["event"] == "log"]
    assert followed == log.text.splitlines()


def test_a_deploy_that_is_sent_twice_happens_once(place: Place, first: Json) -> None:
    path, key = place.path(place.site.staging, "deployments"), str(uuid.uuid4())
    body, headers = {"artifact_id": first["artifact_id"]}, {"Idempotency-Key": key}
    before = len(place.releases(place.site.staging))
    answers = [place.caller.http.post(path, json=body, headers=headers) for _ in range(2)]
    job = place.caller.finish(accepted(answers[0]))
    again = place.caller.http.post(path, json=body, headers=headers)
    assert [one.json()["data"]["id"] for one in (*answers, again)] == [job["id"]] * 3
    assert [one.headers.get("Idempotent-Replayed") for one in (*answers, again)] == [None, "true", "true"]
    assert (again.status_code, again.json()["data"]["status"]) == (202, "succeeded")
    assert len(place.releases(place.site.staging)) == before + 1
    other = place.caller.http.post(
        path.replace("deployments", "promote"), json={"to_env": "production"}, headers=headers
    )
    assert refusal(other, 400)["code"] == "idempotency.key_reused"


def test_a_page_is_fresh_after_a_change_of_equal_size_and_after_a_rollback(new_place: NewPlace) -> None:
    place = new_place({"index.html": PAGE.format("cat")})
    place.push()
    old = place.page()
    assert old.etag is not None
    assert place.page(If_None_Match=old.etag).status == 304
    place.repository.commit({"index.html": PAGE.format("dog")})
    place.push()
    new = place.page(If_None_Match=old.etag, If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT")
    assert (new.status, new.text) == (200, PAGE.format("dog"))
    assert "Last-Modified" not in new.headers
    assert len(new.body) == len(old.body)
    place.caller.finish(place.start_rollback(place.site.production))
    assert place.page(If_None_Match=str(new.etag)).text == PAGE.format("cat")
    assert place.page(If_None_Match=old.etag).status == 304


def test_the_rules_of_a_site_are_served_and_come_and_go_with_its_releases(new_place: NewPlace) -> None:
    place = new_place({**FILES, "lost.html": PAGE.format("lost"), ".env": "SECRET=1\n"})
    place.push()
    assert place.page("/nowhere").status == 404
    assert place.page("/about/").text == PAGE.format("about")
    place.repository.commit({"headway.toml": RULES})
    place.push()
    front = place.page("/deep/route")
    assert (front.status, front.text) == (200, FILES["index.html"])
    assert front.headers["X-Frame-Options"] == "DENY"
    moved = place.page("/old/menu?x=1")
    assert (moved.status, moved.headers["Location"]) == (308, "/new/menu?x=1")
    for hidden in ("/.env", "/headway.toml"):
        gone = place.page(hidden)
        assert (gone.status, gone.text) == (404, PAGE.format("lost"))
    place.caller.finish(place.start_rollback(place.site.production))
    plain = place.page("/style.css")
    assert_digest_tag(plain)
    assert "X-Frame-Options" not in plain.headers
    assert place.page("/deep/route").status == 404


def test_a_deleted_site_is_not_served_any_more(new_place: NewPlace) -> None:
    place = new_place(FILES)
    place.push()
    assert place.page().status == 200
    place.caller.finish(accepted(place.caller.http.delete(f"/v1/sites/{place.site.id}")))
    assert place.page().status == 404
    assert refusal(place.caller.http.get(f"/v1/sites/{place.site.id}"), 404)["code"] == "site.not_found"
    assert refusal(place.caller.http.get(place.path(place.site.production, "releases")), 404)


def test_a_published_site_that_is_not_ours(stack: Stack, caller: Caller, tmp_path: Path) -> None:
    """reveal.js as npm has it, committed as it is: every file of it can be fetched by its digest."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH to fetch reveal.js with")
    try:
        published = make_repository(stack.repos / f"published-{uuid.uuid4().hex[:8]}", tmp_path / "cache")
    except HeadwayError as error:
        pytest.skip(f"nothing could be fetched: {error.message}")
    if not published.origin.startswith("npm"):
        pytest.skip(f"npm could not fetch reveal.js; there was only {published.origin}")
    site = caller.new_site("Reveal", published.url)
    artifact = caller.finish(caller.push(site, "production"))["result"]["artifact_id"]
    page = visit(stack, site.production_host)
    assert_digest_tag(page)
    assert re.search(r"<title>.*reveal\.js", page.text)
    files = caller.get(f"/v1/sites/{site.id}/environments/{site.production}/artifacts/{artifact}/files?limit=100")
    assert len(files) > 50
    hidden = re.compile(r"(^|/)(\.|headway\.toml$|index\.html$)")
    shown = [row for row in files if not hidden.search(row["path"])]
    for row in shown[::5]:
        served = visit(stack, site.production_host, "/" + row["path"])
        assert (served.status, served.sha256) == (200, row["sha256"]), row["path"]
