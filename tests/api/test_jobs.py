"""Jobs: long-poll, cancel, and the stream to the letter of contract section 8.3."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.streams import JobStream
from headway.broker import Event
from store.models import Build, Job, Rollout, utcnow
from store.outcomes import end_job
from store.queue import claim_job
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
NOW = "2026-06-24T14:31:20.114Z"


async def build_job(api: World) -> tuple[str, dict[str, Any]]:
    site = await api.site(api.admin)
    env = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}"
    return env, data(await api.admin.post(f"{env}/builds"))


def tell(api: World, job_id: str, first: int, *lines: str, source: str = "builder/1") -> None:
    events = [Event(kind="log", ts=NOW, stage="build", stream="stdout", line=line) for line in lines]
    api.parts.events.append(job_id, source, first, events)
    api.parts.watch.poke(job_id)


class Frames:
    """A reader of one stream, frame by frame."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.chunks = chunks
        self.waiting: list[dict[str, str]] = []

    async def next(self) -> dict[str, str]:
        while not self.waiting:
            chunk = await asyncio.wait_for(anext(self.chunks), 10)
            for block in chunk.decode().split("\n\n"):
                if block.strip():
                    pairs = (line.partition(": ") for line in block.split("\n"))
                    self.waiting.append({name or "comment": value for name, _, value in pairs})
        return self.waiting.pop(0)

    async def rest(self) -> list[dict[str, str]]:
        found = self.waiting
        self.waiting = []
        async for chunk in self.chunks:
            for block in chunk.decode().split("\n\n"):
                if block.strip():
                    pairs = (line.partition(": ") for line in block.split("\n"))
                    found.append({name or "comment": value for name, _, value in pairs})
        return found


def stream(api: World, job_id: str, after: int | None = None) -> Frames:
    """The stream below HTTP: the test client would buffer an answer that does not end."""
    from api.managed.rows import job_row

    parts = api.parts
    job = api.one(Job, id=job_id)
    made = JobStream(parts.store, parts.events, parts.watch, job, lambda row: job_row(row, parts.docs_url), after=after)
    return Frames(made.frames())


async def test_a_stream_tells_the_job_its_lines_its_changes_and_its_end(api: World) -> None:
    _, job = await build_job(api)
    frames = stream(api, job["id"])
    assert await frames.next() == {"retry": "2000"}
    first = await frames.next()
    assert (first["id"], first["event"]) == ("1", "job")
    assert json.loads(first["data"]) == job
    tell(api, job["id"], 1, "npm ci", "zeile: \u2028 ü")
    line = await frames.next()
    assert (line["id"], line["event"]) == ("2", "log")
    assert json.loads(line["data"]) == {"ts": NOW, "stream": "stdout", "stage": "build", "line": "npm ci"}
    assert json.loads((await frames.next())["data"])["line"] == "zeile: \u2028 ü"
    with api.store.write() as session:
        claim_job(session, job["id"])
    changed = await frames.next()
    assert (changed["id"], json.loads(changed["data"])["status"]) == ("4", "running")
    tell(api, job["id"], 3, "done")
    assert (await frames.next())["id"] == "5"
    with api.store.write() as session:
        end_job(session, session.get_one(Job, job["id"]), "succeeded", result={"artifact_id": "art_x"})
    last = await frames.next()
    assert (last["id"], json.loads(last["data"])["result"]) == ("6", {"artifact_id": "art_x"})
    assert await frames.rest() == [{"event": "end", "data": '{"status":"succeeded"}'}]


async def test_a_reader_resumes_behind_the_last_event_it_saw(api: World) -> None:
    _, job = await build_job(api)
    tell(api, job["id"], 1, *(f"line {n}" for n in range(10)))
    frames = stream(api, job["id"], after=6)
    await frames.next()
    first = await frames.next()
    assert (first["id"], first["event"]) == ("6", "job")
    lines = [await frames.next() for _ in range(5)]
    assert [one["id"] for one in lines] == ["7", "8", "9", "10", "11"]
    assert json.loads(lines[0]["data"])["line"] == "line 5"
    fresh = stream(api, job["id"])
    await fresh.next()
    assert (await fresh.next())["id"] == "1"
    assert json.loads((await fresh.next())["data"])["line"] == "line 0"
    far = stream(api, job["id"], after=10_000)
    await far.next()
    assert (await far.next())["id"] == "11"


