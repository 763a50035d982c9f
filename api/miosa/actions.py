"""What a client may ask before it acts: a catalogue of actions, and whether this key may do one.

A courtesy to clients that ask first, such as the vendor's MCP server: the answer is made of the key's scopes, and the
routes ask for these again.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from api.miosa.answers import AnyRow
from api.miosa.call import CallDep, KeyedDep
from api.miosa.document import gives, lists
from api.miosa.schemas import Body, Text
from headway.errors import HeadwayError

router = APIRouter(prefix="/actions", tags=["actions"])
Json = dict[str, Any]
ACTIONS: Final = {
    "deployments:read": ("get", "list", "logs", "env.list", "version.list"),
    "deployments:write": ("create", "delete", "publish", "rollback", "env.set", "version.promote"),
    "sandboxes:read": ("get", "list", "list.files", "read.file", "template.list"),
    "sandboxes:write": ("create", "destroy", "exec", "upload", "write.file", "resume"),
}
SCOPES: Final = {
    f"{scope.partition('s:')[0].replace('sandboxe', 'sandbox')}.{action}": scope
    for scope, actions in ACTIONS.items()
    for action in actions
} | {
    "sandbox.deploy": "deployments:write",
    "project.list": "sites:read",
    "project.get": "sites:read",
    "project.environment.list": "sites:read",
    "project.create": "sites:write",
    "workspace.list": "sites:read",
    "workspace.get": "sites:read",
    "workspace.create": "sites:write",
    "workspace.update": "sites:write",
    "api.key.list": "keys:write",
    "api.key.create": "keys:write",
    "api.key.delete": "keys:write",
}


class Capability(Body):
    name: Text
    fingerprint: Text | None = None


class Authorize(Body):
    capability: Capability
    surface: Annotated[str, Field(max_length=60)] | None = None


def fingerprint(name: str) -> str:
    """It changes with what the action asks for."""
    return "sha256:" + hashlib.sha256(f"{name} {SCOPES[name]}".encode()).hexdigest()


@router.get("/catalog", **lists(AnyRow, "The actions that a client may ask about, and the scope of each"))
async def list_actions(call: CallDep) -> Response:
    return call.whole(
        [{"name": name, "fingerprint": fingerprint(name), "scope": SCOPES[name]} for name in sorted(SCOPES)]
    )


@router.post("/authorize", **gives(AnyRow, "Whether this key may do something; the routes ask again"))
async def authorize_action(call: KeyedDep, body: Authorize) -> Response:
    name = body.capability.name
    if name not in SCOPES:
        raise HeadwayError("request.unsupported", "This platform has no such action.", param="capability")
    if body.capability.fingerprint not in (None, fingerprint(name)):
        raise HeadwayError("request.invalid_parameter", "Read the catalogue again: it has changed.", param="capability")
    call.caller.require(SCOPES[name])
    return call.one({"decision": "allow", "capability": name, "scope": SCOPES[name]})
