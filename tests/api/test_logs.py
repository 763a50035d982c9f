"""The lines of apps: heard from hosts once, bounded, read back by the last ones, by cursor and as a stream."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.housekeeping import Housekeeping
from api.instance_logs import InstanceLogs, Wanted
from api.miosa.observing import _follow_app
from headway.broker import InstanceLines
from headway.ids import new_id
from store.models import Environment, Release, utcnow
from tests.api.test_broker import Roles, failure
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
NOTHING = Wanted()


def lines(first: int, *texts: str, seq: int = 1, index: int = 0, process: str = "web", second: int = 0) -> Json:
    told = [(f"2026-06-24T14:31:{second:02d}.{at:03d}Z", "stdout", text) for at, text in enumerate(texts, first)]
    return {"seq": seq, "process": process, "index": index, "first": first, "lines": told}


class Apps:
    """One environment, and its host's voice."""

    def __init__(self, api: World, roles: Roles, site: Json) -> None:
        self.api, self.roles, self.site = api, roles, site
        self.env_id = site["production_env_id"]
        self.found: list[tuple[str, Json]] = []
        self.path = f"/v1/sites/{site['id']}/environments/{self.env_id}/logs"

    async def say(self, *batch: Json, host: str = "local") -> list[Json]:
        body = {"host_id": host, "instances": list(batch)}
        role = "host" if host == "local" else f"host:{host}"
        answer = await self.roles.ask(role, "POST", f"/environments/{self.env_id}/logs", body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["heard"])

    async def shown(self, query: str = "") -> list[str]:
        return [row["line"] for row in data(await self.api.admin.get(self.path + query))]

    async def watched(self, frames: int = 0) -> None:
        while not self.api.parts.watch._watched or len(self.found) < frames:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def stream(self, count: int, after: int | None = None, query: str = "") -> list[tuple[str, Json]]:
        """`(id, row)` of that many frames. The app is asked itself: a transport would wait for the body's end."""
        found = self.found
        done = asyncio.Event()
        headers = [(b"accept", b"text/event-stream"), (b"host", b"api.test")]
        headers.append((b"authorization", self.api.admin.headers["authorization"].encode()))
        if after is not None:
            headers.append((b"last-event-id", str(after).encode()))

        async def receive() -> Json:
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            for piece in message.get("body", b"").decode().split("\n\n"):
                fields = dict(one.split(": ", 1) for one in piece.splitlines() if ": " in one)
                if fields.get("event") == "log":
                    found.append((fields.get("id", ""), json.loads(fields["data"])))
            if len(found) >= count:
                done.set()

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": self.path, "raw_path": self.path.encode(), "query_string": query.encode(), "headers": headers,
            "server": ("api.test", 80), "client": ("127.0.0.1", 4000), "root_path": "",
        }  # fmt: skip
        async with asyncio.timeout(20):
            await self.api.app(scope, receive, send)
        return found


@pytest.fixture
async def apps(api: World) -> Apps:
    return Apps(api, Roles(api), await api.site(api.admin))


def release(apps: Apps, seq: int, *, artifact: str = "art_1", config: int = 0) -> str:
    made = Release(
        id=f"rel_{seq:04d}", site_id=apps.site["id"], env_id=apps.env_id, rollout_id=f"roll_{seq}", seq=seq,
        artifact_id=artifact, config_version=config, current=False,
    )  # fmt: skip
    with apps.api.store.write() as session:
        session.add(made)
    return f"rel_{seq:04d}"


async def test_no_service_no_lines(apps: Apps) -> None:
    answer = await apps.api.admin.get(apps.path)
    assert answer.json()["data"] == []
    assert answer.json()["pagination"] == {"next_cursor": None, "has_more": False}


