"""`headway policy`, and what is said of held deployments."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from headway.cli.output import clean, print_fields, print_json, print_table
from headway.cli.session import Session, connected, env_option, limit_option, site_option
from headway.errors import HeadwayError

maybe_env = click.option("--env", metavar="SLUG|ID", help="The environment; all of the site's if left out.")
deployment_argument = click.argument("deployment", metavar="DEPLOYMENT")


@click.group()
def policy() -> None:
    """Policies: what may go live where, and when. See docs/policy.md."""


@policy.command()
@site_option
@maybe_env
@connected()
def get(session: Session, site: str, env: str | None) -> None:
    """Print a policy as JSON. An environment is held to its own and to its site's."""
    row = session.client.policies.get(*session.owner(site, env))
    print_json(row if session.as_json else row["document"])


@policy.command("set")
@site_option
@maybe_env
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True, dir_okay=False))
@connected()
def set_policy(session: Session, site: str, env: str | None, file: Path) -> None:
    """Set a policy from a TOML or JSON file (- is stdin); an empty document is none."""
    row = session.client.policies.set(*session.owner(site, env), _read(file))
    if session.as_json:
        return print_json(row)
    return print_fields({name: row[name] for name in ("id", "version", "digest")})


@policy.command()
@site_option
@maybe_env
@limit_option
@connected()
def versions(session: Session, site: str, env: str | None, limit: int | None) -> None:
    """List every version of a policy, newest first."""
    rows = list(session.client.policies.versions(*session.owner(site, env), limit=limit))
    if session.as_json:
        return print_json(rows)
    return print_table(
        ("version", "id", "digest", "by", "created"),
        [
            (row["version"], row["id"], row["digest"][:12], (row["actor"] or {}).get("label"), row["created_at"])
            for row in rows
        ],
    )


@click.command()
@site_option
@env_option
@deployment_argument
@connected()
def decision(session: Session, site: str, env: str, deployment: str) -> None:
    """Show what the policy says of a deployment, who approved it, and who broke the glass."""
    where, found = session.place(site, env)
    row = session.client.policies.decision(where.id, found.id, deployment)
    if session.as_json:
        return print_json(row)
    shown = {name: row[name] for name in ("id", "outcome", "judged_at", "decided_at", "log_index")}
    print_fields({**shown, "override": row["override"]})
    for finding in row["findings"]:
        click.echo(clean(f"against    {finding['message']}"))
    for approval in row["given"]:
        counts = any(one["account_id"] == approval["account_id"] for one in row["approvals"])
        who = (approval["actor"] or {}).get("label") or approval["account_id"]
        click.echo(clean(f"approval   {who}, {approval['given_at']}{'' if counts else ' (does not count)'}"))
    return None


@click.command()
@site_option
@env_option
@deployment_argument
@click.option("--note", metavar="TEXT", help="What was looked at.")
@connected(writes=True)
def approve(session: Session, site: str, env: str, deployment: str, note: str | None) -> None:
    """Approve a deployment that is held."""
    where, found = session.place(site, env)
    row = session.client.policies.approve(where.id, found.id, deployment, note=note, idempotency_key=session.key)
    return print_json(row) if session.as_json else print_fields(row)


@click.command("break-glass")
@site_option
@env_option
@deployment_argument
@click.option("--reason", required=True, metavar="TEXT", help="Why it cannot wait; it stays on the record.")
@connected(writes=True)
def break_glass(session: Session, site: str, env: str, deployment: str, reason: str) -> None:
    """Let a held deployment through: past a freeze, a pin or missing approvals. What is refused stays so."""
    where, found = session.place(site, env)
    row = session.client.policies.break_glass(
        where.id, found.id, deployment, reason=reason, idempotency_key=session.key
    )
    return print_json(row) if session.as_json else print_fields({"id": row["id"], "override": row["override"]})


def _read(file: Path) -> dict[str, Any]:
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        text = raw.decode()
        document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeadwayError("policy.invalid", f"{file} is neither TOML nor JSON: {error}.") from None
    found: dict[str, Any] = json.loads(json.dumps(document, default=_moment))
    return found


def _moment(value: Any) -> str:
    """TOML has times of its own."""
    return str(value.isoformat())
