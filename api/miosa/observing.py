"""What runs of a deployment and what is seen of it: instances, logs, metrics, requests (contract section 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Header, Query
from sqlmodel import Session, col
from starlette.responses import Response

from api.instance_logs import Line, Wanted
from api.managed.logs import cursor_of, position_of
from api.managed.requests import moment, request_row
from api.managed.requests import shown as tally_row
from api.miosa import names
from api.miosa.answers import AnyRow, InstanceRow
from api.miosa.call import Call, CallDep
from api.miosa.deployments import D, one_shown, site_of
from api.miosa.document import gives, gives_raw, lists
from api.miosa.rows import stamp
from api.miosa.versions import follow_lines, text_lines, told_as
from api.preferences import number_of, wants_events
from api.requests import total
from api.streams import PING, as_events, frame
from headway.errors import HeadwayError
from store import environments
from store.instances import Instance, instances_of
from store.models import Build, Environment, Site, utcnow
from store.releases import sequences_of
from store.versions import builds_of_site, live_build

router = APIRouter(tags=["observability"])
Json = dict[str, Any]
I: Final = D + "/runtime-instances"  # noqa: E741
Where = Annotated[str, Query(max_length=63, description="An environment's name.")]
Lines = Annotated[int, Query(ge=1, le=5_000, description="How many lines.")]
DAY: Final = 24 * 60


# instances


def instance_id(one: Instance) -> str:
    """`ins_<ULID of the release>.<host>.<process>.<number>`."""
    return f"ins_{one.release.id.partition('_')[2]}.{one.host_id}.{one.name}"


def instance_row(one: Instance, site: Site) -> Json:
    health = one.run.get("health") or {}
    return {
        "id": instance_id(one),
        "tenant_id": site.team_id,
        "deployment_id": names.shown(site.id),
        "environment_id": one.environment.id,
        "environment": one.environment.slug,
        "service_id": f"svc_{site.id.partition('_')[2]}",
        "release_id": names.shown(one.release.artifact_id),
        "external_workspace_id": site.external_workspace_id,
        "external_user_id": site.external_user_id,
        "external_project_id": site.external_project_id,
        "host_id": one.host_id,
        "name": one.name,
        "state": one.state,
        "desired_state": "stopped" if one.state == "stopped" else "running",
        "port": one.run.get("port"),
        "health_check_path": health.get("path") if one.name.startswith("web.") else None,
        "started_at": stamp(one.release.deployed_at),
        "stopped_at": None,
    }


@router.get(I, **lists(InstanceRow, "List what runs of a deployment; files need no instance"))
async def list_instances(call: CallDep, deployment_id: str) -> Response:
    def work(session: Session) -> list[Json]:
        site = site_of(call, session, deployment_id)
        return [instance_row(one, site) for one in instances_of(session, site.id)]

    return call.whole(await call.read(work))


def _instance(call: Call, session: Session, deployment_id: str, wanted: str) -> tuple[Site, Instance]:
    site = site_of(call, session, deployment_id)
    for one in instances_of(session, site.id):
        if instance_id(one) == wanted:
            return site, one
    raise HeadwayError("instance.not_found", f"There is no instance {wanted}.")


@router.get(I + "/{instance_id}", **gives(InstanceRow, "Get an instance"))
async def get_instance(call: CallDep, deployment_id: str, instance_id: str) -> Response:
    site, one = await call.read(lambda session: _instance(call, session, deployment_id, instance_id))
    return call.one(instance_row(one, site))


@router.get(I + "/{instance_id}/logs", **gives(AnyRow, "An instance's last lines"))
async def instance_logs(call: CallDep, deployment_id: str, instance_id: str, lines: Lines = 100) -> Response:
    def work(session: Session) -> tuple[Instance, Wanted]:
        _, one = _instance(call, session, deployment_id, instance_id)
        return one, Wanted(sequences_of(session, one.release), one.name)

    one, wanted = await call.read(work)
    found, _ = await anyio.to_thread.run_sync(call.parts.logs.tail, one.environment.id, lines, wanted)
    texts = [line.text for line in found if line.host_id in (one.host_id, "")]
    facts = {"runtime_instance_id": instance_id, "deployment_id": deployment_id, "log_path": None}
    return call.one({**facts, "lines": texts, "logs": joined(texts)})


def joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


# logs


@router.get(D + "/logs", **gives_raw("A deployment's log", "application/json", "text/event-stream"))
async def deployment_logs(
    call: CallDep,
    deployment_id: str,
    lines: Lines = 100,
    environment: Where = "production",
    accept: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[str | None, Header(description="Resume behind it.")] = None,
) -> Response:
    """What its instances print; of files, which print nothing, the newest version's build."""
    env_id, build = await call.read(lambda session: _printing(call, session, deployment_id, environment))
    if wants_events(accept, "application/json"):
        after = number_of(last_event_id)
        if env_id is not None:
            return as_events(call, _follow_app(call, env_id, lines, after))
        return as_events(call, follow_lines(call, build, after or 0) if build is not None else _nothing())
    if env_id is not None:
        found, _ = await anyio.to_thread.run_sync(call.parts.logs.tail, env_id, lines, Wanted())
        texts = [line.text for line in found]
    else:
        texts = (await text_lines(call, build, "build"))[-lines:] if build else []
    facts = {"deployment_id": deployment_id, "version_id": names.shown_or_none(build.id if build else None)}
    source = "runtime" if env_id is not None else "build"
    return call.one({**facts, "source": source, "lines": texts, "logs": joined(texts)})


