"""What one-off commands are given: by bytes, whole before a command may have it, bounded, forgotten."""

from __future__ import annotations

import base64
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.inputs import AT_ONCE, PARTIAL_KEPT, WHOLE_KEPT, Inputs
from headway.errors import HeadwayError
from store.commands import place_command
from store.models import Job
from store.queue import claim_job
from tests.api.test_broker import Roles
from tests.api.test_lifecycle import an_app
from tests.api.world import World, data, error

pytestmark = pytest.mark.anyio
BYTES = bytes(range(256)) * 64


async def test_an_input_comes_in_parts_and_only_whole_to_a_command(api: World) -> None:
    path, env_id, _ = await an_app(api)
    made = data(await api.admin.post(f"{path}/inputs", content=BYTES[:5000], params={"end": False}))
    assert (made["env_id"], made["received"], made["whole"]) == (env_id, 5000, False)
    body = {"command": "cat", "input_id": made["id"]}
    assert error(await api.admin.post(f"{path}/run", json=body), 409)["code"] == "input.not_whole"
    at = f"{path}/inputs/{made['id']}"
    gap = error(await api.admin.put(at, content=b"x", params={"offset": 9000}), 409)
    assert (gap["code"], gap["received"]) == ("input.not_whole", 5000)
    # What was cut off is sent again from its beginning.
    for offset, end in ((4000, False), (10_000, True)):
        row = data(await api.admin.put(at, content=BYTES[offset:10_000] if not end else BYTES[offset:], params={
            "offset": offset, "end": end}))  # fmt: skip
    assert (row["received"], row["whole"]) == (len(BYTES), True)
    late = error(await api.admin.put(at, content=b"more", params={"offset": len(BYTES)}), 409)
    assert (late["code"], late["received"]) == ("input.ended", len(BYTES))
    job = data(await api.admin.post(f"{path}/run", json=body))
    assert not [key for key in job if key == "input"]
    assert api.one(Job, id=job["id"]).input["given"] == [made["id"], len(BYTES)]


async def test_the_same_input_under_the_same_key_is_one(api: World) -> None:
    path, env_id, _ = await an_app(api)
    key = {"Idempotency-Key": "first"}
    made = await api.admin.post(f"{path}/inputs", content=BYTES, headers=key)
    again = await api.admin.post(f"{path}/inputs", content=BYTES, headers=key)
    assert (again.status_code, data(again)) == (201, data(made))
    assert again.headers["idempotent-replayed"] == "true"
    assert len(list(api.parts.inputs.folder.glob(f"{env_id}.*"))) == 1
    for change in ({"content": BYTES[1:]}, {"content": BYTES, "params": {"end": False}}):
        other = await api.admin.post(f"{path}/inputs", headers=key, **change)
        assert error(other, 400)["code"] == "idempotency.key_reused"
    assert len(list(api.parts.inputs.folder.glob(f"{env_id}.*"))) == 1


async def test_an_input_that_is_sent_again_is_not_counted_again(api: World) -> None:
    path, env_id, _ = await an_app(api)
    keys = [{"Idempotency-Key": str(number)} for number in range(AT_ONCE + 1)]
    made = [await api.admin.post(f"{path}/inputs", content=BYTES, headers=key) for key in keys]
    assert error(made[-1], 409)["code"] == "input.too_many"
    again = await api.admin.post(f"{path}/inputs", content=BYTES, headers=keys[0])
    assert (again.status_code, data(again)) == (201, data(made[0]))
    assert len(list(api.parts.inputs.folder.glob(f"{env_id}.*"))) == AT_ONCE
    # What was refused claimed nothing.
    assert (
        error(await api.admin.post(f"{path}/inputs", content=BYTES, headers=keys[-1]), 409)["code"] == "input.too_many"
    )


async def test_its_host_reads_it_and_it_is_forgotten(api: World) -> None:
    roles = Roles(api)
    path, _, _ = await an_app(api)
    made = data(await api.admin.post(f"{path}/inputs", content=BYTES))
    job = data(await api.admin.post(f"{path}/run", json={"command": "cat", "input_id": made["id"]}))["id"]
    wanted = f"/commands/{job}/input"
    assert (await roles.ask("host", "POST", wanted, {"start": 0})).status_code == 404, "it has not begun it"
    with api.store.write() as session:
        place_command(session, claim_job(session, job))
    spec = (await roles.ask("host", "POST", f"/commands/{job}/begin")).json()
    assert spec["given"] == len(BYTES)
    part = (await roles.ask("host", "POST", wanted, {"start": 100})).json()
    assert base64.b64decode(part["data"]) == BYTES[100:]
    for role in ("builder", "control", "signing"):
        assert (await roles.ask(role, "POST", wanted, {"start": 0})).status_code in (401, 403, 404)
    for _ in range(2):  # its end is asked for again after a lost answer
        assert (await roles.ask("host", "POST", wanted, {"start": len(BYTES)})).json() == {"data": ""}
    assert [*api.parts.inputs.folder.iterdir()] == []


