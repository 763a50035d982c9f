"""`create_broker`: the app on the unix socket. One credential per role; rows say what it may touch."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import StringConstraints
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.internal.builds import Builds
from api.internal.configuration import Configuration
from api.internal.execs import Execs
from api.internal.observing import Observing
from api.internal.outputs import Outputs
from api.internal.rollouts import Rollouts
from api.internal.telling import Telling
from api.parts import Parts
from api.problems import JSON_TYPE, as_headway_error, json_bytes
from headway.broker import (
    Accepted,
    Begin,
    BuildSpec,
    Committed,
    Contents,
    Drifts,
    Earlier,
    Events,
    ExecOutput,
    ExecSpec,
    Heard,
    HostHello,
    Hostnames,
    Inputs,
    Known,
    LogBatch,
    LogHeard,
    Missing,
    Noted,
    Output,
    RequestBatch,
    RequestsHeard,
    RollSpec,
    SealedConfig,
    Upload,
    UploadRequest,
    Wire,
)
from headway.errors import HeadwayError

HostId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
log = logging.getLogger("headway.broker")


class Doorkeeper:
    """Which role a credential is. Compares in constant time with every one of them."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = {role: token.encode() for role, token in tokens.items() if token}

    def role(self, authorization: str | None) -> str:
        """Raises auth.missing or auth.invalid_key."""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise HeadwayError("auth.missing", "Send Authorization: Bearer <role credential>.")
        found = None
        for role, token in self._tokens.items():
            if hmac.compare_digest(token, given.strip().encode("utf-8", "surrogateescape")):
                found = role
        if found is None:
            raise HeadwayError("auth.invalid_key", "There is no such credential.")
        return found


