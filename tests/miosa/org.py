"""An organisation with a key of this dialect, and what a builder and a host would do for it, done to the rows."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import select

from headway.ids import new_id
from store.models import Artifact, Build, Job, Rollout, utcnow
from store.outcomes import append_release, end_rollout, fail_build, succeed_build
from store.queue import claim_job, ready_rollout
from tests.api.world import World, world
from tests.workflows.rows import claim_next

Json = dict[str, Any]


@dataclass
class Org:
    api: World
    team_id: str
    http: httpx.AsyncClient = field(init=False)

    async def other(self, name: str = "Other") -> httpx.AsyncClient:
        _, http = await self.api.tenant(name)
        return http

    async def key(self, *scopes: str) -> httpx.AsyncClient:
        return self.api.client(await self.api.key(self.team_id, None, scopes, kind="service", family="msk"))

    async def call(self, method: str, path: str, body: Json | None = None, status: int = 200, **options: Any) -> Any:
        answer = await self.http.request(method, f"/api/v1{path}", json=body, **options)
        assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
        return answer.json()["data"]

    async def sandbox(self, files: dict[str, str] | None = None, **fields: Any) -> str:
        made = await self.call("POST", "/sandboxes", {"template_id": "miosa-sandbox", **fields}, 201)
        if files:
            await self.write(made["id"], files)
        return str(made["id"])

    async def write(self, sandbox_id: str, files: dict[str, str]) -> None:
        body = {"files": [{"path": path, "content_base64": b64(text)} for path, text in files.items()]}
        await self.call("POST", f"/sandboxes/{sandbox_id}/fs/write-many", body)

    async def deployment(self, name: str = "Smile", **fields: Any) -> Json:
        return dict(await self.call("POST", "/deployments", {"name": name, **fields}, 201))

    async def publish(self, deployment_id: str, sandbox_id: str, status: int = 202, **fields: Any) -> Json:
        body = {"source_sandbox_id": sandbox_id, **fields}
        return dict(await self.call("POST", f"/deployments/{deployment_id}/publish", body, status))

    async def live(self, deployment_id: str, text: str = "x", **fields: Any) -> Json:
        """A version that is published and promoted."""
        sandbox = await self.sandbox({"index.html": text})
        result = await self.publish(deployment_id, sandbox, **fields)
        self.finish(result["operation_id"], digest=text[0] * 64)
        return dict(await self.call("GET", f"/deployments/{deployment_id}/versions/{result['version']['id']}"))

    # what the engine does

    def finish(self, job_id: str, digest: str = "a" * 64) -> None:
        """The build makes an artifact, and the rollout, if there is one, is carried out."""
        self.build(job_id, digest)
        self.roll(job_id)

    def build(self, job_id: str, digest: str = "a" * 64) -> None:
        with self.api.store.write() as session:
            build = session.exec(select(Build).where(Build.job_id == job_id)).one()
            claim_job(session, job_id)
            query = select(Artifact).where(Artifact.site_id == build.site_id, Artifact.digest == digest)
            artifact = session.exec(query).first()
            if artifact is None:
                artifact = Artifact(
                    id=new_id("art"),
                    site_id=build.site_id,
                    digest=digest,
                    kind="static",
                    profile="static",
                    size_bytes=10,
                    files=1,
                    build_id=build.id,
                    commit_sha=digest,
                    ref=build.ref,
                    key_hint="hint",
                    signed_at=utcnow(),
                )
                session.add(artifact)
            build.artifact_id = artifact.id
            session.flush()
            succeed_build(session, build.id)
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job_id)).first()
            if rollout is not None:
                ready_rollout(session, rollout.id, artifact.id)

    def roll(self, job_id: str) -> None:
        with self.api.store.write() as session:
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job_id)).first()
            if rollout is not None:
                claimed = claim_next(session, rollout.env_id)
                assert claimed is not None
                append_release(session, claimed.id, None)

    def fail(self, job_id: str, code: str = "build.step_failed") -> None:
        error = {"code": code, "message": "The build's command ended with exit code 1."}
        with self.api.store.write() as session:
            claim_job(session, job_id)
            build = session.exec(select(Build).where(Build.job_id == job_id)).one()
            fail_build(session, build.id, error, canceled=False)
            rollout = session.exec(select(Rollout).where(Rollout.job_id == job_id)).first()
            if rollout is not None:
                end_rollout(session, rollout, "failed", error)

    def job(self, job_id: str) -> Job:
        return self.api.one(Job, id=job_id)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def problem(answer: httpx.Response, status: int, code: str) -> Json:
    """The error of an answer: this dialect's envelope, and not a trace of the other's."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    body = answer.json()
    assert set(body) == {"error"}
    error: Json = body["error"]
    assert set(error) == {"code", "message", "request_id", "details", "retryable"}
    assert error["code"] == code, error
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "forge-version" not in answer.headers
    for trace in ("doc_url", "site", "forge", "build_0", "art_0"):
        assert trace not in answer.text, answer.text
    return error


@asynccontextmanager
async def open_org(folder: Path) -> AsyncIterator[Org]:
    async with world(folder) as api:
        team_id, _ = await api.tenant("Acme")
        made = Org(api, team_id)
        made.http = await made.key("*")
        yield made
