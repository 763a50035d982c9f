"""Mounts of deleted environments: they stay for the days in which somebody may want them back, then they go."""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from adapters.hosting.rounds import now_and_then
from adapters.sandbox.removal import remove_tree
from headway.broker import Deleted, Mounts
from headway.ids import is_id

EVERY: Final = 3600.0
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def tell_mounts(self, host_id: str, mounts: Mounts) -> Deleted: ...


class MountCollection:
    """`volumes` has a folder for each environment; `keep` is how long those of a deleted one stay, 0 for ever."""

    def __init__(self, host_id: str, volumes: Path, broker: Broker, keep: timedelta) -> None:
        self._host_id = host_id
        self._volumes = volumes
        self._broker = broker
        self._keep = keep.total_seconds()

    async def run(self) -> None:
        """Until it is canceled."""
        if self._keep:
            await now_and_then(self.collect, EVERY, log, "mounts are collected")

    def collect(self) -> list[str]:
        """Whose mounts went. Raises what the broker answers.

        What no row knows stays: it may be of a platform whose rows were put back to an earlier day.
        """
        there = []
        with contextlib.suppress(FileNotFoundError):
            there = sorted(one.name for one in os.scandir(self._volumes) if is_id(one.name) and not one.is_symlink())
        if not there or not self._keep:
            return []
        deleted = self._broker.tell_mounts(self._host_id, Mounts(environments=there)).environments
        return [env_id for env_id in there if deleted.get(env_id, 0) > self._keep and self._remove(env_id)]

    def _remove(self, env_id: str) -> bool:
        """In its place, which may be a file system of its own; what a killed worker left the next look removes.

        An app may have made folders of any depth and mode there.
        """
        home = self._volumes / env_id
        try:
            for name in os.listdir(home):
                remove_tree(home / name)
            home.rmdir()
        except OSError as error:
            log.warning("the mounts of %s, which is deleted, cannot be removed: %s", env_id, error)
            return False
        log.warning("the mounts of %s were removed: it was deleted long ago", env_id)
        return True
