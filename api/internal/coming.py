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
        try:
            host_id = str(request.path_params["id"])
            asker = await anyio.to_thread.run_sync(doorkeeper.admit, Shown.of(request.headers), "host")
            asker.must_be(host_id)
            coming = await board.wait(host_id, SECONDS)
        except Exception as error:
            return refuse(request, error)
        return Response(coming.model_dump_json(), media_type=JSON_TYPE)

    return Route("/hosts/{id}/coming", answer, methods=["GET"])
