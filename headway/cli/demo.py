"""`headway demo`: the whole way of a real site on this machine, with what was seen and how long it took."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from headway._launch import app_root
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.client import Client
    from headway.resources import Job

T = TypeVar("T")
PATIENCE = 180.0
SITE = "showcase"
# The demo is a stack of its own, whatever this shell is set up to talk to.
_FOREIGN = ("HEADWAY_", "DATABASE_URL", "TEMPORAL_", "AWS_", "FORGE_", "MANAGED_TOKEN")


@click.command()
@click.option("--allow-unsandboxed-builds", is_flag=True, help="Where this machine cannot sandbox builds.")
def demo(allow_unsandboxed_builds: bool) -> None:
    """Build, sign, deploy, promote and roll back a real published site on a platform of its own; then stop it all.

    Needs Python and git; no Docker, no Node, no account. Nothing is left but the fetched package in the user's cache.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = _scratch()
    try:
        _tell(folder, allow_unsandboxed_builds)
    except KeyboardInterrupt:
        click.echo("\nInterrupted: everything was stopped.", err=True)
        sys.exit(130)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch() -> Path:
    """An empty folder whose path leaves room for the names of unix sockets (107 bytes in all)."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="headway-demo-", dir=usual if len(os.fsencode(usual)) <= 40 else "/tmp"))  # noqa: S108


@dataclass
class Steps:
    """Numbers, times and prints the steps as they end."""

    count: int = 0
    total: float = 0.0

    def run(self, what: str, work: Callable[[], T], shown: Callable[[T], str] = lambda _: "") -> T:
        began = time.monotonic()
        result = work()
        took = time.monotonic() - began
        self.count += 1
        self.total += took
        click.echo(f"{self.count:>2}  {what:<44}{took:>8.2f} s  {shown(result)}".rstrip())
        return result


# A folder of repositories and the steps → the platform's address and the operator's key, while it runs.
Platform = Callable[[Path, Steps], contextlib.AbstractContextManager[tuple[str, str]]]


@dataclass(frozen=True)
class Page:
    """What a visitor got."""

    url: str
    status: int
    title: str
    sha256: str
    etag: str


def _tell(folder: Path, unsandboxed: bool) -> None:
    show(folder, folder / "source", lambda repositories, steps: _stack(folder, repositories, steps, unsandboxed))


def show(folder: Path, source: Path, platform: Platform) -> None:
    """The whole way on a platform that is started for it and stopped after it; the repository is made in `source`."""
    from headway.cli.demo_source import head, make_repository, second_commit
    from headway.cli.fetching import fetch_artifact, verify_folder
    from headway.client import Client

    steps = Steps()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway" / "demo"
    repository = steps.run(
        "fetch a published site, commit it", lambda: make_repository(source, cache), lambda r: r.origin
    )
    with platform(repository.bare.parent, steps) as (api, token), Client(api, token) as client:
        story = Story(client, steps)
        story.prepare(repository.url)
        first = story.build(head(repository))
        story.deploy(first)
        story.promote()
        commit = steps.run("commit a second edition", lambda: second_commit(repository), lambda c: c[:12])
        story.push(commit)
        story.roll_back()
        proof = folder / "proof"
        artifact = client.artifacts.get(story.site_id, story.staging, first)
        steps.run(
            "fetch the artifact with its proof",
            lambda: fetch_artifact(client, artifact, proof, with_files=True),
            lambda p: f"{p.files} files, each hashed",
        )
    steps.run("verify the signature, everything stopped", lambda: verify_folder(proof), _shown_proof)
    click.echo(f"\nDone: {steps.count} steps in {steps.total:.1f} s; nothing runs any more.")


class Story:
    """The steps on the platform, through its public API alone."""

    def __init__(self, client: Client, steps: Steps) -> None:
        self.client = client
        self.steps = steps
        self.site_id = ""
        self.staging = ""
        self.production = ""

    def prepare(self, repository: str) -> None:
        created = self.steps.run(
            "create the site", lambda: self._ended(self.client.sites.create(SITE, repository=repository))
        )
        self.site_id = created.resource["id"]
        self.production = self.client.sites.get(self.site_id).production_env_id or ""
        made = self.steps.run(
            "create its staging environment",
            lambda: self._ended(self.client.environments.create(self.site_id, kind="staging", branch="staging")),
        )
        self.staging = made.resource["id"]

    def build(self, commit: str) -> str:
        job = self.steps.run(
            "build and sign the first commit",
            lambda: self._ended(self.client.builds.create(self.site_id, self.staging, ref=commit)),
            lambda job: _short((job.result or {}).get("digest", "")),
        )
        return str((job.result or {})["artifact_id"])

    def deploy(self, artifact_id: str) -> None:
        self._live(
            "deploy it to staging",
            self.staging,
            lambda: self.client.deployments.create(self.site_id, self.staging, artifact_id=artifact_id),
        )

    def promote(self) -> None:
        self._live(
            "promote staging to production, no rebuild",
            self.production,
            lambda: self.client.deployments.promote(self.site_id, self.staging, to_env=self.production),
        )

    def push(self, commit: str) -> None:
        self._live(
            "build, sign and deploy it to production",
            self.production,
            lambda: self.client.deployments.deploy(self.site_id, target=self.production, ref=commit),
        )

    def roll_back(self) -> None:
        current = self.client.releases.current(self.site_id, self.production).deployment_id or ""
        self._live(
            "roll production back",
            self.production,
            lambda: self.client.deployments.rollback(self.site_id, self.production, current),
        )

    def _live(self, what: str, env_id: str, start: Callable[[], Job]) -> None:
        """One rollout, then what a visitor gets now, held against the signed manifest of the release."""
        self.steps.run(what, lambda: self._ended(start()))
        page = self._visit(env_id)
        release = self.client.releases.current(self.site_id, env_id)
        artifact = self.client.artifacts.get(self.site_id, env_id, release.artifact_id)
        manifest = json.loads(self.client.artifacts.document(artifact, "manifest"))
        signed = {entry["path"]: entry.get("sha256") for entry in manifest["files"]}
        same = "as signed" if signed.get("index.html") == page.sha256 else "NOT what was signed"
        click.echo(f"      {page.url}  {page.status}  “{page.title}”")
        click.echo(f"      artifact {_short(artifact.digest)}, page {page.sha256[:12]} {same}")
        if page.status != 200 or signed.get("index.html") != page.sha256:
            raise HeadwayError("roll.health_failed", f"{page.url} does not serve what was deployed.")

    def _visit(self, env_id: str) -> Page:
        """Names below localhost resolve nowhere on some machines: connect to the loopback address, send the name."""
        import httpx

        from headway.cli.demo_source import title_of

        url = self.client.environments.get(self.site_id, env_id).url or ""
        parts = urlsplit(url)
        answer = httpx.get(
            f"http://127.0.0.1:{parts.port or 80}/", headers={"Host": parts.netloc}, trust_env=False, timeout=10
        )
        digest = hashlib.sha256(answer.content).hexdigest()
        return Page(url, answer.status_code, title_of(answer.text), digest, answer.headers.get("etag", ""))

    def _ended(self, job: Job) -> Job:
        """The job at its successful end. Its log is shown where it ended otherwise."""
        lines: list[str] = []
        last = job
        for event in self.client.jobs.stream(job.id, timeout=PATIENCE):
            last = event.job or last
            if event.line is not None:
                lines.append(str(event.line.get("line", "")))
        if last.status != "succeeded":
            for line in lines[-20:]:
                click.echo(f"      | {line}", err=True)
            raise HeadwayError.from_dict(dict(last.error or {"message": f"{job.type} ended {last.status}."}))
        return last


@contextlib.contextmanager
def _stack(folder: Path, repositories: Path, steps: Steps, unsandboxed: bool) -> Iterator[tuple[str, str]]:
    """The embedded platform: started, and stopped whatever happens; yields its address and the operator's key."""
    data = folder / "data"
    flags = ["--detach", "--port", "0", "--local-repos", str(repositories)]
    flags += ["--allow-unsandboxed-builds"] if unsandboxed else []
    try:
        steps.run("start the platform", lambda: _headway("up", data, *flags))
        endpoints = json.loads((data / "endpoints.json").read_text())
        yield endpoints["api"], (data / "admin.key").read_text().strip()
    finally:
        with _undisturbed():
            if data.exists():
                steps.run("stop the platform", lambda: _headway("down", data))


def _headway(verb: str, data: Path, *flags: str) -> None:
    """Run `headway up` or `down`, its own words indented. Raises stack.start_failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environment["PYTHONPATH"] = str(app_root())
    environment["PYTHONUNBUFFERED"] = "1"
    command = [sys.executable, "-m", "headway", verb, "--data-dir", str(data), *flags]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    try:
        for line in process.stdout or ():
            said.append(line.rstrip())
            if verb == "up":
                click.echo(click.style(f"      {line.rstrip()}", dim=True))
        code = process.wait()
    except BaseException:
        # It stops what it has begun before it ends.
        process.terminate()
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if code:
        raise HeadwayError(
            "stack.start_failed", f"`headway {verb}` failed: {said[-1] if said else f'exit code {code}'}"
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not leave half of a platform running."""
    before: dict[int, Any] = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shown_proof(proof: Any) -> str:
    return f"{_short(proof.as_dict()['digest'])} by key {proof.verified.key_hint[:12]}…"


def _short(digest: str) -> str:
    return digest[:19]
