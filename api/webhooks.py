"""Webhook endpoints of either dialect: who may see one, what a new one is pinned to, and what is checked of it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, or_
from sqlmodel import Session, col, select

from api.auth import Caller
from api.conversation import Conversation
from headway.errors import HeadwayError
from store.models import Environment, Site
from store.models_webhooks import WebhookEndpoint
from store.webhooks import endpoint

Json = dict[str, Any]
READ: Final = "webhooks:read"
WRITE: Final = "webhooks:write"


def seen(caller: Caller, dialect: str, team_id: str | None = None) -> list[ColumnElement[bool]]:
    """The team's endpoints of a dialect; of a pinned key, and of a member who is limited to some projects, only those
    that are pinned to no more. `team_id` None: every team's, for the operator."""
    found: list[ColumnElement[bool]] = [col(WebhookEndpoint.dialect) == dialect]
    if team_id is not None:
        found.append(col(WebhookEndpoint.team_id) == team_id)
    pinned = col(WebhookEndpoint.pin)["id"].as_string()
    if caller.resource is not None and caller.resource["type"] != "team":
        found.append(pinned == caller.resource["id"])
    elif caller.sight.project_ids is not None:
        within = select(Site.id).where(*caller.sight.sites())
        below = select(Environment.id).where(col(Environment.site_id).in_(within))
        found.append(or_(pinned.in_(sorted(caller.sight.project_ids)), pinned.in_(within), pinned.in_(below)))
    return found


def pin_of(caller: Caller, asked: Json | None) -> Json | None:
    """What events a new endpoint hears of: no more than its maker may see. Raises key.escalation."""
    own = caller.resource if caller.resource is not None and caller.resource["type"] != "team" else None
    if own is not None and asked is not None and asked != own:
        raise HeadwayError("key.escalation", "This key is pinned to something else.", param="resource")
    pin = own or asked
    if caller.sight.project_ids is not None and (pin is None or pin["type"] == "team"):
        raise HeadwayError(
            "key.escalation", "This key is limited to some projects: pin the endpoint to one.", param="resource"
        )
    return pin


def to_read(
    call: Conversation, session: Session, id: str, dialect: str, team_id: str | None, scope: str = READ
) -> WebhookEndpoint:
    """404 before 403."""
    found = endpoint(session, id, seen(call.caller, dialect, team_id))
    call.caller.require(scope)
    return found


def to_change(call: Conversation, session: Session, id: str, dialect: str, team_id: str | None) -> WebhookEndpoint:
    found = endpoint(session, id, seen(call.caller, dialect, team_id), lock=True)
    call.caller.require(WRITE)
    return found
