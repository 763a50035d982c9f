"""`git push` by a real git to the API alone; a double ends the jobs."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from adapters.githost.pushhead import PushLimits, packet
from api.limits import Budgets
from store.models import Build, Job
from store.models_pushes import Push
from store.pushes import Previews
from tests.api.git_server import GitWorld, git, git_world, start_git
from tests.api.world import data

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitWorld]:
    async with git_world(tmp_path) as made:
        yield made


async def test_a_push_tells_what_it_does_and_its_branch_follows_the_deploy(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    commit = work.commit({"index.html": "one"})
    server.engine.fail = "build.step_failed"
    refused = await server.push(work, "main")
    assert refused.code == 1
    (job_id,) = server.engine.pushes
    assert f"! [remote rejected] main -> main ({job_id} build.step_failed)" in refused.text
    assert await server.seen(site["id"]) == {}, "a branch never runs ahead of its deploy"

    server.engine.fail = None
    pushed = await server.push(work, "main")
    assert pushed.ok, pushed.text
    job_id = server.engine.pushes[1]
    build = server.api.one(Build, job_id=job_id)
    assert (build.ref, build.commit_sha, build.trigger) == ("main", commit, "push")
    said = [line.strip() for line in pushed.text.splitlines() if line.startswith("remote: ")]
    assert said == [
        f"remote: headway: main -> production ({site['production_env_id']})",
        f"remote: headway: queued {build.id} / {job_id}",
        "remote: headway: http://acme.sites.test:7071",
        "remote: it is built",
        "remote: headway: live: http://acme.sites.test:7071",
    ]
    assert await server.seen(site["id"]) == {"main": commit}
    assert "up-to-date" in (await server.push(work, "main")).text
    assert len(server.engine.pushes) == 2

    clone = await git(server.api.folder, "clone", "-q", server.url(site["id"], server.key), "clone")
    assert clone.ok, clone.text
    assert (server.api.folder / "clone" / "index.html").read_text() == "one"


async def test_more_pushes_than_there_is_room_for_are_told_when_to_come_again(tmp_path: Path) -> None:
    async with git_world(tmp_path, open=0) as server:
        site = await server.site()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", auth=("any", server.key)) as http:
            asked = f"/git/{site['id']}.git/info/refs?service=git-"
            refused = await http.get(f"{asked}receive-pack")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "[push.busy]" in refused.text
            assert (await http.get(f"{asked}upload-pack")).status_code == 200


async def test_who_may_push_and_who_learns_of_a_site(server: GitWorld) -> None:
    team, alice = await server.api.tenant("Alice")
    _, bob = await server.api.tenant("Bob")
    site, other = await server.site("Acme", alice), await server.site("Other", alice)
    reader = await server.api.key(team, None, "read-only")
    pinned = await server.api.key(team, None, ["deployments:write"], resource={"type": "site", "id": other["id"]})
    env = {"type": "environment", "id": site["production_env_id"]}
    narrow = await server.api.key(team, None, ["deployments:write"], resource=env)
    bobs = str(bob.headers["authorization"]).split()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:

        async def asks(key: str | None, name: str, service: str = "git-receive-pack") -> int:
            auth = ("any", key) if key else None
            answer = await http.get(f"/git/{name}.git/info/refs?service={service}", auth=auth)
            assert (answer.status_code == 401) == ("basic" in answer.headers.get("www-authenticate", "").lower())
            return answer.status_code

        for name in (site["id"], "acme", "site_01M8C3TE87S8BFEMSVMSQ76WFQ", "none"):
            assert await asks(None, name) == 401
            assert await asks("mfk_live_wrong", name) == 401
            assert await asks(bobs, name) == 404
        assert await asks(reader, "acme") == 403
        assert await asks(reader, "acme", "git-upload-pack") == 200
        assert await asks(pinned, "acme") == 404
        assert await asks(pinned, "other") == 200
        assert await asks(server.key, site["id"]) == 200
        for path in ("HEAD", "objects/info/packs", "info/refs", "config", "../x.git/info/refs?service=git-upload-pack"):
            assert (await http.get(f"/git/acme.git/{path}", auth=("any", reader))).status_code == 404
        assert (await http.post("/git/acme.git/git-receive-pack", auth=("any", reader))).status_code == 403

    work = server.repository()
    work.commit({"index.html": "one"})
    pushed = await server.push(work, "main", "main:feature", key=narrow)
    assert pushed.code == 1
    assert "main -> main" in pushed.text
    assert "feature (scope.insufficient" in pushed.text, "a key of one environment makes no other"
    assert server.api.count(Push) == 1
    assert "There is no site acme" in (await server.push(work, "main", key=bobs)).text


@pytest.mark.slow
async def test_options_of_a_push(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    commit = work.commit({"index.html": "one"})
    for option, told in (("sudo", "sudo"), ("env=\x1b[31m", "env=?[31m"), ("env=nowhere", "environment.not_found")):
        refused = await server.push(work, "-o", option, "main")
        assert refused.code == 1
        assert told in refused.text
    assert server.engine.pushes == []
    assert await server.seen(site["id"]) == {}
    skipped = await server.push(work, "-o", "skip", "main")
    assert skipped.ok
    assert "kept, not deployed" in skipped.text
    assert server.engine.pushes == []
    assert await server.seen(site["id"]) == {"main": commit}

    server.engine.free.clear()
    second = work.commit({"index.html": "two"})
    sent = await server.push(work, "-o", "no-wait", "-o", "clean", "-o", "env=production", "main:feature")
    assert sent.ok
    (job_id,) = server.engine.pushes
    build = server.api.one(Build, job_id=job_id)
    assert (build.clean, build.env_id) == (True, site["production_env_id"])
    assert await server.seen(site["id"]) == {"main": commit}
    server.engine.free.set()
    await server.until(lambda: server.branches(site["id"]).get("feature") == second, "the branch has followed")


async def test_two_pushes_of_a_branch_at_once(server: GitWorld) -> None:
    """The same commit is one job; another's commit is not undone; whoever forces, or is the same, goes on."""
    team, alice = await server.api.tenant("Alice")
    site = await server.site("Acme", alice)
    one, two = [await server.api.key(team, None, "deploy-bot") for _ in range(2)]
    work = server.repository()
    base = work.commit({"index.html": "base"})
    assert (await server.push(work, "main", key=one)).ok
    server.engine.free.clear()
    work.commit({"index.html": "first"})
    first = asyncio.create_task(server.push(work, "main", key=one))
    again = asyncio.create_task(server.push(work, "main", key=two))
    await server.until(lambda: server.api.count(Push) == 3, "both are accepted")
    assert len(server.engine.pushes) == 2, "the same commit is one job"

    work.git("reset", "-q", "--hard", base)
    work.commit({"index.html": "another"})
    refused = await server.push(work, "main", key=two)
    assert refused.code == 1
    assert "push.in_flight" in refused.text

    work.git("checkout", "-q", "--orphan", "fresh")
    forced = work.commit({"index.html": "forced"})
    rewritten = asyncio.create_task(server.push(work, "--force", "fresh:main", key=two))
    await server.until(lambda: server.api.count(Push) == 4, "the forced one is accepted")
    work.git("reset", "-q", "--hard", base)
    own = work.commit({"index.html": "own"})
    mine = asyncio.create_task(server.push(work, "HEAD:main", key=two))
    await server.until(lambda: server.api.count(Push) == 5, "a key's own needs no force")
    server.engine.free.set()
    assert (await rewritten).ok
    assert f"it takes the place of {forced[:12]} " in (await mine).text, "and it is told"
    await first
    await again
    assert await server.seen(site["id"]) == {"main": own}, "what was accepted last has the branch"


