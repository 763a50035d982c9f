"""`headway retention`: for the operator."""

from __future__ import annotations

import click

from headway.cli.output import print_fields, print_json, say
from headway.cli.session import Session, connected


@click.group()
def retention() -> None:
    """What is kept how long: collection of artifacts that nothing needs any more."""


@retention.command()
@click.option("--dry-run", is_flag=True, help="Change nothing: count what would be marked, and what collected.")
@connected(starts=True)
def run(session: Session, dry_run: bool, wait: bool, timeout: float | None) -> int:
    """Mark what nothing needs, and collect what was marked long enough ago. It runs by itself, too."""
    job = session.client.retention.run(dry_run=dry_run, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@retention.command()
@connected()
def report(session: Session) -> None:
    """Show the rules, how much there is, and what the last run did."""
    found = session.client.retention.report()
    if session.as_json:
        return print_json(found)
    days, hours = found["after_seconds"] / 86_400, found["wait_seconds"] / 3_600
    print_fields({"kept after its last use": f"{days:g} days", "between mark and collection": f"{hours:g} hours"})
    print_fields(found["totals"])
    if found["last_run"] is None:
        return say("Nothing has been collected yet.")
    last = {name: value for name, value in found["last_run"].items() if name != "totals"}
    return print_fields({f"last run {name}": value for name, value in last.items()})
