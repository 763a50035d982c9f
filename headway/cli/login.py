"""`headway login` and `headway whoami`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from headway.cli.output import exit_code, print_error, print_fields, print_json, say
from headway.cli.profile import find_target, profile_path, write_profile
from headway.cli.session import Session, connected
from headway.errors import HeadwayError


@click.command()
@click.option("--api-url", metavar="URL", help="The server (else HEADWAY_API_URL, or http://127.0.0.1:7070).")
@click.pass_context
def login(context: click.Context, api_url: str | None) -> None:
    """Keep a server and a key in the profile. The key is asked for, or read from stdin; never an argument.

    On the machine that runs Headway: headway login < DATA/admin.key
    """
    program = context.find_root().info_name or "headway"
    try:
        url = find_target(os.environ, api_url=api_url).api_url
        token = click.prompt("API key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
        if not token.strip():
            raise HeadwayError("auth.missing", "No key was given.")
        who = _check(url, token.strip())
        path = profile_path(os.environ)
        write_profile(path, url, token.strip())
    except HeadwayError as error:
        print_error(program, error)
        context.exit(exit_code(error))
    say(f"Logged in at {url} as {_name(who)}. The key is in {path}.")


@click.command()
@connected()
def whoami(session: Session) -> None:
    """Show whose key this is, where it comes from and what it may do."""
    who = session.client.account().as_dict()
    if session.as_json:
        return print_json(who)
    return print_fields(
        {
            "account": (who.get("account") or {}).get("name"),
            "team": (who.get("team") or {}).get("slug"),
            "role": who.get("role"),
            "key": (who.get("key") or {}).get("name"),
            "expires": (who.get("key") or {}).get("expires_at"),
            "scopes": who.get("scopes"),
            "server": session.target.api_url,
            "key from": session.target.token_from,
        }
    )


def _check(url: str, token: str) -> dict[str, Any]:
    from headway.client import Client

    with Client(url, token) as client:
        return client.account().as_dict()


def _name(who: dict[str, Any]) -> str:
    owner = who.get("account") or who.get("team") or {}
    return str(owner.get("name", "unknown"))