async def test_a_request_made_again_is_the_same_command_whatever_became_of_its_input(api: World) -> None:
    path, _, _ = await an_app(api)
    jobs = set()
    for _ in range(2):
        made = data(await api.admin.post(f"{path}/inputs", content=b"same"))
        body = {"command": "cat", "input_id": made["id"]}
        answer = await api.admin.post(f"{path}/run", json=body, headers={"Idempotency-Key": "one-restore"})
        jobs.add(data(answer)["id"])
    assert len(jobs) == 1


async def test_inputs_are_bounded_and_hidden_from_others(api: World) -> None:
    path, _, _ = await an_app(api)
    most = api.parts.inputs.most
    assert error(await api.admin.post(f"{path}/inputs", content=b"x" * (most + 1)), 413)["code"] == "input.too_large"

    async def endless() -> Any:
        for _ in range(most // 65536 + 1):
            yield b"x" * 65536

    assert error(await api.admin.post(f"{path}/inputs", content=endless()), 413)["code"] == "input.too_large"
    assert [*api.parts.inputs.folder.iterdir()] == [], "what was refused is not kept"
    made = data(await api.admin.post(f"{path}/inputs", content=b"x", params={"end": False}))
    _, stranger = await api.tenant("Other")
    for client, status in ((stranger, 404), (api.client(None), 401)):
        assert (await client.post(f"{path}/inputs", content=b"x")).status_code == status
        assert (
            await client.put(f"{path}/inputs/{made['id']}", content=b"x", params={"offset": 1})
        ).status_code == status
    for _ in range(7):
        data(await api.admin.post(f"{path}/inputs", content=b"x"))
    assert error(await api.admin.post(f"{path}/inputs", content=b"x"), 409)["code"] == "input.too_many"
    for odd in ("input_0000", "..", "job_01KV0000000000000000000000"):
        refused = await api.admin.put(f"{path}/inputs/{odd}", content=b"x", params={"offset": 0})
        assert refused.status_code in (404, 415)
    missing = await api.admin.post(f"{path}/run", json={"command": "cat", "input_id": "input_0000"})
    assert error(missing, 404)["code"] == "input.not_found"


def test_what_nobody_came_back_for_is_removed(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    partial, whole, fresh = (inputs.begin("env_0001") for _ in range(3))
    inputs.finish("env_0001", whole)
    old = os.stat(tmp_path).st_mtime
    os.utime(tmp_path / f"env_0001.{partial}.part", (old, old - PARTIAL_KEPT - 60))
    os.utime(tmp_path / f"env_0001.{whole}.whole", (old, old - PARTIAL_KEPT - 60))
    assert inputs.sweep() == 1
    os.utime(tmp_path / f"env_0001.{whole}.whole", (old, old - WHOLE_KEPT - 60))
    assert inputs.sweep() == 1
    assert not inputs.look("env_0001", fresh).whole
    with pytest.raises(HeadwayError, match="its time is over"):
        inputs.look("env_0001", whole)


def test_one_request_writes_at_a_time(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    one = inputs.begin("env_0001")
    with inputs.writer("env_0001", one, 0) as first:
        first.write(b"abc")
        with pytest.raises(HeadwayError, match="Another request"), inputs.writer("env_0001", one, 0):
            pass
    assert inputs.finish("env_0001", one).size == 3


@pytest.mark.parametrize("again", [False, True])
def test_many_at_once_are_not_more_than_there_may_be(tmp_path: Path, again: bool) -> None:
    inputs, begun = Inputs(tmp_path), list[str]()

    def begin(_number: int) -> None:
        with contextlib.suppress(HeadwayError):
            begun.append(inputs.begin("env_0001", again=again))

    for _ in range(4):
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(begin, range(64)))
    assert len(begun) == len(list(tmp_path.iterdir())) <= AT_ONCE + 2 * again
    for number in range(AT_ONCE):
        begin(number)
    assert len(begun) == AT_ONCE + 2 * again, "and not fewer, one after the other"
    inputs.begin("env_0002")
