"""Slots: how many runs there may be at once, each with a numeric uid and a folder of its own.

<state>/slots/<number>/lock     held by flock while the slot is taken, so processes share a state folder safely
<state>/slots/<number>/<token>/ {workspace,home,tmp}, mode 0700, owned by the slot's uid, gone afterwards
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.sandbox import leftovers
from adapters.sandbox.removal import remove_tree
from headway.errors import HeadwayError

# Above what distributions give to people, services, containers and systemd (systemd.io/UIDS-GIDS), and below 2^31.
FIRST_UID, UID_BLOCKS, UIDS_PER_STATE = 1_900_000_000, 1_000_000, 100
SMALL_FIRST_UID, SMALL_BLOCKS = 20_000, 380  # where a container maps only 65,536 uids
WAIT_SECONDS = 0.05


@dataclass(frozen=True)
class Slot:
    """A taken slot. `uid` is None where this process cannot drop to another."""

    number: int
    uid: int | None
    folder: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"


class Slots:
    """`take` and `give_back`; threads and processes may share one state folder. Left-overs go when it is made."""

    def __init__(self, state: Path, count: int, *, drop: bool) -> None:
        self._root = state.absolute() / "slots"
        self._count = count
        self._drop = drop
        self._changed = threading.Condition()
        self._locks: dict[int, int] = {}
        self.tag = _tag(self._root)
        self._root.mkdir(parents=True, exist_ok=True)
        self._root.chmod(0o711 if drop else 0o700)
        for entry in self._root.iterdir():
            if entry.name.isdigit() and (lock := self._lock(int(entry.name))) is not None:
                with contextlib.suppress(OSError):
                    self._sweep(int(entry.name))
                os.close(lock)

    def take(self, canceled: Callable[[], bool] = lambda: False) -> Slot | None:
        """Wait for a free slot and take it; None if `canceled` came first."""
        while not canceled():
            with self._changed:
                for number in range(self._count):
                    if number not in self._locks and (lock := self._lock(number)) is not None:
                        self._locks[number] = lock
                        break
                else:
                    self._changed.wait(WAIT_SECONDS)  # bounded: another process may free one as well
                    continue
            try:
                return self._prepare(number)
            except BaseException:
                self._unlock(number)
                raise
        return None

    def give_back(self, slot: Slot) -> None:
        """Remove the slot's folder and free the slot."""
        try:
            _remove(slot.folder)
        finally:
            self._unlock(slot.number)

    def uid(self, number: int) -> int | None:
        """The slot's uid (and gid): the same in every process on this state folder, unlike other folders' uids."""
        return uid_range(self._root.parent)[0] + number if self._drop else None

    def mark(self, number: int) -> str:
        """What the processes of a slot's runs carry in their environment (`leftovers.VARIABLE`)."""
        return f"{self.tag}-{number}"

    def _prepare(self, number: int) -> Slot:
        top = self._root / str(number)
        self._sweep(number)
        slot = Slot(number, self.uid(number), top / secrets.token_hex(6))
        for folder in (slot.folder, slot.workspace, slot.home, slot.tmp):
            folder.mkdir(mode=0o700)
            if slot.uid is not None:
                os.chown(folder, slot.uid, slot.uid)
        slot.tmp.chmod(0o1777)
        return slot

    def _lock(self, number: int) -> int | None:
        folder = self._root / str(number)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711 if self._drop else 0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    def _unlock(self, number: int) -> None:
        with self._changed:
            lock = self._locks.pop(number, None)
            if lock is not None:
                os.close(lock)
            self._changed.notify_all()

    def _sweep(self, number: int) -> None:
        """What is there was left by a process that was killed: first what may still write to it."""
        entries = [entry for entry in (self._root / str(number)).iterdir() if entry.name != "lock"]
        uid = self.uid(number)
        if entries and not leftovers.end(self.mark(number), uid if uid is not None and uid >= FIRST_UID else None):
            raise HeadwayError("internal.error", f"Processes of an earlier run hold slot {number}.")
        for entry in entries:
            _remove(entry)


def _remove(folder: Path) -> None:
    """A second try for what a dying process wrote meanwhile."""
    for last in (False, False, True):
        try:
            return remove_tree(folder)
        except OSError:
            if last:
                raise
            time.sleep(0.05)


def uid_range(state: Path) -> tuple[int, int]:
    """The first of the uids of a sandbox's state folder, and their number."""
    seed = int(_tag(state.absolute() / "slots"), 16)
    first = FIRST_UID + seed % UID_BLOCKS * UIDS_PER_STATE
    if is_mapped(first, UIDS_PER_STATE):
        return first, UIDS_PER_STATE
    return SMALL_FIRST_UID + seed % SMALL_BLOCKS * UIDS_PER_STATE, UIDS_PER_STATE


def _tag(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:10]


def is_mapped(first: int, count: int) -> bool:
    """Whether this user namespace has all these uids."""
    return any(start <= first and first + count <= start + length for start, length in _mappings())


def some_uid(wanted: int) -> int:
    """`wanted` where this user namespace has it, else the last one that it has."""
    return wanted if is_mapped(wanted, 1) else max(start + length for start, length in _mappings()) - 1


def _mappings() -> list[tuple[int, int]]:
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        return [(int(first), int(count)) for first, _, count in (line.split() for line in lines)]
    except (OSError, ValueError):
        return [(0, 1 << 16)]
