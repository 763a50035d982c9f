"""What no site of this platform can do: 409, after the usual 404 (contract sections 9, 10, 14 and 15)."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from sqlmodel import Session
from starlette.responses import Response

from api.managed.call import Call, CallDep, KeyedDep
from api.managed.environments import E
from headway.errors import HeadwayError
from store import environments, sites

router = APIRouter(tags=["unsupported"])

BOTH: Final = ("GET", "POST")
PER_ENVIRONMENT: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("refresh", "reset", "clone-content", "email", "exec", "wp-cli", "magic-link"), BOTH),
    **dict.fromkeys(("cron", "database", "components", "components/plugins", "components/themes"), BOTH),
    **dict.fromkeys(("components/users", "components/content"), BOTH),
    "cache": ("GET",),
    "cache/purge": ("POST",),
    "redirects": ("GET", "PUT"),
}
PER_SITE: Final[dict[str, tuple[str, ...]]] = {
    "dns/records": BOTH,
    "dns/records/{record_id}": ("GET", "PATCH", "DELETE"),
}
# Where there is another way to it.
INSTEAD: Final = {
    "redirects": "The redirects of a release stand in its headway.toml.",
    "exec": "A command is run once by POST …/run.",
    "cache/purge": "There is no cache to purge: a release is served from its own files.",
}


def _refuse(call: Call, session: Session, site_id: str, env_id: str | None) -> None:
    if env_id is None:
        sites.site(session, call.sight, site_id)
    else:
        environments.environment(session, call.sight, site_id, env_id)
    name = call.request.url.path.split("/", 6 if env_id else 4)[-1]
    why = INSTEAD.get(name, "See the site's capabilities.")
    raise HeadwayError("environment.capability_unsupported", f"No site of this platform can do that. {why}")


async def _of_environment(call: CallDep, site_id: str, env_id: str) -> Response:
    await call.read(lambda session: _refuse(call, session, site_id, env_id))
    raise AssertionError("unreachable")


async def _post_environment(call: KeyedDep, site_id: str, env_id: str) -> Response:
    return await _of_environment(call, site_id, env_id)


async def _of_site(call: CallDep, site_id: str) -> Response:
    await call.read(lambda session: _refuse(call, session, site_id, None))
    raise AssertionError("unreachable")


async def _post_site(call: KeyedDep, site_id: str) -> Response:
    return await _of_site(call, site_id)


async def _of_record(call: CallDep, site_id: str, record_id: str) -> Response:  # noqa: ARG001
    return await _of_site(call, site_id)


def _offer(base: str, name: str, method: str, endpoint: object) -> None:
    plain = name.partition("/{")[0] + ("/one" if "{" in name else "")
    router.add_api_route(
        f"{base}/{name}",
        endpoint,  # type: ignore[arg-type]
        methods=[method],
        status_code=409,
        responses={409: {"description": "Always: no site of this platform can do that."}},
        response_model=None,
        name=f"{method.lower()}_{plain.replace('/', '_').replace('-', '_')}",
        summary=f"Not on this platform: {plain}",
    )


for _name, _methods in PER_ENVIRONMENT.items():
    for _method in _methods:
        _offer(E, _name, _method, _post_environment if _method == "POST" else _of_environment)
for _name, _methods in PER_SITE.items():
    for _method in _methods:
        _one = _of_record if "{" in _name else _post_site if _method == "POST" else _of_site
        _offer("/sites/{site_id}", _name, _method, _one)