def create_broker(parts: Parts, tokens: Mapping[str, str]) -> FastAPI:
    """`tokens`: role → credential."""
    app = FastAPI(
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redirect_slashes=False,
        max_body_size=64 << 20,
    )
    doorkeeper = Doorkeeper(tokens)
    builds, telling = Builds(parts.store, parts.objects), Telling(parts.store, parts.events)
    configuration = Configuration(parts.store, parts.vault)
    execs = Execs(parts.store, parts.objects, parts.sandboxes)
    observing = Observing(parts.store, parts.logs, parts.requests)
    outputs, rollouts = (
        Outputs(parts.store, parts.objects),
        Rollouts(parts.store, parts.objects, parts.addresses.site_url),
    )

    def only(*roles: str) -> Callable[[Request], Awaitable[str]]:
        async def admit(request: Request) -> str:
            role = doorkeeper.role(request.headers.get("authorization"))
            if roles and role not in roles:
                raise HeadwayError("role.insufficient", f"The role {role} may not ask that.")
            return role

        return admit

    any_role, builder, host = (Depends(only(*roles), scope="function") for roles in ((), ("builder",), ("host",)))

    @app.get("/health", dependencies=[any_role])
    async def health() -> Response:
        return Response(b"{}", media_type=JSON_TYPE)

    @app.post("/builds/{build_id}/begin", dependencies=[builder])
    async def begin(build_id: str, body: Begin) -> Response:
        spec: BuildSpec = await anyio.to_thread.run_sync(builds.begin, build_id, body)
        return answer(spec)

    @app.post("/builds/{build_id}/earlier", dependencies=[builder])
    async def earlier(build_id: str, body: Inputs) -> Response:
        found: Earlier = await anyio.to_thread.run_sync(builds.earlier, build_id, body)
        return answer(found)

    @app.post("/builds/{build_id}/contents", dependencies=[builder])
    async def contents(build_id: str, body: Contents) -> Response:
        missing: Missing = await anyio.to_thread.run_sync(builds.contents, build_id, body)
        return answer(missing)

    @app.post("/builds/{build_id}/uploads", dependencies=[builder])
    async def uploads(build_id: str, body: UploadRequest) -> Response:
        upload: Upload = await anyio.to_thread.run_sync(builds.upload, build_id, body)
        return answer(upload)

    @app.post("/builds/{build_id}/output", dependencies=[builder])
    async def output(build_id: str, body: Output) -> Response:
        accepted: Accepted = await anyio.to_thread.run_sync(outputs.accept, build_id, body)
        return answer(accepted)

    @app.post("/execs/{job_id}/begin", dependencies=[builder])
    async def begin_exec(job_id: str, body: Begin) -> Response:
        spec: ExecSpec = await anyio.to_thread.run_sync(execs.begin, job_id, body)
        return answer(spec)

    @app.post("/execs/{job_id}/uploads", dependencies=[builder])
    async def upload_exec(job_id: str, body: UploadRequest) -> Response:
        upload: Upload = await anyio.to_thread.run_sync(execs.upload, job_id, body)
        return answer(upload)

    @app.post("/execs/{job_id}/output", dependencies=[builder])
    async def finish_exec(job_id: str, body: ExecOutput) -> Response:
        heard: Heard = await anyio.to_thread.run_sync(execs.output, job_id, body)
        parts.watch.poke(job_id)
        return answer(heard)

    @app.post("/jobs/{job_id}/events")
    async def events(job_id: str, body: Events, role: str = any_role) -> Response:
        heard: Heard = await anyio.to_thread.run_sync(telling.hear, role, job_id, body)
        parts.watch.poke(job_id)
        return answer(heard)

    @app.get("/rollouts/{rollout_id}", dependencies=[host])
    async def rollout(rollout_id: str) -> Response:
        spec: RollSpec = await anyio.to_thread.run_sync(rollouts.spec, rollout_id)
        return answer(spec)

    @app.post("/rollouts/{rollout_id}/commit", dependencies=[host])
    async def commit(rollout_id: str) -> Response:
        job_id = await anyio.to_thread.run_sync(rollouts.commit, rollout_id)
        parts.watch.poke(job_id)
        return answer(Committed(rollout_id=rollout_id))

    @app.get("/rollouts/{rollout_id}/config", dependencies=[host])
    async def config(rollout_id: str, host_id: HostId) -> Response:
        sealed: SealedConfig = await anyio.to_thread.run_sync(configuration.sealed, rollout_id, host_id)
        return answer(sealed)

    @app.put("/hosts/{host_id}", dependencies=[host])
    async def hello(host_id: HostId, body: HostHello) -> Response:
        known: Known = await anyio.to_thread.run_sync(configuration.hello, host_id, body)
        return answer(known)

    @app.post("/hosts/{host_id}/drifts", dependencies=[host])
    async def drifts(host_id: HostId, body: Drifts) -> Response:
        noted: Noted = await anyio.to_thread.run_sync(rollouts.note_drifts, host_id, body)
        return answer(noted)

    @app.get("/environments/{env_id}/hostnames", dependencies=[host])
    async def hostnames(env_id: str) -> Response:
        names: Hostnames = await anyio.to_thread.run_sync(rollouts.hostnames, env_id)
        return answer(names)

    @app.post("/environments/{env_id}/logs", dependencies=[host])
    async def logs(env_id: str, body: LogBatch) -> Response:
        heard: LogHeard = await anyio.to_thread.run_sync(observing.hear_lines, env_id, body)
        parts.watch.poke(env_id)
        return answer(heard)

    @app.post("/environments/{env_id}/requests", dependencies=[host])
    async def requests(env_id: str, body: RequestBatch) -> Response:
        heard: RequestsHeard = await anyio.to_thread.run_sync(observing.hear_requests, env_id, body)
        return answer(heard)

    for kind in (HeadwayError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
    return app


def answer(wire: Wire) -> Response:
    return Response(wire.model_dump_json(), media_type=JSON_TYPE)


async def refuse(request: Request, error: Exception) -> Response:
    found = as_headway_error(error)
    if found.status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, found.code)
    return Response(json_bytes({"error": found.as_dict()}), found.status, media_type=JSON_TYPE)
