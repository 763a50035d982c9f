"""`headway env`."""

from __future__ import annotations

import click

from headway.cli.configuration import read_value
from headway.cli.output import clean, print_fields, print_json, print_table
from headway.cli.session import Session, connected, env_option, limit_option, site_option


@click.group()
def env() -> None:
    """Environments of a site: production, staging, previews."""


@env.command("list")
@site_option
@click.option("--branch", help="Only that of this branch.")
@limit_option
@connected()
def list_environments(session: Session, site: str, branch: str | None, limit: int | None) -> None:
    """List a site's environments."""
    rows = list(session.client.environments.list(session.site(site).id, branch=branch, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("slug", "id", "kind", "branch", "status", "url"),
        [(row.slug, row.id, row.kind, row.branch, row.status, row.url) for row in rows],
    )


@env.command()
@site_option
@click.option("--kind", type=click.Choice(["staging", "preview"]), default="preview", show_default=True)
@click.option("--branch", required=True, help="The branch that it follows.")
@click.option("--ephemeral", is_flag=True, help="Ends by itself when it is idle.")
@connected(starts=True)
def create(
    session: Session, site: str, kind: str, branch: str, ephemeral: bool, wait: bool, timeout: float | None
) -> int:
    """Make the staging environment, or a preview of a branch."""
    job = session.client.environments.create(
        session.site(site).id, kind=kind, branch=branch, ephemeral=ephemeral, idempotency_key=session.key
    )
    return session.started(job, wait=wait, timeout=timeout)


@env.command()
@site_option
@env_option
@connected()
def get(session: Session, site: str, env: str) -> None:
    """Show one environment."""
    _, found = session.place(site, env)
    return print_json(found.as_dict()) if session.as_json else print_fields(found.as_dict())


@env.command()
@site_option
@env_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected(starts=True)
def delete(session: Session, site: str, env: str, yes: bool, wait: bool, timeout: float | None) -> int:
    """Delete an environment. Production goes with its site alone."""
    where, found = session.place(site, env)
    if not yes:
        click.confirm(f"Delete {found.slug} of {where.slug} and what it serves?", abort=True, err=True)
    return session.started(session.client.environments.delete(where.id, found.id), wait=wait, timeout=timeout)


@env.command()
@site_option
@env_option
@connected()
def url(session: Session, site: str, env: str) -> None:
    """Print the address at which an environment is served."""
    _, found = session.place(site, env)
    if session.as_json:
        return print_json({"url": found.url, "preview_url": found.preview_url})
    return click.echo(clean(found.url or found.preview_url or ""))


@env.command()
@site_option
@env_option
@connected(starts=True)
def suspend(session: Session, site: str, env: str, wait: bool, timeout: float | None) -> int:
    """Stop what runs and serve a page that says so. Deployments are refused until it is resumed."""
    return _act(session, site, env, "suspend", wait, timeout)


@env.command()
@site_option
@env_option
@connected(starts=True)
def resume(session: Session, site: str, env: str, wait: bool, timeout: float | None) -> int:
    """Serve again what a suspended environment served."""
    return _act(session, site, env, "resume", wait, timeout)


@env.command()
@site_option
@env_option
@connected(starts=True)
def restart(session: Session, site: str, env: str, wait: bool, timeout: float | None) -> int:
    """Replace the instances by fresh ones, with today's configuration. No request is lost."""
    return _act(session, site, env, "restart", wait, timeout)


@env.command()
@site_option
@env_option
@click.argument("instances", type=click.IntRange(1, 8))
@connected(starts=True)
def scale(session: Session, site: str, env: str, instances: int, wait: bool, timeout: float | None) -> int:
    """Run this many instances of the web process, until it is scaled again."""
    where, found = session.place(site, env)
    job = session.client.environments.scale(where.id, found.id, instances, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)


@env.command("set")
@site_option
@env_option
@click.option("--bake", type=click.IntRange(0, 3600), help="Seconds to watch a new release; 0: none.")
@click.option("--host-label", "labels", multiple=True, metavar="LABEL", help="Go to every host with these (operator).")
@click.option("--away", type=click.Choice(["fail", "skip"]), help="What a host that does not answer means.")
@connected()
def set_environment(
    session: Session, site: str, env: str, bake: int | None, labels: tuple[str, ...], away: str | None
) -> None:
    """Change an environment's settings."""
    where, found = session.place(site, env)
    fields = {"bake_seconds": bake, "host_labels": list(labels) or None, "away": away}
    given = {name: value for name, value in fields.items() if value is not None}
    if not given:
        raise click.UsageError("Say what to change: --bake, --host-label or --away.")
    changed = session.client.environments.update(where.id, found.id, **given)
    return print_json(changed.as_dict()) if session.as_json else print_fields(changed.as_dict())


@env.command()
@site_option
@env_option
@click.option("--reason", default="", metavar="TEXT", help="Why; whoever is held reads it.")
@connected()
def pin(session: Session, site: str, env: str, reason: str) -> None:
    """Keep what runs: builds go on, what is new is held, rollbacks go ahead."""
    where, found = session.place(site, env)
    changed = session.client.environments.update(where.id, found.id, pinned=True, pin_reason=reason)
    return print_json(changed.as_dict()) if session.as_json else print_fields(changed.as_dict())


@env.command()
@site_option
@env_option
@connected()
def unpin(session: Session, site: str, env: str) -> None:
    """Take the pin away: what it held goes on."""
    where, found = session.place(site, env)
    changed = session.client.environments.update(where.id, found.id, pinned=False)
    return print_json(changed.as_dict()) if session.as_json else print_fields(changed.as_dict())


@env.command()
@site_option
@env_option
@limit_option
@connected()
def drift(session: Session, site: str, env: str, limit: int | None) -> None:
    """List what hosts found otherwise than they had left it, and put right."""
    where, found = session.place(site, env)
    rows = list(session.client.environments.drifts(where.id, found.id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("found", "mended", "host", "release", "kind", "what", "job"),
        [
            (row.found_at, row.mended_at or "not yet", row.host_id, row.release_seq, row.kind, row.what, row.job_id)
            for row in rows
        ],
    )


@env.command()
@site_option
@env_option
@connected()
def renew(session: Session, site: str, env: str) -> None:
    """Let a preview that ends by itself live on from now."""
    where, found = session.place(site, env)
    renewed = session.client.environments.renew(where.id, found.id)
    return print_json(renewed.as_dict()) if session.as_json else click.echo(clean(renewed.expires_at or ""))


@env.command()
@site_option
@click.option("--env", metavar="SLUG|ID", help="The preview, or staging.")
@click.option("--new-previews", is_flag=True, help="Each preview that is made from now on.")
@click.option("--off", is_flag=True, help="Ask for no password any more.")
@connected(starts=True)
def protect(
    session: Session, site: str, env: str | None, new_previews: bool, off: bool, wait: bool, timeout: float | None
) -> int:
    """Ask visitors for a password. It is asked for here, or read from stdin; it is never an argument."""
    if (env is None) is not new_previews:
        raise click.UsageError("Say --env or --new-previews.")
    password = None if off else read_value("password", hidden=True)
    environments = session.client.environments
    if env is None:
        row = environments.protect_new(session.site(site).id, password)
        print_json(row) if session.as_json else print_fields(row)
        return 0
    where, found = session.place(site, env)
    return session.started(environments.protect(where.id, found.id, password), wait=wait, timeout=timeout)


def _act(session: Session, site: str, env: str, action: str, wait: bool, timeout: float | None) -> int:
    where, found = session.place(site, env)
    job = session.client.environments.act(where.id, found.id, action, idempotency_key=session.key)
    return session.started(job, wait=wait, timeout=timeout)
