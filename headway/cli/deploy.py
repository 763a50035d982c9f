"""`headway deploy`, `promote`, `rollback`, `releases` and `deployments`."""

from __future__ import annotations

import click

from headway.cli.output import print_json, print_table
from headway.cli.policy import approve, break_glass, decision
from headway.cli.session import Session, connected, env_option, limit_option, site_option

ROLLOUT_STATES = ("waiting", "held", "queued", "running", "succeeded", "failed", "canceled", "superseded")


@click.command()
@site_option
@env_option
@click.option("--build", "build_id", metavar="ID", help="What this build made.")
@click.option("--artifact", "artifact_id", metavar="ID", help="This artifact.")
@click.option("--ref", help="This branch, tag or commit, built first.")
@click.option("--clean", "fresh", is_flag=True, help="With --ref: skip the build cache.")
@connected(starts=True)
def deploy(
    session: Session,
    site: str,
    env: str,
    build_id: str | None,
    artifact_id: str | None,
    ref: str | None,
    fresh: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Put a build, an artifact or a git ref onto an environment."""
    if sum(one is not None for one in (build_id, artifact_id, ref)) != 1:
        raise click.UsageError("Give exactly one of --build, --artifact and --ref.")
    where, found = session.place(site, env)
    job = session.client.deployments.deploy(
        where.id,
        target=found.id,
        ref=ref,
        build_id=build_id,
        artifact_id=artifact_id,
        clean=fresh,
        idempotency_key=session.key,
    )
    return session.started(job, wait=wait, timeout=timeout)


@click.command()
@site_option
@click.option("--from", "source", required=True, metavar="SLUG|ID", help="The environment whose release is taken.")
@click.option("--to", "target", required=True, metavar="SLUG|ID", help="The environment that gets it.")
@connected(starts=True)
def promote(session: Session, site: str, source: str, target: str, wait: bool, timeout: float | None) -> int:
    """Put what runs on one environment onto another, without a rebuild."""
    where, found = session.place(site, source)
    to = session.client.environments.find(where.id, target)
    job = session.client.deployments.promote(where.id, found.id, to_env=to.id, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@click.command()
@site_option
@env_option
@click.option("--to", "release_id", metavar="RELEASE", help="This release; the one before the current if left out.")
@click.option("--keep-config", is_flag=True, help="Its code alone, under today's configuration.")
@connected(starts=True)
def rollback(
    session: Session,
    site: str,
    env: str,
    release_id: str | None,
    keep_config: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Put an earlier release back, with the configuration that it had."""
    where, found = session.place(site, env)
    job = session.client.deployments.rollback(
        where.id,
        found.id,
        # Not by its id: repeated under the same key after its end, the request would be another one.
        "current",
        release_id=release_id,
        keep_config=keep_config,
        idempotency_key=session.key,
    )
    return session.started(job, wait=wait, timeout=timeout)


@click.group()
def releases() -> None:
    """What ran on an environment, and when."""


@releases.command("list")
@site_option
@env_option
@limit_option
@connected()
def list_releases(session: Session, site: str, env: str, limit: int | None) -> None:
    """List an environment's releases, newest first."""
    where, found = session.place(site, env)
    rows = list(session.client.releases.list(where.id, found.id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("", "id", "artifact", "ref", "config", "deployed", "by"),
        [
            (
                "*" if row.current else " ",
                row.id,
                row.artifact_id,
                row.ref,
                row.config.get("version"),
                row.deployed_at,
                (row.actor or {}).get("label"),
            )
            for row in rows
        ],
    )


@click.group()
def deployments() -> None:
    """Requests to put an artifact onto an environment."""


@deployments.command("list")
@site_option
@env_option
@click.option("--status", type=click.Choice(ROLLOUT_STATES), help="Only these.")
@limit_option
@connected()
def list_deployments(session: Session, site: str, env: str, status: str | None, limit: int | None) -> None:
    """List an environment's deployments, newest first."""
    where, found = session.place(site, env)
    rows = list(session.client.deployments.list(where.id, found.id, status=status, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "kind", "status", "stage", "artifact", "release", "created"),
        [(row.id, row.kind, row.status, row.stage, row.artifact_id, row.release_id, row.created_at) for row in rows],
    )


for command in (decision, approve, break_glass):
    deployments.add_command(command)
