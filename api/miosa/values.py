"""Writing variables and secrets, for whoever sets them: a deployment's create, its env routes, a sandbox's create."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sqlmodel import Session

from api.miosa.call import Call
from api.miosa.schemas import DeploymentCreate, Exec, SandboxCreate
from store import config_values
from store.config_values import Owner

B = TypeVar("B", DeploymentCreate, SandboxCreate, Exec)


def without_values(body: B) -> B:
    """What a key's fingerprint is made of: one of the values would be a digest of them, and none is kept."""
    return body.model_copy(update={"env": dict.fromkeys(body.env, "")}) if body.env else body


def set_values(
    call: Call, session: Session, owner: Owner, values: Mapping[str, str], *, secret: bool | None = None
) -> None:
    """A name keeps its kind; a new one is a secret, unless the caller says otherwise or it is empty."""
    known = {row.name: row.secret for row in config_values.effective_values(session, owner) if row.owner_id == owner.id}
    for name, value in values.items():
        kind = known.get(name, value != "" if secret is None else secret)
        config_values.set_value(session, call.parts.vault, owner, name, value, call.caller.actor, secret=kind)
