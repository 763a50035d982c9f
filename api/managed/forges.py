"""Hooks of forges: made for a site, called by its forge (outside of `/v1`, without a key), each call with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
from fastapi import APIRouter, Request
from sqlmodel import Session
from starlette.responses import JSONResponse, Response

from adapters.webhooks.forges import is_genuine, read_call
from api.arriving import Work, follow, work_of
from api.gate import check_body, media_of, read_body
from api.idempotency import Once
from api.managed.answers import DeletedRow
from api.managed.answers_around import ForgeCallRow, ForgeHookRow, NewForgeHookRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.rows_around import forge_call_row, forge_hook_row
from api.managed.schemas import ForgeHookCreate
from api.managed.sites import site_to_change, site_to_read
from api.parts import Parts
from api.problems import problem
from headway.errors import HeadwayError
from store import forges
from store.forges import Pushed
from store.models_webhooks import ForgeCall, ForgeHook
from store.paging import Page

router = APIRouter(prefix="/sites/{site_id}/hooks", tags=["forge hooks"])
Json = dict[str, Any]
READ: Final = "sites:read"
WRITE: Final = "sites:write"
H: Final = "/{hook_id}"
FORM: Final = b"application/x-www-form-urlencoded"


def _shown(call: Call, hook: ForgeHook) -> Json:
    return forge_hook_row(hook, call.parts.api_url)


@router.get("", **lists(ForgeHookRow, "List a site's hooks"))
async def list_forge_hooks(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[ForgeHook], bool]:
        return forges.list_hooks(session, site_to_read(call, session, site_id, READ).id, page)

    return await call.page(paging, fetch, lambda row: _shown(call, row))


@router.post(
    "", **gives(NewForgeHookRow, "Make a hook for a forge to call; its secret is shown once", status=201, located=True)
)
async def create_forge_hook(call: KeyedDep, site_id: str, body: ForgeHookCreate) -> Response:
    def work(session: Session, once: Once) -> tuple[Json, Json]:
        site = site_to_change(call, session, site_id, WRITE)
        once.claim(session)
        made, secret = forges.create_hook(session, call.parts.webhook_vault, site, body.provider, call.caller.actor)
        return {**_shown(call, made), "secret": secret}, _shown(call, made)

    return await call.create(body, work, located=True)


@router.get(H, **gives(ForgeHookRow, "Get a hook, without its secret"))
async def get_forge_hook(call: CallDep, site_id: str, hook_id: str) -> Response:
    def work(session: Session) -> Json:
        return _shown(call, forges.hook(session, hook_id, site_to_read(call, session, site_id, READ).id))

    return call.one(await call.read(work))


@router.delete(H, **gives(DeletedRow, "Delete a hook with the history of its calls"))
async def delete_forge_hook(call: CallDep, site_id: str, hook_id: str) -> Response:
    def work(session: Session) -> None:
        site = site_to_change(call, session, site_id, WRITE)
        forges.delete_hook(session, forges.hook(session, hook_id, site.id, lock=True))

    await call.write(work)
    return call.one({"id": hook_id, "deleted": True})


@router.get(H + "/calls", **lists(ForgeCallRow, "List a hook's calls, each with its verdict"))
async def list_forge_calls(call: CallDep, paging: PagingDep, site_id: str, hook_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[ForgeCall], bool]:
        found = forges.hook(session, hook_id, site_to_read(call, session, site_id, READ).id)
        return forges.list_calls(session, found.id, page)

    return await call.page(paging, fetch, forge_call_row)


async def take(parts: Parts, hook_id: str, request: Request) -> Response:
    """One call. Raises forge_hook.not_found and forge_hook.forged; every other verdict is an answer at once."""
    body = await _body(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        row, follows = await anyio.to_thread.run_sync(_judged, parts, hook_id, headers, body)
    except HeadwayError as error:
        wait = parts.forgeries.wait_for(request.client.host if request.client else "")
        if error.status >= 500 or wait is None:
            raise
        refused = HeadwayError("rate_limit.exceeded", f"Too many calls that no hook's secret signed: wait {wait} s.")
        return problem(refused, request.state.request_id, parts.docs_url, {"Retry-After": str(wait)})
    await follow(parts.starts, follows)
    return JSONResponse({"data": row}, 409 if row["verdict"] == "refused" else 202)


async def _body(request: Request) -> bytes:
    """JSON, or the form that GitHub and Gitea send where nobody has chosen. Raises as every body does."""
    headers = dict(request.scope["headers"])
    body = await read_body(headers, request.receive)
    if media_of(headers) != FORM:
        check_body(headers, body)
    return body


def _judged(parts: Parts, hook_id: str, headers: Mapping[str, str], body: bytes) -> tuple[Json, Work]:
    with parts.store.read() as session:
        hook = forges.hook(session, hook_id)
    if not is_genuine(hook.provider, forges.secret_of(parts.webhook_vault, hook), headers, body):
        if count := parts.forgeries.note(hook_id):
            parts.store.in_write(lambda session: forges.note_forged(session, hook_id, count))
        raise HeadwayError("forge_hook.forged", "This call is not signed with the hook's secret.")
    said = read_call(hook.provider, headers, body)
    pushed = Pushed(said.id, said.event, said.branch, said.commit, said.deleted, said.ref, said.before, said.opened)

    def accept(session: Session) -> tuple[Json, Work]:
        call, judged = forges.take_call(session, hook_id, pushed, parts.addresses.domain, parts.previews)
        return forge_call_row(call, repeated=judged is None), work_of(session, judged)

    return parts.store.in_write(accept)


def write_forgeries(parts: Parts) -> None:
    """Those that were too many to be written down one by one."""
    if counted := parts.forgeries.drain():

        def note(session: Session) -> None:
            for hook_id, count in counted.items():
                forges.note_forged(session, hook_id, count)

        parts.store.in_write(note)
