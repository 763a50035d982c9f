"""`headway why`: from what is live back to the commit."""

from __future__ import annotations

from typing import Any

import click

from headway.cli.output import clean, print_json, say
from headway.cli.session import Session, connected, env_option, site_option


@click.command()
@site_option
@env_option
@click.option("--release", "release_id", metavar="ID", help="An earlier release instead of the current one.")
@connected()
def why(session: Session, site: str, env: str, release_id: str | None) -> None:
    """Say why something is live: commit, build, digest, signature, ledger, switch."""
    where, found = session.place(site, env)
    chain = session.client.releases.why(where.id, found.id, release_id=release_id)
    if session.as_json:
        return print_json(chain)
    for name, text in _lines(chain):
        click.echo(clean(f"{name:<10}  {text}"))
    if chain["release"].get("log_index") is None:
        say("The switch is not in the ledger yet: ask again in a second.")
    return None


def _lines(chain: dict[str, Any]) -> list[tuple[str, str]]:
    commit, signature, rolled, release = (chain[part] for part in ("commit", "signature", "deployment", "release"))
    kind = rolled["kind"]
    if rolled.get("source_release_id"):
        kind += f" of {rolled['source_release_id']}: the same bytes"
    live = f"{chain['url'] or 'no address'} since {release['deployed_at']}" if release["current"] else "no longer"
    return [
        ("commit", f"{commit['commit_sha']} ({commit['ref']}) of {commit['repository'] or 'the hosted repository'}"),
        ("build", f"{chain['build']['build_id']}, {chain['build']['finished_at']}, by {_who(chain['build'])}"),
        ("artifact", f"{chain['artifact']['artifact_id']}, {chain['artifact']['digest']}"),
        ("signature", f"key {signature['key_hint']}, {_entry(signature)}"),
        ("deployment", f"{rolled['deployment_id']}, {kind}, by {_who(rolled)}"),
        *_decision(chain.get("decision")),
        ("release", f"{release['release_id']}, number {release['sequence']}, {_entry(release)}"),
        ("live", live),
    ]


def _decision(decision: dict[str, Any] | None) -> list[tuple[str, str]]:
    if decision is None:
        return []
    said = f"{decision['outcome']} by {', '.join(_policy(one) for one in decision['policies']) or 'no policy'}"
    if approvals := decision.get("approvals"):
        said += f", approved by {', '.join(_who(one) for one in approvals)}"
    if override := decision.get("override"):
        said += f", glass broken by {_who(override)}: {override['reason']}"
    return [("decision", f"{said}, {_index(decision)}")]


def _policy(one: dict[str, Any]) -> str:
    return f"the {one['of']}'s policy {one['version']}"


def _index(part: dict[str, Any]) -> str:
    return "not in the ledger" if part.get("log_index") is None else f"ledger entry {part['log_index']}"


def _entry(part: dict[str, Any]) -> str:
    if part.get("log_index") is None:
        return "not in the ledger"
    return f"ledger entry {part['log_index']} of {part['integrated_time']}"


def _who(part: dict[str, Any]) -> str:
    actor = part.get("actor") or {}
    return str(actor.get("name") or actor.get("label") or actor.get("id") or "the platform")
