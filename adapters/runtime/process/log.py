"""An instance's log: numbered lines, kept below a size, readable while they are written.

One JSON array a line, `[number, time, stream, text]`, in `log`, older ones in `log.1` and `log.2`. A line is written
by one call, so a reader sees it whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.redaction import RedactedStream, Redactor

KEEP = 3
HEAD = 24  # bytes of a line in which its number is
LONGEST = 8192  # bytes of a line; the rest of it is counted, not kept
NAME = "log"
CONTROL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")  # but for tabs and the escapes of colours


class LogWriter:
    """`feed` takes what was read from a pipe, `say` a line of our own. Continues the numbers of an earlier writer."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._path = folder / NAME
        self._limit = max(limit, 4 * LONGEST)
        self._number = max((item[0] for item, _ in _items(_files(folder))), default=0)
        self._partial = {"stdout": b"", "stderr": b""}
        self._cut = dict.fromkeys(self._partial, 0)
        self._quiet = dict.fromkeys(self._partial, False)
        self._open()
        self.hide({})
        self.last_error = ""

    def hide(self, values: Mapping[str, str]) -> None:
        """Whose values are kept out of the lines of the next run."""
        redactor = Redactor(values)
        self._streams: dict[str, RedactedStream] = {name: redactor.stream() for name in self._partial}

    def feed(self, stream: str, data: bytes) -> None:
        self._quiet[stream] = False
        # Hidden before it is cut into lines: what stands across a cut would be shown in two halves.
        self._lines(stream, self._streams[stream].feed(data))

    def settle(self) -> None:
        """To be called now and then: a line that waits for what may follow does so from one call to the next."""
        for name, stream in self._streams.items():
            if self._quiet[name]:
                self._lines(name, stream.settle())
            self._quiet[name] = True

    def _lines(self, stream: str, data: bytes) -> None:
        lines = data.split(b"\n")
        for line in lines[:-1]:
            self._part(stream, line)
            self._end(stream)
        self._part(stream, lines[-1])

    def flush(self) -> None:
        """What came without an end of line becomes a line."""
        for name, stream in self._streams.items():
            self._lines(name, stream.flush())
            if self._partial[name]:
                self._end(name)

    def say(self, text: str) -> None:
        self._write("system", text)

    def close(self) -> None:
        self.flush()
        os.close(self._file)

    def _part(self, stream: str, data: bytes) -> None:
        room = LONGEST + 1 - len(self._partial[stream])
        self._cut[stream] += max(0, len(data) - room)
        self._partial[stream] += data[:room]

    def _end(self, stream: str) -> None:
        line, cut = self._partial[stream].removesuffix(b"\r"), self._cut[stream]
        self._partial[stream], self._cut[stream] = b"", 0
        cut += max(0, len(line) - LONGEST)
        text = line[:LONGEST].decode("utf-8", "backslashreplace")
        if cut:
            text += f" … ({cut} bytes cut)"
        if stream == "stderr" and text.strip():
            self.last_error = text
        self._write(stream, text)

    def _write(self, stream: str, text: str) -> None:
        plain = CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
        now = time.time()
        ts = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps([self._number + 1, ts, stream, plain], ensure_ascii=False, separators=(",", ":"))
        data = line.encode("utf-8", "replace") + b"\n"
        try:
            if self._size + len(data) > self._limit:
                self._rotate()
            if os.write(self._file, data) < len(data):
                os.ftruncate(self._file, self._size)
                return
        except OSError:
            return  # a full disk must not end the app
        self._number += 1
        self._size += len(data)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            os.write(self._file, b"\n")  # a writer was killed in the middle

    def _rotate(self) -> None:
        """Where there is no room for a new file the old one stays open, and takes nothing more until there is."""
        older = self._file
        for number in range(KEEP - 1, 0, -1) if self._path.exists() else ():
            place = self._path.with_name(f"{NAME}.{number - 1}") if number > 1 else self._path
            if place.exists():
                place.replace(self._path.with_name(f"{NAME}.{number}"))
        self._open()
        os.close(older)


@dataclass(frozen=True)
class Place:
    """Where the line `number` ends: what comes after it is found without reading what is before it."""

    number: int
    inode: int
    offset: int


Item = tuple[int, str, str, str]


def read(folder: Path, since: int = 0) -> Iterator[Item]:
    """The kept lines above `since`, oldest first, each once: `(number, time, stream, text)`."""
    return (item for item, _ in read_on(folder, since, None))


def read_on(folder: Path, since: int, place: Place | None) -> Iterator[tuple[Item, Place]]:
    """As `read`, each line with its place; `place` is where an earlier reading ended."""
    with contextlib.ExitStack() as stack:
        files = _opened(folder, stack)
        if place is not None and place.number == since and _goes_on(files, place):
            while os.fstat(files[0].fileno()).st_ino != place.inode:
                files.pop(0)
            files[0].seek(place.offset)
        while len(files) > 1 and 0 < _number(os.pread(files[1].fileno(), HEAD, 0)) <= since + 1:
            files.pop(0)
        for item, found in _items(iter(files), since):
            if item[0] > since:
                since = item[0]
                yield item, found


def _goes_on(files: list[BinaryIO], place: Place) -> bool:
    """Whether the line after `place` still stands there: inode numbers are used again."""
    for file in files:
        if os.fstat(file.fileno()).st_ino == place.inode:
            before = os.pread(file.fileno(), 1, place.offset - 1)
            head = os.pread(file.fileno(), 24, place.offset)
            return before == b"\n" and (not head or head.startswith(b"[%d," % (place.number + 1)))
    return False


def _files(folder: Path) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        yield from _opened(folder, stack)


def _opened(folder: Path, stack: contextlib.ExitStack) -> list[BinaryIO]:
    """Oldest first; opened newest first, so that a rotation meanwhile shows a file twice rather than never."""
    files: list[BinaryIO] = []
    for name in [NAME, *(f"{NAME}.{at}" for at in range(1, KEEP))]:
        with contextlib.suppress(FileNotFoundError):
            files.append(stack.enter_context((folder / name).open("rb")))
    return files[::-1]


def _number(line: bytes) -> int:
    """By which a line begins; 0 where it is none."""
    number = line[1:HEAD].partition(b",")[0]
    return int(number) if line[:1] == b"[" and number.isdigit() else 0


def _items(files: Iterator[BinaryIO], since: int = 0) -> Iterator[tuple[Item, Place]]:
    """Of those up to `since` nothing is read but the number: a worker that comes back asks for the end of each log."""
    for file in files:
        inode, offset = os.fstat(file.fileno()).st_ino, file.tell()
        for line in file:
            offset += len(line)
            if since and 0 < _number(line) <= since:
                continue
            try:
                number, ts, stream, text = json.loads(line)
            except ValueError:
                continue  # it is being written, or its writer was killed
            yield (int(number), str(ts), str(stream), str(text)), Place(int(number), inode, offset)
