"""A new configuration key: every hidden value's own key is put under it, in small transactions."""

from __future__ import annotations

from typing import Final, Protocol

from sqlalchemy import text
from sqlmodel import Session, col, select

from store import credentials, sandbox_env
from store.config_values import bound_to
from store.models_configuration import ConfigValue
from store.models_repositories import RepositoryCredential
from store.models_sandbox_env import SandboxEnv
from store.session import Store

BATCH: Final = 50


class Rewraps(Protocol):
    """The vault, as far as it is asked here."""

    def rewrap(self, wrapped_key: bytes, key_id: str, bound_to: str) -> tuple[bytes, str]: ...

    def key_ids(self) -> list[str]: ...


def values_are_hidden(store: Store) -> bool:
    """Whether there is anything that a key is needed for."""
    with store.read() as session:
        query = select(ConfigValue.id).where(col(ConfigValue.wrapped_key).is_not(None)).limit(1)
        others = (query, select(RepositoryCredential.id).limit(1), select(SandboxEnv.sandbox_id).limit(1))
        return any(session.exec(one).first() is not None for one in others)


def rewrap_all(store: Store, vault: Rewraps) -> int:
    """Put every value under the vault's first key; how many were not. The values themselves are not opened.

    Whoever sets a value hides it with the key file as it is then, behind a lock on its row. So once the table was
    locked and nothing was found under another key, nothing will be. Raises config.unreadable.
    """
    done = 0
    while batch := store.in_write(lambda session: _rewrap_some(session, vault)):
        done += batch
    return done


def _rewrap_some(session: Session, vault: Rewraps) -> int:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE config_value, repository_credential, sandbox_env IN EXCLUSIVE MODE"))
    first = vault.key_ids()[0]
    query = select(ConfigValue).where(col(ConfigValue.wrapped_key).is_not(None), ConfigValue.key_id != first)
    rows = session.exec(query.limit(BATCH)).all()
    for row in rows:
        assert row.wrapped_key is not None  # noqa: S101
        assert row.key_id is not None  # noqa: S101
        row.wrapped_key, row.key_id = vault.rewrap(row.wrapped_key, row.key_id, bound_to(row))
        session.add(row)
    others = session.exec(select(RepositoryCredential).where(RepositoryCredential.key_id != first).limit(BATCH)).all()
    for one in others:
        one.wrapped_key, one.key_id = vault.rewrap(one.wrapped_key, one.key_id, credentials.bound_to(one.id))
        session.add(one)
    kept = session.exec(select(SandboxEnv).where(SandboxEnv.key_id != first).limit(BATCH)).all()
    for env in kept:
        env.wrapped_key, env.key_id = vault.rewrap(env.wrapped_key, env.key_id, sandbox_env.bound_to(env.sandbox_id))
        session.add(env)
    return len(rows) + len(others) + len(kept)
