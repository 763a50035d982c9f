"""What one-off commands find on their standard input: bytes, in one request or in several, before the command."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlmodel import Session
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.idempotency import Once
from api.inputs import Received
from api.managed.answers import InputRow
from api.managed.call import Call, CallDep, KeyedDep
from api.managed.documents import gives
from api.managed.environments import E, env_to_change
from headway.errors import HeadwayError

router = APIRouter(tags=["environments"])
PIECE: Final = 1 << 20
_BYTES: Final[dict[str, Any]] = {
    "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class _Given(BaseModel):
    """What makes a request the same as another under its Idempotency-Key."""

    sha256: str
    end: bool


End = Annotated[bool, Query(description="Whether the body is the last of it.")]


@router.post(
    E + "/inputs",
    **gives(InputRow, "Give what a command will find on its standard input", status=201),
    openapi_extra=_BYTES,
)
async def create_input(call: KeyedDep, site_id: str, env_id: str, end: End = True) -> Response:
    def look(session: Session) -> tuple[str, bool]:
        environment = env_to_change(call, session, site_id, env_id, "deployments:write")[1]
        return environment.id, call.once(None).is_known(session)

    env, again = await call.write(look)
    input_id = await anyio.to_thread.run_sync(partial(call.parts.inputs.begin, env, again=again))
    try:
        answer = await _first_part(call, env, input_id, end)
    except BaseException:
        call.parts.inputs.forget(env, input_id)  # nobody was told its id
        raise
    if "idempotent-replayed" in answer.headers:
        call.parts.inputs.forget(env, input_id)  # the first one counts
    return answer


async def _first_part(call: Call, env_id: str, input_id: str, end: bool) -> Response:
    received, sha256 = await _take(call, env_id, input_id, 0, end)
    shown = _shown(env_id, input_id, received)

    def keep(session: Session, once: Once) -> tuple[dict[str, Any], dict[str, Any]]:
        once.claim(session)
        return shown, shown

    return await call.create(_Given(sha256=sha256, end=end), keep)


@router.put(E + "/inputs/{input_id}", **gives(InputRow, "Go on with an input"), openapi_extra=_BYTES)
async def continue_input(
    call: CallDep,
    site_id: str,
    env_id: str,
    input_id: str,
    offset: Annotated[int, Query(ge=0, description="Where the body's first byte belongs.")],
    end: End = True,
) -> Response:
    env = await call.write(lambda session: env_to_change(call, session, site_id, env_id, "deployments:write")[1].id)
    return call.one(_shown(env, input_id, (await _take(call, env, input_id, offset, end))[0]))


async def _take(call: Call, env_id: str, input_id: str, offset: int, end: bool) -> tuple[Received, str]:
    """Straight to the disk; also the body's sha256. A body that is cut off leaves what came of it, and no end."""
    inputs, digest = call.parts.inputs, hashlib.sha256()
    announced = call.request.headers.get("content-length", "0")
    with inputs.writer(env_id, input_id, offset, int(announced) if announced.isdigit() else 0) as writer:
        held = bytearray()
        try:
            async for chunk in call.request.stream():
                digest.update(chunk)
                held += chunk
                if len(held) >= PIECE:
                    await anyio.to_thread.run_sync(writer.write, bytes(held))
                    held.clear()
        except ClientDisconnect:
            raise HeadwayError("service.unavailable", "The connection ended before the body did.") from None
        await anyio.to_thread.run_sync(writer.write, bytes(held))
        left = inputs.finish if end else inputs.look
        return await anyio.to_thread.run_sync(left, env_id, input_id), digest.hexdigest()


def _shown(env_id: str, input_id: str, received: Received) -> dict[str, Any]:
    return {"id": input_id, "env_id": env_id, "received": received.size, "whole": received.whole}
