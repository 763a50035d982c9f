"""Builders on other machines: the site's own repository as one file, streamed to the build that fetches from it."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from adapters.githost.repositories import Repositories
from api.gate import read_body
from api.internal.door import parsed, refuse
from api.internal.doorkeeper import Doorkeeper, Shown
from api.internal.leases import Leases
from api.parts import Parts
from headway.broker import WantedRepository
from headway.errors import HeadwayError
from store.broker import require_attempt
from store.models import Site

MAX_BODY = 1 << 10


def bundle_route(parts: Parts, doorkeeper: Doorkeeper) -> Route:
    """No question like the others: its answer is a git bundle."""
    leases = Leases(parts.store)

    def work(shown: Shown, build_id: str, raw: bytes) -> Iterator[bytes]:
        asker = doorkeeper.admit(shown, "builder")
        wanted = parsed(WantedRepository, raw)
        leases.check(build_id, asker.holder())
        with parts.store.read() as session:
            site = session.get_one(Site, require_attempt(session, build_id, wanted.attempt).site_id)
        return bundle_of(parts, site)

    async def answer(request: Request) -> Response:
        try:
            raw = await read_body(dict(request.scope["headers"]), request.receive, MAX_BODY)
            shown, build_id = Shown.of(request.headers), str(request.path_params["id"])
            return StreamingResponse(await anyio.to_thread.run_sync(work, shown, build_id, raw))
        except Exception as error:
            return refuse(request, error)

    return Route("/builds/{id}/repository", answer, methods=["POST"])


def bundle_of(parts: Parts, site: Site) -> Iterator[bytes]:
    """Raises repository.missing for a site whose repository is elsewhere, repository.empty."""
    if site.repository is not None or parts.git is None:
        raise HeadwayError("repository.missing", "The site has no repository of its own.")
    repositories: Repositories = parts.git.backend.repositories
    return repositories.bundle(site.id)