async def test_lines_are_shown_with_who_printed_them(apps: Apps) -> None:
    await apps.say(lines(1, "one", "two"), lines(1, "job", process="worker"))
    first, _, job = data(await apps.api.admin.get(apps.path))
    assert first == {
        "id": 1, "ts": "2026-06-24T14:31:00.001Z", "host_id": "local", "sequence": 1, "release_id": None,
        "instance": "web.0", "stream": "stdout", "line": "one",
    }  # fmt: skip
    assert (job["id"], job["instance"]) == (3, "worker.0")
    rel = release(apps, 1)
    assert {row["release_id"] for row in data(await apps.api.admin.get(apps.path))} == {rel}


async def test_what_is_sent_again_is_kept_once(apps: Apps) -> None:
    assert await apps.say(lines(1)) == [{"number": 0, "ts": ""}]
    await apps.say(lines(1, "a", "b"))
    heard = await apps.say(lines(1, "a", "b", "c"))
    assert heard == [{"number": 3, "ts": "2026-06-24T14:31:00.003Z"}]
    assert await apps.say(lines(2, "b", "c")) == heard == await apps.say(lines(1))
    assert await apps.shown() == ["a", "b", "c"]
    # Another process of the API on the same folder: it goes on where this one was.
    again = InstanceLogs(apps.api.folder / "logs", 1 << 20)
    assert again.last_number(apps.env_id) == 3
    assert [line.text for line in again.tail(apps.env_id, 9, NOTHING)[0]] == ["a", "b", "c"]


async def test_two_replicas_give_one_numbering(tmp_path: Path) -> None:
    """A host tells whichever answers: now this one, now the other."""
    env_id = new_id("env")
    one, two = [InstanceLogs(tmp_path, 4_000) for _ in "ab"]
    assert [logs.last_number(env_id) for logs in (one, two)] == [0, 0]
    for first in range(1, 41):
        logs = two if first % 3 else one
        sent = InstanceLines.model_validate(lines(first, f"line {first}"))
        for _ in "ab":
            assert logs.hear(env_id, "local", sent).number == first
    for logs in (one, two):
        assert logs.last_number(env_id) == 40
        found = logs.tail(env_id, 9, NOTHING)[0]
        assert [(line.number, line.text) for line in found] == [(at, f"line {at}") for at in range(32, 41)]
    one.forget(env_id)
    assert two.hear(env_id, "local", InstanceLines.model_validate(lines(41, "anew"))).number == 41
    assert one.last_number(env_id) == two.last_number(env_id) > 0


