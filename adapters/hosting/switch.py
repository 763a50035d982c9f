"""The fenced switch: which release of an environment is live (DESIGN section 3, invariant 3).

`fence` keeps the last applied step `{seq, step, live, previous, rollout}`; a step with a lower number is refused, the
same step again gets the same answer. Comparing, writing the fence and renaming `current` happen under one lock, the
fence first: killed in between, the same step finishes the work and any later one starts from what `current` says.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from adapters.hosting.durable import point, sync_folder, write_file
from headway.errors import HeadwayError

# Above every sequence number that a row can hold.
RETIRED: Final = 1 << 62


@dataclass(frozen=True)
class Position:
    """What is live (0: nothing), and what was before the last step."""

    seq: int
    previous: int = 0


@dataclass(frozen=True)
class Step:
    """The last applied step. `step`: none | switch | undo | fence | leave | retire."""

    seq: int = 0
    step: str = "none"
    live: int = 0
    previous: int = 0
    rollout: str = ""


class ReleaseSwitch:
    """One environment's folder. Every method is safe against other threads and processes, and idempotent.

    Raises roll.stale where a later step was applied, roll.timeout (retryable) where the lock is held for `patience`
    seconds (a frozen process: the work goes on once it has been killed or continued).
    """

    def __init__(self, env: Path, *, patience: float = 5.0) -> None:
        self.env = env
        self._patience = patience

    def release(self, seq: int) -> Path:
        """The folder of a placed release."""
        return self.env / "r" / str(seq)

    def live(self) -> Position:
        """What `current` says, without the lock."""
        seq = self._current()
        step = self.last_step()
        return Position(seq, step.previous if step.live == seq else 0)

    def last_step(self) -> Step:
        """Raises internal.error where the file is not ours: refusing is safer than guessing."""
        try:
            raw = (self.env / "fence").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return Step()
        try:
            return Step(**json.loads(raw))
        except (ValueError, TypeError):
            raise HeadwayError("internal.error", "The fence of an environment cannot be read.") from None

    def switch(self, seq: int, rollout: str = "") -> Position:
        """Make the placed release `seq` live. Raises roll.verify_failed where it is not placed."""
        with self._locked():
            return self._apply(seq, "switch", seq, rollout)

    def undo(self, seq: int, back_to: int | None = None, rollout: str = "") -> Position:
        """Put `back_to` (0: nothing) live again; None: what was live before this rollout's own switch."""
        with self._locked():
            if back_to is None:
                last = self.last_step()
                switched = last.step in ("switch", "undo") and last.rollout == rollout
                back_to = last.previous if switched else self._current()
            return self._apply(seq, "undo", back_to, rollout)

    def fence(self, seq: int, rollout: str = "") -> Position:
        """Refuse every step up to `seq` from now on, whatever is live; also where nothing was ever placed."""
        self.env.mkdir(parents=True, exist_ok=True)
        with self._locked():
            last = self.last_step()
            if last.seq > seq:
                return Position(self._current(), last.previous)
            now = self._current()
            if last != Step(seq, "fence", now, last.previous, rollout):
                self._write(Step(seq, "fence", now, last.previous, rollout))
            return Position(now, last.previous)

    def mend(self) -> str | None:
        """Let `current` say what the last step made live, where it does not: what it said instead. None: it did.

        Also the end of a step that was killed between its two writes, as its next try would do it.
        """
        last = self.last_step()
        if last.seq == 0 or self._says(last.live):
            return None
        with self._locked():
            last = self.last_step()
            if self._says(last.live) or (last.live and not self.release(last.live).is_dir()):
                return None
            path = self.env / "current"
            said = (
                f"led to {os.readlink(path)}" if path.is_symlink() else "was no link" if path.exists() else "was gone"
            )
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            if last.live:
                point(path, f"r/{last.live}")
            else:
                path.unlink(missing_ok=True)
                sync_folder(self.env)
            return said

    def _says(self, seq: int) -> bool:
        try:
            return os.readlink(self.env / "current") == f"r/{seq}"
        except FileNotFoundError:
            return seq == 0
        except OSError:
            return False

    def retire(self) -> None:
        """Nothing is live any more, and no later step can change it. The folders are the caller's to remove."""
        if not self.env.is_dir():
            return
        with self._locked():
            self._write(Step(RETIRED, "retire"))
            self._point(0)

    def leave(self) -> None:
        """Nothing is live any more; a later step may bring the environment back here."""
        if not self.env.is_dir():
            return
        with self._locked():
            self._write(Step(self.last_step().seq, "leave"))
            self._point(0)

    @contextlib.contextmanager
    def spared(self, seq: int) -> Iterator[None]:
        """Hold the lock while something of release `seq` is stopped or removed. Raises roll.stale if it is live."""
        with self._locked():
            if self._current() == seq:
                raise HeadwayError("roll.stale", f"Release {seq} is live: it is neither stopped nor removed.")
            yield

    def _apply(self, seq: int, step: str, target: int, rollout: str) -> Position:
        last = self.last_step()
        if last.seq > seq or (last.seq == seq and last.step != step):
            raise HeadwayError("roll.stale", f"Step {last.seq} was applied: step {seq} comes too late.")
        if last.seq < seq:
            if target and not self.release(target).is_dir():
                raise HeadwayError("roll.verify_failed", f"Release {target} is not placed on this host.")
            last = Step(seq, step, target, self._current(), rollout)
            self._write(last)
        self._point(last.live)
        return Position(last.live, last.previous)

    def _current(self) -> int:
        try:
            return int(os.readlink(self.env / "current").rpartition("/")[2])
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except (OSError, ValueError):
            raise HeadwayError("internal.error", "`current` of an environment is not a link to a release.") from None

    def _point(self, seq: int) -> None:
        if self._current() == seq:
            return
        if seq:
            point(self.env / "current", f"r/{seq}")
        else:
            os.unlink(self.env / "current")
            sync_folder(self.env)

    def _write(self, step: Step) -> None:
        write_file(self.env / "fence", json.dumps(asdict(step)).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self.env / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            raise HeadwayError("roll.verify_failed", "The environment is not placed on this host.") from None
        try:
            self._wait_for(fd)
            yield
        finally:
            os.close(fd)

    def _wait_for(self, fd: int) -> None:
        deadline = time.monotonic() + self._patience
        pause = 0.0005
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HeadwayError("roll.timeout", "Another process holds the environment's lock.") from None
                time.sleep(pause)
                pause = min(pause * 2, 0.02)