@pytest.mark.slow
async def test_what_moved_a_branch_unseen_is_not_undone(server: GitWorld) -> None:
    """Another's push ends between the moment that git asks for the branches and the one that it pushes."""
    team, alice = await server.api.tenant("Alice")
    site = await server.site("Acme", alice)
    one, two = [await server.api.key(team, None, "deploy-bot") for _ in range(2)]
    work = server.repository()
    base = work.commit({"index.html": "base"})
    assert (await server.push(work, "main:feature", key=one)).ok
    theirs = work.commit({"index.html": "theirs"})
    work.git("branch", "theirs")
    work.git("reset", "-q", "--hard", base)
    mine = work.commit({"index.html": "mine"})

    def meanwhile(refspec: str, key: str) -> None:
        hook = work.path / ".git" / "hooks" / "pre-push"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\nexec git push --quiet --no-verify {server.url('acme', key)} {refspec}\n")
        hook.chmod(0o755)

    meanwhile("theirs:feature", one)
    for words in (["main:feature"], ["--force", "main:feature"], ["--delete", "feature"]):
        refused = await server.push(work, *words, key=two)
        assert (refused.code, "push.stale" in refused.text) == (1, True), refused.text
        assert await server.seen(site["id"]) == {"feature": theirs}
        meanwhile("theirs:feature", one)
        assert (await server.push(work, "--no-verify", "-f", f"{base}:feature", key=one)).ok
    # What contains it, and what a key's own push has made of it, is no surprise.
    work.git("merge", "-q", "--no-edit", "-s", "ours", "theirs")
    assert (await server.push(work, "main:feature", key=two)).ok
    assert (await server.push(work, "--no-verify", "-f", f"{base}:feature", key=two)).ok
    meanwhile("theirs:feature", two)
    assert (await server.push(work, f"+{mine}:feature", key=two)).ok
    assert await server.seen(site["id"]) == {"feature": mine}


