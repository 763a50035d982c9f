"""A ring: numbered records of one environment in a few files that together stay below a size.

`<folder>/<env_id>/<number>.jsonl`, named by the number before its first record. Its first line says what was heard
of each source (`{"n", "heads"}`), the others are `{"n", "d": record}`, and the last of those that came together also
has `"s"`, the source, and `"h"`, what has been heard of it now. So a batch is there whole or not at all, and the newest
file alone says where each source goes on. Nothing is synced to disk: the kernel keeps what was written when this
process is killed. Replicas of the API share the folder: whoever appends holds the ring's lock, and has read what others
wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headway.errors import HeadwayError
from headway.ids import is_id

PIECES: Final = 4
SOURCES: Final = 500
LONGEST: Final = 1 << 20  # of what is read at once; a line is far shorter
Numbered = tuple[int, Any]


@dataclass
class Ring:
    """One environment's. Thread-safe, and safe among processes for who looks at `heads` and appends `alone`."""

    folder: Path
    max_bytes: int
    number: int = 0
    heads: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _path: Path | None = None
    _size: int = 0

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other thread or process appends meanwhile, and all that they did is known. Raises service.unavailable."""
        with self._lock, self._locked():
            files = self.files()
            newest = files[-1] if files else None
            if newest != self._path or (newest is not None and newest.stat().st_size != self._size):
                self._load()
            yield

    def newest(self) -> int:
        """The number of the last record, whoever wrote it."""
        if self.folder.exists():
            with self.alone():
                return self.number
        return 0

    def append(self, source: str, head: Any, records: Sequence[Any]) -> None:
        """Keep records, and what has been heard of their source with them; `alone`. Raises service.unavailable."""
        if not records:
            return
        if self._path is None or self._size > self.max_bytes // PIECES:
            self._begin()
        last = self.number + len(records)
        lines = [_line({"n": at, "d": one}) for at, one in enumerate(records[:-1], self.number + 1)]
        lines.append(_line({"n": last, "d": records[-1], "s": source, "h": head}))
        self._write("".join(lines))
        self.number = last
        self.heads.pop(source, None)
        self.heads[source] = head

    def tail(self, count: int, wanted: Callable[[Any], bool], before: int | None = None) -> tuple[list[Numbered], bool]:
        """The last records that are wanted, oldest first, and whether there are more of them before; of none, no."""
        found: list[Numbered] = []
        for path in reversed(self.files()):
            for raw in reversed(_bytes(path).splitlines()):
                record = _parsed(raw)
                if record is None or (before is not None and record[0] >= before) or not wanted(record[1]):
                    continue
                if len(found) == count:
                    return found[::-1], bool(found)
                found.append(record)
        return found[::-1], False

    def first(self) -> int:
        """The number of the oldest record that is kept, or of the next one."""
        files = self.files()
        return int(files[0].stem) + 1 if files else 1

    def files(self) -> list[Path]:
        """Oldest first."""
        try:
            return sorted(self.folder.glob("*.jsonl"))
        except FileNotFoundError:
            return []

    def size(self) -> int:
        """It changes with every record, whoever wrote it."""
        try:
            newest = self.files()[-1]
            return (int(newest.stem) << 32) + newest.stat().st_size
        except (IndexError, FileNotFoundError):
            return 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HeadwayError("service.unavailable", "The log cannot be written.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _load(self) -> None:
        """Go on where others ended: what came of a last batch alone is cut off."""
        self.number, self.heads, self._path, self._size = 0, {}, None, 0
        files = self.files()
        if not files:
            return
        size = 0
        whole = 0
        for raw in _bytes(files[-1]).splitlines(keepends=True):
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else {}
            except ValueError:
                break
            size += len(raw)
            if "heads" in line:
                self.heads, self.number, whole = line["heads"], line["n"], size
            elif "h" in line:
                self.heads.pop(line["s"], None)
                self.heads[line["s"]] = line["h"]
                self.number, whole = line["n"], size
        if whole == 0:
            # Killed while it began the file: the one before has everything.
            files[-1].unlink(missing_ok=True)
            return self._load()
        os.truncate(files[-1], whole)
        self._path, self._size = files[-1], whole

    def _begin(self) -> None:
        """A new file; the oldest goes."""
        while len(self.heads) > SOURCES:
            del self.heads[next(iter(self.heads))]
        self._path, self._size = self.folder / f"{self.number:016d}.jsonl", 0
        self._write(_line({"n": self.number, "heads": self.heads}))
        for old in self.files()[:-PIECES]:
            old.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        assert self._path is not None  # noqa: S101
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(handle, data) != len(data):
                    os.ftruncate(handle, self._size)
                    raise HeadwayError("service.unavailable", "The disk of the logs is full.")
            finally:
                os.close(handle)
        except OSError as error:
            raise HeadwayError("service.unavailable", "The log cannot be written.") from error
        self._size += len(data)


class Rings:
    """The rings below one folder, `max_bytes` for each. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._rings: dict[str, Ring] = {}
        self._lock = threading.Lock()

    def ring(self, env_id: str) -> Ring:
        if not is_id(env_id, "env"):
            raise HeadwayError("environment.not_found", f"There is no environment {env_id}.")
        with self._lock:
            if env_id not in self._rings:
                made = Ring(self.folder / env_id, self.max_bytes)
                made.newest()
                self._rings[env_id] = made
            return self._rings[env_id]

    def known(self) -> list[str]:
        """The environments that have one."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in self.folder.iterdir() if is_id(path.name, "env"))
        return []

    def forget(self, env_id: str) -> None:
        with self._lock:
            self._rings.pop(env_id, None)
        shutil.rmtree(self.folder / env_id, ignore_errors=True)


class RingReader:
    """Reads a ring from behind a number on, as it grows."""

    def __init__(self, ring: Ring, after: int) -> None:
        self.ring = ring
        self.after = after
        self._path: Path | None = None
        self._offset = 0

    def read(self) -> tuple[list[Numbered], int]:
        """The next records, up to about a megabyte of them, and how many were dropped before them."""
        dropped = max(0, self.ring.first() - 1 - self.after)
        self.after += dropped
        if dropped:
            self._path = None
        found: list[Numbered] = []
        for path in self._from():
            if path != self._path:
                self._path, self._offset = path, 0
            while not found and (end := (chunk := _bytes(path, self._offset, LONGEST)).rfind(b"\n") + 1):
                self._offset += end
                records = (_parsed(raw) for raw in chunk[:end].splitlines())
                found += [one for one in records if one is not None and one[0] > self.after]
            if found:
                self.after = found[-1][0]
                break
        return found, dropped

    def _from(self) -> Iterator[Path]:
        files = self.ring.files()
        if self._path in files:
            return iter(files[files.index(self._path) :])
        behind = [path for path in files if int(path.stem) <= self.after]
        return iter(files[max(0, len(behind) - 1) :])


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n"


def _parsed(raw: bytes) -> Numbered | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None  # its writer was killed
    return (line["n"], line["d"]) if "d" in line else None


def _bytes(path: Path, offset: int = 0, limit: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""
