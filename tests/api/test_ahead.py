"""Hosts are told of rollouts when they are accepted: only who listens, only what comes to it, and nobody waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from api import ahead
from api.ahead import Announcing, Board, Telling
from api.app import create_app
from api.internal.parcels import what_comes
from headway.broker import Coming, Parcel
from store.models import Artifact, Environment, Job, Pack, Site
from store.queue import claim_job
from store.rollouts import accept_rollout
from temporal.messages import Labels
from tests.api.doubles import RecordingStarts
from tests.api.test_broker import Roles, Upload, failure, upload
from tests.api.world import World, data

pytestmark = pytest.mark.anyio
KINDS = {"static": "a" * 64, "dynamic": "b" * 64}
PARCEL = Parcel(site_id="site", digest="d", manifest_url="m", layout_url="l", packs={})


@pytest.fixture
async def roles(api: World) -> Roles:
    return Roles(api)


async def until_waiting(board: Board, host: str) -> None:
    await asyncio.sleep(0)
    assert board.listens(host)


async def test_who_waits_is_told_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    made: list[str] = []

    def make() -> Parcel:
        made.append("made")
        return PARCEL

    board.post(["one"], make)
    assert made == [], "nobody listens"
    waits = asyncio.create_task(board.wait("one", 30))
    await until_waiting(board, "one")
    board.post(["two"], make)
    assert made == []
    await asyncio.to_thread(board.post, ["one", "two"], make)
    assert (await waits).parcels == [PARCEL]
    board.post(["one"], make)
    await asyncio.sleep(0)
    assert (await board.wait("one", 30)).parcels == [PARCEL], "kept for who is just about to ask again"
    assert await board.wait("one", 0) == Coming()
    board.post(["one"], make)
    await asyncio.sleep(0)
    monkeypatch.setattr(ahead, "FRESH_SECONDS", -1.0)
    assert await board.wait("one", 30) == Coming(), "what is old is no news"
    assert not board.has_listeners()


async def test_a_process_that_stops_lets_everybody_go() -> None:
    board = Board()
    waits = asyncio.create_task(board.wait("one", 3600))
    await until_waiting(board, "one")
    board.close()
    assert await waits == Coming()
    assert await board.wait("one", 3600) == Coming()


async def test_a_hosts_question_is_its_own(api: World, roles: Roles) -> None:
    assert failure(await roles.ask("builder", "GET", "/hosts/local/coming"), 403) == "role.insufficient"
    assert failure(await roles.ask("host:other", "GET", "/hosts/local/coming"), 403) == "role.insufficient"
    api.parts.board.close()
    assert (await roles.ask("host", "GET", "/hosts/local/coming")).json() == {"parcels": []}


async def test_a_credential_that_has_ended_hears_of_nothing(api: World, roles: Roles) -> None:
    lost = data(await api.admin.post("/v1/hosts", json={"id": "two"}))["credential"]
    waits = asyncio.create_task(roles.ask(lost, "GET", "/hosts/two/coming"))
    async with asyncio.timeout(30):
        while not api.parts.board.listens("two"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    data(await api.admin.post("/v1/hosts/two/credential"))
    api.parts.board.post(["two"], lambda: PARCEL)
    assert failure(await waits, 401) == "auth.invalid_key"


async def test_a_rollout_is_told_of_while_it_is_accepted(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    build = await upload(api, roles, site)
    _, digest = await build.output({"index.html": b"one"})
    artifact = api.artifact(site["id"], env, digest)
    board, starts = api.parts.board, RecordingStarts()
    announcing = Announcing(starts, board, partial(what_comes, api.parts.objects))
    waits = asyncio.create_task(board.wait("local", 30))
    await until_waiting(board, "local")
    app = create_app(replace(api.parts, starts=announcing, foresee=announcing.foresee))
    door = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://api.test", headers=api.admin.headers
    )
    path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
    async with app.router.lifespan_context(app), door:
        job = data(await door.post(path, json={"artifact_id": artifact}))
    (parcel,) = (await waits).parcels
    assert (parcel.site_id, parcel.digest, list(parcel.packs)) == (site["id"], digest, [api.one(Pack).sha256])
    assert f"{digest}/bundle.json" in parcel.bundle_url
    assert (parcel.job_id, parcel.env_id, parcel.hostname) == (job["id"], env, "")
    assert starts.started == [(job["id"], "deployment.roll")]
    assert await asyncio.to_thread(board.has_run, job["id"])
    api.roll(env)
    with api.store.read() as session:
        ended = session.get_one(Job, job["id"])
        assert what_comes(api.parts.objects, session, ended) is None, "it has been carried out"


async def test_only_what_was_started_has_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(ahead, "MOMENT_SECONDS", 0.05)
    for away in (True, False):
        announcing = Announcing(RecordingStarts(away=away), board, lambda *_: None)
        await announcing.start(f"job_{away}", "deployment.rollback", labels=Labels())
        assert await asyncio.to_thread(board.has_run, f"job_{away}") is not away
    monkeypatch.setattr(ahead, "MOMENT_SECONDS", 30.0)
    unknown = asyncio.to_thread(board.has_run, "job_late")
    assert not await asyncio.wait_for(unknown, 10), "nobody was told of it: it is not waited for"
    listens = asyncio.create_task(board.wait("local", 30.0))
    await until_waiting(board, "local")
    board.post(["local"], lambda: PARCEL.model_copy(update={"job_id": "job_late"}))
    await listens
    waits = asyncio.create_task(asyncio.to_thread(board.has_run, "job_late"))
    await asyncio.sleep(0.05)
    board.note_run("job_late")
    assert await waits
    assert board.has_run("job_late")
    monkeypatch.setattr(ahead, "JUST_SECONDS", -1.0)
    assert not board.has_run("job_late"), "who asks late may have been frozen"


def told(announcing: Announcing, job_id: str, job_type: str = "deployment.rollback") -> None:
    job = Job(id=job_id, team_id="team", type=job_type, resource_type="deployment", resource_id="dep")
    announcing.foresee(Session(), job)


@pytest.mark.parametrize("case", ["nobody", "build", "broken", "known"])
async def test_the_acceptance_is_what_counts(case: str) -> None:
    asked: list[str] = []

    def find(_session: Session, job: Job) -> Telling | None:
        asked.append(job.id)
        if case == "broken":
            raise RuntimeError(case)
        return Telling(["local"], PARCEL, needs_no_start=True)

    board = Board()
    if case != "nobody":
        await board.wait("local", 0)
    told(Announcing(RecordingStarts(), board, find), "job", "build.run" if case == "build" else "deployment.rollback")
    assert asked == ([] if case in ("nobody", "build") else ["job"])
    await asyncio.sleep(0)
    assert (await board.wait("local", 0)).parcels == ([PARCEL] if case == "known" else [])


async def test_a_run_begins_behind_a_host_that_may_only_have_to_show_it() -> None:
    board, starts = Board(), RecordingStarts()
    alone, any_of_two = Labels(host="local"), Labels()
    for number, (listens, needs_no_start, labels) in enumerate(
        [(False, True, alone), (True, False, alone), (True, True, any_of_two), (True, True, alone)]
    ):
        if listens:
            await board.wait("local", 0)
        told_of = Telling(["local"], PARCEL, needs_no_start)
        announcing = Announcing(starts, board, lambda *_, told_of=told_of: told_of)
        told(announcing, f"job_{number}")
        for _ in range(2):  # the outbox may ask again
            await announcing.start(f"job_{number}", "deployment.rollback", labels=labels)
    assert starts.behind == ["job_3"]
    failed = Announcing(starts, board, lambda *_: Telling(["local"], PARCEL, needs_no_start=True))
    told(failed, "job_refused")
    assert failed._first == {"job_refused"}
    failed._told["job_refused"] -= 2 * ahead.LOST_SECONDS
    told(failed, "job_next")
    assert failed._first == {"job_next"}, "what was refused after all is forgotten"


async def test_nothing_is_started_for_files_and_for_what_may_be_warm(api: World) -> None:
    site = await api.site(api.admin)
    env = site["production_env_id"]
    known = {kind: api.artifact(site["id"], env, digest, kind=kind) for kind, digest in KINDS.items()}
    for kind, job_kind, wanted in (
        ("static", "deploy", True),
        ("static", "rollback", True),
        ("dynamic", "rollback", True),
        ("dynamic", "deploy", False),
    ):
        with api.store.write() as session:
            there = session.get_one(Environment, env)
            artifact = session.get_one(Artifact, known[kind])
            owner = session.get_one(Site, site["id"])
            job = accept_rollout(session, owner, there, artifact, {"type": "key", "id": "key"}, kind=job_kind)
            session.flush()
            found = what_comes(api.parts.objects, session, job)
        assert found is not None
        assert (found.needs_no_start, bool(found.parcel.hostname)) == (
            wanted,
            (kind, job_kind) == ("dynamic", "rollback"),
        )


async def test_what_the_database_says_is_the_transactions_own() -> None:
    def find(_session: Session, _job: Job) -> None:
        raise OperationalError("SELECT", {}, Exception("busy"))

    board = Board()
    await board.wait("local", 0)
    with pytest.raises(OperationalError):
        told(Announcing(RecordingStarts(), board, find), "job")


async def test_of_a_burst_two_are_told_of_until_they_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find(_session: Session, job: Job) -> None:
        asked.append(job.id)

    board = Board()
    await board.wait("local", 0)
    announcing = Announcing(RecordingStarts(), board, find)
    for number in range(4):
        told(announcing, f"job_{number}")
    assert asked == ["job_0", "job_1"]
    await announcing.start("job_0", "deployment.rollback", labels=Labels())
    told(announcing, "job_4")
    told(announcing, "job_5")
    assert asked[2:] == ["job_4"]
    monkeypatch.setattr(ahead, "LOST_SECONDS", -1.0)
    told(announcing, "job_6")
    assert asked[3:] == ["job_6"], "whose acceptance failed holds back nobody for long"


async def test_what_was_built_to_be_deployed_is_told_of_before_it_is_signed(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    waits = asyncio.create_task(api.parts.board.wait("local", 30))
    await until_waiting(api.parts.board, "local")
    await (await upload(api, roles, site)).output({"index.html": b"nobody deploys it"})
    job = data(
        await api.admin.post(f"/v1/sites/{site['id']}/deployments", json={"ref": "main", "target": "production"})
    )
    with api.store.write() as session:
        claim_job(session, job["id"])
    pushed = Upload(api, roles, site["id"], job["resource"]["build_id"])
    await pushed.begin()
    _, digest = await pushed.output({"index.html": b"one"})
    (parcel,) = (await waits).parcels
    assert (parcel.digest, parcel.bundle_url, parcel.keyring) == (digest, "", "")
    assert f"{digest}/manifest.json" in parcel.manifest_url
