"""Hosts wait here for what they will be asked to place: the only question whose answer is awaited."""

from __future__ import annotations

from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.ahead import Board
from api.internal.door import refuse
from api.internal.doorkeeper import Doorkeeper, Shown
from api.problems import JSON_TYPE

# Shorter than what a broker's client waits for a byte.
SECONDS: Final = 20.0


def coming_route(board: Board, doorkeeper: Doorkeeper) -> Route:
    async def answer(request: Request) -> Response:
        host_id = str(request.path_params["id"])

        def admit() -> None:
            doorkeeper.admit(Shown.of(request.headers), "host").must_be(host_id)

        try:
            await anyio.to_thread.run_sync(admit)
            coming = await board.wait(host_id, SECONDS)
            if coming.parcels:  # its credential may have ended while it waited
                await anyio.to_thread.run_sync(admit)
        except Exception as error:
            return refuse(request, error)
        return Response(coming.model_dump_json(), media_type=JSON_TYPE)

    return Route("/hosts/{id}/coming", answer, methods=["GET"])
