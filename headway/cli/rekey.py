"""`headway secrets rekey`: on the machine that holds the keys, beside a running API or without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headway.cli.output import say
from headway.cli.up import DEFAULT_FOLDER
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from store.config_keys import Kept
    from store.session import Store


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=DEFAULT_FOLDER)
@click.option("--only", type=click.Choice(["config", "webhooks"]), help="One of the two keys; both if left out.")
@click.option("--forget-old", is_flag=True, help="Take the old keys out of the file: older backups become unreadable.")
def rekey(data_dir: Path, only: str | None, forget_old: bool) -> None:
    """Make new keys for what lies hidden in the database, and put it under them.

    The configuration key hides variables, secrets and what repositories are read with, the key of webhooks what
    webhooks, hooks and forges need. On the machine of the API, which may go on running. Where several machines have
    the files, give them to all of them before the next change of a value.
    """
    from headway.settings import Settings
    from store.config_keys import HIDDEN, WEBHOOKS
    from store.session import Store

    settings = Settings(data_dir=data_dir.expanduser().absolute())
    keys = {"config": (settings.config_keys, HIDDEN), "webhooks": (settings.webhook_keys, WEBHOOKS)}
    chosen = {name: found for name, found in keys.items() if only in (None, name)}
    _check([path for path, _ in chosen.values()], settings.database)
    store = Store.open(settings.database)
    try:
        for name, (path, tables) in chosen.items():
            _rekey(store, name, path, tables, forget_old=forget_old)
    finally:
        store.close()
    if forget_old:
        say("The old keys are gone.")
    else:
        say("The old keys stay in the files, for older backups of the database; --forget-old takes them out.")


def _rekey(store: Store, name: str, path: Path, tables: tuple[Kept, ...], *, forget_old: bool) -> None:
    from adapters.config.vault import Vault, add_key, forget_keys
    from store.config_keys import rewrap_all

    fresh, vault = add_key(path), Vault(path)
    done = rewrap_all(store, vault, tables)
    say(f"{done} {'values' if name == 'config' else 'secrets of webhooks'} are under the new key {fresh}.")
    if forget_old:
        forget_keys(path, set(vault.key_ids()) - {fresh})


def _check(keys: list[Path], database: str) -> None:
    """Before anything is changed. Raises stack.folder_invalid."""
    file = Path(database.removeprefix("sqlite:///")) if database.startswith("sqlite:///") else None
    for wanted in (*keys, file):
        if wanted is not None and not wanted.is_file():
            message = f"There is no {wanted}: name the data folder with --data-dir, or the key with the settings."
            raise HeadwayError("stack.folder_invalid", message)
