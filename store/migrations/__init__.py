"""Schema changes, forward only: `upgrade` is safe to run at every start, from several processes at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DatabaseError

from headway.errors import HeadwayError
from store.session import open_engine

HERE = Path(__file__).parent


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["url"] = url
    return config


def current(url: str) -> str | None:
    """The revision that a database is at; None for an empty one."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def newest() -> str:
    """The revision that this version of the code wants."""
    head = ScriptDirectory.from_config(_config("sqlite://")).get_current_head()
    assert head is not None  # noqa: S101
    return head


def upgrade(url: str) -> str:
    """Bring a database to `newest()`. Raises internal.error for one that is damaged, or made by a newer version."""
    known = {script.revision for script in ScriptDirectory.from_config(_config(url)).walk_revisions()}
    try:
        at = current(url)
    except DatabaseError as error:
        raise HeadwayError(
            "internal.error", f"The database cannot be read: {str(error.orig).splitlines()[0]}"
        ) from error
    if at is not None and at not in known:
        raise HeadwayError("internal.error", f"The database is at {at}, which a newer version of Headway made.")
    if at != newest():
        command.upgrade(_config(url), "head")
    return newest()
