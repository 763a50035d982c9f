"""Variables that a sandbox was made with."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class SandboxEnv(SQLModel, table=True):
    """All of a sandbox's variables as one value, hidden by the vault of configuration; gone with the sandbox."""

    __tablename__ = "sandbox_env"
    sandbox_id: str = Field(primary_key=True, foreign_key="sandbox.id")
    ciphertext: bytes
    wrapped_key: bytes
    key_id: str
