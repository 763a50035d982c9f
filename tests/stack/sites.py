"""A site on a running stack as its owner sees it: a repository, jobs that are followed to their end, visits."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from bench.client import Caller, Site
from bench.stack import Stack

Json = dict[str, Any]
PATIENCE = 120.0


@dataclass(frozen=True)
class Page:
    """What a visitor got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def etag(self) -> str | None:
        return self.headers.get("ETag")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def visit(stack: Stack, hostname: str, path: str = "/", **headers: str) -> Page:
    """One GET over a connection of its own; `*.localhost` need not resolve. Redirects are not followed."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.sites_port, timeout=30)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET", path, headers={"Host": hostname, **fields})
        answer = connection.getresponse()
        return Page(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def end_of(caller: Caller, job: Json) -> Json:
    """The job when it has ended, however it did."""
    deadline, etag = time.monotonic() + PATIENCE, ""
    while job["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, f"{job['id']} is still {job['status']} in {job['stage']}"
        answer = caller.http.get(f"/v1/jobs/{job['id']}?wait=30", headers={"If-None-Match": etag} if etag else {})
        if answer.status_code != 304:
            answer.raise_for_status()
            etag, job = answer.headers["ETag"], answer.json()["data"]
    return job


def refusal(answer: httpx.Response, status: int) -> Json:
    """The error of an answer that has to be one."""
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    return error


@dataclass(frozen=True)
class Place:
    """One site with production and staging, and what can be done with it. `repository` is what the test made it of."""

    stack: Stack
    caller: Caller
    site: Site
    repository: Any

    def path(self, env_id: str, *rest: str) -> str:
        return "/".join((f"/v1/sites/{self.site.id}/environments/{env_id}", *rest))

    def get(self, env_id: str, *rest: str) -> Any:
        return self.caller.get(self.path(env_id, *rest))

    def start_build(self, ref: str | None = "main", *, clean: bool = False, env: str = "") -> Json:
        body: Json = {"clean": True} if clean else {}
        return self.caller.post(
            self.path(env or self.site.staging, "builds"), body | ({} if ref is None else {"ref": ref})
        )

    def build(self, ref: str | None = "main", *, clean: bool = False, env: str = "") -> Json:
        """Build and wait: the result, `{build_id, artifact_id, digest, commit_sha}`."""
        result: Json = self.caller.finish(self.start_build(ref, clean=clean, env=env))["result"]
        return result

    def start_roll(self, artifact_id: str, env: str) -> Json:
        return self.caller.post(self.path(env, "deployments"), {"artifact_id": artifact_id})

    def roll(self, artifact_id: str, env: str) -> Json:
        return self.caller.finish(self.start_roll(artifact_id, env))

    def start_push(self, env: str = "", ref: str = "main") -> Json:
        return self.caller.push(self.site, env or self.site.production, ref)

    def push(self, env: str = "", ref: str = "main") -> Json:
        return self.caller.finish(self.start_push(env, ref))

    def start_promotion(self) -> Json:
        return self.caller.post(self.path(self.site.staging, "promote"), {"to_env": "production"})

    def start_rollback(self, env: str, release_id: str | None = None) -> Json:
        """From the current release to the one before, or to a given one."""
        current = next(row for row in self.releases(env) if row["current"])
        path = self.path(env, "deployments", current["deployment_id"], "rollback")
        return self.caller.post(path, {"release_id": release_id} if release_id else {})

    def releases(self, env: str) -> list[Json]:
        rows: list[Json] = self.get(env, "releases?limit=100")
        return rows

    def artifacts(self) -> list[Json]:
        rows: list[Json] = self.get(self.site.production, "artifacts?limit=100")
        return rows

    def ended(self, job: Json) -> Json:
        return end_of(self.caller, job)

    def failed(self, job: Json) -> Json:
        """The error of a job that has to fail, and to say why in the same words on its own row."""
        job = self.ended(job)
        assert job["status"] == "failed", job
        error: Json = job["error"]
        return error

    def page(self, path: str = "/", *, env: str = "", **headers: str) -> Page:
        name = self.site.staging_host if env == self.site.staging else self.site.production_host
        return visit(self.stack, name, path, **headers)
