"""`headway variables` and `headway secrets`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from headway.cli.output import clean, for_reader, print_json, print_table, say
from headway.cli.rekey import rekey
from headway.cli.session import Session, connected, limit_option, site_option
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.resources import Value
    from headway.values_client import Values

env_option = click.option("--env", metavar="SLUG|ID", help="The environment; the site's defaults if left out.")
key_argument = click.argument("key")


@click.group()
def variables() -> None:
    """Variables of an environment, or a site's defaults. A change applies with the next rollout."""


@click.group()
def secrets() -> None:
    """Secrets of an environment, or a site's defaults. A value is never shown again."""


@variables.command("set")
@key_argument
@click.argument("value", required=False)
@site_option
@env_option
@connected()
def set_variable(session: Session, key: str, value: str | None, site: str, env: str | None) -> None:
    """Set a variable to VALUE, or to what is read from stdin."""
    given = read_value(key, hidden=False) if value is None else value
    _shown_set(session, session.client.variables.set(*session.owner(site, env), key, given))


@secrets.command("set")
@key_argument
@site_option
@env_option
@connected()
def set_secret(session: Session, key: str, site: str, env: str | None) -> None:
    """Set a secret. The value is asked for, or read from stdin (one line break at its end is left out).

    It is never an argument: others on the machine could see that.
    """
    where = session.owner(site, env)
    _shown_set(session, session.client.secrets.set(*where, key, read_value(key, hidden=True)))


@variables.command("list")
@site_option
@env_option
@limit_option
@connected()
def list_variables(session: Session, site: str, env: str | None, limit: int | None) -> None:
    """List variables: the environment's own, and the site's defaults that it does not replace."""
    rows = list(session.client.variables.list(*session.owner(site, env), limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("name", "value", "version", "source", "live", "set", "by"),
        [(row.key, row.value, row.version, row.source, *_told(row)) for row in rows],
    )


@secrets.command("list")
@site_option
@env_option
@limit_option
@connected()
def list_secrets(session: Session, site: str, env: str | None, limit: int | None) -> None:
    """List secrets, never their values."""
    rows = list(session.client.secrets.list(*session.owner(site, env), limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("name", "version", "source", "live", "set", "by"),
        [(row.key, row.version, row.source, *_told(row)) for row in rows],
    )


@variables.command("get")
@key_argument
@site_option
@env_option
@connected()
def get_variable(session: Session, key: str, site: str, env: str | None) -> None:
    """Print a variable's value."""
    row = session.client.variables.get(*session.owner(site, env), key)
    if session.as_json:
        return print_json(row.as_dict())
    return click.echo(for_reader(row.value or "", sys.stdout), color=True)


@variables.command("unset")
@key_argument
@site_option
@env_option
@connected()
def unset_variable(session: Session, key: str, site: str, env: str | None) -> None:
    """Unset a variable."""
    _unset(session, session.client.variables, key, site, env)


@secrets.command("unset")
@key_argument
@site_option
@env_option
@connected()
def unset_secret(session: Session, key: str, site: str, env: str | None) -> None:
    """Unset a secret. Releases that have it keep it, and so does a rollback to one: see `revoke`."""
    _unset(session, session.client.secrets, key, site, env)


@variables.command("versions")
@key_argument
@site_option
@env_option
@limit_option
@connected()
def list_variable_versions(session: Session, key: str, site: str, env: str | None, limit: int | None) -> None:
    """List a variable's versions, newest first."""
    rows = session.client.variables.versions(*session.owner(site, env), key, limit=limit)
    _versions(session, list(rows), valued=True)


@secrets.command("versions")
@key_argument
@site_option
@env_option
@limit_option
@connected()
def list_secret_versions(session: Session, key: str, site: str, env: str | None, limit: int | None) -> None:
    """List a secret's versions, newest first."""
    rows = session.client.secrets.versions(*session.owner(site, env), key, limit=limit)
    _versions(session, list(rows), valued=False)


@secrets.command()
@key_argument
@site_option
@env_option
@click.option("--version", "version", required=True, metavar="N|ID", help="Its number, or its id (cfg_…).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected(writes=True)
def revoke(session: Session, key: str, site: str, env: str | None, version: str, yes: bool) -> None:
    """Destroy one version of a secret: a rollback that had it takes the newest instead, and says so.

    What runs with it keeps it until its next rollout.
    """
    where = session.owner(site, env)
    found = _version(session.client.secrets.versions(*where, key), key, version)
    if not yes:
        click.confirm(f"Destroy version {found.version} of {clean(key)} for good?", abort=True, err=True)
    row = session.client.secrets.revoke(*where, key, found.version_id, idempotency_key=session.key)
    if session.as_json:
        return print_json(row.as_dict())
    say(f"Version {row.version} of {clean(key)} is destroyed.")
    if row.live:
        say("What runs still has it: deploy to take it away there too.")
    return None


secrets.add_command(rekey)


def read_value(key: str, *, hidden: bool) -> str:
    """Asked for on a terminal, else all of stdin but one line break at its end. Raises request.invalid_parameter."""
    if sys.stdin.isatty():
        return str(click.prompt(clean(key), hide_input=hidden, err=True))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise HeadwayError("request.invalid_parameter", "A value is UTF-8 text.", param="value") from None
    return text.removesuffix("\n").removesuffix("\r")


def _shown_set(session: Session, row: Value) -> None:
    if session.as_json:
        return print_json(row.as_dict())
    return say(f"{clean(row.key)} is set (version {row.version}): it applies with the next rollout.")


def _unset(session: Session, values: Values, key: str, site: str, env: str | None) -> None:
    done = values.unset(*session.owner(site, env), key)
    return print_json(done) if session.as_json else say(f"{clean(key)} is unset from the next rollout on.")


def _told(row: Value) -> tuple[object, ...]:
    return ("yes" if row.live else "no", row.updated_at, (row.actor or {}).get("label"))


def _versions(session: Session, rows: list[Value], *, valued: bool) -> None:
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    headers = ("", "version", "id", *(("value",) if valued else ()), "live", "set", "by", "revoked")
    return print_table(
        headers,
        [
            (
                "*" if row.current else " ",
                row.version,
                row.version_id,
                *((row.value,) if valued else ()),
                *_told(row),
                row.revoked_at,
            )
            for row in rows
        ],
    )


def _version(rows: Iterator[Value], key: str, wanted: str) -> Value:
    for row in rows:
        if wanted in (row.version_id, str(row.version)):
            return row
    raise HeadwayError("secret.not_found", f"{key} has no version {wanted} here.")