async def test_a_follower_hears_of_what_another_replica_was_told(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.managed.logs.PING", 60)
    other = InstanceLogs(apps.api.folder / "logs", 1 << 20)
    following = asyncio.create_task(apps.stream(1))
    await apps.watched()
    await asyncio.sleep(0.3)  # it has read what there is, and waits
    other.hear(apps.env_id, "local", InstanceLines.model_validate(lines(1, "told there")))
    assert [row["line"] for _, row in await following] == ["told there"]


async def test_an_instance_that_was_made_anew_numbers_anew(apps: Apps) -> None:
    await apps.say(lines(1, "a", "b", "c"))
    await apps.say(lines(1, "A", second=7))
    await apps.say(lines(1, "A", "B", second=7))
    assert await apps.shown() == ["a", "b", "c", "A", "B"]


async def test_hosts_and_instances_are_told_apart(apps: Apps) -> None:
    await apps.say(lines(1, "a"), lines(1, "b", index=1))
    apps.api.change(Environment, apps.env_id, hosts=["local", "other"])
    await apps.say(lines(1, "c"), host="other")
    await apps.say(lines(1, "d", seq=5))
    assert await apps.shown() == ["a", "b", "c", "d"]


async def test_what_the_host_could_not_send_is_noted(apps: Apps) -> None:
    await apps.say(lines(1, "a"))
    await apps.say(lines(11, "b"))
    assert await apps.shown() == [
        "a", "9 lines were dropped here: the app printed more than could be sent.", "b"
    ]  # fmt: skip


async def test_a_noisy_app_fills_no_disk(apps: Apps) -> None:
    text, count = "x" * 1000, 0
    for _ in range(40):
        await apps.say(lines(count + 1, *[text] * 100))
        count += 100
    folder = apps.api.folder / "logs" / apps.env_id
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2 << 20
    ring = apps.api.parts.logs.rings.ring(apps.env_id)
    kept = ring.number - ring.first() + 1
    assert 500 < kept < 4000
    assert data(await apps.api.admin.get(apps.path + "?tail=1000"))[-1]["id"] == 4000
    rows = apps.api.parts.logs.tail(apps.env_id, 5000, NOTHING)[0]
    assert rows[0].text == f"{4000 - kept} earlier lines were dropped: the log of an environment is bounded."
    assert len(rows) == kept + 1
    # A quiet neighbour's mark outlives the files that held its lines.
    again = InstanceLogs(apps.api.folder / "logs", 1 << 20)
    assert again.rings.ring(apps.env_id).heads["local/1/web.0"][0] == 4000


async def test_tail_instance_release_since_and_cursor(apps: Apps) -> None:
    release(apps, 1)
    await apps.say(lines(1, *(f"old {n}" for n in range(5))))
    await apps.say(lines(1, "new", seq=3, second=9), lines(1, "second", seq=3, index=1, second=9))
    third = release(apps, 3, artifact="art_2")
    assert await apps.shown("?tail=2") == ["new", "second"]
    assert await apps.shown("?instance=web.1") == ["second"]
    assert await apps.shown(f"?release={third}") == ["new", "second"]
    assert await apps.shown("?since=2026-06-24T14:31:09Z") == ["new", "second"]
    # A rollback that took over warm instances shows their lines.
    assert await apps.shown(f"?release={release(apps, 5)}") == [f"old {n}" for n in range(5)]
    page = (await apps.api.admin.get(apps.path + "?tail=2")).json()
    before = (
        await apps.api.admin.get(apps.path, params={"tail": 3, "cursor": page["pagination"]["next_cursor"]})
    ).json()
    assert [row["line"] for row in before["data"]] == ["old 2", "old 3", "old 4"]
    assert await apps.shown("?tail=0") == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?tail=1001", 400, "request.invalid_parameter"),
        ("?tail=-1", 400, "request.invalid_parameter"),
        ("?since=yesterday", 400, "request.invalid_parameter"),
        ("?instance=../x", 400, "request.invalid_parameter"),
        ("?release=rel_nothere", 404, "release.not_found"),
        ("?cursor=abc", 400, "pagination.invalid_cursor"),
    ],
)
async def test_what_cannot_be_asked(apps: Apps, query: str, status: int, code: str) -> None:
    assert error(await apps.api.admin.get(apps.path + query), status)["code"] == code


async def test_404_before_403_and_the_scope(apps: Apps) -> None:
    _, stranger = await apps.api.tenant("Strangers")
    assert error(await stranger.get(apps.path), 404)["code"] == "site.not_found"
    team, owner = await apps.api.tenant("Owners", scopes=["sites:write", "environments:read"])
    site = await apps.api.site(owner, "Own")
    path = f"/v1/sites/{site['id']}/environments/{site['production_env_id']}/logs"
    assert error(await owner.get(path), 403)["param"] == "scope"
    assert error(await owner.get(path.replace("env_", "env_X")), 404)["code"] == "environment.not_found"
    reader = apps.api.client(await apps.api.key(team, None, ["observability:read"]))
    assert data(await reader.get(path)) == []


