"""A site with a repository of its own, and a clone of it that pushes by a real git."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import QUIET, Repository
from tests.stack.sites import visit

Json = dict[str, Any]


@dataclass(frozen=True)
class Pushed:
    code: int
    text: str


def ended(process: subprocess.Popen[str]) -> Pushed:
    text, _ = process.communicate(timeout=150)
    return Pushed(process.returncode, text)


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

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["git", "push", "managed", *words],
            cwd=self.work.path,
            env=QUIET,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def push(self, *words: str) -> Pushed:
        return ended(self.start(*words))

    def branches(self) -> dict[str, str]:
        rows = (line.split() for line in self.work.git("ls-remote", "managed", "refs/heads/*").splitlines())
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in rows}

    def environments(self) -> dict[str, Json]:
        return {row["branch"]: row for row in self.caller.get(f"/v1/sites/{self.site['id']}/environments")}

    def page(self, branch: str = "main") -> str:
        return visit(self.stack, self.environments()[branch]["hostnames"][-1]).text
