"""Every store test runs on SQLite and, where DATABASE_URL names one, on PostgreSQL (in a database of its own)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.session import Store
from tests import databases


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(engine: str, tmp_path: Path) -> Iterator[str]:
    """The address of a database without a table."""
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path}/headway.db"
        return
    with databases.empty() as address:
        yield address


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    """The address of a database at the newest migration."""
    if engine == "sqlite":
        yield databases.migrated_file(tmp_path / "headway.db")
        return
    with databases.migrated() as address:
        yield address


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url)
    yield opened
    opened.close()
