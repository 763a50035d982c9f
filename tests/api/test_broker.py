"""The broker: credentials by role, attempts that are fenced, outputs that are looked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from sqlmodel import select

from activities.retention import Retention
from adapters.artifact.layout import parse_layout
from adapters.artifact.manifest import File, make_manifest
from adapters.artifact.run import RunSettings
from adapters.ledger.keyring import EVER, KeyRecord, KeyringDocument, sign_keyring
from adapters.signer.keys import create_key
from api.bootstrap import broker_tokens
from api.internal.app import create_broker
from headway.broker import HOLDER, BuildSpec, RollSpec, Turn
from store import ledger
from store.builders import add_builder
from store.collection import Rules
from store.hosts import join_host
from store.models import Artifact, ArtifactPack, Build, Content, Job, Pack, PackLease, Rollout, Site, utcnow
from store.outcomes import end_build
from store.queue import claim_job
from temporal.messages import RetentionOrder
from tests.api.world import World, data
from tests.workflows.rows import claim_next

pytestmark = pytest.mark.anyio
NOW = "2026-06-24T14:31:20.114Z"


class Roles:
    """Callers of the broker by role; `host:<id>` and `builder:<id>` have credentials of their own, `host` and `builder`
    are the machine beside the API. Each builder is one process, unless `process` names another.
    """

    def __init__(self, api: World) -> None:
        self.store = api.store
        self.tokens = broker_tokens(api.folder)
        self.app = create_broker(api.parts, self.tokens)

    async def ask(
        self, role: str | None, method: str, path: str, body: Any = None, *, process: str | None = None
    ) -> httpx.Response:
        if role and role.startswith("host:") and role not in self.tokens:
            self.tokens[role] = self.store.in_write(lambda session: join_host(session, role[5:], [])[1])
        if role and role.startswith("builder:") and role not in self.tokens:
            self.tokens[role] = self.store.in_write(lambda session: add_builder(session, role[8:])[1])
        headers = self.headers(role, process)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            return await client.request(method, path, json=body, headers=headers)

    def headers(self, role: str | None, process: str | None = None) -> dict[str, str]:
        shown = {"Authorization": f"Bearer {self.tokens.get(role, role)}"} if role else {}
        return shown | ({HOLDER: f"what a process of {process or role} alone knows"} if process != "" else {})

    async def begin(self, build: str) -> None:
        answer = await self.ask("builder", "POST", f"/builds/{build}/begin", {"attempt": 1, "worker": "w"})
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def roles(api: World) -> Roles:
    return Roles(api)


async def a_build(api: World, name: str = "Shop", **more: Any) -> tuple[dict[str, Any], str, str]:
    """The site, and the ids of a claimed build and its job."""
    site = await api.site(api.admin, name, **more)
    return site, *(await another_build(api, site))


async def another_build(api: World, site: dict[str, Any]) -> tuple[str, str]:
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"
    job = data(await api.admin.post(path))
    with api.store.write() as session:
        claim_job(session, job["id"])
    return job["resource"]["id"], job["id"]


def failure(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    return str(answer.json()["error"]["code"])


async def test_each_role_has_a_credential_of_its_own(api: World, roles: Roles) -> None:
    for role in ("builder", "host", "control", "signing"):
        path = api.folder / "secrets" / f"broker-{role}.token"
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await roles.ask(role, "GET", "/health")).json() == {}
    assert len(set(roles.tokens.values())) == 4
    assert broker_tokens(api.folder) == roles.tokens
    assert failure(await roles.ask(None, "GET", "/health"), 401) == "auth.missing"
    assert failure(await roles.ask("x" * 43, "GET", "/health"), 401) == "auth.invalid_key"
    _, build, _ = await a_build(api)
    begin = {"attempt": 1, "worker": "w"}
    assert failure(await roles.ask("host", "POST", f"/builds/{build}/begin", begin), 403) == "role.insufficient"
    assert failure(await roles.ask("builder", "GET", "/rollouts/dep_x"), 403) == "role.insufficient"
    admin = (api.folder / "admin.key").read_text().strip()
    assert failure(await roles.ask(admin, "GET", "/health"), 401) == "auth.invalid_key"


async def test_begin_numbers_attempts_and_the_last_one_counts(api: World, roles: Roles) -> None:
    site, build, job = await a_build(api, repository="https://git.example.com/shop.git")
    path = f"/builds/{build}"
    specs = [
        BuildSpec.model_validate(
            (await roles.ask("builder", "POST", f"{path}/begin", {"attempt": 9, "worker": w})).json()
        )
        for w in "ab"
    ]
    assert [spec.attempt for spec in specs] == [1, 2]
    assert specs[1].repository == "https://git.example.com/shop.git"
    assert specs[1].allow_hosts == [], "the command of a build may not talk to whoever keeps the repository"
    assert (specs[1].ref, specs[1].job_id, specs[1].site_id) == ("main", job, site["id"])
    row = api.one(Build, id=build)
    assert (row.status, row.attempt) == ("running", 2)
    assert row.started_at is not None
    contents = {"attempt": 1, "contents": [["a" * 64, 3]]}
    assert failure(await roles.ask("builder", "POST", f"{path}/contents", contents), 409) == "attempt.stale"
    upload = {"attempt": 1, "kind": "pack", "sha256": "a" * 64, "size": 3}
    assert failure(await roles.ask("builder", "POST", f"{path}/uploads", upload), 409) == "attempt.stale"
    events = {"source": f"{build}/1", "first": 1, "events": []}
    assert failure(await roles.ask("builder", "POST", f"/jobs/{job}/events", events), 409) == "attempt.stale"
    hosted, other, _ = await a_build(api, "Hosted")
    begun = await roles.ask("builder", "POST", f"/builds/{other}/begin", {"attempt": 1, "worker": "w"})
    assert begun.json()["repository"] == f"hosted:{hosted['id']}"
    assert begun.json()["allow_hosts"] == []


async def test_a_push_is_not_begun_behind_a_newer_one_of_its_branch(api: World, roles: Roles) -> None:
    site = await api.site(api.admin, "Shop")
    bodies = [{"ref": "main", "target": "production", "clean": clean} for clean in (False, True)]
    jobs = [data(await api.admin.post(f"/v1/sites/{site['id']}/deployments", json=body)) for body in bodies]
    old, new = (api.one(Build, job_id=job["id"]).id for job in jobs)
    begin = {"attempt": 1, "worker": "w"}
    assert failure(await roles.ask("builder", "POST", f"/builds/{old}/begin", begin), 409) == "job.superseded"
    ended = api.one(Job, id=jobs[0]["id"])
    assert (ended.status, ended.result) == ("canceled", {"superseded_by": jobs[1]["id"]})
    assert api.one(Build, id=old).status == "superseded"
    await roles.begin(new)


async def test_a_canceled_build_is_told_so(api: World, roles: Roles) -> None:
    _, build, job = await a_build(api)
    begin = {"attempt": 1, "worker": "w"}
    await roles.ask("builder", "POST", f"/builds/{build}/begin", begin)
    events = {"source": f"{build}/1", "first": 1, "events": []}
    heard = await roles.ask("builder", "POST", f"/jobs/{job}/events", events)
    assert heard.json() == {"cancel": False}
    await api.admin.post(f"/v1/jobs/{job}/cancel")
    assert (await roles.ask("builder", "POST", f"/jobs/{job}/events", events)).json() == {"cancel": True}
    assert failure(await roles.ask("builder", "POST", f"/builds/{build}/begin", begin), 409) == "job.canceled"
    contents = {"attempt": 1, "contents": []}
    assert failure(await roles.ask("builder", "POST", f"/builds/{build}/contents", contents), 409) == "job.canceled"
    missing = f"/builds/{build[:-1]}x/begin"
    assert failure(await roles.ask("builder", "POST", missing, begin), 404) == "build.not_found"
    assert failure(await roles.ask("builder", "POST", f"/builds/{build}/begin", {"attempt": 0}), 400)


async def test_events_reach_the_rows_the_log_and_whoever_watches(api: World, roles: Roles) -> None:
    site, build, job = await a_build(api)
    await roles.begin(build)
    batch = [
        {"kind": "stage", "ts": NOW, "stage": "build"},
        {"kind": "log", "ts": NOW, "stream": "stdout", "line": "npm ci"},
        {"kind": "progress", "ts": NOW, "progress": 35},
    ]
    body = {"source": f"{build}/1", "first": 1, "events": batch}
    await roles.begin(other := (await a_build(api, "Other"))[1])
    before = api.one(Job, id=job).rev
    for _ in range(2):
        assert (await roles.ask("builder", "POST", f"/jobs/{job}/events", body)).status_code == 200
    row = api.one(Job, id=job)
    assert (row.stage, row.progress, row.rev) == ("build", 35, before + 1)
    assert api.one(Build, id=build).stage == "build"
    log = await api.admin.get(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds/{build}/log")
    assert log.text == "npm ci\n"
    back = {"source": "other", "first": 1, "events": [{"kind": "progress", "ts": NOW, "progress": 5}]}
    await roles.ask("control", "POST", f"/jobs/{job}/events", back)
    assert api.one(Job, id=job).progress == 35
    api.change(Job, job, status="failed", finished_at=utcnow())
    late = {"source": "late", "first": 1, "events": [{"kind": "stage", "ts": NOW, "stage": "sign"}]}
    assert (await roles.ask("control", "POST", f"/jobs/{job}/events", late)).json() == {"cancel": True}
    assert api.one(Job, id=job).stage == "build"
    unknown = f"/jobs/{job[:-1]}x/events"
    assert failure(await roles.ask("control", "POST", unknown, body), 404) == "job.not_found"
    foreign = {"source": f"{other}/1", "first": 1, "events": []}
    assert failure(await roles.ask("builder", "POST", f"/jobs/{job}/events", foreign), 404) == "job.not_found"


@pytest.mark.parametrize("source", ["other", "build_/1", "job_01J8AA1B2C3D4E5F6G7H8J9K0L/1", "host/local"])
async def test_a_builder_speaks_in_the_name_of_its_own_build_alone(api: World, roles: Roles, source: str) -> None:
    _, _, job = await a_build(api)
    line = {"kind": "log", "ts": NOW, "stream": "stdout", "line": "not mine"}
    stage = {"kind": "stage", "ts": NOW, "stage": "pack"}
    body = {"source": source, "first": 1, "events": [line, stage]}
    assert failure(await roles.ask("builder", "POST", f"/jobs/{job}/events", body), 409) == "attempt.stale"
    assert failure(await roles.ask("host", "POST", f"/jobs/{job}/events", body), 404) == "job.not_found"
    assert api.one(Job, id=job).stage is None
    assert api.parts.events.lines(job) == 0


async def test_a_line_without_a_stage_has_its_sources(api: World, roles: Roles) -> None:
    _, build, job = await a_build(api)
    await roles.begin(build)
    lines = [
        {"kind": "stage", "ts": NOW, "stage": "fetch"},
        {"kind": "log", "ts": NOW, "stream": "system", "line": "x"},
    ]
    await roles.ask("builder", "POST", f"/jobs/{job}/events", {"source": f"{build}/1", "first": 1, "events": lines})
    more = [{"kind": "log", "ts": NOW, "stream": "system", "line": "y"}]
    await roles.ask("builder", "POST", f"/jobs/{job}/events", {"source": f"{build}/1", "first": 3, "events": more})
    from api.events import Reader

    read = Reader(api.parts.events.path(job)).read()
    assert [one["stage"] for one in read if one["k"] == "log"] == ["fetch", "fetch"]


class Upload:
    """What a builder does with a tree: ask what is missing, pack it, put it, hand in the output."""

    def __init__(self, api: World, roles: Roles, site_id: str, build: str) -> None:
        self.api, self.roles, self.site_id, self.build = api, roles, site_id, build
        self.attempt = 0

    async def begin(self) -> None:
        answer = await self.roles.ask("builder", "POST", f"/builds/{self.build}/begin", {"attempt": 1, "worker": "w"})
        self.attempt = answer.json()["attempt"]

    async def missing(self, tree: dict[str, bytes]) -> list[str]:
        contents = [[hashlib.sha256(body).hexdigest(), len(body)] for body in tree.values()]
        body = {"attempt": self.attempt, "contents": contents}
        return list((await self.roles.ask("builder", "POST", f"/builds/{self.build}/contents", body)).json()["missing"])

    async def put(self, kind: str, body: bytes) -> str:
        sha256 = hashlib.sha256(body).hexdigest()
        request = {"attempt": self.attempt, "kind": kind, "sha256": sha256, "size": len(body)}
        answer = (await self.roles.ask("builder", "POST", f"/builds/{self.build}/uploads", request)).json()
        if answer["url"] is not None:
            key = answer["url"].removeprefix("http://objects.test/").partition("?")[0]
            assert key.startswith(f"sites/{self.site_id}/")
            self.api.objects.put_new(key, body, sha256)
        return sha256

    async def output(self, tree: dict[str, bytes], *, send: bool = True, **change: Any) -> tuple[httpx.Response, str]:
        """`send`: whether the manifest is uploaded before."""
        missing = await self.missing(tree)
        bodies = {hashlib.sha256(body).hexdigest(): body for body in tree.values()}
        entries, pack = [], b""
        for sha256 in missing:
            entries.append({"sha256": sha256, "offset": len(pack), "size": len(bodies[sha256])})
            pack += bodies[sha256]
        files = [File(path, "644", len(body), hashlib.sha256(body).hexdigest()) for path, body in tree.items()]
        manifest = make_manifest(list(files))
        new = None
        if missing:
            new = {"sha256": await self.put("pack", pack), "size": len(pack), "entries": entries}
        if send:
            await self.put("manifest", manifest.raw)
        body = {
            "attempt": self.attempt,
            "commit_sha": "c" * 40,
            "source_sha256": "d" * 64,
            "profile": "static",
            "kind": "static",
            "plan": {"command": None},
            "cache": {"hit": False, "key": "k"},
            "manifest_sha256": manifest.digest,
            "pack": new,
            "uploaded_bytes": len(pack),
        }
        answer = await self.roles.ask("builder", "POST", f"/builds/{self.build}/output", body | change)
        return answer, manifest.digest


async def upload(api: World, roles: Roles, site: dict[str, Any]) -> Upload:
    build, _ = await another_build(api, site)
    made = Upload(api, roles, site["id"], build)
    await made.begin()
    return made


async def test_an_output_is_recorded_with_its_layout(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    first = await upload(api, roles, site)
    tree = {"index.html": b"<h1>one</h1>", "same.txt": b"same", "copy.txt": b"same"}
    plan = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds/{first.build}/plan"
    assert (await api.admin.get(plan)).json()["error"]["code"] == "build.plan_not_found"
    answer, digest = await first.output(tree)
    assert answer.json() == {"manifest_sha256": digest, "artifact_id": None, "job_id": ""}
    assert data(await api.admin.get(plan)) == {"command": None, "run": None}
    row = api.one(Build, id=first.build)
    assert (row.manifest_sha256, row.commit_sha, row.uploaded_bytes) == (digest, "c" * 40, 16)
    assert (api.count(Pack), api.count(Content), api.count(ArtifactPack)) == (1, 2, 1)
    layout = parse_layout(api.objects.held[f"sites/{site['id']}/artifacts/{digest}/layout.json"])
    assert set(layout.contents) == {hashlib.sha256(body).hexdigest() for body in tree.values()}
    for sha256, at in layout.contents.items():
        pack = api.objects.held[f"sites/{site['id']}/packs/{at.pack}"]
        assert hashlib.sha256(pack[at.offset : at.offset + at.size]).hexdigest() == sha256
    again = await roles.ask("builder", "POST", f"/builds/{first.build}/contents", {"attempt": 1, "contents": []})
    assert again.json() == {"missing": []}


async def test_an_unchanged_tree_uploads_nothing_and_a_changed_one_its_changes(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    tree = {"index.html": b"one", "style.css": b"body{}"}
    _, digest = await (await upload(api, roles, site)).output(tree)
    second = await upload(api, roles, site)
    assert await second.missing(tree) == []
    assert api.one(PackLease, build_id=second.build).expires_at > utcnow()
    answer, same = await second.output(tree)
    assert (answer.status_code, same) == (200, digest)
    assert api.count(Pack) == 1
    third = await upload(api, roles, site)
    changed = tree | {"index.html": b"two"}
    assert await third.missing(changed) == [hashlib.sha256(b"two").hexdigest()]
    assert (await third.output(changed))[0].status_code == 200
    assert (api.count(Pack), api.count(Content)) == (2, 3)
    other = await api.site(api.admin, "Other")
    assert len(await (await upload(api, roles, other)).missing(tree)) == 2, "contents are never shared between sites"


async def test_a_layout_that_a_failed_build_has_left_is_made_anew(api: World, roles: Roles) -> None:
    """What it named has been collected since: no artifact was ever made of it."""
    site = await api.site(api.admin)
    tree = {"a.txt": b"a", "b.txt": b"bb"}
    first = await upload(api, roles, site)
    _, digest = await first.output(tree)
    retention = Retention(api.store, api.objects, Rules(timedelta(0), timedelta(0), timedelta(0)))
    with api.store.write() as session:
        end_build(session, session.get_one(Build, first.build), "failed", {"code": "sign.failed", "message": "x"})
    assert retention.collect(RetentionOrder("")).packs == 1
    retention.delete(RetentionOrder(""))
    assert (await (await upload(api, roles, site)).output({"a.txt": b"a", "c.txt": b"ccc"}))[0].status_code == 200
    third = await upload(api, roles, site)
    answer, same = await third.output(tree)
    assert (answer.status_code, same) == (200, digest), answer.text
    layout = parse_layout(api.objects.held[f"sites/{site['id']}/artifacts/{digest}/layout.json"])
    for sha256, at in layout.contents.items():
        body = api.objects.get_range(f"sites/{site['id']}/packs/{at.pack}", at.offset, at.size)
        assert hashlib.sha256(body).hexdigest() == sha256
    with api.store.read() as session:
        named = session.exec(select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == digest)).all()
    assert sorted(named) == layout.packs


async def test_a_manifest_may_come_with_the_question_and_a_body_compressed(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    build = await upload(api, roles, site)
    raw = make_manifest([File("a.txt", "644", 1, "a" * 64)]).raw.decode()
    sha256 = hashlib.sha256(raw.encode()).hexdigest()
    said = {"attempt": build.attempt, "kind": "manifest", "sha256": sha256, "size": len(raw), "body": raw}
    path = f"/builds/{build.build}/uploads"

    async def send(raw: bytes) -> httpx.Response:
        headers = {**roles.headers("builder"), "Content-Encoding": "zstd"}
        transport = httpx.ASGITransport(app=roles.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            return await client.post(path, content=raw, headers=headers)

    for change in ({"body": raw + " "}, {"kind": "pack"}, {"size": 1}):
        assert failure(await roles.ask("builder", "POST", path, {**said, **change}), 400) == "request.invalid_parameter"
    assert failure(await send(b"not zstd"), 400) == "request.malformed_json"
    assert failure(await send(zstandard.compress(bytes(65 << 20))), 413) == "request.too_large"
    assert not any(sha256 in key for key in api.objects.held)
    assert (await send(zstandard.compress(json.dumps(said).encode()))).json() == {"url": None, "headers": {}}
    assert api.objects.held[f"sites/{site['id']}/artifacts/{sha256}/manifest.json"] == raw.encode()


def sign(api: World, build_id: str, digest: str, kind: str = "static") -> str:
    """What the signer and the end of the workflow do to the rows; returns the artifact's id."""
    with api.store.write() as session:
        build = session.get_one(Build, build_id)
        artifact = Artifact(
            id=f"art_{digest[:26]}",
            site_id=build.site_id,
            digest=digest,
            kind=kind,
            profile=kind,
            size_bytes=1,
            files=1,
            build_id=build_id,
            commit_sha="c" * 40,
            ref="main",
            key_hint="",
            signed_at=utcnow(),
        )
        session.add(artifact)
        build.status, build.artifact_id = "succeeded", artifact.id
        return artifact.id


