"""`headway routes`."""

from __future__ import annotations

from typing import Any

import click

from headway.cli.output import print_json, print_table, say
from headway.cli.session import Session, connected, site_option

Json = dict[str, Any]


@click.group()
def routes() -> None:
    """Branch routes of a site: which environment a push of a branch goes to."""


@routes.command()
@site_option
@connected()
def get(session: Session, site: str) -> None:
    """Show the routes, in the order in which they are tried."""
    _show(session, session.client.sites.branch_routes(session.site(site).id))


@routes.command("set")
@site_option
@click.argument("rules", nargs=-1, metavar="PATTERN=TARGET...")
@click.option("--default", "defaults", is_flag=True, help="Go back to the defaults.")
@click.option(
    "--from-repository/--no-from-repository", default=None, help="Let headway.toml of the default branch replace them."
)
@connected()
def set_routes(
    session: Session, site: str, rules: tuple[str, ...], defaults: bool, from_repository: bool | None
) -> None:
    """Replace the routes, for example `main=live 'release/*=staging' '*=preview'`.

    TARGET is live, staging, preview or ignore. The first match wins; what nothing matches is ignored.
    """
    if defaults == bool(rules) and (defaults or from_repository is None):
        raise click.UsageError("Give routes, or --default, or --from-repository.")
    body: Json = {} if from_repository is None else {"from_repository": from_repository}
    if rules or defaults:
        body["routes"] = None if defaults else [_rule(text) for text in rules]
    _show(session, session.client.sites.set_branch_routes(session.site(site).id, body))


def _rule(text: str) -> Json:
    pattern, equals, target = text.rpartition("=")
    if not equals or not pattern:
        raise click.UsageError(f"{text!r} is not PATTERN=TARGET.")
    return {"pattern": pattern, "target": target}


def _show(session: Session, found: Json) -> None:
    if session.as_json:
        return print_json(found)
    print_table(("pattern", "target"), [(row["pattern"], row["target"]) for row in found["routes"]])
    if found["from_repository"]:
        say("[[routes]] in headway.toml of the default branch takes their place.")
    return None
