"""`headway audit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headway.cli.ledger import root_option
from headway.cli.output import print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from adapters.ledger.root import TrustedLog
    from adapters.signer.keys import Keyring

Json = dict[str, Any]
moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.group()
def audit() -> None:
    """The audit log: every call that changed something, by whom, from where."""


@audit.command("list")
@click.option("--site", metavar="SLUG|ID", help="Only what was done to this site.")
@click.option("--account", metavar="ID", help="Only what this account did, with whichever key.")
@click.option("--key", metavar="ID", help="Only what was done with this key.")
@click.option("--action", metavar="NAME", help="Only this, as the list names it: set_policy, deploy, …")
@click.option("--since", type=moment, help="From then on, in UTC.")
@click.option("--until", type=moment, help="Before then, in UTC.")
@limit_option
@connected()
def list_audit(
    session: Session,
    site: str | None,
    account: str | None,
    key: str | None,
    action: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
) -> None:
    """List calls, newest first (20 unless --limit says otherwise)."""
    wanted = {
        "site_id": session.site(site).id if site else None,
        "account_id": account,
        "key_id": key,
        "action": action,
        "since": f"{since:%Y-%m-%dT%H:%M:%S}Z" if since else None,
        "until": f"{until:%Y-%m-%dT%H:%M:%S}Z" if until else None,
    }
    rows = list(session.client.audit.list(limit=limit or 20, **wanted))
    if session.as_json:
        return print_json(rows)
    return print_table(
        ("at", "action", "by", "from", "path", "request"),
        [
            (row["at"], row["action"], _who(row), row["address"], f"{row['method']} {row['path']}", row["request_id"])
            for row in rows
        ],
    )


@audit.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
@connected()
def export(session: Session, output: Path) -> None:
    """Write the whole chain, its anchors in the ledger and the keys into one file that proves itself."""
    links = anchors = 0
    with _new(output) as file:
        head = {
            "kind": "headway-audit",
            "trusted_root": session.client.ledger.trusted_root().decode(),
            "keyring": session.client.ledger.keyring().decode(),
        }
        file.write(json.dumps(head) + "\n")
        # Anchors first: whatever they name has to be among the links.
        for anchor in session.client.audit.anchors():
            file.write(json.dumps({"anchor": anchor}) + "\n")
            anchors += 1
        for one in session.client.audit.export():
            file.write(json.dumps({"link": one}) + "\n")
            links += 1
    shown = {"file": str(output), "links": links, "anchors": anchors}
    return print_json(shown) if session.as_json else print_fields(shown)


@audit.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="A public key that you trust.")
@root_option
@connected()
def verify(session: Session, file: Path, key: Path | None, trusted_root: Path | None) -> None:
    """Check an export offline: each row, each link, and each hash that the ledger has."""
    from headway.auditing import check_chain

    head = _head(file)
    log, ring = _trust(head, key, trusted_root)
    anchors = dict(_anchor(one, ring, log) for one in _lines(file, "anchor"))
    found = check_chain(_lines(file, "link"), anchors).as_dict()
    print_json({"verified": True, **found}) if session.as_json else print_fields(found)
    if key is None or trusted_root is None:
        say("Trust what you pinned yourself: give --key and --trusted-root, or compare what came with it.")
    if found["last_anchored"] != found["links"]:
        say("What follows the last anchor is bound by nothing yet: the next entry of the ledger binds it.")


def _who(row: Json) -> str:
    actor = row.get("actor") or {}
    return str(actor.get("label") or actor.get("id") or row.get("account_id") or "")


def _new(path: Path) -> Any:
    try:
        return path.open("x")
    except FileExistsError:
        raise HeadwayError("request.invalid_parameter", f"{path} exists already.", param="output") from None


def _head(file: Path) -> Json:
    with file.open() as opened:
        try:
            head = json.loads(opened.readline())
            if head["kind"] == "headway-audit":
                return dict(head)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
    raise HeadwayError("request.invalid_parameter", f"{file} is no export of an audit log.", param="file")


def _lines(file: Path, kind: str) -> Iterator[Json]:
    with file.open(encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise HeadwayError("ledger.inconsistent", f"Line {number} of {file} is not JSON.") from None
            if isinstance(row, dict) and isinstance(row.get(kind), dict):
                yield row[kind]


def _trust(head: Json, key: Path | None, root: Path | None) -> tuple[TrustedLog, Keyring]:
    """Who the ledger and its signers are: what was pinned, or else what came with the file."""
    from adapters.ledger.root import parse_root
    from headway.cli.exporting import opened_ring

    log = parse_root(root.read_bytes() if root else str(head.get("trusted_root", "")).encode())
    return log, opened_ring(str(head.get("keyring", "")).encode(), log.log, key)


def _anchor(one: Json, ring: Keyring, log: TrustedLog) -> tuple[int, str]:
    """A link's number and hash, as the ledger has them."""
    from adapters.signer.bundle import check_record
    from adapters.signer.records import AUDIT_TYPE

    found = check_record(json.dumps(one.get("bundle")).encode(), ring, ledger=log)
    if found.statement["predicateType"] != AUDIT_TYPE:
        raise HeadwayError("artifact.signature_invalid", "An anchor of the export is another record.")
    return int(found.statement["predicate"]["seq"]), found.digest
