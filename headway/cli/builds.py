"""`headway build` and `headway builds`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headway.cli.output import clean, print_fields, print_json, print_table
from headway.cli.session import Session, connected, env_option, limit_option, site_option
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.resources import Build

RUN_STATES = ("queued", "running", "succeeded", "failed", "canceled", "superseded")


@click.command()
@site_option
@env_option
@click.option("--ref", help="A branch, tag or commit; the tip of the environment's branch if left out.")
@click.option("--clean", "fresh", is_flag=True, help="Build without caches, even where nothing has changed.")
@click.option(
    "--reproduce", is_flag=True, help="Build it again without caches, and compare; exits with 1 if it differs."
)
@connected(starts=True)
def build(
    session: Session,
    site: str,
    env: str,
    ref: str | None,
    fresh: bool,
    reproduce: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Build a git ref into a signed artifact."""
    where, found = session.place(site, env)
    if reproduce:
        from headway.cli import reproducing

        return reproducing.reproduce(session, where.id, found.id, ref, timeout)
    job = session.client.builds.create(where.id, found.id, ref=ref, clean=fresh, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@click.group()
def builds() -> None:
    """Builds of an environment, and their logs."""


@builds.command("list")
@site_option
@env_option
@click.option("--status", type=click.Choice(RUN_STATES), help="Only these.")
@click.option("--ref", help="Only those of this branch, tag or commit, as it was asked for.")
@limit_option
@connected()
def list_builds(session: Session, site: str, env: str, status: str | None, ref: str | None, limit: int | None) -> None:
    """List an environment's builds, newest first."""
    where, found = session.place(site, env)
    rows = list(session.client.builds.list(where.id, found.id, status=status, ref=ref, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "ref", "commit", "status", "stage", "artifact", "created"),
        [
            (row.id, row.ref, (row.commit_sha or "")[:12], row.status, row.stage, row.artifact_id, row.created_at)
            for row in rows
        ],
    )


@builds.command()
@click.argument("build_id", metavar="BUILD")
@site_option
@click.option("--env", metavar="SLUG|ID", help="Looked for in all environments if left out.")
@connected()
def get(session: Session, build_id: str, site: str, env: str | None) -> None:
    """Show one build."""
    found = _locate(session, build_id, site, env).as_dict()
    if session.as_json:
        return print_json(found)
    return print_fields({name: value for name, value in found.items() if name != "links"})


@builds.command()
@click.argument("build_id", metavar="BUILD")
@site_option
@click.option("--env", metavar="SLUG|ID", help="Looked for in all environments if left out.")
@connected()
def plan(session: Session, build_id: str, site: str, env: str | None) -> None:
    """Show what a build ran, and what decided so."""
    found = _locate(session, build_id, site, env)
    kept = session.client.builds.plan(found.site_id, found.env_id, found.id)
    return print_json(kept) if session.as_json else print_fields(kept)


@builds.command()
@click.argument("build_id", metavar="BUILD")
@site_option
@click.option("--env", metavar="SLUG|ID", help="Looked for in all environments if left out.")
@click.option("--follow", is_flag=True, help="Go on until the build has ended.")
@connected()
def log(session: Session, build_id: str, site: str, env: str | None, follow: bool) -> None:
    """Print a build's log."""
    found = _locate(session, build_id, site, env)
    place = (found.site_id, found.env_id, found.id)
    if session.as_json:
        lines = session.client.builds.follow_log(*place) if follow else _plain(session.client.builds.log(*place))
        return print_json(list(lines))
    if not follow:
        for line in session.client.builds.log(*place).splitlines():
            click.echo(clean(line))
        return None
    for event in session.client.builds.follow_log(*place):
        click.echo(clean(event.get("line", "")))
    return None


def _plain(text: str) -> list[dict[str, str]]:
    return [{"line": line} for line in text.split("\n")[:-1]]


def _locate(session: Session, build_id: str, site: str, env: str | None) -> Build:
    if env is not None:
        where, found = session.place(site, env)
        return session.client.builds.get(where.id, found.id, build_id)
    where = session.site(site)
    for environment in session.client.environments.list(where.id):
        try:
            return session.client.builds.get(where.id, environment.id, build_id)
        except HeadwayError as error:
            if error.type != "not_found":
                raise
    raise HeadwayError("build.not_found", f"The site {where.slug} has no build {build_id}.")
