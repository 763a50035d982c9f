"""Hosts are told of rollouts when they are accepted: only who listens, only what comes to it, and nobody waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from api import ahead
from api.ahead import Announcing, Board
from api.internal.parcels import what_comes
from api.starting import Outbox
from headway.broker import Coming, Parcel
from store.models import Job, Pack, utcnow
from store.queue import claim_job
from temporal.messages import Labels
from tests.api.doubles import RecordingStarts
from tests.api.test_broker import Roles, Upload, failure, upload
from tests.api.world import World, data

pytestmark = pytest.mark.anyio
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


async def test_a_rollout_is_told_of_when_its_run_was_started(api: World, roles: Roles) -> None:
    site = await api.site(api.admin)
    build = await upload(api, roles, site)
    _, digest = await build.output({"index.html": b"one"})
    artifact = api.artifact(site["id"], site["production_env_id"], digest)
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/deployments"
    job = data(await api.admin.post(path, json={"artifact_id": artifact}))
    starts = RecordingStarts()
    announcing = Announcing(starts, api.parts.board, lambda job_id: what_comes(api.store, api.parts.objects, job_id))
    waits = asyncio.create_task(api.parts.board.wait("local", 30))
    await until_waiting(api.parts.board, "local")
    assert await announcing.start(job["id"], "deployment.roll", labels=Labels()) is True
    (parcel,) = (await waits).parcels
    assert (parcel.site_id, parcel.digest, list(parcel.packs)) == (site["id"], digest, [api.one(Pack).sha256])
    assert f"{digest}/bundle.json" in parcel.bundle_url
    api.roll(site["production_env_id"])
    assert what_comes(api.store, api.parts.objects, job["id"]) is None, "it has been carried out"


@pytest.mark.parametrize("case", ["away", "build", "broken"])
async def test_the_start_is_what_counts(case: str) -> None:
    asked: list[str] = []

    def find(job_id: str) -> Any:
        asked.append(job_id)
        raise RuntimeError(case)

    board, starts = Board(), RecordingStarts(away=case == "away")
    await board.wait("local", 0)
    announcing = Announcing(starts, board, find)
    started = await announcing.start("job", "build.run" if case == "build" else "deployment.rollback", labels=Labels())
    await asyncio.gather(*announcing.telling)
    assert (started, asked) == (case != "away", [] if case == "build" else ["job"])


async def test_what_waits_for_its_turn_is_told_of_once(api: World) -> None:
    asked: list[str] = []

    def find(job_id: str) -> None:
        asked.append(job_id)

    board, site = Board(), await api.site(api.admin)
    env = site["production_env_id"]
    await board.wait("local", 0)
    announcing = Announcing(RecordingStarts(), board, find)
    jobs = []
    for seal in "ab":
        artifact = api.artifact(site["id"], env, seal * 64)
        path = f"/v1/sites/{site['id']}/environments/{env}/deployments"
        jobs.append(data(await api.admin.post(path, json={"artifact_id": artifact}))["id"])
    for job_id in jobs:
        api.change(Job, job_id, created_at=utcnow() - timedelta(minutes=1))
    for _ in range(3):
        assert await Outbox(api.store, announcing).sweep() == 1
        await asyncio.gather(*announcing.telling)
    assert asked == jobs[:1]


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
