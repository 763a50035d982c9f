"""`headway metrics` and `headway request-logs`: what visitors asked of an environment."""

from __future__ import annotations

import click

from headway.cli.output import print_json, print_table, say
from headway.cli.session import Session, connected, env_option, site_option

COLUMNS = ("requests", "status_2xx", "status_3xx", "status_4xx", "status_5xx", "p50_ms", "p95_ms", "p99_ms", "bytes")


@click.command()
@site_option
@env_option
@click.option("--minutes", type=click.IntRange(1, 1440), default=60, show_default=True, help="Up to now.")
@connected()
def metrics(session: Session, site: str, env: str, minutes: int) -> None:
    """Show the requests of an environment by minute: how many, how they ended, how long they took."""
    where, found = session.place(site, env)
    told = session.client.requests.metrics(where.id, found.id, minutes=minutes)
    if session.as_json:
        return print_json(told.as_dict())
    if told.access_log != "all":
        say(f"(this installation counts: {told.access_log}; see HEADWAY_ACCESS_LOG)")
    rows = [*told.minutes, {"minute": "total", **told.total}]
    return print_table(
        ("minute", *(name.removeprefix("status_") for name in COLUMNS)),
        [(row.get("minute"), *(row.get(name) for name in COLUMNS)) for row in rows],
    )


@click.command()
@site_option
@env_option
@click.option("--tail", type=click.IntRange(1, 1000), default=100, show_default=True, help="The last N.")
@connected()
def request_logs(session: Session, site: str, env: str, tail: int) -> None:
    """Show the last requests of an environment, without their queries."""
    where, found = session.place(site, env)
    rows = session.client.requests.last(where.id, found.id, tail=tail)
    if session.as_json:
        return print_json([row.as_dict() for row in rows])
    return print_table(
        ("time", "method", "path", "status", "ms", "bytes"),
        [(row.ts, row.method, row.path, row.status, row.duration_ms, row.bytes) for row in rows],
    )
