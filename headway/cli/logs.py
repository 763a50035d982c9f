"""`headway logs`: the lines of an environment's apps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from headway.cli.output import clean, print_json, printable_json
from headway.cli.session import Session, connected, env_option, site_option

if TYPE_CHECKING:
    from headway.resources import LogLine

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
INTERRUPTED = 130


@click.command()
@site_option
@env_option
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines; with --json one document a line.")
@click.option("--tail", type=click.IntRange(0, 1000), default=100, show_default=True, help="Start with the last N.")
@click.option("--release", metavar="ID", help="Of the instances that serve this release (rel_…).")
@click.option("--instance", metavar="NAME", help="Of one instance, like web.0.")
@click.option("--since", metavar="TIME", help="A time (RFC 3339), or 10m: that long ago.")
@connected()
def logs(
    session: Session,
    site: str,
    env: str,
    follow: bool,
    tail: int,
    release: str | None,
    instance: str | None,
    since: str | None,
) -> int:
    """Print what the apps of an environment have printed."""
    where, found = session.place(site, env)
    wanted = {"tail": tail, "release": release, "instance": instance, "since": since}
    if not follow:
        lines = session.client.logs.last(where.id, found.id, **wanted)
        if session.as_json:
            print_json([line.as_dict() for line in lines])
        else:
            _show(lines)
        return 0
    try:
        following = session.client.logs.follow(where.id, found.id, **wanted)
        if session.as_json:
            for line in following:
                click.echo(printable_json(json.dumps(line.as_dict(), ensure_ascii=False)))
        else:
            _show(following)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _show(lines: Iterable[LogLine]) -> None:
    """`time instance | text`; each instance in a colour of its own where somebody looks."""
    coloured = sys.stdout.isatty()
    colours: dict[str, str] = {}
    for line in lines:
        name = f"{line.sequence}/{line.instance}" if line.instance else "-"
        head = f"{clean(line.ts)} {clean(name)} |"
        text = clean(line.line)
        if coloured:
            colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
            head = click.style(head, fg=colour)
            text = click.style(text, dim=True) if line.stream == "system" else text
        click.echo(f"{head} {text}")
