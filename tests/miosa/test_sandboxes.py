"""Sandboxes: a tree that is written whole or not at all, that nothing leads out of, and that has limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.housekeeping import Housekeeping
from api.miosa.app import READ_BODIES
from api.rooms import Rooms
from store.models import utcnow
from store.models_retention import Doomed
from store.models_sandbox_packs import SandboxLease
from store.models_sandboxes import Sandbox, SandboxFile
from store.sandboxes import SandboxLimits, pack_key
from tests.miosa.org import Org, b64, problem

pytestmark = pytest.mark.anyio


async def test_files_go_in_and_come_out(org: Org) -> None:
    sandbox = await org.sandbox()
    path = f"/sandboxes/{sandbox}"
    await org.call("POST", f"{path}/fs/write", {"path": "/workspace/a/b.txt", "content": "pla\u00efn"})
    await org.call("POST", f"{path}/files", {"path": "c.bin", "content": b64(b"\0\xff"), "mode": "0755"})
    await org.call("POST", f"{path}/fs/write", {"path": "empty", "content": ""})
    got = await org.http.get(f"/api/v1{path}/fs/download", params={"path": "/workspace/c.bin"})
    assert (got.content, got.headers["content-type"]) == (b"\0\xff", "application/octet-stream")
    legacy = await org.http.get(f"/api/v1{path}/files/workspace/a/b.txt")
    assert legacy.content == "pla\u00efn".encode()
    assert (await org.http.get(f"/api/v1{path}/files/empty")).content == b""
    stat = await org.call("POST", f"{path}/fs/stat", {"path": "/workspace/c.bin"})
    assert (stat["type"], stat["size"], stat["mode"]) == ("file", 2, "0755")
    assert (await org.call("POST", f"{path}/fs/stat", {"path": "a"}))["type"] == "directory"
    listed = await org.call("GET", f"{path}/files?path=/workspace")
    assert [entry["name"] for entry in listed["entries"]] == ["a", "c.bin", "empty"]
    deep = await org.call("GET", f"{path}/files?path=/workspace&depth=2")
    assert [entry["path"] for entry in deep["entries"]][:2] == ["/workspace/a", "/workspace/a/b.txt"]
    tree = await org.call("GET", f"{path}/files/tree")
    assert tree["children"][0]["children"][0]["name"] == "b.txt"
    row = await org.call("GET", path)
    assert (row["state"], row["files"], row["size_bytes"]) == ("running", 3, 8)
    assert (await org.call("DELETE", f"{path}/files?path=a"))["removed"] == 1
    problem(await org.http.get(f"/api/v1{path}/fs/download?path=a/b.txt"), 404, "NOT_FOUND")


async def test_nothing_leads_out(org: Org) -> None:
    path = f"/api/v1/sandboxes/{await org.sandbox()}"
    out = ("../x", "/etc/passwd", "/workspace/../x", "a/../../x", "/workspace")
    for bad in (*out, "a\nb", "x/", "", "a" * 300, "d/" * 65 + "x"):
        answer = await org.http.post(f"{path}/fs/write", json={"path": bad, "content": "x"})
        code = "INVALID_FILE_PATH" if bad else "VALIDATION_ERROR"
        problem(answer, 422, code)
    problem(await org.http.get(f"{path}/fs/download", params={"path": "/etc/shadow"}), 422, "INVALID_FILE_PATH")
    problem(await org.http.get(f"{path}/files/%2e%2e/x"), 422, "INVALID_FILE_PATH")
    for body in ({"path": "a"}, {"content": "x"}):
        problem(await org.http.post(f"{path}/fs/write", json=body), 400, "MISSING_PARAM")
    bad64 = {"path": "a", "content_base64": "%%%"}
    assert problem(await org.http.post(f"{path}/fs/write", json=bad64), 422, "VALIDATION_ERROR")["details"] == {
        "field": "content_base64"
    }
    assert org.api.count(SandboxFile) == 0


async def test_a_write_of_many_is_whole_or_not_at_all(org: Org) -> None:
    sandbox = await org.sandbox({"a": "file", "d/x": "x"})
    for bad in ("../out", "a/below", "d"):
        files = [{"path": name, "content_base64": b64("y")} for name in ("fresh", bad)]
        answer = await org.http.post(f"/api/v1/sandboxes/{sandbox}/fs/write-many", json={"files": files})
        assert answer.status_code in (409, 422)
        problem(answer, answer.status_code, "INVALID_FILE_PATH" if bad == "../out" else "FILE_PATH_CONFLICT")
    assert org.api.count(SandboxFile) == 2
    many = {f"f{number}/x": str(number) for number in range(200)}
    await org.write(sandbox, many)
    assert (await org.call("GET", f"/sandboxes/{sandbox}"))["files"] == 202
    both = [{"path": one, "content_base64": b64("y")} for one in ("z", "z/z")]
    answer = await org.http.post(f"/api/v1/sandboxes/{sandbox}/fs/write-many", json={"files": both})
    problem(answer, 409, "FILE_PATH_CONFLICT")


async def test_limits_on_size_and_number(tmp_path: Path, org: Org) -> None:
    limits = SandboxLimits(files=3, size_bytes=100, file_bytes=60, per_team=2)
    org.api.app = create_app(replace(org.api.parts, sandboxes=limits))
    org.http = await org.key("*")
    sandbox = await org.sandbox({"a": "x" * 50})
    path = f"/api/v1/sandboxes/{sandbox}/fs/write"
    problem(await org.http.post(path, json={"path": "b", "content": "x" * 61}), 413, "PAYLOAD_TOO_LARGE")
    problem(await org.http.post(path, json={"path": "b", "content": "x" * 51}), 413, "PAYLOAD_TOO_LARGE")
    await org.write(sandbox, {"b": "", "c": ""})
    problem(await org.http.post(path, json={"path": "d", "content": ""}), 413, "PAYLOAD_TOO_LARGE")
    await org.write(sandbox, {"a": "y" * 60})
    await org.sandbox()
    problem(await org.http.post("/api/v1/sandboxes", json={}), 409, "SANDBOX_LIMIT_REACHED")
    await org.call("DELETE", f"/sandboxes/{sandbox}")
    await org.sandbox()


async def test_names_metadata_readiness_and_the_end(org: Org) -> None:
    sandbox = await org.sandbox(name="one", metadata={"k": "v"}, external_user_id="u", tags=["t"])
    assert (await org.call("GET", "/sandboxes/by-name/one"))["id"] == sandbox
    problem(await org.http.get("/api/v1/sandboxes/by-name/two"), 404, "NOT_FOUND")
    problem(await org.http.post("/api/v1/sandboxes", json={"name": "one"}), 409, "SANDBOX_NAME_TAKEN")
    assert [row["id"] for row in await org.call("GET", "/sandboxes?external_user_id=u&tags=t")] == [sandbox]
    assert await org.call("GET", "/sandboxes?tags=other") == []
    assert (await org.call("GET", f"/sandboxes/{sandbox}/readiness"))["ready"] is True
    assert "event: ready" in (await org.http.get(f"/api/v1/sandboxes/{sandbox}/readiness/stream")).text
    changed = await org.call("PATCH", f"/sandboxes/{sandbox}", {"name": "renamed", "metadata": {}})
    assert (changed["name"], changed["metadata"]) == ("renamed", {})
    for env in ({"A=B": "x"}, {"": "x"}, {"A": 1}):
        problem(await org.http.post("/api/v1/sandboxes", json={"env": env}), 422, "VALIDATION_ERROR")
    assert (await org.call("DELETE", f"/sandboxes/{sandbox}"))["state"] == "destroyed"
    problem(await org.http.get(f"/api/v1/sandboxes/{sandbox}"), 404, "NOT_FOUND")
    stranger = await org.other()
    fresh = await org.sandbox({"a": "x"})
    for answer in (
        await stranger.get(f"/api/v1/sandboxes/{fresh}"),
        await stranger.get(f"/api/v1/sandboxes/{fresh}/fs/download?path=a"),
        await stranger.post(f"/api/v1/sandboxes/{fresh}/fs/write", json={"path": "a", "content": "x"}),
        await stranger.post(f"/api/v1/sandboxes/{fresh}/deploy", json={}),
        await stranger.delete(f"/api/v1/sandboxes/{fresh}"),
    ):
        problem(answer, 404, "NOT_FOUND")


async def test_an_idle_sandbox_ends_and_its_rows_go(org: Org) -> None:
    sandbox = await org.sandbox({"a": "x"}, idle_timeout_sec=60)
    await org.sandbox({"a": "x"}, idle_timeout_sec=2**31 - 1)  # the platform's own limit holds
    huge = await org.http.post("/api/v1/sandboxes", json={"idle_timeout_sec": 10**15})
    problem(huge, 422, "VALIDATION_ERROR")
    org.api.change(Sandbox, sandbox, expires_at=utcnow() - timedelta(seconds=1))
    problem(await org.http.get(f"/api/v1/sandboxes/{sandbox}"), 404, "NOT_FOUND")
    Housekeeping(org.api.store, org.api.parts.events, timedelta(days=30)).sweep()
    assert org.api.one(Sandbox, id=sandbox).state == "destroyed"
    assert org.api.count(SandboxFile) == 1, "of the other one"


async def test_two_replicas_see_one_tree(org: Org) -> None:
    """Another app on the same database and objects: nothing of a sandbox is in a process."""
    other = create_app(org.api.parts)
    here, org.api.app = org.api.app, other
    there = await org.key("*")
    org.api.app = here
    sandbox = await org.sandbox({"a": "1"})

    async def write(client: object, number: int) -> None:
        body = {"path": f"f{number}", "content": str(number)}
        answer = await client.post(f"/api/v1/sandboxes/{sandbox}/fs/write", json=body)  # type: ignore[attr-defined]
        assert answer.status_code == 200, answer.text

    await asyncio.gather(*(write(client, number) for number in range(8) for client in (org.http, there)))
    row = (await there.get(f"/api/v1/sandboxes/{sandbox}")).json()["data"]
    assert (row["files"], row["size_bytes"]) == (9, 9)
    assert (await there.get(f"/api/v1/sandboxes/{sandbox}/fs/download?path=a")).content == b"1"


async def test_bytes_that_are_being_deleted_are_written_under_another_name(org: Org) -> None:
    """Nobody waits for a collection that is deleting the same pack at this moment, and nobody counts on it."""
    sandbox = await org.sandbox({"a": "same"})
    old = org.api.one(SandboxFile, sandbox_id=sandbox, path="a").pack_sha256
    with org.api.store.write() as session:
        session.add(Doomed(site_id=org.team_id, key=pack_key(org.team_id, old)))
    await org.write(sandbox, {"b": "same"})
    org.api.objects.delete([pack_key(org.team_id, old)])
    row = org.api.one(SandboxFile, sandbox_id=sandbox, path="b")
    assert row.pack_sha256 != old
    got = await org.http.get(f"/api/v1/sandboxes/{sandbox}/fs/download", params={"path": "b"})
    assert got.content == b"same"
    assert org.api.count(SandboxLease) == 0, "what is written is leased no more"


async def test_a_file_that_was_moved_meanwhile_is_looked_up_again(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await org.sandbox({"a": "here"})
    objects, kept = org.api.objects, org.api.objects.read_range
    row = org.api.one(SandboxFile, sandbox_id=sandbox, path="a")
    body = objects.held.pop(pack_key(org.team_id, row.pack_sha256))

    def late(key: str, offset: int, size: int) -> Iterator[bytes]:
        """The first look comes too late: between it and the read the pack was copied and the old one deleted."""
        monkeypatch.setattr(objects, "read_range", kept)
        new = sha256(b"--" + body).hexdigest()
        objects.put_new(pack_key(org.team_id, new), b"--" + body, new)
        with org.api.store.write() as session:
            found = session.get_one(SandboxFile, (sandbox, "a"))
            found.pack_sha256, found.offset = new, 2
        return kept(key, offset, size)

    monkeypatch.setattr(objects, "read_range", late)
    got = await org.http.get(f"/api/v1/sandboxes/{sandbox}/fs/download", params={"path": "a"})
    assert (got.status_code, got.content) == (200, b"here")


async def test_bodies_of_files_are_json_of_their_shape(org: Org) -> None:
    path = f"/api/v1/sandboxes/{await org.sandbox()}/fs/write"
    header = {"Content-Type": "application/json"}
    for raw in (b"{", b"[1]", b'"x"', b'{"path": "a", "content": "\\ud800"}'):
        problem(await org.http.post(path, content=raw, headers=header), 400, "MALFORMED_JSON")
    plain = await org.http.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
    problem(plain, 415, "UNSUPPORTED_MEDIA_TYPE")
    problem(await org.http.post(path, content=b'{"path": 3}', headers=header), 422, "VALIDATION_ERROR")
    problem(await org.http.post(path, json={"path": "a\0b", "content": "x"}), 422, "INVALID_FILE_PATH")
    problem(await org.http.post(path, json={"path": "a", "content_base64": "%"}), 422, "VALIDATION_ERROR")


def miosa_app(app: FastAPI) -> FastAPI:
    """The dialect's own app, that the branch leads to."""
    (other,) = [layer.kwargs["other"] for layer in app.user_middleware if "other" in layer.kwargs]
    assert isinstance(other, FastAPI)
    return other


