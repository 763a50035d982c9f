"""Remote repositories on the whole stack: a signed webhook, a lost one, and a private repository behind a real sshd."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.webhooks.signing import mac
from bench.client import Caller
from bench.stack import Stack
from tests.adapters import ssh_server
from tests.adapters.repositories import Repository
from tests.stack.conftest import SETTINGS, NewPlace
from tests.stack.sites import PATIENCE, end_of, visit

Json = dict[str, Any]


def until(what: str, look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def tell(caller: Caller, hook: Json, branch: str, commit: str) -> Json:
    body = json.dumps({"ref": f"refs/heads/{branch}", "after": commit}).encode()
    headers = {"X-Hub-Signature-256": f"sha256={mac(hook['secret'], body)}", "X-GitHub-Event": "push"}
    answer = caller.http.post(
        f"/hooks/{hook['id']}", content=body, headers={**headers, "Content-Type": "application/json"}
    )
    assert answer.status_code == 202, answer.text
    found: Json = answer.json()["data"]
    return found


@pytest.mark.slow
def test_webhooks_make_previews_and_a_lost_one_is_found_by_the_poll(
    caller: Caller, stack: Stack, new_place: NewPlace
) -> None:
    place = new_place({"index.html": "<h1>one</h1>"})
    repository: Repository = place.repository
    site = f"/v1/sites/{place.site.id}"
    hook = caller.post(f"{site}/hooks", {"provider": "github"})
    polling = f"{site}/repository/polling"
    until("the first look", lambda: caller.get(polling)["seen_at"])
    assert caller.get(f"{site}/repository/branches")[0]["verdict"] == "known"

    repository.git("checkout", "-q", "-b", "feature/x")
    commit = repository.commit({"index.html": "<h1>preview</h1>"})
    said = tell(caller, hook, "feature/x", commit)
    caller.finish(caller.get(f"/v1/jobs/{said['job_id']}"))
    rows = {row["branch"]: row for row in caller.get(f"{site}/environments")}
    assert "preview" in visit(stack, rows["feature/x"]["hostnames"][-1]).text

    repository.git("checkout", "-q", "main")
    repository.commit({"index.html": "<h1>nobody told of it</h1>"})
    caller.http.put(polling, json={"enabled": True}).raise_for_status()  # and it is looked at now
    until("the poll deploys", lambda: "nobody told" in visit(stack, place.site.production_host).text)
    repository.git("branch", "-q", "-D", "feature/x")
    caller.http.put(polling, json={"enabled": True}).raise_for_status()
    until("the preview ends", lambda: "feature/x" not in {row["branch"] for row in caller.get(f"{site}/environments")})


@pytest.fixture
def private() -> Iterator[tuple[Stack, Caller, ssh_server.SshServer, Repository]]:
    if (why := ssh_server.missing()) is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="hws-") as folder, ssh_server.serving(Path(folder) / "ssh") as server:
        private_ok = json.dumps(["indexes", server.host])
        stack = Stack.start(Path(folder), env={**SETTINGS, "HEADWAY_EGRESS_PRIVATE_OK": private_ok})
        caller = Caller(stack)
        try:
            yield stack, caller, server, Repository(Path(folder) / "private")
        finally:
            caller.http.close()
            stack.stop()


@pytest.mark.slow
def test_a_private_repository_is_built_and_polled_with_a_deploy_key(
    private: tuple[Stack, Caller, ssh_server.SshServer, Repository],
) -> None:
    stack, caller, server, repository = private
    repository.commit({"index.html": "<h1>private</h1>"})
    place = caller.new_site("private", server.address(repository.path / ".git"))
    site = f"/v1/sites/{place.id}"
    refused = end_of(caller, caller.push(place, "production"))
    assert refused["error"]["code"] == "repository.access_denied"
    key = caller.post(f"{site}/repository/credentials", {"kind": "deploy_key"})
    assert end_of(caller, caller.push(place, "production"))["error"]["code"] == "repository.access_denied"
    server.allow(key["public_key"])
    caller.finish(caller.push(place, "production"))
    assert "private" in visit(stack, place.production_host).text

    polling = f"{site}/repository/polling"
    caller.http.put(polling, json={"enabled": True}).raise_for_status()
    until("the first look", lambda: caller.get(polling)["seen_at"])
    other = caller.post(f"{site}/repository/credentials/{key['id']}/rotate")
    server.allow(other["public_key"])
    repository.commit({"index.html": "<h1>rotated</h1>"})
    caller.http.put(polling, json={"enabled": True}).raise_for_status()
    until("the poll deploys", lambda: "rotated" in visit(stack, place.production_host).text)
    assert caller.http.delete(f"{site}/repository/credentials/{other['id']}").status_code == 200
    caller.http.put(polling, json={"enabled": True}).raise_for_status()
    error = until("the poll is refused", lambda: caller.get(polling)["error"])
    assert error["code"] == "repository.access_denied"
    for folder in stack.data.rglob("*"):
        if folder.is_file() and not folder.is_symlink() and folder.stat().st_size < 64 << 20:
            assert b"OPENSSH PRIVATE KEY" not in folder.read_bytes(), folder
    assert b"OPENSSH PRIVATE KEY" not in b"".join(_arguments())


def _arguments() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes()
        except OSError:
            continue
