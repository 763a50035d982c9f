"""`headway secrets rekey`: on the machine that holds the configuration key, beside a running API or without one."""

from __future__ import annotations

from pathlib import Path

import click

from headway.cli.output import say
from headway.cli.up import DEFAULT_FOLDER
from headway.errors import HeadwayError


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=DEFAULT_FOLDER)
@click.option("--forget-old", is_flag=True, help="Take the old keys out of the file: older backups become unreadable.")
def rekey(data_dir: Path, forget_old: bool) -> None:
    """Make a new configuration key, and put every variable and secret under it.

    On the machine of the API, which may go on running. Where several API machines have the file, give it to all of
    them before the next change of a value.
    """
    from adapters.config.vault import Vault, add_key, forget_keys
    from headway.settings import Settings
    from store.config_keys import rewrap_all
    from store.session import Store

    settings = Settings(data_dir=data_dir.expanduser().absolute())
    path = settings.config_keys
    _check(path, settings.database)
    fresh = add_key(path)
    vault, store = Vault(path), Store.open(settings.database)
    try:
        done = rewrap_all(store, vault)
    finally:
        store.close()
    say(f"{done} values are under the new key {fresh}.")
    if forget_old:
        forget_keys(path, set(vault.key_ids()) - {fresh})
        say("The old keys are gone.")
    else:
        say("The old keys stay in the file, for older backups of the database; --forget-old takes them out.")


def _check(path: Path, database: str) -> None:
    """Before anything is changed. Raises stack.folder_invalid."""
    file = Path(database.removeprefix("sqlite:///")) if database.startswith("sqlite:///") else None
    for wanted in (path, file):
        if wanted is not None and not wanted.is_file():
            message = f"There is no {wanted}: name the data folder with --data-dir, or the key with the settings."
            raise HeadwayError("stack.folder_invalid", message)
