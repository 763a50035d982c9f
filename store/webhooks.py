"""Webhook endpoints and event subscriptions: made, changed, rotated, ended.

A secret and the callers' own headers are hidden together before they become a row; no digest of them is kept.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import Session, col, select, update

from headway.errors import HeadwayError
from headway.ids import new_id
from store.config_values import Hides, Opens
from store.models import utcnow
from store.models_webhooks import Delivery, EventSubscription, WebhookEndpoint
from store.paging import Page, fetch_page

Json = dict[str, Any]
MAX_ENDPOINTS: Final = 20
MAX_SUBSCRIPTIONS: Final = 100
SECRET: Final = "whsec_"  # noqa: S105 - the prefix, not a secret


@dataclass(frozen=True)
class EndpointRequest:
    """What a caller asked for, checked. `hidden_url` is kept in the place of `url`, which is what may be seen of it."""

    dialect: str
    url: str
    events: list[str]
    retries: int
    name: str | None = None
    description: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    labels: Json | None = None
    hidden_url: str | None = None


def new_secret() -> str:
    return SECRET + secrets.token_urlsafe(32)


def create_endpoint(
    session: Session, vault: Hides, team_id: str, wanted: EndpointRequest, pin: Json | None, actor: Json
) -> tuple[WebhookEndpoint, str]:
    """The endpoint and its secret, which is not shown again. Raises quota.exceeded and config.unreadable."""
    made_already = select(func.count()).select_from(WebhookEndpoint).where(col(WebhookEndpoint.team_id) == team_id)
    if session.execute(made_already).scalar_one() >= MAX_ENDPOINTS:
        raise HeadwayError("quota.exceeded", f"A team has at most {MAX_ENDPOINTS} webhook endpoints.")
    id, secret = new_id("whe" if wanted.hidden_url is None else "ntf"), new_secret()
    # Comes behind a rotation that holds the table, or holds one up: see store.config_keys.
    session.get(WebhookEndpoint, id, with_for_update=True)
    hidden = vault.hide(_document(secret, wanted.headers, wanted.hidden_url), bound_to(id))
    endpoint = WebhookEndpoint(
        id=id,
        team_id=team_id,
        dialect=wanted.dialect,
        url=wanted.url,
        name=wanted.name,
        description=wanted.description,
        events=wanted.events,
        pin=pin,
        labels=wanted.labels,
        header_names=sorted(wanted.headers),
        retries=wanted.retries,
        preview=preview_of(secret),
        ciphertext=hidden.ciphertext,
        wrapped_key=hidden.wrapped_key,
        key_id=hidden.key_id,
        actor=actor,
    )
    session.add(endpoint)
    session.flush()
    return endpoint, secret


def preview_of(secret: str) -> str:
    return f"{SECRET}…{secret[-4:]}"


def bound_to(endpoint_id: str) -> str:
    return f"webhook {endpoint_id}"


def _document(secret: str, headers: dict[str, str], url: str | None = None) -> str:
    return json.dumps({"secret": secret, "headers": headers, **({"url": url} if url is not None else {})})


@dataclass(frozen=True)
class Opened:
    """What signs a delivery, the newest first, the callers' own headers, and where it goes, if that is hidden."""

    secrets: tuple[str, ...]
    headers: dict[str, str]
    url: str = ""


def open_endpoint(vault: Opens, endpoint: WebhookEndpoint, now: datetime) -> Opened:
    """Raises config.unreadable."""
    name = bound_to(endpoint.id)
    found = json.loads(vault.open(endpoint.ciphertext, endpoint.wrapped_key, endpoint.key_id, name))
    secrets = [found["secret"]]
    until = endpoint.previous_until
    if endpoint.previous_ciphertext and endpoint.previous_wrapped_key and endpoint.previous_key_id and until:  # noqa: SIM102
        if until > now:
            before = vault.open(
                endpoint.previous_ciphertext, endpoint.previous_wrapped_key, endpoint.previous_key_id, name
            )
            secrets.append(json.loads(before)["secret"])
    return Opened(tuple(secrets), found["headers"], found.get("url", ""))


