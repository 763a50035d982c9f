"""`headway verify`."""

from __future__ import annotations

from pathlib import Path
from tarfile import is_tarfile
from typing import TYPE_CHECKING

import click

from headway.cli.ledger import root_option
from headway.cli.output import error_document, print_error, print_fields, print_json, say
from headway.cli.session import Session, connected
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.cli.exporting import Contents


@click.command()
@click.argument("target", metavar="DIR|FILE|ARTIFACT")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="A public key that you trust.")
@root_option
@click.option("--site-id", metavar="ID", help="Refuse what is of another site.")
@connected()
@click.pass_context
def verify(
    context: click.Context,
    session: Session,
    target: str,
    key: Path | None,
    trusted_root: Path | None,
    site_id: str | None,
) -> None:
    """Check a fetched folder, a release's record or an export, offline; or an artifact of a server, by its id."""
    from headway.cli.exporting import verify_export
    from headway.cli.fetching import verify_folder, verify_record, verify_served

    place = Path(target)
    try:
        if place.is_dir():
            proof = verify_folder(place, key=key, site_id=site_id, root=trusted_root).as_dict()
        elif place.is_file() and place.name == "bundle.json":
            proof = verify_folder(place.parent, key=key, site_id=site_id, root=trusted_root).as_dict()
        elif place.is_file() and is_tarfile(place):
            found = verify_export(place, key=key, root=trusted_root)
            proof = found.as_dict()
            if found.refused:
                raise HeadwayError("artifact.signature_invalid", _refusals(found), **proof)
        elif place.is_file():
            proof = verify_record(place, key=key, root=trusted_root)
        else:
            artifact = session.client.artifacts.find(target)
            proof = verify_served(session.client, artifact, key=key, root=trusted_root).as_dict()
    except HeadwayError as error:
        print_error(context.find_root().info_name or "headway", error)
        if session.as_json:
            print_json({"verified": False, **error_document(error)})
        context.exit(1)
    print_json({"verified": True, **proof}) if session.as_json else print_fields(proof)
    if key is None or trusted_root is None:
        say("Trust what you pinned yourself: give --key and --trusted-root, or compare what came with it.")


def _refusals(found: Contents) -> str:
    first = found.refused[0]
    return f"{len(found.refused)} of the export do not hold; the first, {first['name']}: {first['message']}"
