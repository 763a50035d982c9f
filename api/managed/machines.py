"""What serving and building machines have in common: they are the operator's alone, and each is let in by a credential
that is shown once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlmodel import Session
from starlette.responses import Response

from api.idempotency import Once
from api.managed.call import Call
from headway.errors import HeadwayError

T = TypeVar("T")
Json = dict[str, Any]


def operator_only(call: Call, noun: str = "", machine_id: str = "") -> None:
    """A machine is nobody else's to see: 404 before 403. Raises `<noun>.not_found` or role.insufficient."""
    if not call.caller.operator:
        if machine_id:
            raise HeadwayError(f"{noun}.not_found", f"There is no {noun} {machine_id}.", param=f"{noun}_id")
        raise HeadwayError("role.insufficient", "Only the operator may do that.", param="scope")


async def let_in(
    call: Call,
    body: BaseModel | None,
    work: Callable[[Session], tuple[T, str]],
    show: Callable[[Session, T], Json],
    *,
    new: bool = False,
) -> Response:
    """`work` gives a machine, a `new` one or one that is known, and its credential. A replay shows all but that."""

    def admit(session: Session, once: Once) -> tuple[Json, Json]:
        once.claim(session)
        machine, credential = work(session)
        kept = {**show(session, machine), "broker_root": call.parts.broker_root}
        return {**kept, "credential": credential}, {**kept, "credential": ""}

    return await call.create(body, admit, status=201 if new else 200, located=new)