class Vault(Hides, Opens, Protocol):
    """Both halves."""


def rotate(session: Session, vault: Vault, endpoint: WebhookEndpoint, until: datetime) -> str:
    """A new secret; the old one signs beside it up to `until`. Raises config.unreadable."""
    secret = new_secret()
    before = open_endpoint(vault, endpoint, utcnow())
    hidden = vault.hide(_document(secret, before.headers), bound_to(endpoint.id))
    endpoint.previous_ciphertext, endpoint.previous_wrapped_key = endpoint.ciphertext, endpoint.wrapped_key
    endpoint.previous_key_id, endpoint.previous_until = endpoint.key_id, until
    endpoint.ciphertext, endpoint.wrapped_key, endpoint.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    endpoint.preview = preview_of(secret)
    session.add(endpoint)
    session.flush()
    return secret


def set_headers(vault: Vault, endpoint: WebhookEndpoint, headers: dict[str, str]) -> None:
    """All of the callers' own headers, under the secret that it has. Raises config.unreadable."""
    secret = open_endpoint(vault, endpoint, utcnow()).secrets[0]
    hidden = vault.hide(_document(secret, headers), bound_to(endpoint.id))
    endpoint.ciphertext, endpoint.wrapped_key, endpoint.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    endpoint.header_names = sorted(headers)


def set_hidden_url(vault: Hides, endpoint: WebhookEndpoint, url: str, shown: str) -> None:
    """Another place for notices. Raises config.unreadable."""
    hidden = vault.hide(_document(new_secret(), {}, url), bound_to(endpoint.id))
    endpoint.ciphertext, endpoint.wrapped_key, endpoint.key_id = hidden.ciphertext, hidden.wrapped_key, hidden.key_id
    endpoint.url = shown


def set_enabled(endpoint: WebhookEndpoint, enabled: bool) -> None:
    """What failed before no longer counts once it is enabled again."""
    if enabled and not endpoint.enabled:
        endpoint.failing_since = endpoint.disabled_at = endpoint.disabled_reason = None
    elif not enabled and endpoint.enabled:
        endpoint.disabled_at, endpoint.disabled_reason = utcnow(), "by request"
    endpoint.enabled = enabled


def endpoint(session: Session, id: str, seen: Sequence[ColumnElement[bool]], *, lock: bool = False) -> WebhookEndpoint:
    """Raises webhook_endpoint.not_found, also for what `seen` excludes."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.id == id, *seen)
    found = session.exec(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise HeadwayError("webhook_endpoint.not_found", f"There is no webhook endpoint {id}.", param="id")
    return found


def list_endpoints(
    session: Session, seen: Sequence[ColumnElement[bool]], page: Page
) -> tuple[Sequence[WebhookEndpoint], bool]:
    query = select(WebhookEndpoint).where(*seen)
    return fetch_page(session, query, page, time=WebhookEndpoint.created_at, id=WebhookEndpoint.id)


def delete_endpoint(session: Session, endpoint: WebhookEndpoint) -> None:
    """With what was sent to it. A run that is about to send finds nothing, and ends."""
    for table in (Delivery, EventSubscription):
        session.execute(delete(table).where(col(table.endpoint_id) == endpoint.id))
    session.delete(endpoint)


# event subscriptions


def create_subscription(session: Session, made: EventSubscription) -> EventSubscription:
    """Raises quota.exceeded."""
    of_team = col(EventSubscription.team_id) == made.team_id
    if session.execute(select(func.count()).select_from(EventSubscription).where(of_team)).scalar_one() >= (
        MAX_SUBSCRIPTIONS
    ):
        raise HeadwayError("quota.exceeded", f"There are at most {MAX_SUBSCRIPTIONS} event subscriptions.")
    session.add(made)
    session.flush()
    return made


def delete_subscription(session: Session, subscription: EventSubscription) -> None:
    """What was sent for it stays in its webhook's history."""
    session.execute(
        update(Delivery).where(col(Delivery.subscription_id) == subscription.id).values(subscription_id=None)
    )
    session.delete(subscription)
