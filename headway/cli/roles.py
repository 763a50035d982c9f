"""`headway api`, `worker`, `rules`, `migrate`: one process of one role, with settings from the environment."""

from __future__ import annotations

import contextlib

import click


@click.command()
def api() -> None:
    """Run the API on TCP and the broker on its unix socket, until SIGTERM."""
    from api.main import run
    from headway.settings import Settings

    run(Settings())


@click.command()
@click.option("--role", required=True, type=click.Choice(["control", "builder", "signing", "host"]))
@click.option("--host-id", default=None, help="The id of this serving machine (role host).")
def worker(role: str, host_id: str | None) -> None:
    """Run the worker of one role, until SIGTERM."""
    from headway.settings import Settings
    from temporal.worker import run

    settings = Settings()
    if host_id is not None:
        settings = settings.model_copy(update={"host_id": host_id})
    run(role, settings)


@click.command()
def rules() -> None:
    """Run the rules server: it answers the web server about sites with headers or redirects."""
    from adapters.router.rules_server import serve
    from headway.settings import Settings

    settings = Settings()
    serve(settings.path("host", "routes"), settings.path("run", "rules.sock"))


@click.command()
def migrate() -> None:
    """Bring the database (DATABASE_URL, or SQLite in the data folder) to this version's schema."""
    from headway.settings import Settings

    settings = Settings()
    if settings.database.startswith("sqlite:///") and (at := _newest_already(settings.database[10:])):
        click.echo(f"The database is at {at}.")
        return
    from store.migrations import upgrade

    settings.path("db").mkdir(parents=True, exist_ok=True)
    click.echo(f"The database is at {upgrade(settings.database)}.")


def _newest_already(path: str) -> str:
    """The revision of an SQLite database that is at the newest one; else "". Spares most starts a second of imports."""
    import importlib.util
    import re
    import sqlite3
    from pathlib import Path

    spec = importlib.util.find_spec("store")
    if spec is None or not spec.submodule_search_locations or not Path(path).is_file():
        return ""
    folder = Path(spec.submodule_search_locations[0], "migrations", "versions")
    text = "".join(file.read_text() for file in folder.glob("*.py"))
    made = set(re.findall(r"^revision\b.*= ['\"](\w+)['\"]", text, re.M))
    built_on = set(re.findall(r"^down_revision\b.*= ['\"](\w+)['\"]", text, re.M))
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error:
        return ""
    return found[0][0] if made - built_on == {row[0] for row in found} else ""
