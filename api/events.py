"""The event log of a job: one file of numbered JSON lines, appended under the file's lock by any API process.

A line is `{"n", "k": "log"|"stage"|"progress", "s": source, "i": number at the source, …}` or
`{"n", "k": "job", "rev"}`, which marks where the row changed between the lines. What a source sends twice is
kept once. Nothing is synced to disk: the kernel keeps what was written when this process is killed, and the
beginning of a line that was cut off is dropped by whoever writes next. A writer that finds the file longer than it
left it reads what others wrote first, so replicas on one volume give one numbering.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from headway.broker import Event
from headway.errors import HeadwayError
from headway.ids import is_id

MAX_BYTES: Final = 96 << 20
# Why a build failed is said past that, too.
SYSTEM_ROOM: Final = 1 << 20
REMEMBERED: Final = 2_000
_SOURCE: Final = re.compile(r"[\w./:@+-]{1,160}", re.ASCII)
_HEAD: Final = re.compile(rb'\{"n":(\d+),"k":"(\w+)",(?:"s":"([^"]*)","i":(\d+)|"rev":(\d+))')


@dataclass
class State:
    """What is known of one file: lines, the newest marked revision, of each source its highest number and its stage."""

    path: Path
    lines: int = 0
    size: int = 0
    rev: int = 0
    full: bool = False
    heard: dict[str, int] = field(default_factory=dict)
    stages: dict[str, str | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Archive(Protocol):
    """Where logs are that have left the folder."""

    def fetch(self, job_id: str) -> bytes | None: ...


class EventLog:
    """The logs below one folder. Thread-safe. One that is only in the `archive` comes back when it is asked for."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.archive: Archive | None = None
        self._states: OrderedDict[str, State] = OrderedDict()
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, job_id: str, source: str, first: int, events: Sequence[Event]) -> int:
        """Keep what is new of `(source, first…)`; how many events that was. Raises request.invalid_parameter."""
        if not _SOURCE.fullmatch(source):
            raise HeadwayError("request.invalid_parameter", "A source has letters, digits and ./:@+-", param="source")
        with self._alone(job_id) as state:
            skip = max(0, state.heard.get(source, 0) + 1 - first)
            fresh = events[skip:]
            if not fresh:
                return 0
            lines: list[str] = [] if state.lines else [_mark(1, 0)]
            number = state.lines + len(lines)
            for offset, event in enumerate(fresh):
                if event.kind == "log" and state.full:
                    if event.stream != "system" or state.size > self.max_bytes + SYSTEM_ROOM:
                        continue
                elif state.size > self.max_bytes and event.kind == "log":
                    state.full = True
                    event = event.model_copy(update={"stream": "system", "line": "The log is too large: it ends here."})
                if event.stage is None:
                    event = event.model_copy(update={"stage": state.stages.get(source)})
                state.stages[source] = event.stage
                number += 1
                lines.append(_line(number, source, first + skip + offset, event))
            self._write(state, lines, number)
            state.heard[source] = first + len(events) - 1
            return len(fresh)

    def mark(self, job_id: str, rev: int) -> int:
        """Note that the row has this revision now; the number of the line that says so, or of the last one."""
        with self._alone(job_id) as state:
            if state.lines == 0 or rev > state.rev:
                self._write(state, [_mark(state.lines + 1, rev)], state.lines + 1)
                state.rev = max(state.rev, rev)
            return state.lines

    def lines(self, job_id: str) -> int:
        """How many lines there are."""
        state = self._state(job_id)
        self._restore(job_id)
        with state.lock:
            _catch_up(state, self.max_bytes)
            return state.lines

    def reader(self, job_id: str, *, after: int = 0) -> Reader:
        """Reads that log from behind a number on."""
        return Reader(self.path(job_id), after=after, restore=lambda: self._restore(job_id))

    def known(self) -> list[str]:
        """The jobs that have a file here."""
        return sorted(path.stem for path in self.folder.glob("*.jsonl") if is_id(path.stem, "job"))

    def touched(self, job_id: str) -> float:
        """When its file was written to last, in Unix seconds; now, where there is none."""
        try:
            return self.path(job_id).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def size(self, job_id: str) -> int:
        """Bytes of the file: it changes with every line, whoever wrote it."""
        try:
            return os.stat(self.path(job_id)).st_size
        except FileNotFoundError:
            return 0

    def forget(self, job_id: str) -> None:
        """Delete the file of a job whose row is gone, or whose log is in the archive."""
        with self._lock:
            self._states.pop(job_id, None)
        self.path(job_id).unlink(missing_ok=True)

    def path(self, job_id: str) -> Path:
        if not is_id(job_id, "job"):
            raise HeadwayError("job.not_found", f"There is no job {job_id}.")
        return self.folder / f"{job_id}.jsonl"

    @contextlib.contextmanager
    def _alone(self, job_id: str) -> Iterator[State]:
        """This thread alone writes that log, of all threads and processes, and knows everything that is in it."""
        state = self._state(job_id)
        self._restore(job_id)
        with state.lock:
            handle = self._open(state.path)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                _catch_up(state, self.max_bytes)
                if os.fstat(handle).st_size > state.size:
                    # Nobody else holds the lock: what follows the last whole line was cut off by a kill.
                    os.ftruncate(handle, state.size)
                yield state
            finally:
                os.close(handle)

    def _restore(self, job_id: str) -> bool:
        """Bring a log back that only the archive has; whether it was."""
        path = self.path(job_id)
        raw = self.archive.fetch(job_id) if self.archive is not None and not path.exists() else None
        if raw is None:
            return False
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        fresh.write_bytes(raw)
        fresh.chmod(0o600)
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HeadwayError("service.unavailable", "The event log cannot be written.") from error

    def _write(self, state: State, lines: list[str], number: int) -> None:
        data = "".join(lines).encode("utf-8", "replace")
        handle = self._open(state.path)
        try:
            written = os.write(handle, data)
            if written != len(data):
                os.ftruncate(handle, state.size)
                raise HeadwayError("service.unavailable", "The disk of the event log is full.")
        except OSError as error:
            raise HeadwayError("service.unavailable", "The event log cannot be written.") from error
        finally:
            os.close(handle)
        state.size += len(data)
        state.lines = number

    def _state(self, job_id: str) -> State:
        with self._lock:
            state = self._states.setdefault(job_id, State(self.path(job_id)))
            self._states.move_to_end(job_id)
            while len(self._states) > REMEMBERED:
                self._states.popitem(last=False)
            return state