async def test_the_broker_takes_lines_of_hosts_for_environments_that_are(apps: Apps) -> None:
    body = {"host_id": "local", "instances": [lines(1, "a")]}
    path = f"/environments/{apps.env_id}/logs"
    assert failure(await apps.roles.ask("builder", "POST", path, body), 403) == "role.insufficient"
    nowhere = await apps.roles.ask("host", "POST", "/environments/env_01NOTHERE/logs", body)
    assert failure(nowhere, 404) == "environment.not_found"
    odd = {"host_id": "local", "instances": [{**lines(1, "a"), "process": "../../x"}]}
    assert failure(await apps.roles.ask("host", "POST", path, odd), 400) == "request.invalid_parameter"
    apps.api.change(Environment, apps.env_id, deleted_at=utcnow())
    assert failure(await apps.roles.ask("host", "POST", path, body), 404) == "environment.not_found"


async def test_a_stream_begins_with_the_last_lines_and_goes_on(apps: Apps) -> None:
    await apps.say(lines(1, "a", "b", "c"))
    following = asyncio.create_task(apps.stream(3, query="tail=2"))
    await apps.watched(2)
    await apps.say(lines(4, "d"))
    found = await following
    assert [(at, row["line"]) for at, row in found] == [("2", "b"), ("3", "c"), ("4", "d")]


async def test_a_stream_resumes_behind_its_last_line(apps: Apps) -> None:
    await apps.say(lines(1, "a", "b", "c", "d"))
    found = await apps.stream(2, after=2)
    assert [(at, row["line"]) for at, row in found] == [("3", "c"), ("4", "d")]


async def test_the_other_dialects_stream_resumes_too(apps: Apps) -> None:
    await apps.say(lines(1, "a", "b", "c"))
    call: Any = SimpleNamespace(parts=apps.api.parts)
    for after, wanted in ((2, ["c"]), (None, ["b", "c"])):
        async with aclosing(_follow_app(call, apps.env_id, 2, after)) as frames:
            seen = [(await anext(frames)).decode() for _ in wanted]
        assert [json.loads(frame.partition("data: ")[2])["line"] for frame in seen] == wanted
        assert seen[-1].startswith("id: 3\n")


async def test_a_reader_that_comes_back_too_late_is_told(apps: Apps) -> None:
    for batch in range(40):
        await apps.say(lines(100 * batch + 1, *["x" * 1000] * 100))
    (_, note), (at, row) = (await apps.stream(2, after=1))[:2]
    assert note["line"] == f"{int(at) - 2} earlier lines were dropped: the log of an environment is bounded."
    assert row["id"] == int(at) == apps.api.parts.logs.rings.ring(apps.env_id).first()


async def test_a_stream_ends_when_the_api_does(apps: Apps) -> None:
    following = asyncio.create_task(apps.stream(1))
    await apps.watched()
    apps.api.parts.watch.close()
    assert await following == []


async def test_lines_and_requests_go_with_their_environment(apps: Apps) -> None:
    parts = apps.api.parts
    await apps.say(lines(1, "a"))
    keeping = Housekeeping(parts.store, parts.events, timedelta(days=30), (parts.logs, parts.requests))
    keeping.sweep_environments()
    assert await apps.shown() == ["a"]
    apps.api.change(Environment, apps.env_id, deleted_at=utcnow())
    keeping.sweep_environments()
    assert parts.logs.known() == []
    assert not (apps.api.folder / "logs" / apps.env_id).exists()


async def test_a_stream_ends_with_the_credential_that_asked_for_it(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.streams.RECHECK", 0.0)
    made = data(await apps.api.admin.post("/v1/api-keys", json={"name": "k", "scopes": ["observability:read"]}))
    client = apps.api.client(made["secret"])
    following = asyncio.create_task(client.get(apps.path, headers={"accept": "text/event-stream"}))
    await apps.watched()
    await apps.say(lines(1, "before"))
    await asyncio.sleep(0.3)
    data(await apps.api.admin.delete(f"/v1/api-keys/{made['id']}"))
    await apps.say(lines(2, "after"))
    async with asyncio.timeout(10):
        told = (await following).text
    assert ("before" in told, "after" in told) == (True, False)
