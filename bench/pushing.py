"""`git push` as its user waits for it: from the Enter key to the new page, by a real git over HTTP."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.client import JobFailed, Watch
from bench.figures import spread
from bench.load import Load
from bench.repository import CHANGED, FILES, Repository, Service

if TYPE_CHECKING:
    from bench.measures import Run

PUSHES = 30
APP_PUSHES = 20
RATE = 200


@dataclass(frozen=True)
class Pushed:
    """A hosted site that serves its first edition, and the repository that is pushed to it."""

    repository: Repository
    remote: str
    hostname: str

    def times(self, run: Run, count: int) -> tuple[list[float], list[float]]:
        """To the first byte of the new page, and to the pusher's prompt, in seconds."""
        live, told = [], []
        with Watch(run.stack, self.hostname) as watch:
            for _ in range(count):
                marker = self.repository.commit()
                began = time.perf_counter()
                pushing = self.repository.start_git("push", self.remote, "main", told=subprocess.DEVNULL)
                watch.until(marker)
                live.append(time.perf_counter() - began)
                if pushing.wait(120) != 0:
                    raise JobFailed("git push failed, though the page is there")
                told.append(time.perf_counter() - began)
        return live, told


def measure(run: Run) -> dict[str, Any]:
    """A site of 100 files with 10 changed; then a small WSGI app, which visitors ask meanwhile."""
    site = _first(run, "pushed", Repository)
    live, told = site.times(run, PUSHES)
    app = _first(run, "pushed-app", Service)
    with Load(run.stack.sites_port, app.hostname, ("edition ",), rate=RATE) as load:
        app_live, app_told = app.times(run, APP_PUSHES)
    counts = load.result["counts"]
    failed = {why: number for why, number in counts.items() if why != "ok"} if isinstance(counts, dict) else {}
    return {
        "files": FILES,
        "changed": CHANGED,
        "to_new_byte": spread(live),
        "to_prompt": spread(told),
        "app_to_new_byte": spread(app_live),
        "app_to_prompt": spread(app_told),
        **load.result,
        "rate": RATE,
        "failed": sum(failed.values()),
        "why": failed,
        "goal": "to_new_byte p50 under 400 ms, of the app under 1.5 s; 0 failed",
    }


def _first(run: Run, name: str, kind: type[Repository]) -> Pushed:
    repository = kind(run.folder / name)
    repository.commit()
    made = run.caller.finish(run.caller.post("/v1/sites", {"name": f"bench-{name}"}))["resource"]
    row = run.caller.get(f"/v1/sites/{made['id']}")
    environment = run.caller.get(f"/v1/sites/{made['id']}/environments/{row['production_env_id']}")
    remote = str(row["git_url"]).replace("://", f"://any:{run.stack.key}@")
    repository.git("push", "--quiet", remote, "main")
    return Pushed(repository, remote, urlsplit(environment["url"]).hostname or "")