async def test_two_readers_see_the_same_numbers(api: World) -> None:
    _, job = await build_job(api)
    readers = [stream(api, job["id"]) for _ in range(3)]
    tasks = [asyncio.create_task(reader.rest()) for reader in readers]
    for n in range(20):
        tell(api, job["id"], n + 1, f"line {n}")
        if n % 4 == 0:
            api.change(Job, job["id"], progress=n, status="running")
        await asyncio.sleep(0.005)
    with api.store.write() as session:
        end_job(session, session.get_one(Job, job["id"]), "succeeded", result={})
    for found in await asyncio.wait_for(asyncio.gather(*tasks), 20):
        numbers = [int(one["id"]) for one in found if "id" in one]
        assert numbers == sorted(set(numbers))
        assert sum(one.get("event") == "log" for one in found) == 20
        jobs = [json.loads(one["data"]) for one in found if one.get("event") == "job"]
        assert jobs[-1]["status"] == "succeeded"
        assert [one["progress"] for one in jobs] == sorted(one["progress"] for one in jobs)


async def test_a_job_that_has_ended_is_one_frame_and_the_end(api: World) -> None:
    _, job = await build_job(api)
    tell(api, job["id"], 1, "a", "b")
    with api.store.write() as session:
        end_job(session, session.get_one(Job, job["id"]), "failed", error={"code": "build.timeout", "message": "m"})
    answer = await api.admin.get(f"/v1/jobs/{job['id']}/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    blocks = answer.text.strip().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["retry: 2000", "id: 1", "event: end"]
    shown = json.loads(blocks[1].split("\n")[2].removeprefix("data: "))
    assert (shown["status"], shown["error"]["code"]) == ("failed", "build.timeout")
    assert blocks[2] == 'event: end\ndata: {"status":"failed"}'
    missed = await api.admin.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": "2"})
    lines = [block.split("\n") for block in missed.text.strip().split("\n\n")]
    assert [line[:2] for line in lines[1:3]] == [["id: 2", "event: job"], ["id: 3", "event: log"]]
    odd = await api.admin.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": "x' OR 1"})
    assert odd.text == answer.text


async def test_a_stream_of_an_unknown_job_is_an_ordinary_error(api: World) -> None:
    answer = await api.admin.get("/v1/jobs/job_00000000000000000000000000/stream")
    assert error(answer, 404)["code"] == "job.not_found"
    assert answer.headers["content-type"] == "application/json"


async def test_the_row_is_polled_by_its_etag(api: World) -> None:
    _, job = await build_job(api)
    path = f"/v1/jobs/{job['id']}"
    first = await api.admin.get(path)
    tag = first.headers["etag"]
    same = await api.admin.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    for known in (f"W/{tag}", f'"x", {tag}', "*"):
        assert (await api.admin.get(path, headers={"If-None-Match": known})).status_code == 304
    api.change(Job, job["id"], progress=10)
    changed = await api.admin.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, data(changed)["progress"]) == (200, 10)
    assert changed.headers["etag"] != tag


@pytest.mark.parametrize("how", ["prefer", "query", "bare"])
async def test_a_long_poll_answers_when_something_changes(api: World, how: str) -> None:
    _, job = await build_job(api)
    path = f"/v1/jobs/{job['id']}"
    tag = (await api.admin.get(path)).headers["etag"]
    headers = {"If-None-Match": tag} if how != "bare" else {}
    if how == "prefer":
        headers["Prefer"] = "respond-async, wait=30"
    waiting = asyncio.create_task(
        api.admin.get(path + ("" if how == "prefer" else "?wait=30"), headers=headers, timeout=40)
    )
    await asyncio.sleep(0.1)
    assert not waiting.done()
    api.change(Job, job["id"], progress=50)
    answer = await asyncio.wait_for(waiting, 10)
    assert data(answer)["progress"] == 50


async def test_a_long_poll_ends_with_304_and_at_once_where_there_is_nothing_to_wait_for(api: World) -> None:
    _, job = await build_job(api)
    path = f"/v1/jobs/{job['id']}"
    tag = (await api.admin.get(path)).headers["etag"]
    assert (await api.admin.get(f"{path}?wait=1", headers={"If-None-Match": tag})).status_code == 304
    old = await asyncio.wait_for(api.admin.get(f"{path}?wait=60", headers={"If-None-Match": '"x"'}), 5)
    assert old.status_code == 200
    assert error(await api.admin.get(f"{path}?wait=-1"), 400)["param"] == "wait"
    assert error(await api.admin.get(f"{path}?wait=soon"), 400)["param"] == "wait"
    api.change(Job, job["id"], status="failed", finished_at=utcnow())
    ended = await asyncio.wait_for(api.admin.get(f"{path}?wait=60"), 5)
    again = api.admin.get(f"{path}?wait=60", headers={"If-None-Match": ended.headers["etag"]})
    assert (await asyncio.wait_for(again, 5)).status_code == 304