def _catch_up(state: State, max_bytes: int) -> None:
    """Read the whole lines that are new since this process looked last."""
    try:
        file = state.path.open("rb")
    except FileNotFoundError:
        _forget(state)
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        if size == state.size:
            return
        if size < state.size:
            _forget(state)
        file.seek(state.size)
        for raw in file:
            head = _HEAD.match(raw)
            if head is None or not raw.endswith(b"\n"):
                break
            _learn(state, head, raw)
    state.full = state.full or state.size > max_bytes


def _learn(state: State, head: re.Match[bytes], raw: bytes) -> None:
    state.size += len(raw)
    state.lines = int(head[1])
    if head[5] is not None:
        state.rev = max(state.rev, int(head[5]))
        return
    source = head[3].decode()
    state.heard[source] = max(state.heard.get(source, 0), int(head[4]))
    if head[2] != b"log":
        state.stages[source] = json.loads(raw)["stage"]


def _forget(state: State) -> None:
    """The file is not the one that was known: it was forgotten, with its job."""
    state.lines, state.size, state.rev, state.full = 0, 0, 0, False
    state.heard.clear()
    state.stages.clear()


class Reader:
    """Reads one log from after a number on, as it grows."""

    def __init__(self, path: Path, *, after: int = 0, restore: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        self.after = after
        self._restore = restore
        self._offset = 0

    def read(self, *, limit: int = 1 << 18) -> list[dict[str, Any]]:
        """The next whole lines, up to about `limit` bytes; empty where there are none yet."""
        found: list[dict[str, Any]] = []
        try:
            with self.path.open("rb") as file:
                while not found:
                    file.seek(self._offset)
                    chunk = file.read(limit)
                    end = chunk.rfind(b"\n") + 1
                    if not end:
                        if len(chunk) < limit:
                            return []
                        chunk += file.readline()
                        end = len(chunk)
                    self._offset += end
                    for raw in chunk[:end].splitlines():
                        line = json.loads(raw)
                        if line["n"] > self.after:
                            found.append(line)
                            self.after = line["n"]
        except FileNotFoundError:
            return self.read(limit=limit) if self._restore() else []
        return found


def _mark(number: int, rev: int) -> str:
    return f'{{"n":{number},"k":"job","rev":{rev}}}\n'


def _line(number: int, source: str, at: int, event: Event) -> str:
    facts: dict[str, Any] = {"n": number, "k": event.kind, "s": source, "i": at, "ts": event.ts}
    if event.kind == "log":
        facts |= {"stream": event.stream, "stage": event.stage, "line": event.line or ""}
    else:
        facts |= {"stage": event.stage, "progress": event.progress}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n"
