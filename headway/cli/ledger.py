"""`headway ledger`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headway.cli.output import print_fields, print_json, say
from headway.cli.session import Session, connected
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from adapters.ledger.note import Checkpoint, Log
    from adapters.ledger.root import TrustedLog

root_option = click.option(
    "--trusted-root", type=click.Path(path_type=Path, exists=True), help="The trusted_root.json that you pinned."
)


@click.group()
def ledger() -> None:
    """The ledger: what was signed, rolled and revoked, in an order that cannot be changed unnoticed."""


@ledger.command()
@root_option
@connected()
def checkpoint(session: Session, trusted_root: Path | None) -> None:
    """Print the newest checkpoint, checked. Keep it elsewhere: an audit can hold the ledger to it."""
    note = session.client.ledger.checkpoint()
    found = _opened(note, _root(session, trusted_root).log)
    if session.as_json:
        return print_json({"size": found.size, "root": found.root.hex(), "note": note})
    return click.echo(note, nl=False)


@ledger.command()
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="A checkpoint or a bundle from earlier; may be repeated.",
)
@root_option
@connected()
def audit(session: Session, checkpoints: tuple[Path, ...], trusted_root: Path | None) -> None:
    """Read the whole ledger again: each signature, each hash, and each checkpoint that was kept elsewhere."""
    from adapters.ledger.audit import audit as whole

    log = _root(session, trusted_root).log
    older = [_opened(_note_of(path), log, str(path)) for path in checkpoints]
    head = _opened(session.client.ledger.checkpoint(), log)
    found = whole(map(_logged, session.client.ledger.entries(end=head.size)), log, head, older)
    shown = {"size": found.size, "root": found.root.hex(), "checkpoints": found.older, "log_id": log.id.hex()}
    if session.as_json:
        return print_json({"consistent": True, **shown})
    print_fields(shown)
    if trusted_root is None:
        say("The trust root came with the ledger: pin it, and give --trusted-root.")
    if not checkpoints:
        say("Without a --checkpoint from elsewhere, an end that was cut off does not show.")
    return None


def _root(session: Session, pinned: Path | None) -> TrustedLog:
    from adapters.ledger.root import parse_root

    return parse_root(pinned.read_bytes() if pinned else session.client.ledger.trusted_root())


def _opened(note: str, log: Log, name: str = "the server's checkpoint") -> Checkpoint:
    from adapters.ledger.note import open_note
    from adapters.ledger.proofs import ProofError

    try:
        return open_note(note, log)
    except ProofError as error:
        raise HeadwayError("ledger.inconsistent", f"{name} is not this ledger's: {error}.") from None


def _note_of(path: Path) -> str:
    """A note as it is, or the one that a bundle carries."""
    import json

    text = path.read_text(errors="replace")
    if not text.startswith("{"):
        return text
    try:
        [item] = json.loads(text)["verificationMaterial"]["tlogEntries"]
        return str(item["inclusionProof"]["checkpoint"]["envelope"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HeadwayError("request.invalid_parameter", f"{path} holds no checkpoint.") from None


def _logged(row: dict[str, Any]) -> Any:
    import base64

    from adapters.ledger.entry import Logged

    body, promise = (base64.b64decode(row[name]) for name in ("canonicalized_body", "signed_entry_timestamp"))
    return Logged(int(row["log_index"]), int(row["integrated_time"]), body, promise)
