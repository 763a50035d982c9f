"""`headway artifacts`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from headway.cli.output import print_fields, print_json, print_table, say
from headway.cli.session import Session, connected, limit_option, site_option


@click.group()
def artifacts() -> None:
    """Artifacts: what builds made, signed."""


@artifacts.command("list")
@site_option
@click.option("--env", default="production", show_default=True, metavar="SLUG|ID")
@limit_option
@connected()
def list_artifacts(session: Session, site: str, env: str, limit: int | None) -> None:
    """List what can be deployed onto an environment, newest first."""
    where, found = session.place(site, env)
    rows = list(session.client.artifacts.list(where.id, found.id, limit=limit))
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("id", "digest", "ref", "commit", "files", "bytes", "created"),
        [
            (
                row.id,
                row.digest[:19],
                row.ref,
                (row.commit_sha or "")[:12],
                row.files,
                row.size_bytes,
                row.created_at,
            )
            for row in rows
        ],
    )


@artifacts.command()
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option("--site", metavar="SLUG|ID", help="Looked for in all sites if left out.")
@connected()
def get(session: Session, artifact_id: str, site: str | None) -> None:
    """Show one artifact."""
    site_id = session.site(site).id if site else None
    found = session.client.artifacts.find(artifact_id, site_id=site_id).as_dict()
    if session.as_json:
        return print_json(found)
    run = found.pop("run", None) or {}
    fields = {name: value for name, value in found.items() if name != "links"}
    return print_fields(fields | {f"run {name}": value for name, value in run.items()})


@artifacts.command()
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option("--off", is_flag=True, help="Let it go again.")
@click.option("--site", metavar="SLUG|ID", help="Looked for in all sites if left out.")
@connected()
def keep(session: Session, artifact_id: str, off: bool, site: str | None) -> None:
    """Keep an artifact from collection, however old it gets."""
    site_id = session.site(site).id if site else None
    found = session.client.artifacts.find(artifact_id, site_id=site_id)
    where = session.client.sites.get(found.site_id)
    row = session.client.artifacts.keep(found, where.production_env_id or "", kept=not off)
    if session.as_json:
        return print_json(row.as_dict())
    return say(f"{row.id} is collected like any other." if off else f"{row.id} is never collected.")


@artifacts.command()
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option("--against", metavar="ARTIFACT", help="Only what has changed since that one.")
@click.option("--site", metavar="SLUG|ID", help="Looked for in all sites if left out.")
@connected()
def sbom(session: Session, artifact_id: str, against: str | None, site: str | None) -> None:
    """Show what an artifact was made of: its bill of materials, CycloneDX with --json."""
    site_id = session.site(site).id if site else None
    found = session.client.artifacts.find(artifact_id, site_id=site_id)
    if against is not None:
        older = session.client.artifacts.find(against, site_id=found.site_id)
        changes = session.client.artifacts.sbom_changes(found, older)
        if session.as_json:
            return print_json(changes)
        changed = [(one["package"], one["before"], one["after"]) for one in changes["changes"]]
        return print_table(("package", "before", "after"), changed)
    document = json.loads(session.client.artifacts.document(found, "sbom"))
    if session.as_json:
        return print_json(document)
    rows = [(one["purl"], one.get("scope", "required")) for one in document["components"]]
    return print_table(("component", "scope"), rows)


@artifacts.command()
@click.argument("artifact_id", metavar="ARTIFACT")
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Made if it is missing.")
@click.option("--files", "with_files", is_flag=True, help="Its files too, below DIR/files.")
@click.option("--site", metavar="SLUG|ID", help="Looked for in all sites if left out.")
@connected()
def fetch(session: Session, artifact_id: str, output: Path, with_files: bool, site: str | None) -> None:
    """Fetch manifest.json, bundle.json, key.pub and trusted_root.json, checked; with --files the files, each hashed."""
    from headway.cli.fetching import fetch_artifact

    site_id = session.site(site).id if site else None
    artifact = session.client.artifacts.find(artifact_id, site_id=site_id)
    proof = fetch_artifact(session.client, artifact, output, with_files=with_files)
    if session.as_json:
        return print_json({"artifact": artifact.id, "output": str(output), **proof.as_dict()})
    print_fields({"artifact": artifact.id, **proof.as_dict()})
    return say(f"Verified, in {output}. Check it again, offline: {session.program} verify {output}")


@artifacts.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="A public key that you trust (DIR/key.pub).")
@click.option("--site-id", metavar="ID", help="Refuse an artifact of another site.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def verify(context: click.Context, folder: Path, key: Path | None, site_id: str | None, as_json: bool) -> None:
    """Check a fetched folder, offline: signature, statement, manifest and, where they are there, all files."""
    from headway.cli.fetching import verify_folder
    from headway.cli.output import error_document, print_error
    from headway.errors import HeadwayError

    try:
        proof = verify_folder(folder, key=key, site_id=site_id)
    except HeadwayError as error:
        print_error(context.find_root().info_name or "headway", error)
        if as_json:
            print_json({"verified": False, **error_document(error)})
        context.exit(1)
    if as_json:
        return print_json({"verified": True, **proof.as_dict()})
    print_fields(proof.as_dict())
    if key is None:
        say("The key came with the artifact: compare its hint with what the platform publishes, or give --key.")
    return None
