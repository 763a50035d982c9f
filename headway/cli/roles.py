"""`headway api`, `worker`, `rules`, `migrate`: one process of one role, with settings from the environment."""

from __future__ import annotations

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
    from store.migrations import upgrade

    settings = Settings()
    if not settings.database_url:
        settings.path("db").mkdir(parents=True, exist_ok=True)
    click.echo(f"The database is at {upgrade(settings.database)}.")
