"""Variables of a sandbox: given when it is made, in the environment of each of its commands."""

from __future__ import annotations

import json

from sqlalchemy import delete
from sqlmodel import Session, col

from store.config_values import Hides, Opens
from store.models_sandbox_env import SandboxEnv


def bound_to(sandbox_id: str) -> str:
    return f"sandbox_env:{sandbox_id}"


def keep_env(session: Session, vault: Hides, sandbox_id: str, env: dict[str, str]) -> None:
    """Of a new sandbox; nothing is kept of an empty one."""
    if env:
        # Comes behind a rotation that holds the table, or holds one up: see store.config_keys.
        session.get(SandboxEnv, sandbox_id, with_for_update=True)
        hidden = vault.hide(json.dumps(env), bound_to(sandbox_id))
        session.add(
            SandboxEnv(
                sandbox_id=sandbox_id,
                ciphertext=hidden.ciphertext,
                wrapped_key=hidden.wrapped_key,
                key_id=hidden.key_id,
            )
        )


def env_of(session: Session, vault: Opens, sandbox_id: str) -> dict[str, str]:
    """Raises config.unreadable: its key is gone."""
    row = session.get(SandboxEnv, sandbox_id)
    if row is None:
        return {}
    env: dict[str, str] = json.loads(vault.open(row.ciphertext, row.wrapped_key, row.key_id, bound_to(sandbox_id)))
    return env


def forget_env(session: Session, sandbox_id: str) -> None:
    session.execute(delete(SandboxEnv).where(col(SandboxEnv.sandbox_id) == sandbox_id))