async def test_what_an_earlier_build_has_made_of_the_same(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    first = await upload(api, roles, site)
    inputs = "a" * 64
    _, digest = await first.output({"index.html": b"one"}, cache={"hit": False, "key": None, "inputs": inputs})

    async def ask(made: Upload, wanted: str, **change: Any) -> httpx.Response:
        body = {"attempt": made.attempt, "inputs": wanted, **change}
        return await roles.ask("builder", "POST", f"/builds/{made.build}/earlier", body)

    second = await upload(api, roles, site)
    nothing = {"build_id": None, "manifest_sha256": None, "kind": "static"}
    assert (await ask(second, inputs)).json() == nothing  # the first one has not ended yet
    sign(api, first.build, digest)
    assert (await ask(second, inputs)).json() == {"build_id": first.build, "manifest_sha256": digest, "kind": "static"}
    assert api.one(PackLease, build_id=second.build).site_id == site["id"]
    assert api.one(Build, id=second.build).commit_sha is None
    assert (await ask(second, "b" * 64, commit_sha="c" * 40)).json() == nothing
    assert api.one(Build, id=second.build).commit_sha == "c" * 40
    assert failure(await ask(second, inputs, attempt=7), 409) == "attempt.stale"
    assert failure(await ask(second, "../x"), 400) == "request.invalid_parameter"
    answer, _ = await second.output({"index.html": b"one"})
    assert answer.status_code == 200


async def test_the_last_words_come_with_the_output(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    made, another = await upload(api, roles, site), await upload(api, roles, site)
    job = api.one(Build, id=made.build).job_id
    line = {"kind": "log", "ts": NOW, "stream": "system", "line": "uploaded 3 bytes"}
    events = {"source": f"{made.build}/{made.attempt}", "first": 1, "events": [line]}
    last, before = {"job_id": job, "events": events}, api.parts.events.lines(job)
    refused, _ = await made.output({"index.html": b"one"}, manifest_sha256="e" * 64, last=last)
    assert failure(refused, 500) == "upload.failed"
    heard = api.parts.events.lines(job)
    assert heard > before
    answer, _ = await made.output({"index.html": b"one"}, last=last)
    assert (answer.status_code, api.parts.events.lines(job)) == (200, heard)
    assert answer.json()["job_id"] == job
    foreign, _ = await another.output({"index.html": b"one"}, last=last)
    assert failure(foreign, 409) == "attempt.stale"
    elsewhere = {**last, "job_id": api.one(Build, id=another.build).job_id}
    refused, _ = await made.output({"index.html": b"one"}, last=elsewhere)
    assert failure(refused, 404) == "job.not_found"


async def test_an_earlier_artifact_is_taken_as_it_is_while_its_key_counts(
    api: World, roles: Roles, tmp_path: Path
) -> None:
    site, key = await api.site(api.admin), create_key(tmp_path)
    tree, cache = {"index.html": b"one"}, {"hit": True, "key": None, "inputs": "a" * 64}
    first = await upload(api, roles, site)
    _, digest = await first.output(tree, cache=cache)
    artifact = sign(api, first.build, digest)
    api.change(Artifact, artifact, key_hint=key.hint, log_index=0)

    async def taken(**change: Any) -> str | None:
        made = await upload(api, roles, site)
        answer, _ = await made.output(tree, **{"cache": cache, "earlier": True, **change})
        assert answer.status_code == 200
        build = api.one(Build, id=made.build)
        assert (build.manifest_sha256, build.artifact_id) == (digest, answer.json()["artifact_id"])
        found: str | None = answer.json()["artifact_id"]
        return found

    def publish(version: int, record: KeyRecord) -> None:
        raw = sign_keyring(KeyringDocument(version, (record,)), [(key.hint, key.raw)])
        api.store.in_write(lambda session: ledger.publish_version(session, "keyring", version, raw))

    assert await taken() is None  # no keyring tells whether its key counts
    record = KeyRecord(key.pem.decode())
    publish(1, record)
    api.change(Artifact, artifact, marked_at=utcnow())
    api.objects.held.pop(f"sites/{site['id']}/artifacts/{digest}/manifest.json")
    assert await taken() == artifact  # nothing was read of what was looked at before
    assert api.one(Artifact, id=artifact).marked_at is None
    assert await taken(earlier=False) is None
    assert await taken(cache={**cache, "inputs": "b" * 64}) is None
    publish(2, replace(record, revoked_from=EVER))
    assert await taken() is None
    publish(3, record)
    assert await taken() == artifact
    api.store.in_write(lambda session: ledger.publish(session, "sigstore", b"{}"))
    assert await taken() is None  # only the signing worker can judge what Sigstore has signed


async def test_how_an_app_runs_is_read_from_its_manifest(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    made = await upload(api, roles, site)
    run = RunSettings("./serve", 8080)
    manifest = make_manifest([File("serve", "755", 1, hashlib.sha256(b"x").hexdigest())], run=run)
    await made.output({"serve": b"x"})
    await made.put("manifest", manifest.raw)
    told = {"command": None, "run": {"command": "./another"}}
    change: dict[str, Any] = {"manifest_sha256": manifest.digest, "kind": "dynamic", "plan": told, "pack": None}
    answer, _ = await made.output({"serve": b"x"}, **change)
    assert answer.status_code == 200
    assert api.one(Build, id=made.build).plan == {"command": None, "run": run.as_dict()}
    artifact = sign(api, made.build, manifest.digest, kind="dynamic")
    base = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/artifacts"
    shown = data(await api.admin.get(f"{base}/{artifact}"))
    assert (shown["kind"], shown["run"]) == ("dynamic", run.as_dict())
    assert [row["run"] for row in data(await api.admin.get(base))] == [run.as_dict()]


async def test_an_output_that_does_not_add_up_is_refused(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    tree = {"index.html": b"one"}
    build = await upload(api, roles, site)
    never = await build.output(tree, manifest_sha256="e" * 64)
    assert failure(never[0], 500) == "upload.failed"
    lost = {"sha256": "f" * 64, "size": 3, "entries": []}
    assert failure((await build.output(tree, pack=lost))[0], 500) == "upload.failed"
    assert failure((await build.output({"other.html": b"never sent"}, pack=None))[0], 500) == "upload.failed"
    sha256 = hashlib.sha256(b"one").hexdigest()
    outside = {"sha256": sha256, "size": 3, "entries": [{"sha256": sha256, "offset": 1, "size": 3}]}
    assert failure((await build.output(tree, pack=outside))[0], 400) == "request.invalid_parameter"
    assert failure((await build.output(tree, kind="dynamic"))[0], 400) == "request.invalid_parameter"
    assert failure((await build.output(tree, manifest_sha256="../x"))[0], 400) == "request.invalid_parameter"
    key = f"sites/{site['id']}/artifacts/{'9' * 64}/manifest.json"
    api.objects.held[key] = b'{"version":1}'
    assert failure((await build.output(tree, manifest_sha256="9" * 64))[0], 500) == "roll.verify_failed"
    assert api.one(Build, id=build.build).manifest_sha256 is None
    stale = await build.output(tree, attempt=7)
    assert failure(stale[0], 409) == "attempt.stale"


async def test_a_manifest_comes_with_the_output_and_is_put_there(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    build = await upload(api, roles, site)
    tree = {"index.html": b"one"}
    manifest = make_manifest([File("index.html", "644", 3, hashlib.sha256(b"one").hexdigest())])
    key = f"sites/{site['id']}/artifacts/{manifest.digest}/manifest.json"
    other = make_manifest([File("index.html", "644", 3, hashlib.sha256(b"two").hexdigest())])
    for bad in (other.raw.decode(), "", "{}"):
        answer, _ = await build.output(tree, send=False, manifest=bad)
        assert failure(answer, 500) == "roll.verify_failed"
        assert key not in api.objects.held
    answer, digest = await build.output(tree, send=False, manifest=manifest.raw.decode())
    assert (answer.status_code, digest, api.objects.held[key]) == (200, manifest.digest, manifest.raw)
    again, _ = await build.output(tree, send=False, manifest=manifest.raw.decode())
    assert again.status_code == 200


async def test_a_manifest_that_stands_there_is_judged_as_it_stands(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    build = await upload(api, roles, site)
    manifest = make_manifest([File("index.html", "644", 3, hashlib.sha256(b"one").hexdigest())])
    key = f"sites/{site['id']}/artifacts/{manifest.digest}/manifest.json"
    api.objects.held[key] = manifest.raw.replace(b"index", b"Index")
    answer, _ = await build.output({"index.html": b"one"}, send=False, manifest=manifest.raw.decode())
    assert failure(answer, 500) == "roll.verify_failed"
    assert api.one(Build, id=build.build).manifest_sha256 is None


async def test_an_output_cut_off_before_its_row_is_handed_in_again(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    tree = {"index.html": b"one", "a.txt": b"a"}
    lost, other = await upload(api, roles, site), await upload(api, roles, site)
    _, digest = await lost.output(tree)
    api.change(Build, lost.build, manifest_sha256=None)
    await other.output({"a.txt": b"a", "b.txt": b"b"})
    await lost.begin()
    answer, same = await lost.output(tree)
    assert (answer.status_code, same) == (200, digest)
    layout = parse_layout(api.objects.held[f"sites/{site['id']}/artifacts/{digest}/layout.json"])
    with api.store.read() as session:
        rows = session.exec(select(ArtifactPack.pack_sha256).where(ArtifactPack.digest == digest)).all()
    assert sorted(rows) == layout.packs


async def test_an_output_of_many_files_is_recorded_piece_by_piece(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    build = await upload(api, roles, site)
    tree = {f"{n:04}.txt": str(n).encode() for n in range(1_300)}
    answer, _ = await build.output(tree)
    assert answer.status_code == 200
    assert api.count(Content) == 1_300


@pytest.mark.parametrize("kind", ["static", "dynamic"])
async def test_a_host_is_told_whose_share_an_app_takes(api: World, roles: Roles, kind: str) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    _, digest = await build.output({"index.html": b"one"})
    artifact = api.artifact(site["id"], env, digest, kind=kind)
    path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
    job = data(await api.admin.post(path, json={"artifact_id": artifact}))
    with api.store.write() as session:
        claim_next(session, env)
    spec = RollSpec.model_validate((await roles.ask("host", "GET", f"/rollouts/{job['resource']['id']}")).json())
    assert spec.team == (api.one(Site, id=site["id"]).team_id if kind == "dynamic" else "")


async def test_a_host_gets_what_it_has_to_place(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    _, digest = await build.output({"index.html": b"one"})
    artifact = api.artifact(site["id"], env, digest)
    path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
    job = data(await api.admin.post(path, json={"artifact_id": artifact}))
    rollout = job["resource"]["id"]
    assert failure(await roles.ask("host", "GET", f"/rollouts/{rollout}"), 409) == "attempt.stale"
    with api.store.write() as session:
        claim_next(session, env)
    spec = RollSpec.model_validate((await roles.ask("host", "GET", f"/rollouts/{rollout}")).json())
    assert (spec.digest, spec.apply_seq, spec.undo_seq, spec.kind) == (digest, 1, 2, "deploy")
    assert list(spec.packs) == [api.one(Pack, site_id=site["id"]).sha256]
    assert spec.hostnames == ["acme-store-production.sites.test", "acme-store.sites.test"]
    assert f"sites/{site['id']}/artifacts/{digest}/bundle.json" in spec.bundle_url
    names = (await roles.ask("host", "GET", f"/environments/{env}/hostnames")).json()
    assert names == {"env_id": env, "hostnames": spec.hostnames, "redirects": {}, "lock": ""}
    ready = {"digest": digest, "keyring_sha256": hashlib.sha256(spec.keyring.encode()).hexdigest()}
    asked = f"/rollouts/{rollout}/ready"
    for odd in ({"digest": "e" * 64}, {"keyring_sha256": "e" * 64}):
        answer = RollSpec.model_validate((await roles.ask("host", "POST", asked, ready | odd)).json())
        assert answer == spec
    assert api.one(Job, id=job["id"]).committed_at is None
    api.change(Job, job["id"], cancel_requested_at=utcnow())
    assert failure(await roles.ask("host", "POST", asked, ready), 409) == "job.canceled"
    api.change(Job, job["id"], cancel_requested_at=None)
    for _ in range(2):
        answer = RollSpec.model_validate((await roles.ask("host", "POST", asked, ready)).json())
        assert answer == spec.model_copy(update={"committed": True})
    assert api.one(Job, id=job["id"]).stage == "switch"
    assert api.one(Job, id=job["id"]).committed_at is not None
    api.change(Rollout, rollout, status="failed")
    assert failure(await roles.ask("host", "GET", f"/rollouts/{rollout}"), 409) == "attempt.stale"
    assert failure(await roles.ask("host", "POST", asked, ready), 409) == "attempt.stale"
    assert failure(await roles.ask("host", "GET", "/rollouts/dep_none"), 404) == "deployment.not_found"
    assert failure(await roles.ask("host", "GET", "/environments/env_none/hostnames"), 404) == "environment.not_found"


async def test_a_host_takes_a_rollout_up_by_itself(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    _, digest = await build.output({"index.html": b"one"})
    artifact = api.artifact(site["id"], env, digest)
    path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
    first, second = [data(await api.admin.post(path, json={"artifact_id": artifact})) for _ in range(2)]

    async def take(job: dict[str, Any], **ready: str) -> RollSpec | None:
        body = {"ready": ready} if ready else {}
        answer = await roles.ask("host", "POST", f"/jobs/{job['id']}/take", body)
        assert answer.status_code == 200, answer.text
        return Turn.model_validate(answer.json()).spec

    assert await take(second) is None, "it is not next"
    early = {"early": True}
    answer = await roles.ask("host", "POST", f"/jobs/{first['id']}/take", early)
    assert (answer.json(), api.one(Job, id=first["id"]).status) == ({"spec": None}, "queued"), "it has no run yet"
    api.parts.board.note_run(first["id"])
    assert (await roles.ask("host", "POST", f"/jobs/{first['id']}/take", early)).json()["spec"]["apply_seq"] == 1
    for _ in range(2):
        spec = await take(first)
        assert spec is not None
        assert (spec.job_id, spec.digest, spec.apply_seq, spec.committed) == (first["id"], digest, 1, False)
    assert spec == RollSpec.model_validate((await roles.ask("host", "GET", f"/rollouts/{spec.rollout_id}")).json())
    assert (api.one(Job, id=first["id"]).status, api.one(Job, id=first["id"]).committed_at) == ("running", None)
    keyring = hashlib.sha256(spec.keyring.encode()).hexdigest()
    assert await take(first, digest="e" * 64, keyring_sha256=keyring) == spec, "it has seen something else"
    committed = await take(first, digest=digest, keyring_sha256=keyring)
    assert committed == spec.model_copy(update={"committed": True})
    assert api.one(Job, id=first["id"]).committed_at is not None
    assert failure(await roles.ask("builder", "POST", f"/jobs/{second['id']}/take", {}), 403) == "role.insufficient"
    assert failure(await roles.ask("host", "POST", "/jobs/job_none/take", {}), 404) == "deployment.not_found"
    api.change(Rollout, spec.rollout_id, status="failed", finished_at=utcnow())
    assert await take(first) is None, "it has ended"


@pytest.mark.parametrize(
    ("kind", "web", "version", "wanted", "goes"),
    [
        ("rollback", 2, 1, None, True),
        ("rollback", 2, 1, 2, True),
        ("rollback", 2, 1, 3, False),
        ("rollback", 2, 9, None, False),
        ("promote", 2, 1, None, False),
    ],
)
async def test_a_service_is_committed_ahead_on_its_way_back_to_just_what_is_warm(
    api: World, roles: Roles, kind: str, web: int, version: int, wanted: int | None, goes: bool
) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    _, digest = await build.output({"app.py": b"app"})
    path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
    job = data(await api.admin.post(path, json={"artifact_id": api.artifact(site["id"], env, digest)}))
    api.change(Rollout, job["resource"]["id"], kind=kind, instances=wanted)
    asked = f"/jobs/{job['id']}/take"
    spec = Turn.model_validate((await roles.ask("host", "POST", asked, {})).json()).spec
    assert spec is not None
    api.change(Rollout, spec.rollout_id, config_version=1)
    ready = {"digest": digest, "keyring_sha256": hashlib.sha256(spec.keyring.encode()).hexdigest()}
    body = {"ready": {**ready, "config_version": version, "web": web}}
    answer = Turn.model_validate((await roles.ask("host", "POST", asked, body)).json()).spec
    assert answer is not None
    assert (answer.committed, api.one(Job, id=job["id"]).committed_at is not None) == (goes, goes)


async def test_the_documents_of_an_artifact_are_served(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    tree = {f"{n}.txt": b"x" * n for n in range(5)}
    _, digest = await build.output(tree)
    artifact = api.artifact(site["id"], env, digest)
    row = data(await api.admin.get(f"/v1/sites/{site['id']}/environments/{env}/artifacts"))[0]
    assert row["id"] == artifact
    assert row["digest"] == f"sha256:{digest}"
    assert set(row["signature"]) == {"bundle_media_type", "key_hint", "log_index", "signed_at"}
    raw = (await api.admin.get(row["links"]["manifest"])).content
    assert hashlib.sha256(raw).hexdigest() == digest
    pages = (await api.admin.get(row["links"]["files"], params={"limit": 3})).json()
    cursor = pages["pagination"]["next_cursor"]
    rest = (await api.admin.get(row["links"]["files"], params={"limit": 3, "cursor": cursor})).json()
    assert [one["path"] for one in pages["data"] + rest["data"]] == sorted(tree)
    assert rest["pagination"] == {"next_cursor": None, "has_more": False}
    archive = await api.admin.get(row["links"]["download"])
    assert archive.headers["content-type"] == "application/zstd"
    assert unpack(archive.content) == tree
    missing = await api.admin.get(row["links"]["bundle"])
    assert missing.status_code == 410
    bundle = b'{"dsseEnvelope":{"payload":"eyJfdHlwZSI6MX0="}}'
    key = f"sites/{site['id']}/artifacts/{digest}/bundle.json"
    api.objects.put_new(key, bundle, hashlib.sha256(bundle).hexdigest())
    assert (await api.admin.get(row["links"]["bundle"])).content == bundle
    assert (await api.admin.get(row["links"]["provenance"])).json() == {"_type": 1}
    assert (await api.admin.get(row["links"]["public_key"])).status_code == 503
    public: Path = api.parts.signing_key
    public.parent.mkdir()
    public.write_text("-----BEGIN PUBLIC KEY-----\n")
    assert (await api.admin.get(row["links"]["public_key"])).text.startswith("-----BEGIN")


def unpack(archive: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    import zstandard

    raw = zstandard.ZstdDecompressor().decompressobj().decompress(archive)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
