"""`headway hosts`: for the operator."""

from __future__ import annotations

from pathlib import Path

import click

from headway.cli import papers
from headway.cli.output import clean, print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option
from headway.errors import HeadwayError

CREDENTIAL, ROOT, SIGSTORE = "host.token", "trusted_root.json", "sigstore.json"


@click.group()
def hosts() -> None:
    """Serving machines, and the keys that their configuration is sealed to."""


@hosts.command("list")
@limit_option
@connected()
def list_hosts(session: Session, limit: int | None) -> None:
    """List hosts. One that offers another key than its pinned one gets no new configuration until it is accepted."""
    rows = list(session.client.hosts.list(limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "key", "offers", "labels", "last seen"),
        [
            (row.id, row.public_key or "not yet", row.offered_key, ", ".join(row.labels), row.last_seen_at or "never")
            for row in rows
        ],
    )


@hosts.command()
@click.argument("host_id", metavar="HOST")
@connected()
def get(session: Session, host_id: str) -> None:
    """Show one host."""
    row = session.client.hosts.get(host_id).as_dict()
    return print_json(row) if session.as_json else print_fields(row)


@hosts.command()
@click.argument("host_id", metavar="HOST")
@click.option("--key", "public_key", metavar="KEY", help="The key that you compared; what is offered if left out.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected(writes=True)
def accept(session: Session, host_id: str, public_key: str | None, yes: bool) -> None:
    """Pin the key that a host offers now, for example after its disk was replaced."""
    key = public_key or session.client.hosts.get(host_id).offered_key
    if key is None:
        raise HeadwayError("host.key_mismatch", f"The host {host_id} offers no other key than its pinned one.")
    if not yes:
        click.confirm(f"Trust {clean(host_id)} with the key {clean(key)}?", abort=True, err=True)
    row = session.client.hosts.accept(host_id, key, idempotency_key=session.key)
    return print_json(row.as_dict()) if session.as_json else say(f"The key of {clean(host_id)} is {clean(key)} now.")


@hosts.command()
@click.argument("host_id", metavar="HOST")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Environments choose hosts by these.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="A folder for what it needs."
)
@click.option("--renew", is_flag=True, help="A new credential for a host that is known; the old one ends.")
@connected(writes=True)
def join(session: Session, host_id: str, labels: tuple[str, ...], output: Path, renew: bool) -> None:
    """Let a machine in. The folder gets its credential and the keys that it is to trust: carry it there.

    Then start it with HEADWAY_BROKER_TOKEN_FILE and HEADWAY_TRUST_DIR in that folder: docs/hosts.md has the whole.
    """
    with papers.folder(output, CREDENTIAL, renew=renew):
        if renew:
            made = session.client.hosts.renew(host_id, idempotency_key=session.key)
        else:
            made = session.client.hosts.join(host_id, labels, idempotency_key=session.key)
        if not made.credential:
            raise HeadwayError("host.exists", papers.SHOWN_ALREADY)
        documents = {ROOT: made.trusted_root, papers.BROKER: made.broker_root, SIGSTORE: made.sigstore}
        trusted = papers.write(output, {**made.signing_keys, **documents})
        papers.write(output, {CREDENTIAL: made.credential + "\n"})
    if session.as_json:
        return print_json({**made.as_dict(), "credential": str(output / CREDENTIAL)})
    papers.warn_without_broker(made.broker_root)
    return say(f"{clean(host_id)} may join: its credential and {trusted} files to trust are in {output}.")


@hosts.command()
@click.argument("host_id", metavar="HOST")
@click.argument("labels", metavar="[LABEL]...", nargs=-1)
@connected()
def labels(session: Session, host_id: str, labels: tuple[str, ...]) -> None:
    """Give a host exactly these labels. What it has to serve with them comes to it by itself."""
    row = session.client.hosts.label(host_id, labels)
    return print_json(row.as_dict()) if session.as_json else print_fields(row.as_dict())


@hosts.command()
@click.argument("host_id", metavar="HOST")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected()
def remove(session: Session, host_id: str, yes: bool) -> None:
    """Remove a host: its credential and its key end, and no rollout goes to it. What it serves it serves on."""
    if not yes:
        click.confirm(f"Remove {clean(host_id)}?", abort=True, err=True)
    done = session.client.hosts.forget(host_id)
    return print_json(done) if session.as_json else say(f"Removed {clean(host_id)}.")


@hosts.command()
@click.argument("host_id", metavar="HOST")
@connected()
def forget(session: Session, host_id: str) -> None:
    """Forget a host's key. It gets no configuration until it registers again."""
    done = session.client.hosts.forget(host_id)
    return print_json(done) if session.as_json else say(f"Forgot {clean(host_id)}.")
