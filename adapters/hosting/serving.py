"""What this host serves, told now and then; what has no business here any more goes.

An environment was deleted or moved while the host was away, or its names or its password were changed; or the host
serves something else than the rows say, after its disk was replaced or put back: then a rollout in that environment's
order puts it right.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from adapters.hosting.layout import HostFolders
from adapters.hosting.rounds import now_and_then
from adapters.hosting.switch import ReleaseSwitch
from adapters.router.routes import leads_of
from headway.broker import Leads, Leftovers, Misled, Serving, leads_digest
from headway.errors import HeadwayError
from headway.ids import is_id

EVERY: Final = 60.0
# Until the platform answers: a host that comes back may let visitors in who need a password by now.
AGAIN: Final = 5.0
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def tell_serving(self, host_id: str, serving: Serving) -> Leftovers: ...

    def tell_leads(self, host_id: str, leads: Leads) -> Misled: ...


class ServingReports:
    """`leave` takes an environment away from this host, `route` lets its names lead to it as the rows say."""

    def __init__(
        self,
        host_id: str,
        folders: HostFolders,
        broker: Broker,
        leave: Callable[[str], None],
        route: Callable[[str], None],
    ) -> None:
        self._host_id = host_id
        self._folders = folders
        self._broker = broker
        self._leave = leave
        self._route = route

    async def run(self) -> None:
        """Until it is canceled."""
        await now_and_then(self._tell, EVERY, log, "what is served is told", again=AGAIN)

    def _tell(self) -> None:
        self.look()
        self.follow()

    def look(self) -> list[str]:
        """What was let go of. Raises what the broker answers.

        One whose folder is damaged is left out, which says that it serves nothing: it is put right, and no other waits.
        """
        live = dict.fromkeys(filter(is_id, leads_of(self._folders.routes)), 0)
        for path in self._folders.environments.iterdir():
            if is_id(path.name) and (path / "r").is_dir():
                live.pop(path.name, None)
                with _told(path.name):
                    live[path.name] = ReleaseSwitch(path).live().seq
        gone = self._broker.tell_serving(self._host_id, Serving(live=live)).environments
        for env_id in gone:
            log.warning("%s has no business on this host any more: it goes", env_id)
            with _told(env_id):
                self._leave(env_id)
        return gone

    def follow(self) -> list[str]:
        """Whose names were changed while this host was away: they lead as the rows say. Raises what the broker answers.

        Of an environment that lies here without any name, that is told too.
        """
        folders = (path.name for path in self._folders.environments.iterdir() if (path / "r").is_dir())
        leads = dict.fromkeys(filter(is_id, folders), leads_digest({}, "")) | leads_of(self._folders.routes)
        misled = self._broker.tell_leads(self._host_id, Leads(leads=leads)).environments
        for env_id in misled:
            log.info("the names or the password of %s were changed without this host", env_id)
            with _told(env_id):
                self._route(env_id)
        return misled


@contextlib.contextmanager
def _told(env_id: str) -> Iterator[None]:
    try:
        yield
    except HeadwayError as error:
        log.warning("%s: %s", env_id, error.message)
