"""Passwords of previews: of one environment, and of each new preview of a site. None is ever shown."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import Row
from api.managed.call import Call, CallDep
from api.managed.documents import gives, starts_job
from api.managed.environments import env_to_change, env_to_read
from api.managed.schemas import Body, Nothing
from api.managed.sites import site_to_change, site_to_read
from headway.passwords import LONGEST, SHORTEST, make_lock
from store.events import stamp
from store.locks import lock_of, set_lock
from store.models import Job
from store.models_locks import EnvironmentLock
from store.protection import accept_lock

router = APIRouter(tags=["environments"])
Json = dict[str, Any]
E = "/sites/{site_id}/environments/{env_id}/password"
S = "/sites/{site_id}/preview-password"


class PasswordPut(Body):
    password: str = Field(
        min_length=SHORTEST, max_length=LONGEST, description="Asked for by the web server. Kept as a hash, never shown."
    )


class PasswordRow(Row):
    protected: bool
    set_at: str | None


def row(lock: EnvironmentLock | None) -> Json:
    return {"protected": lock is not None, "set_at": stamp(lock.created_at) if lock is not None else None}


@router.get(E, **gives(PasswordRow, "Whether an environment asks its visitors for a password"))
async def get_password(call: CallDep, site_id: str, env_id: str) -> Response:
    def work(session: Session) -> Json:
        return row(lock_of(session, env_to_read(call, session, site_id, env_id)[1].id))

    return call.one(await call.read(work))


@router.put(E, **starts_job("Ask an environment's visitors for this password; production takes none"))
async def put_password(call: CallDep, site_id: str, env_id: str, body: PasswordPut) -> Response:
    return await _change(call, site_id, env_id, make_lock(body.password))


@router.delete(E, **starts_job("Ask an environment's visitors for no password any more"))
async def delete_password(call: CallDep, site_id: str, env_id: str, _body: Nothing | None = None) -> Response:
    return await _change(call, site_id, env_id, None)


async def _change(call: Call, site_id: str, env_id: str, document: Json | None) -> Response:
    def work(session: Session, once: Once) -> Job:
        site, environment = env_to_change(call, session, site_id, env_id)
        once.claim(session)
        return accept_lock(session, site, environment, document, call.caller.actor)

    # No body: of a password nothing is kept but its own hash.
    return await call.start(None, work)


@router.get(S, **gives(PasswordRow, "Whether new previews of a site ask for a password"))
async def get_preview_password(call: CallDep, site_id: str) -> Response:
    return call.one(await call.read(lambda session: row(lock_of(session, site_to_read(call, session, site_id).id))))


@router.put(S, **gives(PasswordRow, "Let each new preview of a site ask for this password, from its first moment on"))
async def put_preview_password(call: CallDep, site_id: str, body: PasswordPut) -> Response:
    return await _change_site(call, site_id, make_lock(body.password))


@router.delete(S, **gives(PasswordRow, "Let new previews of a site ask for no password"))
async def delete_preview_password(call: CallDep, site_id: str, _body: Nothing | None = None) -> Response:
    return await _change_site(call, site_id, None)


async def _change_site(call: Call, site_id: str, document: Json | None) -> Response:
    def work(session: Session) -> Json:
        return row(set_lock(session, site_to_change(call, session, site_id).id, document, call.caller.actor))

    return call.one(await call.write(work))
