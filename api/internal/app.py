"""`create_broker`: the app on the unix socket. One credential per role; rows say what it may touch."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
    CommandSpec,
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
    Leftovers,
    LogBatch,
    LogHeard,
    Missing,
    Noted,
    Output,
    RequestBatch,
    RequestsHeard,
    RollSpec,
    SealedConfig,
    Serving,
    Upload,
    UploadRequest,
    Wire,
)
from headway.errors import HeadwayError
from store.hosts import host_by_credential
from store.session import Store

HostId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
log = logging.getLogger("headway.broker")


@dataclass(frozen=True)
class Asker:
    """Who asks. `host_id` is set for hosts: they speak for themselves alone."""

    role: str
    host_id: str = ""

    def must_be(self, host_id: str) -> None:
        if self.role == "host" and self.host_id != host_id:
            raise HeadwayError("role.insufficient", f"This credential is that of the host {self.host_id}.")


class Doorkeeper:
    """Whose credential it is: a role's, compared in constant time with every one of them, or a host's own.

    `own_host` is the machine beside the API, which has the role's.
    """

    def __init__(self, tokens: Mapping[str, str], store: Store, own_host: str) -> None:
        self._tokens = {role: token.encode() for role, token in tokens.items() if token}
        self._store = store
        self._own_host = own_host

    def of_role(self, authorization: str | None) -> Asker | None:
        """None for what may be a host's own credential. Raises auth.missing."""
        given, found = _bearer(authorization), None
        for role, token in self._tokens.items():
            if hmac.compare_digest(token, given.encode("utf-8", "surrogateescape")):
                found = role
        return Asker(found, self._own_host if found == "host" else "") if found else None

    def of_host(self, authorization: str | None) -> Asker:
        """Raises auth.invalid_key."""
        with self._store.read() as session:
            host_id = host_by_credential(session, _bearer(authorization))
        if host_id is None:
            raise HeadwayError("auth.invalid_key", "There is no such credential.")
        return Asker("host", host_id)


def _bearer(authorization: str | None) -> str:
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise HeadwayError("auth.missing", "Send Authorization: Bearer <credential>.")
    return given.strip()


def create_broker(parts: Parts, tokens: Mapping[str, str], own_host: str = "local") -> FastAPI:
    """`tokens`: role → credential; that of the role `host` is the host's beside the API, `own_host`."""
    app = FastAPI(
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redirect_slashes=False,
        max_body_size=64 << 20,
    )
    doorkeeper = Doorkeeper(tokens, parts.store, own_host)
    builds, telling = Builds(parts.store, parts.objects), Telling(parts.store, parts.events)
    configuration = Configuration(parts.store, parts.vault)
    execs = Execs(parts.store, parts.objects, parts.sandboxes)
    observing = Observing(parts.store, parts.logs, parts.requests)
    outputs, rollouts = Outputs(parts.store, parts.objects), Rollouts(parts.store, parts.objects)

    def only(*roles: str) -> Callable[[Request], Awaitable[Asker]]:
        async def admit(request: Request) -> Asker:
            given = request.headers.get("authorization")
            asker = doorkeeper.of_role(given)
            if asker is None:
                asker = await anyio.to_thread.run_sync(doorkeeper.of_host, given)
            if roles and asker.role not in roles:
                raise HeadwayError("role.insufficient", f"The role {asker.role} may not ask that.")
            return asker

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
    async def events(job_id: str, body: Events, asker: Asker = any_role) -> Response:
        heard: Heard = await anyio.to_thread.run_sync(telling.hear, asker.role, job_id, body, asker.host_id)
        parts.watch.poke(job_id)
        return answer(heard)

    @app.get("/rollouts/{rollout_id}")
    async def rollout(rollout_id: str, asker: Asker = host) -> Response:
        spec: RollSpec = await anyio.to_thread.run_sync(rollouts.spec, rollout_id, asker.host_id)
        return answer(spec)

    @app.post("/rollouts/{rollout_id}/commit")
    async def commit(rollout_id: str, asker: Asker = host) -> Response:
        job_id = await anyio.to_thread.run_sync(rollouts.commit, rollout_id, asker.host_id)
        parts.watch.poke(job_id)
        return answer(Committed(rollout_id=rollout_id))

    @app.get("/rollouts/{rollout_id}/config")
    async def config(rollout_id: str, host_id: HostId, asker: Asker = host) -> Response:
        asker.must_be(host_id)
        sealed: SealedConfig = await anyio.to_thread.run_sync(configuration.sealed, rollout_id, host_id)
        return answer(sealed)

    @app.post("/commands/{job_id}/begin")
    async def begin_command(job_id: str, asker: Asker = host) -> Response:
        command: CommandSpec = await anyio.to_thread.run_sync(rollouts.begin_command, job_id, asker.host_id)
        parts.watch.poke(job_id)
        return answer(command)

    @app.put("/hosts/{host_id}")
    async def hello(host_id: HostId, body: HostHello, asker: Asker = host) -> Response:
        asker.must_be(host_id)
        known: Known = await anyio.to_thread.run_sync(configuration.hello, host_id, body)
        return answer(known)

    @app.post("/hosts/{host_id}/drifts")
    async def drifts(host_id: HostId, body: Drifts, asker: Asker = host) -> Response:
        asker.must_be(host_id)
        noted: Noted = await anyio.to_thread.run_sync(rollouts.note_drifts, host_id, body)
        return answer(noted)

    @app.post("/hosts/{host_id}/serving")
    async def serving(host_id: HostId, body: Serving, asker: Asker = host) -> Response:
        asker.must_be(host_id)
        found: Leftovers = await anyio.to_thread.run_sync(rollouts.hear_serving, host_id, body)
        return answer(found)

    @app.get("/environments/{env_id}/hostnames")
    async def hostnames(env_id: str, asker: Asker = host) -> Response:
        names: Hostnames = await anyio.to_thread.run_sync(rollouts.hostnames, env_id, asker.host_id)
        return answer(names)

    @app.post("/environments/{env_id}/logs")
    async def logs(env_id: str, body: LogBatch, asker: Asker = host) -> Response:
        asker.must_be(body.host_id)
        heard: LogHeard = await anyio.to_thread.run_sync(observing.hear_lines, env_id, body)
        parts.watch.poke(env_id)
        return answer(heard)

    @app.post("/environments/{env_id}/requests")
    async def requests(env_id: str, body: RequestBatch, asker: Asker = host) -> Response:
        asker.must_be(body.host_id)
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
