"""Building machines elsewhere, and what they have built: the operator's alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from api.managed.answers import BuildRow, DeletedRow, Row
from api.managed.call import CallDep, KeyedDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.machines import let_in, operator_only
from api.managed.rows import build_row
from api.managed.schemas import Body, Nothing
from store import builders
from store.events import stamp
from store.models import Build
from store.models_builders import Builder
from store.paging import Page

router = APIRouter(prefix="/builders", tags=["builders"])
Json = dict[str, Any]
BuilderId = Annotated[str, Path(max_length=100)]


class BuilderAdd(Body):
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class BuilderRow(Row):
    id: str
    created_at: str
    last_used_at: str | None = Field(description="When it last began something.")


class BuilderAdded(BuilderRow):
    credential: str = Field(description="Shown once; empty where a request is replayed.")
    broker_root: str | None = Field(description="What vouches for the broker; null where it listens to no machine.")


def builder_row(one: Builder) -> Json:
    return {"id": one.id, "created_at": stamp(one.created_at), "last_used_at": stamp(one.last_used_at)}


def added_row(_session: Session, one: Builder) -> Json:
    return builder_row(one)


@router.get("", **lists(BuilderRow, "List builders on other machines (operator)"))
async def list_builders(call: CallDep, paging: PagingDep) -> Response:
    operator_only(call)
    return await call.page(paging, builders.list_builders, builder_row)


@router.post(
    "", **gives(BuilderAdded, "Let a machine build: its credential, shown once (operator)", status=201, located=True)
)
async def add_builder(call: KeyedDep, body: BuilderAdd) -> Response:
    operator_only(call)
    return await let_in(call, body, partial(builders.add_builder, builder_id=body.id), added_row, new=True)


@router.post(
    "/{builder_id}/credential", **gives(BuilderAdded, "Give a builder a new credential; the old one ends (operator)")
)
async def renew_builder(call: KeyedDep, builder_id: BuilderId, body: Nothing | None = None) -> Response:
    operator_only(call, "builder", builder_id)
    return await let_in(call, body, partial(builders.renew_credential, builder_id=builder_id), added_row)


@router.get("/{builder_id}", **gives(BuilderRow, "Get a builder (operator)"))
async def get_builder(call: CallDep, builder_id: BuilderId) -> Response:
    operator_only(call, "builder", builder_id)
    return call.one(builder_row(await call.read(lambda session: builders.builder(session, builder_id))))


@router.get("/{builder_id}/builds", **lists(BuildRow, "List what a builder has begun last, of all sites (operator)"))
async def list_builds_of(call: CallDep, paging: PagingDep, builder_id: BuilderId) -> Response:
    """`local` is the one beside the API. One that was removed has its builds still."""
    operator_only(call, "builder", builder_id)

    def fetch(session: Session, page: Page) -> tuple[Sequence[Build], bool]:
        return builders.builds_of(session, builder_id, page)

    return await call.page(paging, fetch, lambda row: build_row(row, call.parts.docs_url))


@router.delete("/{builder_id}", **gives(DeletedRow, "Remove a builder: its credential ends at once (operator)"))
async def remove_builder(call: CallDep, builder_id: BuilderId) -> Response:
    operator_only(call, "builder", builder_id)
    gone = await call.write(lambda session: builders.remove_builder(session, builder_id).id)
    return call.one({"id": gone, "deleted": True})
