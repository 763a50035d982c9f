"""Caches of a site's builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.managed.answers import Row
from api.managed.call import CallDep, PagingDep
from api.managed.documents import gives, lists
from api.managed.environments import env_to_change
from api.managed.schemas import Nothing
from api.managed.sites import site_to_change, site_to_read
from store import caches
from store.events import stamp
from store.models_caches import BuildCache
from store.paging import Page

router = APIRouter(tags=["builds"])
C = "/sites/{site_id}/caches"


class CacheRow(Row):
    env_id: str
    key: str
    sha256: str
    size_bytes: int
    build_id: str
    created_at: str
    used_at: str


class DroppedRow(Row):
    dropped: int
    size_bytes: int


def cache_row(one: BuildCache) -> dict[str, Any]:
    """`key` stands for the lock file's name and content; `build_id` is the build that left it."""
    return {
        "env_id": one.env_id,
        "key": one.key,
        "sha256": one.sha256,
        "size_bytes": one.size,
        "build_id": one.build_id,
        "created_at": stamp(one.created_at),
        "used_at": stamp(one.used_at),
    }


@router.get(C, **lists(CacheRow, "List what a site's builds keep between them"))
async def list_caches(call: CallDep, paging: PagingDep, site_id: str) -> Response:
    def fetch(session: Session, page: Page) -> tuple[Sequence[BuildCache], bool]:
        return caches.list_caches(session, site_to_read(call, session, site_id, "deployments:read").id, page)

    return await call.page(paging, fetch, cache_row, lambda row: (row.created_at, row.sha256))


@router.delete(C, **gives(DroppedRow, "Drop what a site's builds keep, or one environment's: the next begin without"))
async def drop_caches(call: CallDep, site_id: str, env_id: str | None = None, _body: Nothing | None = None) -> Response:
    def work(session: Session) -> tuple[int, int]:
        if env_id is None:
            return caches.drop_caches(session, site_to_change(call, session, site_id, "deployments:write").id, None)
        site, environment = env_to_change(call, session, site_id, env_id, "deployments:write")
        return caches.drop_caches(session, site.id, environment.id)

    dropped, size = await call.write(work)
    return call.one({"dropped": dropped, "size_bytes": size})