@pytest.mark.slow
async def test_who_hangs_up_stops_nothing(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    commit = work.commit({"index.html": "one"})
    server.engine.free.clear()
    process = await start_git(work.path, "push", server.url("acme", server.key), "main")
    await server.until(lambda: len(server.engine.pushes) == 1, "the job is started")
    os.killpg(process.pid, signal.SIGINT)
    await process.wait()
    server.engine.free.set()
    await server.until(lambda: server.branches(site["id"]) == {"main": commit}, "the branch has followed")
    assert server.api.one(Job, id=server.engine.pushes[0]).status == "succeeded"


async def test_previews_come_and_go_with_their_branches(tmp_path: Path) -> None:
    async with git_world(tmp_path, previews=Previews(most=7)) as server:
        site = await server.site()
        work = server.repository()
        work.commit({"index.html": "one"})
        long = "feature/" + "x" * 200
        names = ("feature/A", "feature/a", "main2", "ünï/cödé", long, "staging", "live", "production")
        pushed = await server.push(work, *(f"main:refs/heads/{name}" for name in names))
        assert pushed.ok, pushed.text
        assert "headway: ünï/cödé -> preview " in pushed.text
        rows = await server.environments(site["id"])
        assert rows["staging"]["kind"] == "staging"
        assert {name for name, row in rows.items() if row["kind"] == "preview"} == set(names) - {"staging"}
        labels = [name.partition(".")[0] for row in rows.values() for name in row["hostnames"]]
        assert len(set(labels)) == len(labels)
        assert max(map(len, labels)) <= 63
        stable = rows["feature/A"]["preview_url"]

        full = await server.push(work, "main:eighth")
        assert "environment.too_many" in full.text
        gone = await server.push(work, "--delete", "feature/A", "main2")
        assert gone.ok, gone.text
        assert {"feature/A", "main2"} & set(await server.seen(site["id"])) == set()
        assert {"feature/A", "main2"} & set(await server.environments(site["id"])) == set()
        assert (await server.push(work, "main:feature/A")).ok
        assert (await server.environments(site["id"]))["feature/A"]["preview_url"] == stable
        kept = await server.push(work, "--delete", "main")
        assert kept.code == 1


@pytest.mark.slow
async def test_a_branch_deleted_while_it_builds(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    work.commit({"index.html": "one"})
    assert (await server.push(work, "-o", "skip", "main", "main:feature")).ok
    server.engine.free.clear()
    work.commit({"index.html": "two"})
    pushing = asyncio.create_task(server.push(work, "main:feature"))
    await server.until(lambda: len(server.engine.pushes) == 1, "it builds")
    gone = await server.push(work, "--delete", "feature")
    assert gone.ok, gone.text
    server.engine.free.set()
    pushed = await pushing
    assert pushed.code == 1
    assert "job.canceled" in pushed.text
    assert server.engine.canceled == server.engine.pushes
    assert "feature" not in await server.seen(site["id"])


@pytest.mark.slow
async def test_refs_that_are_no_branches(server: GitWorld) -> None:
    site = await server.site()
    work = server.repository()
    commit = work.commit({"index.html": "one"})
    blob = work.git("hash-object", "-w", "index.html")
    refs = ("main:refs/heads/-upload-pack=x", "main:refs/notes/x", f"main:refs/headway/kept/{commit}", "main:refs/x")
    for ref in refs:
        refused = await server.push(work, ref)
        assert refused.code == 1, ref
        assert "remote rejected" in refused.text, refused.text
    blobs = await server.push(work, f"{blob}:refs/heads/blob")
    assert "a commit" in blobs.text or "not a commit" in blobs.text
    tagged = await server.push(work, "main:refs/tags/v1")
    assert tagged.ok, tagged.text
    assert await server.seen(site["id"]) == {"refs/tags/v1": commit}
    assert (await server.push(work, "main:a")).ok
    assert "in the way" in (await server.push(work, "main:a/b")).text
    assert "atomic" in (await server.push(work, "--atomic", "main:c")).text


async def test_limits_of_a_push(tmp_path: Path) -> None:
    async with git_world(tmp_path, PushLimits(refs=20, objects=30, size=200_000)) as server:
        site = await server.site()
        work = server.repository()
        work.commit({"index.html": "one"})
        many = await server.push(work, *(f"main:refs/heads/b{number}" for number in range(21)))
        assert many.code == 1
        assert "remote: headway: A push brings at most 20 refs." in many.text
        work.commit({f"{number}.txt": str(number) for number in range(30)})
        assert "at most 30 objects" in (await server.push(work, "main")).text
        work.git("reset", "-q", "--hard", "HEAD~1")
        (work.path / "noise").write_bytes(os.urandom(900_000))
        work.git("add", "-A")
        work.git("commit", "-q", "-m", "large")
        large = await server.push(work, "main")
        assert large.code == 1
        assert "maximum allowed size" in large.text, large.text
        assert await server.seen(site["id"]) == {}
        assert server.engine.pushes == []
        work.git("reset", "-q", "--hard", "HEAD~1")
        chunked = await server.push(work, "main", config="http.postBuffer=65536")
        assert chunked.ok, chunked.text


async def test_who_asks_too_often_hears_when_to_come_back(tmp_path: Path) -> None:
    async with git_world(tmp_path, budgets=Budgets(read=1)) as server:
        _, client = await server.api.tenant("Alice")
        asked = "/git/site.git/info/refs?service=git-upload-pack"
        assert (await client.get(asked)).status_code == 404
        refused = await client.get(asked)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_bodies_that_are_broken(server: GitWorld) -> None:
    site = await server.site()
    line = f"{'0' * 40} {'1' * 40} refs/heads/main\0 report-status side-band-64k".encode()
    head = f"{len(line) + 4:04x}".encode() + line + b"0000"
    pack = b"PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big")
    path, kind = "/git/acme.git/git-receive-pack", "application/x-git-receive-pack-request"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", auth=("any", server.key)) as http:

        async def posts(body: bytes, **headers: str) -> httpx.Response:
            return await http.post(path, content=body, headers={"content-type": kind, **headers})

        broken = await posts(head + pack + b"this is no object" + b"\0" * 20)
        assert broken.status_code == 200
        assert b"unpack" in broken.content
        assert b"ng refs/heads/main" in broken.content
        zipped = await posts(gzip.compress(head + pack + b"nor this"), **{"content-encoding": "gzip"})
        assert b"ng refs/heads/main" in zipped.content
        assert b"no pack" in (await posts(head + b"JUNKJUNKJUNK")).content
        assert (await posts(b"00zz")).status_code == 400
        assert (await posts(b"not gzip", **{"content-encoding": "gzip"})).status_code == 400
        assert (await posts(head, **{"content-encoding": "br"})).status_code == 400
        more = b"".join(packet(f"{'0' * 40} {'1' * 40} refs/heads/b{number}".encode()) for number in range(10_000))
        many = await posts(head[:-4] + more + b"0000" + pack)
        assert b"\2headway: A push brings at most 1000 refs.\n" in many.content
        probe = await posts(b"0000")
        assert probe.status_code == 200
        asked = gzip.compress(b"0014command=ls-refs\n0000")
        refs = await http.post(
            "/git/acme.git/git-upload-pack",
            content=asked,
            headers={
                "content-type": "application/x-git-upload-pack-request",
                "content-encoding": "gzip",
                "git-protocol": "version=2",
            },
        )
        assert refs.content == b"0000"
    assert await server.seen(site["id"]) == {}
    assert server.engine.pushes == []


async def test_routes_decide_where_a_branch_goes(server: GitWorld) -> None:
    site = await server.site()
    path = f"/v1/sites/{site['id']}/branch-routes"
    wanted = [
        {"pattern": "main", "target": "production"},
        {"pattern": "release/*", "target": "staging"},
        {"pattern": "dependabot/*", "target": "ignore"},
    ]
    assert data(await server.api.admin.get(path))["default"] is True
    put = data(await server.api.admin.put(path, json={"routes": wanted}))
    assert [row["target"] for row in put["routes"]] == ["live", "staging", "ignore"]
    work = server.repository()
    work.commit({"index.html": "one"})
    pushed = await server.push(work, "main:release/a/b", "main:dependabot/x", "main:unrouted")
    assert pushed.ok, pushed.text
    assert "release/a/b -> staging" in pushed.text
    assert len(server.engine.pushes) == 1
    assert set(await server.seen(site["id"])) == {"release/a/b", "dependabot/x", "unrouted"}

    own = '[[routes]]\npattern = "*"\ntarget = "live"\n'
    work.commit({"headway.toml": own})
    assert "kept, not deployed" in (await server.push(work, "main:sly")).text
    await server.api.admin.put(path, json={"from_repository": True})
    assert "kept, not deployed" in (await server.push(work, "main:sly2")).text, "its own branch does not route itself"
    assert "main -> production" in (await server.push(work, "main")).text
    assert "sly3 -> production" in (await server.push(work, "main:sly3")).text
    assert data(await server.api.admin.put(path, json={"routes": None}))["default"] is True


@pytest.mark.slow
async def test_five_hundred_megabytes_over_a_limit_of_a_hundred(tmp_path: Path) -> None:
    """Nothing of it is held: neither here nor in the repository."""
    async with git_world(tmp_path, PushLimits(size=100 << 20)) as server:
        site = await server.site()
        work = server.repository()
        with (work.path / "large").open("wb") as file:
            for _ in range(500):
                file.write(os.urandom(1 << 20))
        work.git("-c", "core.compression=0", "-c", "core.bigFileThreshold=1m", "add", "-A")
        work.git("commit", "-q", "-m", "large")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused = await server.push(work, "main", config="core.bigFileThreshold=1m")
        assert refused.code == 1
        assert "maximum allowed size (100.00 MiB)" in refused.text, refused.text
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
        repository = server.api.folder / "repos" / f"{site['id']}.git"
        assert sum(one.stat().st_size for one in repository.rglob("*") if one.is_file()) < 1 << 20
        work.git("checkout", "-q", "--orphan", "small")
        work.git("rm", "-q", "--cached", "large")
        (work.path / "large").unlink()
        work.commit({"index.html": "small"})
        assert (await server.push(work, "small:main")).ok
