"""What no site of this platform can do: 409, after the usual 404 (contract section 9, last choice)."""

from __future__ import annotations

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.managed.call import Call, CallDep, KeyedDep
from api.managed.environments import E
from headway.errors import HeadwayError
from store import environments, sites

router = APIRouter(tags=["unsupported"])

PER_ENVIRONMENT = (
    *("refresh", "reset", "clone-content", "email", "exec", "wp-cli", "magic-link", "cron", "database"),
    *("components", "components/plugins", "components/themes", "components/users", "components/content"),
)
PER_SITE = ("dns/records",)


def _refuse(call: Call, session: Session, site_id: str, env_id: str | None) -> None:
    if env_id is None:
        sites.site(session, call.sight, site_id)
    else:
        environments.environment(session, call.sight, site_id, env_id)
    raise HeadwayError(
        "environment.capability_unsupported", "A static site cannot do that: see the site's capabilities."
    )


async def _read_environment(call: CallDep, site_id: str, env_id: str) -> Response:
    await call.read(lambda session: _refuse(call, session, site_id, env_id))
    raise AssertionError("unreachable")


async def _write_environment(call: KeyedDep, site_id: str, env_id: str) -> Response:
    return await _read_environment(call, site_id, env_id)


async def _read_site(call: CallDep, site_id: str) -> Response:
    await call.read(lambda session: _refuse(call, session, site_id, None))
    raise AssertionError("unreachable")


async def _write_site(call: KeyedDep, site_id: str) -> Response:
    return await _read_site(call, site_id)


def _offer(path: str, name: str, read: object, write: object) -> None:
    for method, endpoint in (("GET", read), ("POST", write)):
        router.add_api_route(
            path,
            endpoint,  # type: ignore[arg-type]
            methods=[method],
            status_code=409,
            responses={409: {"description": "Always: no site of this platform can do that."}},
            response_model=None,
            name=f"{method.lower()}_{name.replace('/', '_').replace('-', '_')}",
            summary=f"Not on this platform: {name}",
        )


for _name in PER_ENVIRONMENT:
    _offer(f"{E}/{_name}", _name, _read_environment, _write_environment)
for _name in PER_SITE:
    _offer(f"/sites/{{site_id}}/{_name}", _name, _read_site, _write_site)
