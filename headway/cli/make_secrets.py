"""`headway make-secrets`: the files of an installation whose parts are containers or services of their own."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import click

ROLES = ("control", "builder", "signing", "host")


@click.command("make-secrets")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--database-host", default="postgres:5432", show_default=True, help="HOST:PORT in the database's URL.")
def make_secrets(folder: Path, database_host: str) -> None:
    """Make every secret that docker-compose.yml wants, each in a file of its own; what is there already stays.

    The folder is for you alone (0700). The files in it can be read by everybody who gets into it: containers run under
    uids of their own, and each is given only the files that it needs.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    password = _keep(folder / "postgres_password", secrets.token_hex(24))
    _keep(folder / "temporal_password", secrets.token_hex(24))
    _keep(folder / "database_url", f"postgresql://headway:{password}@{database_host}/headway")
    access = _keep(folder / "s3_access_key", secrets.token_hex(10))
    secret = _keep(folder / "s3_secret_key", secrets.token_hex(20))
    identity = {
        "name": "headway",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    _keep(folder / "s3.json", json.dumps({"identities": [identity]}))
    for role in ROLES:
        _keep(folder / f"broker-{role}.token", secrets.token_urlsafe(32))
    from store.keys import new_secret

    _keep(folder / "admin.key", new_secret("operator"))
    from adapters.config.vault import new_key

    _keep(folder / "config.key", new_key())
    _keep(folder / "webhooks.key", new_key())
    click.echo(f"{folder}: {len(list(folder.iterdir()))} files. Keep a copy where only you can read it.")


def _keep(path: Path, value: str) -> str:
    """The file's value: what is in it, or `value`, written whole or not at all."""
    if path.exists():
        return path.read_text().strip()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(handle, "w") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o444)
    part.replace(path)
    return value
