"""Commands in sandboxes: who may start them, what a builder hears, and what an attempt that is over may still say."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from api.internal.execs import Execs
from api.internal.telling import Telling
from headway.broker import Begin, Event, Events, ExecFile, ExecOutput, UploadRequest, WantedPacks
from headway.errors import HeadwayError
from store.models import Job
from store.models_sandbox_env import SandboxEnv
from store.models_sandbox_packs import SandboxPack
from store.queue import claim_job
from store.sandboxes import pack_key
from tests.holder import HOLDER
from tests.miosa.org import Org, problem

pytestmark = pytest.mark.anyio
BEGIN = Begin(attempt=1, worker="w")


async def started(org: Org, sandbox: str, command: str = "make", **fields: object) -> tuple[str, asyncio.Task[object]]:
    """A command that waits for its builder: its job, and the caller that waits for its end."""
    before = len(org.api.starts.started)
    path = f"/api/v1/sandboxes/{sandbox}/exec"
    waiting = asyncio.create_task(org.http.post(path, json={"command": command, **fields}, timeout=30))
    while len(org.api.starts.started) == before:  # noqa: ASYNC110 - a double has no event
        await asyncio.sleep(0.01)
    job, kind = org.api.starts.started[-1]
    assert kind == "sandbox.exec"
    with org.api.store.write() as session:
        claim_job(session, job)
    return job, waiting


def builder(org: Org) -> Execs:
    return Execs(org.api.store, org.api.parts.objects, org.api.parts.sandboxes, org.api.parts.vault)


def output(attempt: int, pack: bytes = b"", **more: object) -> ExecOutput:
    facts = {"exit_code": 3, "duration_ms": 5, "limit": None, "stdout": "said", "stderr": "", "pack": None, **more}
    if pack:
        facts |= {"pack": hashlib.sha256(pack).hexdigest(), "pack_size": len(pack)}
    return ExecOutput(attempt=attempt, **facts)  # type: ignore[arg-type]


async def test_a_command_changes_the_tree_with_its_end(org: Org) -> None:
    sandbox = await org.sandbox({"src/a": "a", "old": "o"})
    job, waiting = await started(org, sandbox, cwd="/workspace/src", env={"K": "canary"}, timeout=9)
    execs = builder(org)
    spec = execs.begin(job, BEGIN, HOLDER)
    assert (spec.command, spec.cwd, spec.env, spec.timeout, spec.attempt) == ("make", "src", {"K": "canary"}, 9, 1)
    pack = org.api.one(SandboxPack, team_id=org.team_id).sha256
    asked = WantedPacks(attempt=1, packs=[pack, "f" * 64])
    assert list(execs.packs(job, asked).packs) == [pack], "nothing else of the sandbox"
    made, sha = b"made", hashlib.sha256(b"made").hexdigest()
    upload = execs.upload(job, UploadRequest(attempt=1, kind="pack", sha256=sha, size=4))
    assert upload.url is not None
    org.api.objects.held[pack_key(org.team_id, sha)] = made
    files = [ExecFile(path="dist/x", mode="755", size=4, sha256=sha, offset=0)]
    execs.output(job, output(1, made, files=files, links=[("out", "dist")], removed=["old"]))
    answer = (await waiting).json()["data"]  # type: ignore[attr-defined]
    assert (answer["stdout"], answer["exit_code"], answer["duration_ms"]) == ("said", 3, 5)
    entries = (await org.call("GET", f"/sandboxes/{sandbox}/files?depth=9"))["entries"]
    kinds = {entry["path"]: (entry["type"], entry["mode"]) for entry in entries if entry["type"] != "directory"}
    assert kinds == {
        "/workspace/src/a": ("file", "0644"),
        "/workspace/dist/x": ("file", "0755"),
        "/workspace/out": ("symlink", "0777"),
    }
    row = org.api.one(Job, id=job)
    assert (row.status, row.input) == ("succeeded", None)
    assert "canary" not in (org.api.folder / "headway.db").read_bytes().decode("latin-1")


async def test_commands_have_the_variables_of_their_sandbox_and_their_own_before_those(org: Org) -> None:
    given = {"env": {"TOKEN": "canary-of-the-sandbox", "MODE": "plain"}}
    made = await org.call("POST", "/sandboxes", given, 201)
    assert "canary" not in json.dumps(made)
    job, waiting = await started(org, made["id"], env={"MODE": "loud"})
    assert builder(org).begin(job, BEGIN, HOLDER).env == {"TOKEN": "canary-of-the-sandbox", "MODE": "loud"}
    builder(org).output(job, output(1))
    await waiting
    for file in org.api.folder.glob("headway.db*"):
        assert b"canary-of-the-sandbox" not in file.read_bytes()
    await org.call("DELETE", f"/sandboxes/{made['id']}")
    with org.api.store.read() as session:
        assert session.get(SandboxEnv, made["id"]) is None


async def test_a_command_works_in_a_folder(org: Org) -> None:
    sandbox = await org.sandbox({"src/a": "a"})
    for cwd in ("src/a", "/workspace/src/a/b"):
        refused = await org.http.post(f"/api/v1/sandboxes/{sandbox}/exec", json={"command": "ls", "cwd": cwd})
        assert problem(refused, 409, "FILE_PATH_CONFLICT")["message"] == "/workspace/src/a is a file."
    job, waiting = await started(org, sandbox, cwd="made/later")
    assert builder(org).begin(job, BEGIN, HOLDER).cwd == "made/later"
    builder(org).output(job, output(1))
    assert (await waiting).json()["data"]["exit_code"] == 3  # type: ignore[attr-defined]


async def test_an_attempt_that_is_over_changes_nothing(org: Org) -> None:
    sandbox = await org.sandbox({"a": "a"})
    job, waiting = await started(org, sandbox)
    execs, telling = builder(org), Telling(org.api.store, org.api.parts.events)
    assert (execs.begin(job, BEGIN, HOLDER).attempt, execs.begin(job, BEGIN, HOLDER).attempt) == (1, 2)
    line = Event(kind="log", ts="t", stream="stdout", line="x")
    for stale in (
        lambda: execs.output(job, output(1, removed=["a"])),
        lambda: execs.upload(job, UploadRequest(attempt=1, kind="pack", sha256="0" * 64, size=1)),
        lambda: telling.hear("builder", job, Events(source=f"{job}/1", first=1, events=[line])),
    ):
        with pytest.raises(HeadwayError) as refused:
            stale()
        assert refused.value.code == "attempt.stale"
    telling.hear("builder", job, Events(source=f"{job}/2", first=1, events=[line]))
    with pytest.raises(HeadwayError) as missing:
        execs.output(job, output(2, b"never uploaded"))
    assert missing.value.code == "upload.failed"
    execs.output(job, output(2))
    await waiting
    with pytest.raises(HeadwayError):
        execs.output(job, output(2, removed=["a"]))
    assert (await org.call("GET", f"/sandboxes/{sandbox}"))["files"] == 1


async def test_what_was_said_is_of_the_attempt_that_counts(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    job, waiting = await started(org, await org.sandbox({"a": "a"}))
    execs = builder(org)
    execs.begin(job, BEGIN, HOLDER)
    with monkeypatch.context() as patch:
        patch.setattr(execs, "_apply", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execs.output(job, output(1, stdout="of the first"))
    execs.begin(job, BEGIN, HOLDER)
    found = org.api.objects.stat

    def meanwhile(key: str) -> tuple[int, str] | None:
        """Where the first, whose call had passed its check, looks what is there."""
        monkeypatch.setattr(org.api.objects, "stat", found)
        late = org.api.one(Job, id=job)
        with pytest.raises(HeadwayError) as refused:
            execs._keep(late, 1, b"late")
        assert refused.value.code == "attempt.stale"
        return found(key)

    monkeypatch.setattr(org.api.objects, "stat", meanwhile)
    execs.output(job, output(2, stdout="of the second"))
    answer = (await waiting).json()["data"]  # type: ignore[attr-defined]
    assert answer["stdout"] == "of the second"


async def test_who_may_run_what(org: Org) -> None:
    sandbox = await org.sandbox({"a": "a"})
    path = f"/api/v1/sandboxes/{sandbox}/exec"
    stranger, reader = await org.other(), await org.key("sandboxes:read")
    problem(await stranger.post(path, json={"command": "id"}), 404, "NOT_FOUND")
    problem(await reader.post(path, json={"command": "id"}), 403, "insufficient_scope")
    problem(await org.http.post(path, json={}), 400, "MISSING_PARAM")
    problem(await org.http.post(path, json={"command": "id", "timeout": 9999}), 422, "VALIDATION_ERROR")
    problem(await org.http.post(path, json={"command": "id", "cwd": "/etc"}), 422, "INVALID_FILE_PATH")
    assert not [kind for _, kind in org.api.starts.started if kind == "sandbox.exec"]


async def test_a_canceled_command_says_so(org: Org) -> None:
    sandbox = await org.sandbox({"a": "a"})
    job, waiting = await started(org, sandbox)
    builder(org).begin(job, BEGIN, HOLDER)
    deployer, runner = await org.key("deployments:write", "jobs:read"), await org.key("sandboxes:write")
    for path in (f"/api/v1/operations/{job}/cancel", f"/v1/jobs/{job}/cancel"):
        assert (await deployer.post(path)).status_code == 403
    assert (await runner.get(f"/api/v1/operations/{job}")).json()["data"]["cancel_requested"] is False
    asked = (await runner.post(f"/api/v1/operations/{job}/cancel")).json()["data"]
    assert asked["cancel_requested"] is True
    with pytest.raises(HeadwayError) as refused:
        builder(org).output(job, output(1))
    assert refused.value.code == "job.canceled"
    from store.outcomes import end_job

    with org.api.store.write() as session:
        end_job(session, session.get_one(Job, job), "canceled", error={"code": "job.canceled", "message": "Canceled."})
    problem(await waiting, 409, "CANCELED")  # type: ignore[arg-type]
    assert (await org.call("GET", f"/operations/{job}"))["state"] == "cancelled"
