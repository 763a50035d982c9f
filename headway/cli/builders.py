"""`headway builders`: for the operator."""

from __future__ import annotations

from pathlib import Path

import click

from headway.cli import papers
from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option
from headway.errors import HeadwayError

CREDENTIAL = "builder.token"


@click.group()
def builders() -> None:
    """Building machines beside the first one, each with a credential of its own."""


@builders.command("list")
@limit_option
@connected()
def list_builders(session: Session, limit: int | None) -> None:
    """List them. The one beside the API, `local`, is not among them: it has no credential to end."""
    rows = list(session.client.builders.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "created", "last used"), [(row.id, row.created_at, row.last_used_at or "never") for row in rows]
    )


@builders.command()
@click.argument("builder_id", metavar="BUILDER")
@connected()
def get(session: Session, builder_id: str) -> None:
    """Show one builder."""
    row = session.client.builders.get(builder_id).as_dict()
    return print_json(row) if session.as_json else print_fields(row)


@builders.command()
@click.argument("builder_id", metavar="BUILDER")
@limit_option
@connected()
def builds(session: Session, builder_id: str, limit: int | None) -> None:
    """List what it has begun last, of all sites: what to build again after a theft. `local`: the one beside the API."""
    rows = list(session.client.builders.builds(builder_id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "site", "ref", "status", "artifact", "created"),
        [(row.id, row.site_id, row.ref, row.status, row.artifact_id, row.created_at) for row in rows],
    )


@builders.command()
@click.argument("builder_id", metavar="BUILDER")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="A folder for what it needs."
)
@click.option("--renew", is_flag=True, help="A new credential for a builder that is known; the old one ends.")
@connected(writes=True)
def add(session: Session, builder_id: str, output: Path, renew: bool) -> None:
    """Let a machine build. The folder gets its credential and what vouches for the broker: carry it there.

    Then start it with HEADWAY_BROKER_TOKEN_FILE and HEADWAY_BROKER_ROOT_FILE in that folder: see docs/hosts.md.
    """
    with papers.folder(output, CREDENTIAL, renew=renew):
        if renew:
            made = session.client.builders.renew(builder_id, idempotency_key=session.key)
        else:
            made = session.client.builders.add(builder_id, idempotency_key=session.key)
        if not made.credential:
            raise HeadwayError("builder.exists", papers.SHOWN_ALREADY)
        papers.write(output, {CREDENTIAL: made.credential + "\n", papers.BROKER: made.broker_root})
    if session.as_json:
        return print_json({**made.as_dict(), "credential": str(output / CREDENTIAL)})
    papers.warn_without_broker(made.broker_root)
    return say(f"{clean(builder_id)} may build: its papers are in {output}.")


@builders.command()
@click.argument("builder_id", metavar="BUILDER")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected()
def remove(session: Session, builder_id: str, yes: bool) -> None:
    """Remove a builder: its credential ends at once. What it is at is built by another, once its process is gone."""
    if not yes:
        click.confirm(f"Remove {clean(builder_id)}?", abort=True, err=True)
    done = session.client.builders.remove(builder_id)
    return print_json(done) if session.as_json else say(f"Removed {clean(builder_id)}.")
