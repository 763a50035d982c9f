"""Branch routes (contract section 11): replaced as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from api.managed.answers import Row
from api.managed.call import CallDep
from api.managed.documents import gives
from api.managed.schemas import Body
from api.managed.sites import site_to_change, site_to_read
from store.branch_routes import LONGEST, MOST, read_routes, routes_of
from store.models import Site

router = APIRouter(tags=["sites"])
Json = dict[str, Any]
PATH = "/sites/{site_id}/branch-routes"


class RouteBody(Body):
    pattern: str = Field(min_length=1, max_length=LONGEST, description="A branch or a glob; `*` matches `/` too.")
    target: Literal["live", "staging", "preview", "ignore", "production"] = Field(
        description="`production` is taken for `live`."
    )


class BranchRoutesPut(Body):
    """Both are optional: what is left out stays."""

    routes: Annotated[list[RouteBody], Field(max_length=MOST)] | None = Field(
        default=None, description="First match wins; what nothing matches is ignored. null: the defaults."
    )
    from_repository: bool | None = Field(
        default=None, description="Whether `[[routes]]` in headway.toml of the default branch takes their place."
    )


class RouteRow(Row):
    pattern: str
    target: Literal["live", "staging", "preview", "ignore"]


class BranchRoutesRow(Row):
    """`default`: nothing was set, so that the site's default branch goes live, `staging` to staging."""

    routes: list[RouteRow]
    default: bool
    from_repository: bool


def row(site: Site) -> Json:
    return {
        "routes": [route.as_dict() for route in routes_of(site)],
        "default": site.branch_routes is None,
        "from_repository": site.routes_from_repository,
    }


@router.get(PATH, **gives(BranchRoutesRow, "Where pushes of which branches go"))
async def get_branch_routes(call: CallDep, site_id: str) -> Response:
    return call.one(row(await call.read(lambda session: site_to_read(call, session, site_id))))


@router.put(PATH, **gives(BranchRoutesRow, "Replace where pushes of which branches go"))
async def put_branch_routes(call: CallDep, site_id: str, body: BranchRoutesPut) -> Response:
    given = [route.model_dump() for route in body.routes or ()]
    routes = [route.as_dict() for route in read_routes(given)]

    def work(session: Session) -> Json:
        site = site_to_change(call, session, site_id)
        if "routes" in body.model_fields_set:
            site.branch_routes = routes if body.routes is not None else None
        if body.from_repository is not None:
            site.routes_from_repository = body.from_repository
        return row(site)

    return call.one(await call.write(work))
