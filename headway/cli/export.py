"""`headway export`."""

from __future__ import annotations

from pathlib import Path

import click

from headway.cli.output import print_fields, print_json, say
from headway.cli.session import Session, connected


@click.command()
@click.argument("site", metavar="SITE")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE.tar")
@click.option("--files", "with_files", is_flag=True, help="The files of all artifacts too.")
@connected()
def export(session: Session, site: str, output: Path, with_files: bool) -> None:
    """Write a site's artifacts, the records of its releases and the ledger into one file that proves itself."""
    from headway.cli.exporting import export_site

    found = export_site(session.client, session.site(site), output, with_files=with_files)
    shown = {name: value for name, value in found.as_dict().items() if name not in ("refused", "files")}
    print_json({**shown, "output": str(output)}) if session.as_json else print_fields(shown)
    say(f"Check it anywhere, offline: {session.program} verify {output}")
