"""`git push` from a real git to the whole stack: the page is live when git says so."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import QUIET, Repository
from tests.stack.sites import visit

Json = dict[str, Any]


class Pusher:
    """A clone of a site's own repository, and the key that it pushes with."""

    def __init__(self, caller: Caller, stack: Stack, folder: Path, name: str, **settings: Any) -> None:
        self.caller, self.stack = caller, stack
        job = caller.finish(caller.post("/v1/sites", {"name": name, **settings}))
        self.site: Json = caller.get(f"/v1/sites/{job['resource']['id']}")
        self.work = Repository(folder / self.site["slug"])
        self.work.git("remote", "add", "managed", self.url(stack.key))

    def url(self, key: str) -> str:
        return str(self.site["git_url"]).replace("://", f"://any:{key}@")

    def push(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "push", "managed", *words],
            cwd=self.work.path,
            env=QUIET,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def environments(self) -> dict[str, Json]:
        return {row["branch"]: row for row in self.caller.get(f"/v1/sites/{self.site['id']}/environments")}

    def page(self, branch: str = "main") -> str:
        return visit(self.stack, self.environments()[branch]["hostnames"][-1]).text


def test_a_push_is_live_and_a_failed_one_says_so_and_may_be_repeated(
    caller: Caller, stack: Stack, tmp_path: Path
) -> None:
    pusher = Pusher(caller, stack, tmp_path, "Pushed Site")
    pusher.work.commit({"index.html": "<h1>first</h1>"})
    pushed = pusher.push("main")
    assert pushed.returncode == 0, pushed.stdout
    assert "main -> production" in pushed.stdout
    assert "first" in pusher.page()

    broken = '[build]\ncommand = "echo no luck; exit 3"\noutput = "."\n'
    pusher.work.commit({"index.html": "<h1>second</h1>", "headway.toml": broken})
    for _ in range(2):
        refused = pusher.push("main")
        assert refused.returncode == 1, refused.stdout
        assert "build.step_failed" in refused.stdout
        assert "remote: no luck" in refused.stdout
    assert "first" in pusher.page()

    pusher.work.commit({"headway.toml": ""})
    pushed = pusher.push("main", "main:feature/Checkout")
    assert pushed.returncode == 0, pushed.stdout
    assert "second" in pusher.page()
    preview = pusher.environments()["feature/Checkout"]
    assert preview["preview_url"] in pushed.stdout
    assert "second" in pusher.page("feature/Checkout")
    gone = pusher.push("--delete", "feature/Checkout")
    assert gone.returncode == 0, gone.stdout
    assert "feature/Checkout" not in pusher.environments()
    assert visit(stack, preview["hostnames"][-1]).status == 404
    assert pytest
