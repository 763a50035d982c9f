"""`headway plan`."""

from __future__ import annotations

from pathlib import Path

import click

from headway.cli.output import clean, print_json


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option(
    "--profile",
    type=click.Choice(["auto", "static", "dynamic"]),
    default="auto",
    show_default=True,
    help="What the site is said to be.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def plan(folder: Path, profile: str, as_json: bool) -> None:
    """Show the plan of a build of FOLDER (default: this one) as it is on disk. Nothing runs and nothing is asked.

    The versions are those that builds on this machine would find; a builder elsewhere may have others.
    """
    from adapters.artifact.folder import Folder
    from adapters.plan.detect import detect
    from adapters.plan.toolchain import Toolchain, given

    tools = Toolchain(extra=given())
    with Folder(folder) as opened:
        found = detect(opened, profile, tools)
    if as_json:
        return print_json(found.as_dict())
    for line in found.summary():
        click.echo(clean(line))
    return None
