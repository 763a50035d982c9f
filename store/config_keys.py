"""A new key for what lies hidden: every value's own key is put under it, in small transactions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import text
from sqlmodel import Session, col, select

from store import credentials, forge_links, forges, sandbox_env, webhooks
from store.config_values import bound_to
from store.models_configuration import ConfigValue
from store.models_reports import ForgeLink
from store.models_repositories import RepositoryCredential
from store.models_sandbox_env import SandboxEnv
from store.models_webhooks import ForgeHook, WebhookEndpoint
from store.session import Store

BATCH: Final = 50


class Kept(NamedTuple):
    """Where hidden values lie: what a row's is bound to, and its columns of the wrapped key and of that one's id."""

    table: type[Any]
    bound_to: Callable[[Any], str]
    wrapped_key: str = "wrapped_key"
    key_id: str = "key_id"


# Each table that the configuration key is needed for.
HIDDEN: Final = (
    Kept(ConfigValue, bound_to),
    Kept(RepositoryCredential, lambda row: credentials.bound_to(row.id)),
    Kept(SandboxEnv, lambda row: sandbox_env.bound_to(row.sandbox_id)),
)
# And each that the key of webhooks is needed for.
WEBHOOKS: Final = (
    Kept(WebhookEndpoint, lambda row: webhooks.bound_to(row.id)),
    Kept(WebhookEndpoint, lambda row: webhooks.bound_to(row.id), "previous_wrapped_key", "previous_key_id"),
    Kept(ForgeHook, lambda row: forges.bound_to(row.id)),
    Kept(ForgeLink, lambda row: forge_links.bound_to(row.id)),
)


class Rewraps(Protocol):
    """The vault, as far as it is asked here."""

    def rewrap(self, wrapped_key: bytes, key_id: str, bound_to: str) -> tuple[bytes, str]: ...

    def key_ids(self) -> list[str]: ...


def values_are_hidden(store: Store, tables: tuple[Kept, ...] = HIDDEN) -> bool:
    """Whether there is anything that a key is needed for."""
    with store.read() as session:
        kept = (select(one.table.key_id).where(col(one.table.wrapped_key).is_not(None)).limit(1) for one in tables)
        return any(session.exec(one).first() is not None for one in kept)


def rewrap_all(store: Store, vault: Rewraps, tables: tuple[Kept, ...] = HIDDEN) -> int:
    """Put every value under the vault's first key; how many were not. The values themselves are not opened.

    Whoever sets a value hides it with the key file as it is then, behind a lock in its table. So once the table was
    locked and nothing was found under another key, nothing will be. Raises config.unreadable.
    """
    done = 0
    for kept in tables:
        some = partial(_rewrap, vault=vault, kept=kept)
        while batch := store.in_write(some):
            done += batch
    return done


def _rewrap(session: Session, vault: Rewraps, kept: Kept) -> int:
    table = kept.table
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"LOCK TABLE {table.__tablename__} IN EXCLUSIVE MODE"))
    first = vault.key_ids()[0]
    wrapped, key_id = getattr(table, kept.wrapped_key), getattr(table, kept.key_id)
    rows = session.exec(select(table).where(wrapped.is_not(None), key_id != first).limit(BATCH)).all()
    for row in rows:
        found = vault.rewrap(getattr(row, kept.wrapped_key), getattr(row, kept.key_id), kept.bound_to(row))
        for name, value in zip((kept.wrapped_key, kept.key_id), found, strict=True):
            setattr(row, name, value)
        session.add(row)
    return len(rows)
