"""A host's own key, and the sealed configuration that it keeps beside each release.

What lies there is opened only by whoever starts the app (adapters/config/sealed.py), so that an app restarts with the
control plane down. It goes with the release's folder.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from adapters.config.sealed import FILE_NAME, SealedError, make_host_key, public_of, seat_of
from adapters.hosting.durable import write_file
from headway.broker import HostHello, Known, SealedConfig
from headway.errors import HeadwayError

AGAIN_SECONDS: Final = 5.0
# While nobody has answered yet: whoever starts a stack asks for its hosts as soon as it is ready.
FIRST_SECONDS: Final = 0.3
# Who has been silent for longer has been away: what it missed comes to it once it speaks again.
BEAT_SECONDS: Final = 5.0
AWAY: Final = "service.unavailable"
log = logging.getLogger("headway.host")


class Broker(Protocol):
    def get_config(self, rollout_id: str) -> SealedConfig: ...

    def hello(self, host_id: str, hello: HostHello, *, patience: float | None = None) -> Known: ...


class Configuration:
    """Registers this host's key, asks for what is sealed to it, and keeps that. Thread-safe."""

    def __init__(self, host_id: str, key_file: Path, broker: Broker, labels: Iterable[str] = ()) -> None:
        make_host_key(key_file)
        self.host_id = host_id
        self.key_file = key_file
        self._broker = broker
        self._labels = sorted(set(labels))
        self._answered = asyncio.Event()

    def register(self) -> None:
        """Raises host.key_changed where another key is pinned, and service.unavailable."""
        self._broker.hello(
            self.host_id, HostHello(public_key=public_of(self.key_file), labels=self._labels), patience=1.0
        )

    async def stay_registered(self) -> None:
        """For ever: say again that it is there. A refusal is said once; an operator may accept a new key any time."""
        said = ""
        while True:
            try:
                await asyncio.to_thread(self.register)
                said = ""
            except Exception as error:
                # Whatever it was: who stops saying that it is there is away for everybody else.
                code, why = (error.code, error.message) if isinstance(error, HeadwayError) else (AWAY, repr(error))
                if code != said:
                    log.warning("this host is not registered: %s", why)
                said = code
            if said != AWAY:
                self._answered.set()
            again = AGAIN_SECONDS if self._answered.is_set() else FIRST_SECONDS
            await asyncio.sleep(again if said else BEAT_SECONDS)

    async def answered(self) -> None:
        """Wait until the platform knows this host, or has refused it."""
        await self._answered.wait()

    def fetch(self, rollout_id: str) -> bytes:
        """What is sealed to this host for a rollout. Registers first where the broker does not know it.

        Raises roll.place_failed (retryable) for what is not that rollout's, and what the broker refuses.
        """
        try:
            answer = self._broker.get_config(rollout_id)
        except HeadwayError as error:
            if error.code != "host.not_found":
                raise
            self.register()
            answer = self._broker.get_config(rollout_id)
        try:
            sealed = base64.b64decode(answer.sealed, validate=True)
            seat = seat_of(sealed)
        except (binascii.Error, SealedError) as error:
            raise HeadwayError("roll.place_failed", "The configuration of the rollout came damaged.") from error
        if (seat.rollout_id, seat.host_id) != (rollout_id, self.host_id):
            raise HeadwayError("roll.place_failed", "The configuration that came is another rollout's.")
        return sealed

    def place(self, rollout_id: str, release_folder: Path) -> None:
        """Fetch and keep a rollout's configuration beside its placed release. Idempotent.

        Also for what runs already, where the file was lost or this host has a new key. An empty configuration is kept
        too: its absence says that something was lost.
        """
        keep_config(release_folder, self.fetch(rollout_id))


def keep_config(release_folder: Path, sealed: bytes) -> None:
    """Write `config.sealed` beside the release's markers: whole or not at all, durable, mode 0600."""
    write_file(release_folder / FILE_NAME, sealed, 0o600)
