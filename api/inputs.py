"""What one-off commands find on their standard input, on its way from the caller to the host: files, for a while.

An input is `<environment>.<id>.part` while it comes, `….whole` from its last byte on, and only then may a command have
it: nothing is run with half of one. It goes when its host has all of it, or when nobody has touched it for long.
Replicas of the API share the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError
from headway.ids import is_id, new_id

MOST: Final = 1 << 30
FLOOR: Final = 512 << 20
AT_ONCE: Final = 8  # of one environment
AGAIN: Final = 2  # beside them, while they come: such as will be found to be one that is here
# Seconds for which nobody touched it: one that stopped coming, and one that no command has taken.
PARTIAL_KEPT: Final = 900.0
WHOLE_KEPT: Final = 7200.0


@dataclass(frozen=True)
class Received:
    """`size` in bytes: from there the caller goes on."""

    size: int
    whole: bool


class Writer:
    """Of one request: each byte goes to its own place, so that what is sent again is the same."""

    def __init__(self, handle: int, offset: int, most: int) -> None:
        self._handle, self._at, self._most = handle, offset, most

    def write(self, data: bytes) -> None:
        """Raises input.too_large, service.unavailable (the disk is full)."""
        if self._at + len(data) > self._most:
            raise HeadwayError("input.too_large", f"An input has at most {self._most} bytes.")
        left = os.fstatvfs(self._handle)
        if left.f_bavail * left.f_frsize < FLOOR + len(data):
            raise HeadwayError("service.unavailable", "The disk that inputs are kept on is nearly full.")
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._handle, view, self._at)
            except OSError as error:
                message = f"The input cannot be kept: {error.strerror}."
                raise HeadwayError("service.unavailable", message) from error
            self._at += written
            view = view[written:]


class Inputs:
    """Below one folder. Thread-safe, also between processes."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder = folder
        self.most = most

    def begin(self, env_id: str, *, again: bool = False) -> str:
        """The id of a new input; `again`: it repeats one that is counted already. Raises input.too_many."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        input_id = new_id("input")
        os.close(os.open(self._part(env_id, input_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # Counted when it is there: of many at once none is overlooked.
        if len(list(self.folder.glob(f"{env_id}.*"))) > AT_ONCE + (AGAIN if again else 0):
            self.forget(env_id, input_id)
            message = f"{AT_ONCE} inputs of this environment wait for their commands, or are on their way."
            raise HeadwayError("input.too_many", message)
        return input_id

    @contextlib.contextmanager
    def writer(self, env_id: str, input_id: str, offset: int, announced: int = 0) -> Iterator[Writer]:
        """One request at a time. Raises input.not_found, input.ended, input.not_whole where `offset` leaves a gap,
        input.too_large, and service.unavailable while another request writes.
        """
        if offset + announced > self.most:
            raise HeadwayError("input.too_large", f"An input has at most {self.most} bytes.")
        try:
            handle = os.open(self._part(env_id, input_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._closed(env_id, input_id) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._part(env_id, input_id).exists():
                raise self._closed(env_id, input_id)
            size = os.fstat(handle).st_size
            if offset > size:
                message = f"{size} bytes of this input are here: go on from there."
                raise HeadwayError("input.not_whole", message, received=size)
            yield Writer(handle, offset, self.most)
        except BlockingIOError:
            raise HeadwayError("service.unavailable", "Another request is writing this input.") from None
        finally:
            os.close(handle)

    def finish(self, env_id: str, input_id: str) -> Received:
        """No more of it comes. Raises input.not_found."""
        with contextlib.suppress(FileNotFoundError):
            self._part(env_id, input_id).rename(self._whole(env_id, input_id))
        return self.look(env_id, input_id)

    def look(self, env_id: str, input_id: str) -> Received:
        """Raises input.not_found."""
        for path, whole in ((self._part(env_id, input_id), False), (self._whole(env_id, input_id), True)):
            with contextlib.suppress(FileNotFoundError):
                return Received(path.stat().st_size, whole)
        raise HeadwayError("input.not_found", f"There is no input {input_id}, or its time is over.")

    def require_whole(self, env_id: str, input_id: str) -> int:
        """Its size. Raises input.not_found, input.not_whole."""
        found = self.look(env_id, input_id)
        if not found.whole:
            message = f"{found.size} bytes of the input are here, and its end is not."
            raise HeadwayError("input.not_whole", message, received=found.size)
        return found.size

    def read(self, env_id: str, input_id: str, start: int, most: int) -> bytes:
        """Of a whole one. Raises input.not_found."""
        try:
            with self._whole(env_id, input_id).open("rb") as file:
                file.seek(start)
                os.utime(file.fileno())
                return file.read(most)
        except FileNotFoundError:
            raise HeadwayError("input.not_found", f"There is no input {input_id}, or its time is over.") from None

    def forget(self, env_id: str, input_id: str) -> None:
        for path in (self._part(env_id, input_id), self._whole(env_id, input_id)):
            path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what nobody came back for; how many."""
        gone = 0
        for path in self.folder.glob("*"):
            kept = WHOLE_KEPT if path.suffix == ".whole" else PARTIAL_KEPT
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > kept:
                    path.unlink()
                    gone += 1
        return gone

    def _closed(self, env_id: str, input_id: str) -> HeadwayError:
        """Why there is nothing to write to."""
        try:
            found = self.look(env_id, input_id)
        except HeadwayError as error:
            return error
        return HeadwayError("input.ended", f"The end of {input_id} is here already.", received=found.size)

    def _part(self, env_id: str, input_id: str) -> Path:
        return self._path(env_id, input_id, "part")

    def _whole(self, env_id: str, input_id: str) -> Path:
        return self._path(env_id, input_id, "whole")

    def _path(self, env_id: str, input_id: str, suffix: str) -> Path:
        if not is_id(input_id, "input") or not is_id(env_id):
            raise HeadwayError("input.not_found", "An input's id has an impossible shape.")
        return self.folder / f"{env_id}.{input_id}.{suffix}"