def _printing(call: Call, session: Session, deployment_id: str, name: str) -> tuple[str | None, Build | None]:
    """The environment, where an app runs there, and the version that is live, else the newest."""
    site = site_of(call, session, deployment_id)
    found = environments.target(session, call.sight, site, name, param="environment")
    runs = any(one.environment.id == found.id for one in instances_of(session, site.id))
    live = live_build(session, found.id)
    build = session.get(Build, live[1]) if live is not None and live[1] and runs else None
    newest = builds_of_site(site.id).order_by(col(Build.id).desc())
    return (found.id if runs else None), build or session.exec(newest).first()


async def _follow_app(call: Call, env_id: str, tail: int, after: int | None) -> AsyncGenerator[bytes, None]:
    """The last lines, or those behind `after`; then each new one, until the environment is gone."""
    logs, watch = call.parts.logs, call.parts.watch
    async with watch.on(env_id, 0) as subscription:
        if after is None:
            after = await anyio.to_thread.run_sync(logs.last_number, env_id)
            found, _ = await anyio.to_thread.run_sync(logs.tail, env_id, tail, Wanted(), after + 1)
            for line in found:
                yield _framed(line)
        following = await anyio.to_thread.run_sync(logs.follow, env_id, after, Wanted())
        while not watch.closing:
            while (fresh := await anyio.to_thread.run_sync(following.read)) is not None:
                for line in fresh:
                    yield _framed(line)
            if not await subscription.wait(PING):
                if await call.read(lambda session: session.get_one(Environment, env_id).deleted_at is not None):
                    yield frame("done", {"result": {"state": "gone"}, "state": "gone"})
                    return
                yield b": ping\n\n"


def _framed(line: Line) -> bytes:
    facts = {"stream": told_as(line.stream), "line": line.text, "ts": line.ts, "instance": line.instance}
    return frame("log_line", facts, line.number or None)


async def _nothing() -> AsyncGenerator[bytes, None]:
    yield frame("done", {"result": {"state": "none"}, "state": "none"})


# requests


async def _watched(call: Call, deployment_id: str, name: str) -> tuple[Json, str, list[Json]]:
    """The deployment's row, an environment's id, and the instances there."""

    def work(session: Session) -> tuple[Json, str, list[Json]]:
        site = site_of(call, session, deployment_id)
        found = environments.target(session, call.sight, site, name, param="environment")
        there = [one for one in instances_of(session, site.id) if one.environment.id == found.id]
        return one_shown(call, session, site), found.id, [instance_row(one, site) for one in there]

    return await call.read(work)


@router.get(D + "/observability", **gives(AnyRow, "What is measured of a deployment: its requests, its instances"))
async def deployment_observability(
    call: CallDep,
    deployment_id: str,
    environment: Where = "production",
    minutes: Annotated[int, Query(ge=1, le=DAY, description="So many minutes up to now.")] = 60,
) -> Response:
    row, env_id, instances = await _watched(call, deployment_id, environment)
    now = int(utcnow().timestamp() // 60)
    tallies = await anyio.to_thread.run_sync(call.parts.requests.tallies, env_id, now - minutes + 1, now)
    metrics = {
        "since": moment(now - minutes + 1),
        "until": moment(now + 1),
        "total": tally_row(total(tallies.values())),
        "minutes": [{"minute": moment(minute), **tally_row(one)} for minute, one in tallies.items()],
    }
    facts = {"deployment_id": deployment_id, "environment": environment, "state": row["state"]}
    shown = {"active_version_id": row["active_version_id"], "available": True, "instances": instances}
    return call.one({**facts, **shown, "access_log": call.parts.access_log, "metrics": metrics})


@router.get(D + "/request-logs", **gives(AnyRow, "The last requests that a deployment answered, oldest first"))
async def deployment_request_logs(
    call: CallDep,
    deployment_id: str,
    environment: Where = "production",
    limit: Annotated[int, Query(ge=1, le=1_000, description="How many requests.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1_000, description="`next_cursor`: those before.")] = None,
) -> Response:
    _, env_id, _ = await _watched(call, deployment_id, environment)
    path = call.request.url.path
    found, more = await anyio.to_thread.run_sync(call.parts.requests.last, env_id, limit, position_of(path, cursor))
    rows = [request_row(number, record) for number, record in found]
    facts = {"deployment_id": deployment_id, "environment": environment, "available": True, "requests": rows}
    return call.one({**facts, "next_cursor": cursor_of(path, rows[0]["id"]) if more and rows else None})
