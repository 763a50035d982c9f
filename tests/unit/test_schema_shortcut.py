"""The look that spares a start the imports of a migration: it must never call an old or strange database new."""

import sqlite3
from contextlib import closing

import pytest

from headway.cli.roles import _newest_already
from store.migrations import newest, upgrade


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "headway.db"
    upgrade(f"sqlite:///{path}")
    return path


def change(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_a_database_at_the_newest_revision_is_known(database):
    assert _newest_already(str(database)) == newest()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE alembic_version SET version_num = ''",
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('another')",
        "DROP TABLE alembic_version",
    ],
)
def test_any_other_database_is_left_to_the_migration(database, statement):
    change(database, statement)
    assert _newest_already(str(database)) == ""


def test_no_database_is_left_to_the_migration(tmp_path):
    assert _newest_already(str(tmp_path / "missing.db")) == ""
    (tmp_path / "empty.db").touch()
    assert _newest_already(str(tmp_path / "empty.db")) == ""
    (tmp_path / "garbage.db").write_text("garbage" * 1000)
    assert _newest_already(str(tmp_path / "garbage.db")) == ""
