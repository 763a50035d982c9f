"""`headway integrity`: for the operator."""

from __future__ import annotations

import click

from headway.cli.output import print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option


@click.group()
def integrity() -> None:
    """Whether the object store has what it should have. Hosts look after their own stores: `headway env drift`."""


@integrity.command()
@click.option("--all", "whole", is_flag=True, help="Read everything, not only what comes next.")
@connected(starts=True)
def scrub(session: Session, whole: bool, wait: bool, timeout: float | None) -> int:
    """Read objects, and mend what is damaged from a host that has it whole. It runs by itself, too."""
    job = session.client.integrity.scrub(whole=whole, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@integrity.command()
@connected()
def report(session: Session) -> None:
    """Show how much was found, and what the last scrub did."""
    found = session.client.integrity.report()
    if session.as_json:
        return print_json(found)
    print_fields(found["totals"])
    if found["last_run"] is None:
        return say("Nothing has been read yet.")
    return print_fields({f"last run {name}": value for name, value in found["last_run"].items()})


@integrity.command()
@limit_option
@connected()
def findings(session: Session, limit: int | None) -> None:
    """List damaged objects, newest first (20 unless --limit says otherwise)."""
    rows = list(session.client.integrity.findings(limit=limit or 20))
    if session.as_json:
        return print_json([row.model_dump() for row in rows])
    return print_table(
        ["ID", "OBJECT", "NAME", "DAMAGE", "STATE", "BY", "FOUND"],
        [[one.id, one.object, one.name[:12], one.damage, one.state, one.mended_by, one.found_at] for one in rows],
    )
