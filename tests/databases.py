"""Databases of a test's own: files of SQLite, and those on the PostgreSQL server that DATABASE_URL names.

To migrate one takes a second, to copy one next to nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from store.migrations import upgrade

RUN = f"hwt{uuid.uuid4().hex[:10]}"
NUMBERS = itertools.count(1)


def server() -> str:
    """Its address; skips the test where there is none."""
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith("postgresql"):
        pytest.skip("DATABASE_URL names no PostgreSQL server")
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@contextmanager
def empty() -> Iterator[str]:
    """The address of a new database without a table."""
    with _made("template0") as url:
        yield url


@contextmanager
def migrated() -> Iterator[str]:
    """The address of a new database at the newest migration."""
    with _made(_template(server())) as url:
        yield url


def migrated_file(path: Path) -> str:
    """The address of a new file of SQLite at the newest migration."""
    path.write_bytes(_file())
    return f"sqlite:///{path}"


@functools.cache
def _file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "headway.db")
        upgrade(f"sqlite:///{path}")
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


@contextmanager
def _made(template: str) -> Iterator[str]:
    base, name = server(), f"{RUN}_{next(NUMBERS)}"
    admin = create_engine(base, isolation_level="AUTOCOMMIT")
    _run(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _at(base, name)
    finally:
        _run(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


@functools.cache
def _template(base: str) -> str:
    """The name of a database that nobody is connected to, made once a process."""
    name = f"{RUN}_template"
    admin = create_engine(base, isolation_level="AUTOCOMMIT")
    _run(admin, f"CREATE DATABASE {name} TEMPLATE template0")
    upgrade(_at(base, name))
    admin.dispose()
    return name


def drop_template() -> None:
    """At the end of a process's tests, if one was made."""
    if _template.cache_info().currsize:
        admin = create_engine(server(), isolation_level="AUTOCOMMIT")
        _run(admin, f"DROP DATABASE IF EXISTS {RUN}_template WITH (FORCE)")
        admin.dispose()


def _at(base: str, name: str) -> str:
    return make_url(base).set(database=name).render_as_string(hide_password=False)


def _run(admin: Engine, statement: str) -> None:
    with admin.connect() as connection:
        connection.execute(text(statement))
