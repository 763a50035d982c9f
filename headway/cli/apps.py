"""`headway apps`: the instances of services on this machine, whether or not anything else of Headway runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adapters.runtime.driver import RuntimeDriver

STOP_GRACE = 10.0
AT_ONCE = 256


@click.group()
def apps() -> None:
    """Look at and stop the apps of this machine (the data folder is HEADWAY_DATA_DIR's)."""


@apps.command("list")
def list_apps() -> None:
    """One line per instance: environment, release, process, state, process id, restarts."""
    for one in _driver().list():
        ref = one.ref
        click.echo(
            f"{ref.env_id}  {ref.seq:>5}  {ref.process}.{ref.index}  {one.state:<10}  "
            f"pid {one.pid or '-'}  {one.restarts} restarts  {one.reason}".rstrip()
        )


@apps.command("stop")
def stop_apps() -> None:
    """Stop every instance, all at once. What is live starts again with the next `headway up`."""
    driver = _driver()
    running = [one for one in driver.list() if one.state not in ("stopped", "absent")]
    # Nearly all of it waits, and whoever stops the stack waits for two minutes in all.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: driver.stop(one.ref, STOP_GRACE), running))
    click.echo(f"{len(running)} stopped.")


def _driver() -> RuntimeDriver:
    from adapters.runtime.choice import driver_of, recorded
    from headway.settings import Settings

    state = Settings().path("host", "run")
    return driver_of(recorded(state), state)
