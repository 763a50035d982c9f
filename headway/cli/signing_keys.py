"""`headway signing-keys`: on the signing worker's machine. It changes files; the worker publishes what they say."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headway.cli.output import print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from adapters.signer.folder import Kept, KeyFolder

F = Callable[..., Any]


def _options(command: F) -> F:
    command = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(command)
    return click.option(
        "--data-dir", type=click.Path(path_type=Path), envvar="HEADWAY_DATA_DIR", default=None, help="The data folder."
    )(command)


@click.group("signing-keys")
def signing_keys() -> None:
    """The keys that sign artifacts: list, rotate, revoke. Encrypted ones need HEADWAY_SIGNING_PASSWORD."""


@signing_keys.command("list")
@_options
def list_keys(data_dir: Path | None, as_json: bool) -> None:
    """List the keys, the oldest first."""
    found = _folder(data_dir).kept()
    if as_json:
        return print_json([_shown(one) for one in found])
    return print_table(
        ("name", "state", "hint", "not before", "not after", "void from"),
        [
            (
                one.name,
                one.record.state,
                one.record.hint,
                one.record.not_before,
                one.record.not_after,
                one.record.revoked_from,
            )
            for one in found
        ],
    )


@signing_keys.command()
@click.option("--take", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A key file of yours.")
@click.option("--kms", metavar="URI", help="A key that stays in its service: awskms:…, vault:…, gcpkms:…, azurekms:…")
@_options
def rotate(data_dir: Path | None, take: Path | None, kms: str | None, as_json: bool) -> None:
    """Retire the current key and begin with a new one. What was signed stays deployable."""
    if take is not None and kms is not None:
        raise click.UsageError("Give one of --take and --kms.")
    made = _folder(data_dir).rotate(datetime.now(UTC), take=take.read_bytes() if take else None, remote=kms)
    print_json(_shown(made)) if as_json else print_fields(_shown(made))
    say("The signing worker publishes it within a second; hosts hear of it with their next rollout.")


@signing_keys.command()
@click.argument("key", metavar="HINT|NAME")
@click.option("--since", type=click.DateTime(), help="Only what the ledger took in from then on (UTC); else all.")
@click.option("--reason", help="Kept in the keyring and in the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_options
def revoke(
    data_dir: Path | None, key: str, since: datetime | None, reason: str | None, yes: bool, as_json: bool
) -> None:
    """End a key: what it signed can no longer be rolled. What serves already goes on serving."""
    if not yes:
        click.confirm(f"Revoke {key}? Artifacts that it signed have to be built again.", abort=True, err=True)
    at = since.replace(tzinfo=UTC) if since else None
    done = _folder(data_dir).revoke(key, datetime.now(UTC), since=at, reason=reason)
    print_json(_shown(done)) if as_json else print_fields(_shown(done))


def _folder(data_dir: Path | None) -> KeyFolder:
    from adapters.signer.folder import KeyFolder
    from headway.errors import HeadwayError
    from headway.settings import Settings

    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    keys = settings.path("keys")
    if not os.access(keys, os.W_OK):
        raise HeadwayError("request.invalid_parameter", f"{keys} is no folder of keys here: name one with --data-dir.")
    return KeyFolder(keys, settings.signing_password.get_secret_value().encode() or None)


def _shown(one: Kept) -> dict[str, Any]:
    shown = {"name": one.name, "state": one.record.state, **one.record.as_dict()}
    return {name: value for name, value in shown.items() if name != "public_key"}
