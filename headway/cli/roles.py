"""`headway api`, `worker`, `rules`, `migrate`, `web-config`: one process of one role, set up by its environment."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import click

from headway.errors import HeadwayError


@click.command()
def api() -> None:
    """Run the API on TCP and the broker on its unix socket, until SIGTERM."""
    # Of some hundred modules nothing is garbage: to look for it takes a tenth of a second.
    gc.disable()
    from api.main import run
    from headway.settings import Settings

    gc.enable()
    run(Settings())


@click.command()
@click.option("--role", required=True, type=click.Choice(["control", "builder", "signing", "host"]))
@click.option("--host-id", "--host", default=None, help="The id of this serving machine (role host).")
def worker(role: str, host_id: str | None) -> None:
    """Run the worker of one role, until SIGTERM."""
    from headway.settings import Settings
    from temporal.worker import run

    settings = Settings()
    if host_id is not None:
        settings = settings.model_copy(update={"host_id": host_id})
    run(role, settings)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), default=None, help="Where to answer; DATA/run/rules.sock.")
def rules(socket: Path | None) -> None:
    """Run the rules server: it answers the web server about sites with headers or redirects."""
    from adapters.router.rules_server import serve
    from headway.settings import Settings

    settings = Settings()
    at = socket or settings.path("run", "rules.sock")
    try:
        at.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        serve(settings.path("host", "routes"), at)
    except OSError as error:
        raise HeadwayError("stack.folder_invalid", f"Nothing can be answered at {at}: {error.strerror}.") from None


# Without certificates of its own Caddy keeps nothing.
CADDY_STATE = Path("/tmp/caddy")  # noqa: S108


@click.command("web-config")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="ADDRESS:PORT of the sites.")
@click.option("--tls-listen", default=None, help="ADDRESS:PORT of the sites by TLS, with certificates on demand.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=CADDY_STATE,
    help="Where certificates and the access log are kept.",
)
@click.option("--api", default=None, help="NAME:PORT of the API; every address of the name is a replica.")
@click.option("--api-listen", default="127.0.0.1:8081", show_default=True, help="ADDRESS:PORT where the API is served.")
def web_config(
    output: Path, listen: str, tls_listen: str | None, state: Path, api: str | None, api_listen: str
) -> None:
    """Write the configuration that `caddy run --config FILE` serves the sites of this data folder with.

    It is the same for any number of sites; a new version of Headway may bring a new one. With --api the same Caddy
    spreads the API's requests over its replicas. With DATA/caddy for --state requests are counted (HEADWAY_ACCESS_LOG).
    """
    import json

    from adapters.router.caddy import Tls, render
    from adapters.router.front import with_api
    from headway.settings import Settings

    settings = Settings()
    run, tls = settings.path("run"), None
    # The host worker of this data folder looks for the log there, and nowhere else.
    counted = state.absolute() == settings.path("caddy").absolute()
    if tls_listen is not None:
        tls = Tls(tls_listen, settings.ask_url, settings.acme_directory, settings.acme_email, settings.acme_root)
    config = render(
        routes=settings.path("host", "routes"),
        listen=listen,
        rules_socket=run / "rules.sock",
        plain_socket=run / "plain.sock",
        state=state,
        logged=settings.access_log if counted else "off",
        tls=tls,
    )
    if api is not None:
        config = with_api(config, listen=api_listen, upstream=api)
    # A new machine: the web server is started in the one and opens a socket in the other, before any worker has run.
    for folder in (settings.path("host", "routes"), run, *([state] if counted else [])):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(config, indent=1))
        part.replace(output)
    except OSError as error:
        raise HeadwayError("stack.folder_invalid", f"{output} cannot be written: {error.strerror}.") from None


@click.command()
def migrate() -> None:
    """Bring the database (DATABASE_URL, or SQLite in the data folder) to this version's schema."""
    from headway.settings import Settings

    settings = Settings()
    if settings.database.startswith("sqlite:///") and (at := _newest_already(settings.database[10:])):
        click.echo(f"The database is at {at}.")
        return
    from store.migrations import upgrade

    if not settings.database_url:
        settings.path("db").mkdir(parents=True, exist_ok=True)
    click.echo(f"The database is at {upgrade(settings.database)}.")


def _newest_already(path: str) -> str:
    """The revision of an SQLite database that is at the newest one; else "". Spares most starts a second of imports."""
    import importlib.util
    import re
    import sqlite3

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
