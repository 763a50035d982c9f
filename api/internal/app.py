"""`create_broker`: the app on the unix socket. One credential per role; rows say what it may touch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.internal.builds import Builds
from api.internal.caches import Caches
from api.internal.coming import coming_route
from api.internal.configuration import Configuration
from api.internal.door import Question, refuse, route
from api.internal.doorkeeper import Asker, Doorkeeper
from api.internal.execs import Execs
from api.internal.leases import Leases
from api.internal.looks import Looks
from api.internal.mending import Mending
from api.internal.observing import Observing
from api.internal.outputs import Outputs
from api.internal.repositories import bundle_route
from api.internal.rollouts import Rollouts
from api.internal.telling import Telling, subject_of
from api.internal.tls import Admitted
from api.parts import Parts
from headway.broker import (
    Accepted,
    Begin,
    BeginLook,
    Committed,
    Contents,
    Drifts,
    Events,
    ExecOutput,
    Fetched,
    HostHello,
    Inputs,
    KeptCache,
    Leads,
    LogBatch,
    Mounts,
    Offer,
    Output,
    Ready,
    RequestBatch,
    RollSpec,
    Seen,
    Serving,
    Turn,
    UploadRequest,
    WantedCache,
    WantedInput,
    WantedPacks,
    WantedSecrets,
    WantedTurn,
    Wire,
)
from headway.errors import HeadwayError

HOST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def create_broker(parts: Parts, tokens: Mapping[str, str], own_host: str = "local") -> Starlette:
    """`tokens`: role → credential; that of the role `host` is the host's beside the API, `own_host`."""
    doorkeeper = Doorkeeper(dict(tokens), parts.store, own_host)
    questions = (*_of_builders(parts), *_of_hosts(parts), *_of_all(parts))
    routes = [route(question, doorkeeper, parts.watch.poke) for question in questions]
    routes += [bundle_route(parts, doorkeeper), coming_route(parts.board, doorkeeper)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse, Exception: _refuse})
    app.router.redirect_slashes = False
    return app


def create_remote_broker(parts: Parts) -> ASGIApp:
    """The same for other machines: by TLS, and only with the credentials of hosts that joined and builders let in."""
    return Admitted(create_broker(parts, {}), Doorkeeper({}, parts.store, ""))


async def _refuse(request: Request, error: Exception) -> Response:
    return refuse(request, error)


def _of_all(parts: Parts) -> tuple[Question, ...]:
    telling, leases = Telling(parts.store, parts.events), Leases(parts.store)

    def hear(asker: Asker, job_id: str, body: Events) -> Wire:
        if asker.role == "builder":
            leases.check(subject_of(body.source), asker.holder())
        return telling.hear(asker.role, job_id, body, asker.host_id)

    return (
        Question("POST", "/jobs/{id}/events", None, hear, Events, wakes=_itself),
        Question("GET", "/health", None, lambda *_: Wire()),
    )


def _of_builders(parts: Parts) -> tuple[Question, ...]:
    builds, outputs = Builds(parts.store, parts.objects, parts.vault), Outputs(parts.store, parts.objects, parts.board)
    execs = Execs(parts.store, parts.objects, parts.sandboxes, parts.vault)
    caches = Caches(parts.store, parts.objects, parts.caches)
    looks = Looks(parts.store, parts.vault, parts.addresses.domain, parts.previews, parts.poll_every)
    leases, telling = Leases(parts.store), Telling(parts.store, parts.events)
    held, role = leases.held, "builder"

    def begin_build(asker: Asker, build_id: str, body: Begin) -> Wire:
        return builds.begin(build_id, body, asker.holder())

    def begin_exec(asker: Asker, job_id: str, body: Begin) -> Wire:
        return execs.begin(job_id, body, asker.holder())

    def begin_look(asker: Asker, site_id: str, body: BeginLook) -> Wire:
        return looks.begin(site_id, body, asker.holder())

    def output(build_id: str, body: Output) -> Accepted:
        """What was said last is heard first: it counts for an output that is refused too."""
        if body.last is None:
            return outputs.accept(build_id, body)
        if subject_of(body.last.events.source) != build_id:
            raise HeadwayError("attempt.stale", f"{body.last.events.source} does not speak for {build_id}.")
        telling.hear(role, body.last.job_id, body.last.events)
        return outputs.accept(build_id, body).model_copy(update={"job_id": body.last.job_id})

    def upload(build_id: str, body: UploadRequest) -> Wire:
        return (caches if body.kind == "cache" else builds).upload(build_id, body)

    return (
        Question("GET", "/builder", role, leases.who),
        Question("DELETE", "/leases/{id}", role, leases.let_go),
        Question("POST", "/looks/{id}/begin", role, begin_look, BeginLook),
        Question("POST", "/looks/{id}/seen", role, held(looks.seen), Seen),
        Question("POST", "/builds/{id}/begin", role, begin_build, Begin),
        Question("POST", "/builds/{id}/fetched", role, held(builds.fetched), Fetched),
        Question("POST", "/builds/{id}/earlier", role, held(builds.earlier), Inputs),
        Question("POST", "/builds/{id}/secrets", role, held(builds.secrets), WantedSecrets),
        Question("POST", "/builds/{id}/packs", role, held(builds.packs), WantedPacks),
        Question("POST", "/builds/{id}/cache", role, held(caches.find), WantedCache),
        Question("POST", "/builds/{id}/cached", role, held(caches.keep), KeptCache),
        Question("POST", "/builds/{id}/contents", role, held(builds.contents), Contents),
        Question("POST", "/builds/{id}/uploads", role, held(upload), UploadRequest),
        Question(
            "POST",
            "/builds/{id}/output",
            role,
            held(output),
            Output,
            wakes=lambda _, accepted: accepted.job_id if isinstance(accepted, Accepted) else "",
        ),
        Question("POST", "/execs/{id}/begin", role, begin_exec, Begin),
        Question("POST", "/execs/{id}/packs", role, held(execs.packs), WantedPacks),
        Question("POST", "/execs/{id}/uploads", role, held(execs.upload), UploadRequest),
        Question("POST", "/execs/{id}/output", role, held(execs.output), ExecOutput, wakes=_itself),
    )