async def test_only_a_body_of_files_may_be_large_and_only_some_are_in_memory(org: Org) -> None:
    sandbox = await org.sandbox()
    path = f"/api/v1/sandboxes/{sandbox}/fs"
    for question in ("stat", "delete"):
        answer = await org.http.post(f"{path}/{question}", json={"path": "a", "more": "x" * (2 << 20)})
        problem(answer, 413, "PAYLOAD_TOO_LARGE")
    files = {"path": "a", "content": "x" * (5 << 20)}
    sent: list[str] = []

    async def body(name: str) -> AsyncIterator[bytes]:
        for piece in (b'{"path": "', name.encode(), b'", "content": "x"}'):
            sent.append(name)
            yield piece

    header = {"Content-Type": "application/json"}
    room: anyio.CapacityLimiter = miosa_app(org.api.app).state.read_bodies.all
    held = [object() for _ in range(READ_BODIES)]
    for holder in held:
        room.acquire_on_behalf_of_nowait(holder)
    stranger = await org.other()
    problem(await stranger.post(f"{path}/write", json=files), 404, "NOT_FOUND")
    large = asyncio.create_task(org.http.post(f"{path}/write", json=files))
    unknown = asyncio.create_task(org.http.post(f"{path}/write", content=body("b"), headers=header))
    assert (await org.http.post(f"{path}/write", json={"path": "c", "content": "x"})).status_code == 200
    await asyncio.sleep(0.3)
    assert (large.done(), unknown.done(), sent) == (False, False, [])
    for holder in held:
        room.release_on_behalf_of(holder)
    assert ((await large).status_code, (await unknown).status_code) == (200, 200)
    assert room.borrowed_tokens == 0


