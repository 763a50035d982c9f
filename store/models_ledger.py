"""The ledger's tables: appended to, never changed. The database refuses what would change them.

Sizes and indexes count leaves. `hash` and `root` are the 32 bytes of a SHA-256.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import DDL, BigInteger, Column, Integer, LargeBinary, event
from sqlmodel import Field, SQLModel

from store.models import utcnow


class LedgerEntry(SQLModel, table=True):
    """One leaf. `subject` names what it is about, once: `build:<id>`, `release:<id>`, `key:<hint>:<what>`.

    `body` is what the tree hashes; `envelope` the signed statement (DSSE, JSON), whose hash is in the body; `promise`
    the ledger's signature over body, index and `at` (Unix seconds).
    """

    __tablename__ = "ledger_entry"
    index: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    subject: str = Field(unique=True)
    kind: str
    site_id: str | None = Field(default=None, index=True)
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    envelope: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    promise: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    at: int = Field(sa_type=BigInteger)


class LedgerNode(SQLModel, table=True):
    """The root of one complete subtree: `index` counts those of its `level`; leaves are level 0."""

    __tablename__ = "ledger_node"
    level: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    index: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LedgerHead(SQLModel, table=True):
    """A signed checkpoint. The largest is the ledger's head."""

    __tablename__ = "ledger_head"
    size: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    note: str
    created_at: datetime = Field(default_factory=utcnow)


class LedgerDocument(SQLModel, table=True):
    """What the ledger publishes about itself: `trusted_root` and `keyring`, each version once."""

    __tablename__ = "ledger_document"
    name: str = Field(primary_key=True)
    version: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(default_factory=utcnow)


TABLES: Final = (LedgerEntry, LedgerNode, LedgerHead, LedgerDocument)
KEYS: Final = {
    "ledger_entry": (("index",), ("subject",)),
    "ledger_node": (("level", "index"),),
    "ledger_head": (("size",),),
    "ledger_document": (("name", "version"),),
}


def append_only(table: str, dialect: str) -> list[str]:
    """The statements that make a table refuse changes. The migration carries the same."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    return [
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$",
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
    ]


def never_replaced(table: str, keys: Sequence[Sequence[str]]) -> str:
    """SQLite's `INSERT OR REPLACE` deletes what is in its way, and asks no trigger for deletes. The migration carries
    the same. `keys` are the table's unique columns.
    """
    same = [" AND ".join(f'"{column}" = NEW."{column}"' for column in key) for key in (("rowid",), *keys)]
    found = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {one})" for one in same)  # noqa: S608
    return (
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {found}"
        f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )


def listen(table: str, statement: str, dialect: str) -> None:
    """Have the statement run once the table was made."""
    made = DDL(statement).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]
    event.listen(SQLModel.metadata.tables[table], "after_create", made)


for _table, _keys in KEYS.items():
    for _dialect in ("sqlite", "postgresql"):
        for _statement in append_only(_table, _dialect):
            listen(_table, _statement, _dialect)
    listen(_table, never_replaced(_table, _keys), "sqlite")