async def test_stopping_wakes_everybody_who_waits(api: World) -> None:
    _, job = await build_job(api)
    frames = stream(api, job["id"])
    await frames.next()
    await frames.next()
    waiting = asyncio.create_task(api.admin.get(f"/v1/jobs/{job['id']}?wait=60"))
    following = asyncio.create_task(frames.rest())
    await asyncio.sleep(0.1)
    api.parts.watch.close()
    assert (await asyncio.wait_for(waiting, 5)).status_code == 200
    assert await asyncio.wait_for(following, 5) == []


async def test_a_queued_job_is_canceled_at_once_with_its_rows(api: World) -> None:
    env, job = await build_job(api)
    answer = await api.admin.post(f"/v1/jobs/{job['id']}/cancel")
    assert answer.status_code == 202
    assert (data(answer)["status"], data(answer)["error"]["code"]) == ("canceled", "job.canceled")
    assert api.one(Build, id=job["resource"]["id"]).status == "canceled"
    assert api.starts.canceled == [job["id"]]
    assert error(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"), 409)["code"] == "job.not_cancelable"
    push = data(await api.admin.post(f"/v1/sites/{env.split('/')[3]}/deployments", json={"ref": "main"}))
    key = {"Idempotency-Key": "c"}
    first = data(await api.admin.post(f"/v1/jobs/{push['id']}/cancel", headers=key))
    again = await api.admin.post(f"/v1/jobs/{push['id']}/cancel", headers=key)
    assert data(again) == first
    assert again.headers["idempotent-replayed"] == "true"
    assert api.one(Rollout, id=push["resource"]["id"]).status == "canceled"
    assert api.one(Build, job_id=push["id"]).status == "canceled"


async def test_a_running_job_is_flagged_until_the_point_of_no_return(api: World) -> None:
    _, job = await build_job(api)
    with api.store.write() as session:
        claim_job(session, job["id"])
    answer = data(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"))
    assert (answer["status"], answer["cancel_requested"]) == ("running", True)
    assert api.one(Job, id=job["id"]).cancel_requested_at is not None
    assert data(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"))["cancel_requested"] is True
    api.change(Job, job["id"], committed_at=utcnow())
    assert error(await api.admin.post(f"/v1/jobs/{job['id']}/cancel"), 409)["code"] == "job.not_cancelable"


async def test_cancel_asks_for_the_scope_of_what_it_stops(api: World) -> None:
    team, alice = await api.tenant("Alice")
    site = await api.site(alice)
    job = data(await alice.post(f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/builds"))
    reader = api.client(await api.key(team, None, ["jobs:read", "sites:write"]))
    refused = error(await reader.post(f"/v1/jobs/{job['id']}/cancel"), 403)
    assert "deployments:write" in refused["message"]
    environment = data(await alice.post("/v1/sites", json={"name": "Second"}))
    assert data(await reader.post(f"/v1/jobs/{environment['id']}/cancel"))["status"] == "canceled"


async def test_the_log_is_text_or_follows(api: World) -> None:
    env, job = await build_job(api)
    path = f"{env}/builds/{job['resource']['id']}/log"
    assert (await api.admin.get(path)).text == ""
    tell(api, job["id"], 1, "one", "two ü")
    roll = Event(kind="log", ts=NOW, stage="verify", stream="system", line="not the build's")
    api.parts.events.append(job["id"], "host/local", 1, [roll])
    answer = await api.admin.get(path)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "one\ntwo ü\n"
    api.change(Build, job["resource"]["id"], status="failed", finished_at=utcnow())
    followed = await api.admin.get(path, headers={"Accept": "text/event-stream"})
    assert followed.headers["content-type"].startswith("text/event-stream")
    assert followed.text.count("event: log") == 2
    assert followed.text.endswith('event: end\ndata: {"status":"failed"}\n\n')
    unknown = f"{env}/builds/build_00000000000000000000000000/log"
    assert error(await api.admin.get(unknown), 404)["code"] == "build.not_found"
