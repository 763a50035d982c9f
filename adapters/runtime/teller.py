"""Between an app and a log that another program keeps: what the app prints, without its configuration's values.

For drivers whose supervisor is not ours. It runs under the app's uid, within its walls, in front of the app's command;
like a door it is this file with this machine's own Python, shown read-only. An image may have another C library, or
none: there the machine's own is shown beside, and Python is started by its loader. It ends as the app does.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from adapters.redaction import RedactedStream, Redactor
from adapters.runtime import door
from adapters.runtime.process.app import term_targets

BOOT: Final = f"import sys; sys.path[:0] = ['{door.CODE}']; from adapters.runtime.teller import main; main()"
# What it takes of an app's limits is given to it on top.
MEMORY, PROCESSES = 24 << 20, 1
CHUNK: Final = 1 << 16
QUIET_MS: Final = 1000
FOREIGN: Final = "/headway"
_PT_INTERP: Final = 3
_TOLD_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def command(names: Sequence[str], words: Sequence[str], *, passes: bool, foreign: bool) -> list[str]:
    """What is run instead of `words`. `names`: the variables whose values nobody is to read.

    `passes`: signals come to it alone, and it hands them to the app. `foreign`: what is around it is no part of this
    machine, but for `shown`.
    """
    inside = f"{door.PYTHON}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    before = _loader() if foreign else []
    how = "pass" if passes else "keep"
    return [*before, inside, "-I", "-S", "-B", "-c", BOOT, how, ",".join(names), *words]


def shown(*, foreign: bool) -> list[tuple[Path, str]]:
    """What it needs of this machine, and where."""
    needed = [(source, target) for source, target in door.shown() if target.startswith(FOREIGN)]
    return [*needed, *((path, f"{FOREIGN}{path}") for path in (_libraries() if foreign else []))]


def _libraries() -> list[Path]:
    """The machine's own libraries: their folders, each once."""
    found = (Path("/", *words) for words in (("usr", "lib"), ("usr", "lib64"), ("lib",), ("lib64",)))
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _loader() -> list[str]:
    """How this machine's loader is told to start a program with this machine's libraries; none for a static one."""
    python = Path(os.path.realpath(sys.base_prefix), "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    loader = interpreter(python)
    if loader is None:
        return []
    inner = str(sysconfig.get_config_var("MULTIARCH") or "")
    folders = [one for path in _libraries() for one in ((path / inner, path) if inner else (path,))]
    places = ":".join(f"{FOREIGN}{path}" for path in folders if path.is_dir())
    return [f"{FOREIGN}{os.path.realpath(loader)}", "--library-path", places]


def interpreter(program: Path) -> Path | None:
    """The loader that a 64-bit little-endian ELF file names (elf(5)); None where it names none."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return None
        table, size, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        for number in range(count):
            file.seek(table + number * size)
            kind, _, at, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == _PT_INTERP:
                file.seek(at)
                return Path(os.fsdecode(file.read(length).rstrip(b"\0")))
    return None


# in the app's walls


def main() -> None:
    """`pass|keep NAMES COMMAND…`: run the command to its end, and end as it did."""
    how, names, words = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
    redactor = Redactor({name: os.environ[name] for name in names if name in os.environ})
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_TOLD_ON):
        signal.signal(number, lambda *_: None)
    streams: dict[int, tuple[int, RedactedStream]] = {}
    given, writers = [], []
    for target in (1, 2):
        reader, writer = os.pipe()
        streams[reader] = (target, redactor.stream())
        writers.append(writer)
        given.append((os.POSIX_SPAWN_DUP2, writer, target))
    usual = [signal.SIGPIPE, signal.SIGCHLD, *_TOLD_ON]
    app = os.posix_spawnp(words[0], words, os.environ, file_actions=given, setsigdef=usual)
    for writer in writers:
        os.close(writer)
    _end_as(_tell(app, streams, woken, passes=how == "pass"))


def _tell(app: int, streams: dict[int, tuple[int, RedactedStream]], woken: int, *, passes: bool) -> int:
    """Until the app has ended, and what it had said by then is told; its wait status."""
    poll = select.poll()
    for one in (woken, *streams):
        poll.register(one, select.POLLIN)
    while True:
        ready = poll.poll(QUIET_MS if any(stream.waits for _, stream in streams.values()) else None)
        for target, stream in streams.values() if not ready else ():
            _write(target, stream.settle())
        for found, _ in ready:
            if found != woken:
                if not _pass_on(found, *streams[found]):
                    poll.unregister(found)
                continue
            for number in set(os.read(woken, 512)):
                if number != signal.SIGCHLD and passes:
                    for pid in term_targets(app) if number == signal.SIGTERM else [app]:
                        with suppress(ProcessLookupError):
                            os.kill(pid, number)
            pid, status = os.waitpid(app, os.WNOHANG)
            if pid:
                for reader, (target, stream) in streams.items():
                    os.set_blocking(reader, False)
                    with suppress(BlockingIOError):
                        while _pass_on(reader, target, stream):
                            pass
                    _write(target, stream.flush())
                return status


def _pass_on(reader: int, target: int, stream: RedactedStream) -> bool:
    """One chunk; False at the end of the stream."""
    chunk = os.read(reader, CHUNK)
    _write(target, stream.feed(chunk))
    return bool(chunk)


def _write(target: int, data: bytes) -> None:
    """A log that is gone is no reason to stop the app."""
    with suppress(OSError):
        while data:
            data = data[os.write(target, data) :]


def _end_as(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
