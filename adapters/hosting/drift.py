"""What a host finds otherwise than it left it: kept in a folder until the broker has it, and open until it is mended.

One file per finding, so that neither a crash nor a broker that is away loses it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from adapters.hosting.durable import write_file
from adapters.hosting.rounds import now_and_then
from headway.broker import DriftNote, Drifts, Noted
from headway.ids import new_id

Kind = Literal["instance", "current", "tree", "contents", "release"]
# A host that finds more than that has another problem: the newest are not kept.
MOST: Final = 1000
EVERY: Final = 1.0
log = logging.getLogger("headway.upkeep")


@dataclass(frozen=True)
class Drift:
    """`mended_at` in Unix seconds; None: the host cannot do it alone."""

    env_id: str
    seq: int
    kind: Kind
    what: str
    mended_at: float | None = None
    found_at: float = 0.0
    id: str = ""
    told: bool = False


class Broker(Protocol):
    def report_drifts(self, host_id: str, drifts: Drifts, *, patience: float | None = None) -> Noted: ...


class DriftBook:
    """Thread-safe. `folder` belongs to one host worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._found: dict[str, Drift] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("drift_*.json")):
            with contextlib.suppress(ValueError, TypeError, OSError):
                drift = Drift(**json.loads(path.read_bytes()))
                self._found[drift.id] = drift

    def mended(self, env_id: str, seq: int, kind: Kind, what: str) -> None:
        """It was put right already."""
        self._add(Drift(env_id, seq, kind, what, mended_at=time.time()))

    def open(self, env_id: str, seq: int, kind: Kind, what: str) -> None:
        """It needs somebody else. One finding of a kind is open at a time."""
        if not any(one.kind == kind for one in self.open_in(env_id)):
            self._add(Drift(env_id, seq, kind, what))

    def close(self, env_id: str) -> None:
        """All of it is as it should be again."""
        for drift in self.open_in(env_id):
            self._keep(replace(drift, mended_at=time.time(), told=False))

    def open_in(self, env_id: str) -> list[Drift]:
        with self._lock:
            return [one for one in self._found.values() if one.env_id == env_id and one.mended_at is None]

    def untold(self, limit: int = 100) -> list[Drift]:
        with self._lock:
            return [one for one in self._found.values() if not one.told][:limit]

    def hear(self, told: list[Drift]) -> None:
        """The broker has these: what is mended is forgotten, what is open is kept for its end."""
        for drift in told:
            with self._lock:
                if self._found.get(drift.id) != drift:
                    continue  # it was mended meanwhile: that is to be told, too
            if drift.mended_at is None:
                self._keep(replace(drift, told=True))
            else:
                self._forget(drift.id)

    def _add(self, drift: Drift) -> None:
        log.warning("%s, release %d: %s", drift.env_id, drift.seq, drift.what)
        with self._lock:
            full = len(self._found) >= MOST
        if not full:
            self._keep(replace(drift, id=new_id("drift"), found_at=time.time()))

    def _keep(self, drift: Drift) -> None:
        with self._lock:
            self._found[drift.id] = drift
            write_file(self._folder / f"{drift.id}.json", json.dumps(asdict(drift)).encode())

    def _forget(self, id: str) -> None:
        with self._lock:
            self._found.pop(id, None)
            (self._folder / f"{id}.json").unlink(missing_ok=True)


class DriftReports:
    """Brings what the book holds to the broker, as soon as that answers."""

    def __init__(self, host_id: str, book: DriftBook, broker: Broker) -> None:
        self._host_id = host_id
        self._book = book
        self._broker = broker

    async def run(self) -> None:
        """Until it is canceled."""
        await now_and_then(self.send, EVERY, log, "drifts are told")

    def send(self) -> None:
        found = self._book.untold()
        if found:
            notes = [note_of(drift) for drift in found]
            self._broker.report_drifts(self._host_id, Drifts(drifts=notes), patience=1.0)
            self._book.hear(found)


def note_of(drift: Drift) -> DriftNote:
    return DriftNote(
        id=drift.id,
        env_id=drift.env_id,
        seq=drift.seq,
        kind=drift.kind,
        what=drift.what[:500],
        found_at=drift.found_at,
        mended_at=drift.mended_at,
    )
