"""`headway forge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headway.cli.configuration import read_value
from headway.cli.output import clean, last_answer, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option, site_option

if TYPE_CHECKING:
    from headway.resources import ForgeLink, ForgeReport


@click.group()
def forge() -> None:
    """What a site reports to its forge: statuses of commits, one comment on each pull request."""


@forge.command("set")
@site_option
@click.option("--provider", type=click.Choice(["github", "gitlab", "gitea"]), required=True, help="gitea: Forgejo too.")
@click.option("--forge-url", metavar="URL", help="Its API, where the site's repository does not say it.")
@click.option("--repository", metavar="OWNER/NAME", help="The repository's path there.")
@click.option("--statuses/--no-statuses", default=True, help="Whether commits get statuses.")
@click.option("--comments/--no-comments", default=True, help="Whether pull requests get comments.")
@click.option("--keep-token", is_flag=True, help="Leave the token as it is.")
@connected()
def set_forge(
    session: Session, site: str, provider: str, forge_url: str | None, keep_token: bool, **fields: Any
) -> None:
    """Report to a forge from now on. The token is asked for, or read from stdin; never an argument."""
    given = {name: value for name, value in {**fields, "api_url": forge_url}.items() if value is not None}
    if not keep_token:
        given["token"] = read_value("token", hidden=True)
    _show(session, session.client.forges.put(session.site(site).id, provider, **given))


@forge.command()
@site_option
@connected()
def get(session: Session, site: str) -> None:
    """Show where a site reports to, and whether that works."""
    _show(session, session.client.forges.get(session.site(site).id))


@forge.command()
@site_option
@connected()
def delete(session: Session, site: str) -> None:
    """Report to no forge any more; the token is forgotten."""
    done = session.client.forges.delete(session.site(site).id)
    return print_json(done) if session.as_json else say(f"{clean(site)} reports to no forge.")


@forge.command()
@site_option
@click.option("--status", type=click.Choice(["pending", "delivered", "failed", "skipped"]), help="Only these.")
@limit_option
@connected()
def reports(session: Session, site: str, status: str | None, limit: int | None) -> None:
    """List what a site reported, and what became of it."""
    rows = list(session.client.forges.reports(session.site(site).id, status=status, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "kind", "of", "says", "status", "tries", "last"),
        [
            (row.id, row.kind, _subject(row), row.state, row.status, row.attempts, last_answer(row.tries))
            for row in rows
        ],
    )


@forge.command()
@click.argument("report_id", metavar="REPORT")
@site_option
@connected(writes=True)
def retry(session: Session, report_id: str, site: str) -> None:
    """Send a report that was given up once more."""
    made = session.client.forges.retry(session.site(site).id, report_id, idempotency_key=session.key)
    if session.as_json:
        return print_json(made.as_dict())
    return say(f"{made.id} is on its way: `headway forge reports` says how it ends.")


def _subject(report: ForgeReport) -> str:
    return {"status": (report.commit_sha or "")[:12], "comment": report.branch or ""}.get(report.kind, "")


def _show(session: Session, link: ForgeLink) -> None:
    return print_json(link.as_dict()) if session.as_json else print_fields(link.as_dict())
