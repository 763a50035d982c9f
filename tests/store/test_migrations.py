"""The schema that the migrations make is the schema that the models want, on both databases."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

import store.models
import store.models_ledger  # noqa: F401
from headway.errors import HeadwayError
from store.migrations import current, newest, upgrade
from store.session import open_engine


def test_an_empty_database_is_brought_to_the_newest_schema(empty_url: str) -> None:
    assert current(empty_url) is None
    assert upgrade(empty_url) == newest() == current(empty_url)
    engine = open_engine(empty_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


def test_upgrades_at_once_agree(empty_url: str) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert set(pool.map(upgrade, [empty_url] * 4)) == {newest()}


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/newer.db"
    upgrade(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(HeadwayError, match="newer version"):
        upgrade(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database, but longer than a header" * 100)
    with pytest.raises(HeadwayError, match="cannot be read"):
        upgrade(f"sqlite:///{tmp_path}/broken.db")
