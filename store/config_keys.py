"""A new configuration key: every hidden value's own key is put under it, in small transactions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from sqlalchemy import text
from sqlmodel import Session, col, select

from store import credentials, sandbox_env
from store.config_values import bound_to
from store.models_configuration import ConfigValue
from store.models_repositories import RepositoryCredential
from store.models_sandbox_env import SandboxEnv
from store.session import Store

BATCH: Final = 50
# Each table that the configuration key is needed for, with what a row's value is bound to.
HIDDEN: Final[tuple[tuple[type[Any], Callable[[Any], str]], ...]] = (
    (ConfigValue, bound_to),
    (RepositoryCredential, lambda row: credentials.bound_to(row.id)),
    (SandboxEnv, lambda row: sandbox_env.bound_to(row.sandbox_id)),
)


class Rewraps(Protocol):
    """The vault, as far as it is asked here."""

    def rewrap(self, wrapped_key: bytes, key_id: str, bound_to: str) -> tuple[bytes, str]: ...

    def key_ids(self) -> list[str]: ...


def values_are_hidden(store: Store) -> bool:
    """Whether there is anything that a key is needed for."""
    with store.read() as session:
        kept = (select(table.key_id).where(col(table.wrapped_key).is_not(None)).limit(1) for table, _ in HIDDEN)
        return any(session.exec(one).first() is not None for one in kept)


def rewrap_all(store: Store, vault: Rewraps) -> int:
    """Put every value under the vault's first key; how many were not. The values themselves are not opened.

    Whoever sets a value hides it with the key file as it is then, behind a lock in its table. So once the table was
    locked and nothing was found under another key, nothing will be. Raises config.unreadable.
    """
    done = 0
    for table, name_of in HIDDEN:
        some = partial(_rewrap, vault=vault, table=table, name_of=name_of)
        while batch := store.in_write(some):
            done += batch
    return done


def _rewrap(session: Session, vault: Rewraps, table: type[Any], name_of: Callable[[Any], str]) -> int:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"LOCK TABLE {table.__tablename__} IN EXCLUSIVE MODE"))
    first = vault.key_ids()[0]
    query = select(table).where(col(table.wrapped_key).is_not(None), table.key_id != first)
    rows = session.exec(query.limit(BATCH)).all()
    for row in rows:
        row.wrapped_key, row.key_id = vault.rewrap(row.wrapped_key, row.key_id, name_of(row))
        session.add(row)
    return len(rows)
