"""Builders: each with a credential of its own, and what one is at is nobody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.githost.backend import Backend
from adapters.githost.pushhead import PushLimits
from api.git.parts import GitParts
from store.keys import hashed
from store.leases import FORGOTTEN, SILENT
from store.models import Build, utcnow
from store.models_builders import Builder, BuilderLease
from tests.adapters.repositories import Repository
from tests.api.test_broker import NOW, Roles, a_build, another_build, failure
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
BEGIN = {"attempt": 1, "worker": "w"}
SHA, LOCK = "a" * 64, "b" * 32


@pytest.fixture
async def roles(api: World) -> Roles:
    return Roles(api)


def silent(api: World, subject: str) -> None:
    """It is as if its holder had said nothing for long, and the broker had listened all the time."""
    with api.store.write() as session:
        session.get_one(BuilderLease, subject).heard_at = utcnow() - 2 * SILENT


def listening(roles: Roles, api: World) -> None:
    """A broker that has listened for long."""
    from api.internal import app, doorkeeper

    class Old(doorkeeper.Doorkeeper):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, since=utcnow() - timedelta(hours=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "Doorkeeper", Old)
        roles.app = app.create_broker(api.parts, {role: of for role, of in roles.tokens.items() if ":" not in role})


def questions(build: str, job: str, attempt: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Everything that a builder may ask about a build that it has begun."""
    named = {"attempt": attempt}
    event = {"kind": "log", "ts": NOW, "stream": "stdout", "line": "a lie"}
    output = {"commit_sha": "c" * 40, "source_sha256": "d" * 64, "profile": "static", "kind": "static", "plan": {}}
    output |= {"cache": {}, "manifest_sha256": SHA, "pack": None, "uploaded_bytes": 0}
    base = f"/builds/{build}"
    return [
        ("POST", f"{base}/fetched", named | {"commit_sha": "b" * 40}),
        ("POST", f"{base}/earlier", named | {"inputs": SHA}),
        ("POST", f"{base}/secrets", named | {"names": ["TOKEN"]}),
        ("POST", f"{base}/packs", named | {"packs": [SHA]}),
        ("POST", f"{base}/cache", named | {"key": LOCK}),
        ("POST", f"{base}/cached", named | {"key": LOCK, "sha256": SHA}),
        ("POST", f"{base}/contents", named | {"contents": [[SHA, 1]]}),
        ("POST", f"{base}/uploads", named | {"kind": "pack", "sha256": SHA, "size": 1}),
        ("POST", f"{base}/uploads", named | {"kind": "cache", "cache": LOCK, "sha256": SHA, "size": 1}),
        ("POST", f"{base}/output", named | output),
        ("POST", f"/jobs/{job}/events", {"source": f"{build}/{attempt}", "first": 1, "events": [event]}),
    ]