async def test_a_body_that_comes_too_slowly_leaves_its_room(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.miosa.files.SECONDS", 0.3)
    path = f"/api/v1/sandboxes/{await org.sandbox()}/fs/write"

    async def body() -> AsyncIterator[bytes]:
        yield b'{"path": "a", '
        await asyncio.sleep(5)
        yield b'"content": "x"}'

    answer = await org.http.post(path, content=body(), headers={"Content-Type": "application/json"})
    problem(answer, 422, "VALIDATION_ERROR")
    assert miosa_app(org.api.app).state.read_bodies.all.borrowed_tokens == 0


async def test_one_team_has_half_of_the_room_for_large_bodies(org: Org) -> None:
    rooms: Rooms = miosa_app(org.api.app).state.read_bodies
    path = f"/api/v1/sandboxes/{await org.sandbox()}/fs/write"
    files = {"path": "a", "content": "x" * (5 << 20)}
    go = asyncio.Event()
    slow = [asyncio.create_task(_held(rooms, go)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert rooms.all.borrowed_tokens == 2
    assert (await org.http.post(path, json=files)).status_code == 200
    go.set()
    await asyncio.gather(*slow)
    assert rooms.all.borrowed_tokens == 0


async def _held(rooms: Rooms, go: asyncio.Event) -> None:
    async with rooms.place("slow"):
        await go.wait()
