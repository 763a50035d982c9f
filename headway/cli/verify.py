"""`headway verify`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from tarfile import is_tarfile
from typing import TYPE_CHECKING, Any

import click

from headway.cli.ledger import root_option
from headway.cli.output import error_document, print_error, print_fields, print_json, say
from headway.cli.session import Session, connected
from headway.errors import HeadwayError

if TYPE_CHECKING:
    from headway.cli.exporting import Contents


@click.command()
@click.argument("target", metavar="DIR|FILE|URL|ARTIFACT")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="A public key that you trust.")
@click.option(
    "--sigstore",
    type=click.Path(path_type=Path, exists=True),
    help="Whose keyless signatures you trust: sigstore.json.",
)
@root_option
@click.option("--site-id", metavar="ID", help="Refuse what is of another site.")
@connected()
@click.pass_context
def verify(
    context: click.Context,
    session: Session,
    target: str,
    key: Path | None,
    sigstore: Path | None,
    trusted_root: Path | None,
    site_id: str | None,
) -> None:
    """Check a fetched folder, a release's record or an export, offline; or what is at a URL, or a server's artifact.

    A URL is that of a file, or of a fetched folder with a slash at its end; nothing secret is sent there.
    """
    from headway.cli.downloading import bring, is_url

    if key is not None and sigstore is not None:
        raise click.UsageError("Give --key or --sigstore: an artifact is signed in one way.")
    try:
        with tempfile.TemporaryDirectory() as aside:
            place = bring(target, Path(aside)) if is_url(target) else Path(target)
            proof = _proof(session, target, place, Pinned(key, trusted_root, sigstore), site_id)
    except HeadwayError as failure:
        # A file that was named as a key or a root and is none: nobody's server has failed.
        named = failure.code == "internal.error"
        error = HeadwayError("request.invalid_parameter", failure.message) if named else failure
        print_error(context.find_root().info_name or "headway", error)
        if session.as_json:
            print_json({"verified": False, **error_document(error)})
        context.exit(1)
    print_json({"verified": True, **proof}) if session.as_json else print_fields(proof)
    if sigstore is None and (key is None or trusted_root is None):
        say("Trust what you pinned yourself: give --key and --trusted-root, or compare what came with it.")


@dataclass(frozen=True)
class Pinned:
    key: Path | None
    root: Path | None
    sigstore: Path | None


def _proof(session: Session, target: str, place: Path, pinned: Pinned, site_id: str | None) -> dict[str, Any]:
    from headway.cli.exporting import verify_export
    from headway.cli.fetching import verify_folder, verify_record, verify_served

    by = {"key": pinned.key, "root": pinned.root}
    if place.is_dir() or (place.is_file() and place.name == "bundle.json"):
        folder = place if place.is_dir() else place.parent
        return verify_folder(folder, site_id=site_id, sigstore=pinned.sigstore, **by).as_dict()
    if place.is_file() and is_tarfile(place):
        found = verify_export(place, sigstore=pinned.sigstore, **by)
        if site_id is not None and found.site_id != site_id:
            raise HeadwayError("artifact.signature_invalid", f"It is an export of {found.site_id}.")
        if found.refused:
            raise HeadwayError("artifact.signature_invalid", _refusals(found), **found.as_dict())
        return found.as_dict()
    if place.is_file():
        return verify_record(place, site_id=site_id, **by)
    artifact = session.client.artifacts.find(target)
    return verify_served(session.client, artifact, sigstore=pinned.sigstore, **by).as_dict()


def _refusals(found: Contents) -> str:
    first = found.refused[0]
    return f"{len(found.refused)} of the export do not hold; the first, {first['name']}: {first['message']}"