async def test_a_stolen_credential_has_no_say_in_what_another_builder_is_at(api: World, roles: Roles) -> None:
    site, build, job = await a_build(api)
    listening(roles, api)
    secrets = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/secrets/TOKEN"
    await api.admin.put(secrets, json={"value": "canary-5d21"})
    taken = await roles.ask("builder:two", "POST", f"/builds/{build}/begin", BEGIN)
    assert taken.json().get("attempt") == 1, taken.text
    own, own_job = await another_build(api, site)
    thieves = (("builder:one", None), ("builder", None), ("builder:two", "another process"))
    for thief, process in thieves:
        held = await roles.ask(thief, "POST", f"/builds/{build}/begin", BEGIN, process=process)
        assert failure(held, 409) == "attempt.held", thief
        for attempt in (1, 2):
            for method, path, body in questions(build, job, attempt):
                answer = await roles.ask(thief, method, path, body, process=process)
                assert failure(answer, 409) == "attempt.stale", (thief, path)
                assert "canary" not in answer.text
    # Nor by way of a build of its own.
    await roles.ask("builder:one", "POST", f"/builds/{own}/begin", BEGIN)
    for source in (f"{own}/1", f"{own}/1 {build}/1", f"{own}/{build}/1", f"{own}#{build}/1"):
        events = {"source": source, "first": 1, "events": []}
        assert (await roles.ask("builder:one", "POST", f"/jobs/{job}/events", events)).status_code in (404, 409), source
    row = api.one(Build, id=build)
    assert (row.attempt, row.builder_id, row.commit_sha, row.manifest_sha256) == (1, "two", None, None)
    log = await api.admin.get(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds/{build}/log")
    assert "a lie" not in log.text
    # Whoever is at it goes on.
    for method, path, body in questions(build, job, 1)[:3]:
        answer = await roles.ask("builder:two", method, path, body)
        assert answer.status_code == 200, answer.text
    assert (await roles.ask("builder:two", *questions(build, job, 1)[-1])).json() == {"cancel": False}
    assert (await roles.ask("builder:one", *questions(own, own_job, 1)[-1])).json() == {"cancel": False}


async def test_a_builder_that_removes_itself_or_is_removed_gives_its_builds_to_others(api: World, roles: Roles) -> None:
    _, build, job = await a_build(api)
    begin = ("POST", f"/builds/{build}/begin", BEGIN)
    for builder in ("builder:two", "builder:one"):
        await roles.ask(builder, "GET", "/builder")
    assert (await roles.ask("builder:two", *begin)).json()["attempt"] == 1
    await roles.ask("builder:one", "DELETE", f"/leases/{build}")
    assert failure(await roles.ask("builder:one", *begin), 409) == "attempt.held", "it is not that one's to let go"
    assert (await roles.ask("builder:two", "DELETE", f"/leases/{build}")).json() == {}
    assert (await roles.ask("builder:one", *begin)).json()["attempt"] == 2
    assert data(await api.admin.delete("/v1/builders/one"))["deleted"]
    for method, path, body in [*questions(build, job, 2), begin]:
        assert failure(await roles.ask("builder:one", method, path, body), 401) == "auth.invalid_key"
    assert (await roles.ask("builder:two", *begin)).json()["attempt"] == 3
    data(await api.admin.post("/v1/builders/two/credential"))
    assert failure(await roles.ask("builder:two", *questions(build, job, 3)[-1]), 401) == "auth.invalid_key"
    assert (await roles.ask("builder", *begin)).json()["attempt"] == 4, "what a renewed one was at begins again"


async def test_what_a_silent_builder_was_at_is_taken_by_another(api: World, roles: Roles) -> None:
    _, build, job = await a_build(api)
    begin = ("POST", f"/builds/{build}/begin", BEGIN)
    await roles.ask("builder:two", *begin)
    silent(api, build)
    assert failure(await roles.ask("builder:one", *begin), 409) == "attempt.held", "the broker has just begun to listen"
    listening(roles, api)
    heard = questions(build, job, 1)[-1]
    assert (await roles.ask("builder:two", *heard)).status_code == 200
    assert failure(await roles.ask("builder:one", *begin), 409) == "attempt.held", "it was heard"
    silent(api, build)
    assert (await roles.ask("builder:one", *begin)).json()["attempt"] == 2
    assert failure(await roles.ask("builder:two", *heard), 409) == "attempt.stale", "it was frozen, and comes back"
    with api.store.write() as session:
        session.add(
            BuilderLease(subject_id="old", builder_id="x", holder_sha256=SHA, heard_at=utcnow() - 2 * FORGOTTEN)
        )
    other = (await a_build(api, "Other"))[1]
    await roles.ask("builder:one", "POST", f"/builds/{other}/begin", BEGIN)
    assert api.count(BuilderLease) == 2, "what nobody has let go of is forgotten in the end"


async def test_a_builder_shows_what_its_process_alone_knows(api: World, roles: Roles) -> None:
    _, build, _ = await a_build(api)
    for process in ("", None):
        answer = await roles.ask("builder", "POST", f"/builds/{build}/begin", BEGIN, process=process)
        if process is None:
            assert answer.status_code == 200
        else:
            assert failure(answer, 400) == "request.missing_parameter"
    lease = api.one(BuilderLease, subject_id=build)
    assert lease.holder_sha256 == hashed("what a process of builder alone knows"), "not itself"
    assert (await roles.ask("builder:two", "GET", "/builder")).json() == {"builder_id": "two"}
    assert (await roles.ask("builder", "GET", "/builder")).json() == {"builder_id": "local"}
    assert failure(await roles.ask("host", "GET", "/builder"), 403) == "role.insufficient"


async def test_only_the_operator_lets_builders_in_and_sees_what_they_built(api: World, roles: Roles) -> None:
    made = data(await api.admin.post("/v1/builders", json={"id": "two"}))
    assert made["credential"].startswith("hwb_")
    assert made["last_used_at"] is None
    assert made["credential"] not in repr(api.one(Builder, id="two"))
    assert "credential" not in data(await api.admin.get("/v1/builders/two"))
    assert (
        data(await api.admin.get("/v1/builders/two/builds"))
        == data(await api.admin.get("/v1/builders/local/builds"))
        == []
    )
    assert error(await api.admin.get("/v1/builders/three/builds"), 404)["code"] == "builder.not_found"
    for taken in ("two", "local"):
        refused = await api.admin.post("/v1/builders", json={"id": taken})
        assert error(refused, 409)["code"] == "builder.exists"
    for bad in ({"id": "../two"}, {"id": ""}, {}, {"id": "x", "labels": []}):
        assert (await api.admin.post("/v1/builders", json=bad)).status_code == 400
    roles.tokens["builder:two"] = made["credential"]
    site, build, _ = await a_build(api)
    await roles.ask("builder:two", "POST", f"/builds/{build}/begin", BEGIN)
    row = data(await api.admin.get(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds/{build}"))
    assert row["builder"] == "two"
    assert data(await api.admin.get("/v1/builders"))[0]["last_used_at"] is not None
    renewed = data(await api.admin.post("/v1/builders/two/credential"))["credential"]
    assert renewed != made["credential"]
    _, tenant = await api.tenant("Acme")
    assert error(await tenant.get("/v1/builders"), 403)["code"] == "role.insufficient"
    for method, path in (("GET", ""), ("GET", "/builds"), ("POST", "/credential"), ("DELETE", "")):
        refused = await tenant.request(method, f"/v1/builders/two{path}")
        assert error(refused, 404)["code"] == "builder.not_found"
    assert data(await api.admin.delete("/v1/builders/two"))["deleted"]
    assert error(await api.admin.get("/v1/builders/two"), 404)["code"] == "builder.not_found"
    assert [one["id"] for one in data(await api.admin.get("/v1/builders/two/builds"))] == [build]


async def test_a_sites_own_repository_goes_to_who_builds_it_alone(api: World, tmp_path: Path) -> None:
    api.parts = replace(api.parts, git=GitParts(Backend.install(tmp_path / "repos", PushLimits())))
    roles = Roles(api)
    site, build, _ = await a_build(api)
    _, remote, _ = await a_build(api, "Remote", repository="https://git.example.com/shop.git")
    for one in (build, remote):
        await roles.ask("builder:two", "POST", f"/builds/{one}/begin", BEGIN)
    path, wanted = f"/builds/{build}/repository", {"attempt": 1}
    assert failure(await roles.ask("builder:two", "POST", path, wanted), 400) == "repository.empty"
    elsewhere = f"/builds/{remote}/repository"
    assert failure(await roles.ask("builder:two", "POST", elsewhere, wanted), 409) == "repository.missing"
    work = Repository(tmp_path / "work")
    work.commit({"index.html": "canary-77af"})
    assert api.parts.git is not None
    bare = api.parts.git.backend.repositories.ensure(site["id"], "main")
    work.git("push", "-q", str(bare), "main")
    given = await roles.ask("builder:two", "POST", path, wanted)
    assert given.content.startswith(b"# v2 git bundle\n")
    for thief in ("builder:one", "builder"):
        assert failure(await roles.ask(thief, "POST", path, wanted), 409) == "attempt.stale"
    assert failure(await roles.ask("host", "POST", path, wanted), 403) == "role.insufficient"
    assert failure(await roles.ask("builder:two", "POST", path, {"attempt": 2}), 409) == "attempt.stale"
    assert failure(await roles.ask("builder:two", "POST", path, {"attempt": "x"}), 400) == "request.invalid_parameter"
