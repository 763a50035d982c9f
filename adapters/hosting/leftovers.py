"""What lies on a host and has no business there any more: environments that were deleted or moved while it was away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from adapters.hosting.layout import HostFolders
from headway.broker import Environments
from headway.errors import HeadwayError
from headway.ids import is_id

EVERY: Final = 60.0
BATCH: Final = 1_000
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def leftovers(self, host_id: str, environments: Environments) -> Environments: ...


class Leftovers:
    """Asks now and then, and lets go of what is named. `leave` takes an environment away from this host."""

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
                log.debug("leftovers are looked for later: %s", error.code)
            except Exception:
                log.exception("leftovers are looked for later")
            await asyncio.sleep(EVERY)

    def look(self) -> list[str]:
        """What was let go of. Raises what the broker answers."""
        here = [
            path.name
            for path in sorted(self._folders.environments.iterdir())
            if is_id(path.name) and (path / "r").is_dir()
        ]
        gone = []
        for start in range(0, len(here), BATCH):
            asked = Environments(environments=here[start : start + BATCH])
            for env_id in self._broker.leftovers(self._host_id, asked).environments:
                log.warning("%s has no business on this host any more: it goes", env_id)
                self._leave(env_id)
                gone.append(env_id)
        return gone
