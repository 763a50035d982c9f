"""Engines and transactions: SQLite under DESIGN's rules, PostgreSQL by URL.

One request or activity is one transaction. `Store.write` begins with `BEGIN IMMEDIATE` on SQLite, so that a writer
waits at the door instead of failing in the middle; nothing but statements belongs inside. The threads of one process
take turns before they come to that door: SQLite's own waiters sleep up to a tenth of a second, in no order.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session

T = TypeVar("T")
BUSY_TIMEOUT_MS = 10_000


class SnapshotSession(Session):
    """A transaction on SQLite sees one state of the database, and nobody writes beside one that writes.

    So what locks a row elsewhere, and reads it anew for that, finds it in memory, where rows are kept until the end.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, expire_on_commit=False)
        self._kept: dict[int, object] = {}

    def get(self, entity: Any, ident: Any, *, with_for_update: Any = None, **options: Any) -> Any:  # noqa: ARG002
        found = super().get(entity, ident, **options)
        if found is not None:
            self._kept[id(found)] = found
        return found

    def refresh(self, instance: object, attribute_names: Any = None, with_for_update: Any = None) -> None:
        if not with_for_update or inspect(instance).expired_attributes:
            super().refresh(instance, attribute_names)


class LockingSession(Session):
    """Where several write at once: a row that is locked is as it is from then on, also one that was read before."""

    def get(self, entity: Any, ident: Any, *, with_for_update: Any = None, **options: Any) -> Any:
        if with_for_update:
            self.flush()  # what was changed already is not to be read over
            options["populate_existing"] = True
        return super().get(entity, ident, with_for_update=with_for_update, **options)

    def exec(self, statement: Any, **options: Any) -> Any:
        if getattr(statement, "_for_update_arg", None) is not None:
            self.flush()
            statement = statement.execution_options(populate_existing=True)
        return super().exec(statement, **options)


def open_engine(url: str, *, pool_size: int = 8) -> Engine:
    """`sqlite:///path` or `postgresql+psycopg://…` (a plain `postgresql://` is taken for psycopg)."""
    if url.startswith("postgresql://"):
        url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=pool_size, max_overflow=16, pool_pre_ping=True)
    engine = create_engine(url, pool_size=pool_size, max_overflow=32, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        write = connection.get_execution_options().get("headway_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


class Store:
    """The database behind one engine. Threads may share it; a session may not be shared."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(headway_write=True)
        self._turn: AbstractContextManager[object] = (
            threading.RLock() if engine.dialect.name == "sqlite" else nullcontext()
        )

    @classmethod
    def open(cls, url: str) -> Store:
        return cls(open_engine(url))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; what it changes is rolled back."""
        with self._session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction: commits at the end, rolls back on any error."""
        with self._turn, self._session(self._writer) as session, session.begin():
            yield session

    def _session(self, engine: Engine) -> Session:
        if engine.dialect.name == "sqlite":
            return SnapshotSession(engine)
        return LockingSession(engine, expire_on_commit=False)

    def in_write(self, work: Callable[[Session], T], *, tries: int = 5) -> T:
        """Run `work` in a write transaction, again when the database says busy, deadlocked or gone.

        `work` may run several times: it holds statements only.
        """
        for attempt in range(tries):
            try:
                with self.write() as session:
                    return work(session)
            except DBAPIError as error:
                if attempt == tries - 1 or not _worth_another(error):
                    raise
                time.sleep((2**attempt) * 0.02 * (1 + random.random()))  # noqa: S311
        raise AssertionError("unreachable")

    def close(self) -> None:
        self.engine.dispose()


def _worth_another(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    if getattr(error.orig, "sqlstate", None) in {"40001", "40P01", "55P03", "57P01"}:
        return True
    return isinstance(error, OperationalError) and "locked" in str(error.orig)