def _of_hosts(parts: Parts) -> tuple[Question, ...]:
    rollouts = Rollouts(parts.store, parts.objects, parts.inputs, parts.addresses.site_url, parts.board)
    configuration = Configuration(parts.store, parts.vault)
    observing = Observing(parts.store, parts.logs, parts.requests)
    mending = Mending(parts.store, parts.objects)
    role = "host"

    def config(asker: Asker, rollout_id: str, _: None) -> Wire:
        return configuration.sealed(rollout_id, asker.host_id)

    def command(asker: Asker, job_id: str, _: None) -> Wire:
        return rollouts.begin_command(job_id, asker.host_id)

    def given(asker: Asker, job_id: str, body: WantedInput) -> Wire:
        return rollouts.command_input(job_id, asker.host_id, body)

    def hostnames(asker: Asker, env_id: str, _: None) -> Wire:
        return rollouts.hostnames(env_id, asker.host_id)

    def hello(asker: Asker, host_id: str, body: HostHello) -> Wire:
        asker.must_be(host_id)
        if not HOST_ID.fullmatch(host_id):
            raise HeadwayError("request.invalid_parameter", f"{host_id!r} is no id of a host.", param="host_id")
        return configuration.hello(host_id, body)

    def drifts(asker: Asker, host_id: str, body: Drifts) -> Wire:
        asker.must_be(host_id)
        return rollouts.note_drifts(host_id, body)

    def serving(asker: Asker, host_id: str, body: Serving) -> Wire:
        asker.must_be(host_id)
        return rollouts.hear_serving(host_id, body)

    def leads(asker: Asker, host_id: str, body: Leads) -> Wire:
        asker.must_be(host_id)
        return rollouts.hear_leads(host_id, body)

    def mounts(asker: Asker, host_id: str, body: Mounts) -> Wire:
        asker.must_be(host_id)
        return rollouts.hear_mounts(body)

    def lines(asker: Asker, env_id: str, body: LogBatch) -> Wire:
        asker.must_be(body.host_id)
        return observing.hear_lines(env_id, body)

    def requests(asker: Asker, env_id: str, body: RequestBatch) -> Wire:
        asker.must_be(body.host_id)
        return observing.hear_requests(env_id, body)

    return (
        Question("GET", "/rollouts/{id}", role, lambda asker, id, _: rollouts.spec(id, asker.host_id)),
        Question(
            "POST",
            "/rollouts/{id}/commit",
            role,
            lambda asker, id, _: rollouts.commit(id, asker.host_id),
            wakes=lambda _, committed: committed.job_id if isinstance(committed, Committed) else "",
        ),
        Question(
            "POST",
            "/rollouts/{id}/ready",
            role,
            lambda asker, id, body: rollouts.ready(id, asker.host_id, body),
            Ready,
            wakes=lambda _, spec: spec.job_id if isinstance(spec, RollSpec) and spec.committed else "",
        ),
        Question(
            "POST",
            "/jobs/{id}/take",
            role,
            lambda asker, id, body: rollouts.take(id, asker.host_id, body),
            WantedTurn,
            wakes=lambda job_id, turn: job_id if isinstance(turn, Turn) and turn.spec is not None else "",
        ),
        Question("GET", "/rollouts/{id}/config", role, config),
        Question("POST", "/commands/{id}/begin", role, command, wakes=_itself),
        Question("POST", "/commands/{id}/input", role, given, WantedInput),
        Question("PUT", "/hosts/{id}", role, hello, HostHello),
        Question("POST", "/hosts/{id}/drifts", role, drifts, Drifts),
        Question("POST", "/hosts/{id}/serving", role, serving, Serving),
        Question("POST", "/hosts/{id}/leads", role, leads, Leads),
        Question("POST", "/hosts/{id}/mounts", role, mounts, Mounts),
        Question("POST", "/findings/{id}", role, lambda asker, id, body: mending.spec(id, asker.host_id, body), Offer),
        Question("GET", "/environments/{id}/hostnames", role, hostnames),
        Question("POST", "/environments/{id}/logs", role, lines, LogBatch, wakes=_itself),
        Question("POST", "/environments/{id}/requests", role, requests, RequestBatch),
    )


def _itself(name: str, _: Wire) -> str:
    return name
