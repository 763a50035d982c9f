"""What this host serves, told now and then; what has no business here any more goes.

An environment was deleted or moved while the host was away; or the host serves something else than the rows say, after
its disk was replaced or put back: then a rollout in that environment's order puts it right.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from adapters.hosting.layout import HostFolders
from adapters.hosting.switch import ReleaseSwitch
from headway.broker import Leftovers, Serving
from headway.errors import HeadwayError
from headway.ids import is_id

EVERY: Final = 60.0
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def tell_serving(self, host_id: str, serving: Serving) -> Leftovers: ...


class ServingReports:
    """`leave` takes an environment away from this host."""

    def __init__(self, host_id: str, folders: HostFolders, broker: Broker, leave: Callable[[str], None]) -> None:
        self._host_id = host_id
        self._folders = folders
        self._broker = broker
        self._leave = leave

    async def run(self) -> None:
        """Until it is canceled."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except HeadwayError as error:
                log.debug("what is served is told later: %s", error.code)
            except Exception:
                log.exception("what is served is told later")
            await asyncio.sleep(EVERY)

    def look(self) -> list[str]:
        """What was let go of. Raises what the broker answers.

        One whose folder is damaged is left out, which says that it serves nothing: it is put right, and no other waits.
        """
        live = {}
        for path in self._folders.environments.iterdir():
            if is_id(path.name) and (path / "r").is_dir():
                with _told(path.name):
                    live[path.name] = ReleaseSwitch(path).live().seq
        gone = self._broker.tell_serving(self._host_id, Serving(live=live)).environments
        for env_id in gone:
            log.warning("%s has no business on this host any more: it goes", env_id)
            with _told(env_id):
                self._leave(env_id)
        return gone


@contextlib.contextmanager
def _told(env_id: str) -> Iterator[None]:
    try:
        yield
    except HeadwayError as error:
        log.warning("%s: %s", env_id, error.message)
