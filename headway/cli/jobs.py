"""`headway jobs`."""

from __future__ import annotations

import click

from headway.cli.output import print_fields, print_json, print_table
from headway.cli.session import Duration, Session, connected, limit_option
from headway.cli.waiting import follow, show_started

JOB_STATES = ("queued", "running", "succeeded", "failed", "canceled")
RESOURCES = ("site", "environment", "build", "deployment", "domain", "sandbox", "command", "retention", "integrity")


@click.group()
def jobs() -> None:
    """Work that takes time: list it, follow it, cancel it."""


@jobs.command("list")
@click.option("--status", type=click.Choice(JOB_STATES), help="Only these.")
@click.option("--type", "resource_type", type=click.Choice(RESOURCES), help="Only what is about one of these.")
@limit_option
@connected()
def list_jobs(session: Session, status: str | None, resource_type: str | None, limit: int | None) -> None:
    """List jobs, newest first (20 unless --limit says otherwise)."""
    rows = list(session.client.jobs.list(status=status, resource_type=resource_type, limit=limit or 20))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "type", "status", "stage", "resource", "created"),
        [(row.id, row.type, row.status, row.stage, row.resource.get("id"), row.created_at) for row in rows],
    )


@jobs.command()
@click.argument("job_id", metavar="JOB")
@connected()
def get(session: Session, job_id: str) -> None:
    """Show one job."""
    job = session.client.jobs.get(job_id).as_dict()
    if session.as_json:
        return print_json(job)
    return print_fields({name: value for name, value in job.items() if name != "links"})


@jobs.command()
@click.argument("job_id", metavar="JOB")
@click.option("--timeout", type=Duration(), help="Stop watching after this time (exit 124).")
@connected()
def watch(session: Session, job_id: str, timeout: float | None) -> int:
    """Follow a job to its end; exits with 1 if it failed."""
    return follow(session, job_id, timeout=timeout, through_holds=True)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@connected()
def cancel(session: Session, job_id: str) -> None:
    """Ask for a job's end. What has switched already is not undone."""
    show_started(session, session.client.jobs.cancel(job_id))
