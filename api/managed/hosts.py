"""Serving machines and their keys: the operator's alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.answers import DeletedRow
from api.managed.answers_around import HostJoined, HostRow
from api.managed.call import Call, CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.machines import let_in, operator_only
from api.managed.rows_around import host_row
from api.managed.schemas import HostAccept, HostJoin, HostLabels, Nothing
from store import hosts
from store.ledger import document
from store.models_configuration import Host
from store.paging import Page

router = APIRouter(prefix="/hosts", tags=["hosts"])
Json = dict[str, Any]
HostId = Annotated[str, Path(max_length=100)]


def joined_row(call: Call, session: Session, host: Host) -> Json:
    """With what it is to trust."""
    found = {name: document(session, name) for name in ("trusted_root", "sigstore")}
    told = {name: one.body.decode() if one is not None else None for name, one in found.items()}
    key = call.parts.signing_key
    return {**host_row(host), **told, "signing_keys": {key.name: key.read_text()} if key.is_file() else {}}


@router.get("", **lists(HostRow, "List hosts (operator)"))
async def list_hosts(call: CallDep, paging: PagingDep) -> Response:
    operator_only(call)

    def fetch(session: Session, page: Page) -> tuple[Sequence[Host], bool]:
        return hosts.list_hosts(session, page)

    return await call.page(paging, fetch, host_row)


@router.post(
    "",
    **gives(
        HostJoined,
        "Let a machine in: its credential, shown once, and what it is to trust (operator)",
        status=201,
        located=True,
    ),
)
async def join_host(call: KeyedDep, body: HostJoin) -> Response:
    operator_only(call)
    work = partial(hosts.join_host, host_id=body.id, labels=body.labels)
    return await let_in(call, body, work, partial(joined_row, call), new=True)


@router.post("/{host_id}/credential", **gives(HostJoined, "Give a host a new credential; the old one ends (operator)"))
async def renew_credential(call: KeyedDep, host_id: HostId, body: Nothing | None = None) -> Response:
    operator_only(call, "host", host_id)
    work = partial(hosts.renew_credential, host_id=host_id)
    return await let_in(call, body, work, partial(joined_row, call))


@router.get("/{host_id}", **gives(HostRow, "Get a host (operator)"))
async def get_host(call: CallDep, host_id: HostId) -> Response:
    operator_only(call, "host", host_id)
    return call.one(host_row(await call.read(lambda session: hosts.host(session, host_id))))


@router.post("/{host_id}/accept", **gives(HostRow, "Pin the key that a host offers now (operator)"))
async def accept_host_key(call: KeyedDep, host_id: HostId, body: HostAccept) -> Response:
    operator_only(call, "host", host_id)

    def work(session: Session, once: Once) -> tuple[Json, Json]:
        once.claim(session)
        row = host_row(hosts.accept_key(session, host_id, body.public_key))
        return row, row

    return await call.create(body, work, status=200)


@router.put(
    "/{host_id}/labels", **gives(HostRow, "Label a host: environments that choose by label go there (operator)")
)
async def label_host(call: CallDep, host_id: HostId, body: HostLabels) -> Response:
    operator_only(call, "host", host_id)
    return call.one(host_row(await call.write(lambda session: hosts.label_host(session, host_id, body.labels))))


@router.delete("/{host_id}", **gives(DeletedRow, "Remove a host: its credential and key end (operator)"))
async def forget_host(call: CallDep, host_id: HostId) -> Response:
    operator_only(call, "host", host_id)
    gone = await call.write(lambda session: hosts.forget_host(session, host_id).id)
    return call.one({"id": gone, "deleted": True})
