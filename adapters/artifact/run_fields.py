"""What each field of an app's settings may hold, for headway.toml and for the manifest alike.

Each check takes the raw value, the key to name, and `fail(key, why)`, which makes the error to raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from adapters.artifact.paths import escaped, path_fault
from adapters.egress.policy import Rule
from headway.errors import HeadwayError

Fail = Callable[[str, str], HeadwayError]

PORT: Final = 65535
SECONDS: Final = 3600
# As many sockets as a release has on a host (adapters.router.caddy.SOCKETS).
INSTANCES: Final = 8
MAX_COMMAND: Final = 32 << 10
MAX_VALUE: Final = 32 << 10
MAX_ENV: Final = 200
MAX_PROCESSES: Final = 20
MAX_VOLUMES: Final = 20
MAX_EGRESS: Final = 100
MEMORY: Final = (16 << 20, 1 << 40)
CPU_MILLIS: Final = (10, 1_000_000)
WEB: Final = "web"

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PROCESS = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_PATH = re.compile(r"/[\x21-\x7e]{0,2047}")
_SOCKET = re.compile(r"unix:/[^\x00-\x1f\x7f]{1,106}")
# What decides which program or library runs, and what the host gives: an app sets the first in its own command.
KEPT: Final = frozenset({"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "HOME", "TMPDIR"})
_GIVEN: Final = KEPT | {"PORT"}


def check_int(raw: object, key: str, low: int, high: int, fail: Fail) -> int:
    if type(raw) is not int or not low <= raw <= high:
        raise fail(key, f"must be a whole number, {low} to {high}")
    return raw


def check_passes(raw: object, key: str, fail: Fail) -> int:
    return check_int(raw, key, 1, 100, fail)


def check_interval(raw: object, key: str, fail: Fail) -> int:
    return check_int(raw, key, 50, 60_000, fail)


def check_status(raw: object, key: str, fail: Fail) -> int:
    return check_int(raw, key, 100, 599, fail)


def check_memory(raw: object, key: str, fail: Fail) -> int:
    return check_int(raw, key, *MEMORY, fail)


def check_cpu(raw: object, key: str, fail: Fail) -> int:
    return check_int(raw, key, *CPU_MILLIS, fail)


def check_text(raw: object, key: str, most: int, fail: Fail) -> str:
    """UTF-8 without NUL, at most `most` bytes."""
    if isinstance(raw, str) and "\0" not in raw:
        try:
            if len(raw.encode()) <= most:
                return raw
        except UnicodeEncodeError:
            pass
    raise fail(key, f"must be a text of at most {most} bytes")


def check_command(raw: object, key: str, fail: Fail) -> str:
    command = check_text(raw, key, MAX_COMMAND, fail)
    if not command or command != command.strip():
        raise fail(key, "must be a command for `sh -c`")
    return command


def check_health_path(raw: object, key: str, fail: Fail) -> str:
    if not isinstance(raw, str) or not _PATH.fullmatch(raw) or "#" in raw:
        raise fail(key, "must be a path that begins with /, in ASCII without spaces")
    return raw


def check_folder(raw: object, key: str, fail: Fail) -> str:
    """A clean relative path; `""` is the tree itself."""
    if raw == "":
        return ""
    return _inner(raw, key, fail)


def check_volumes(raw: object, key: str, fail: Fail) -> tuple[str, ...]:
    """Folders of the tree, sorted, none within another."""
    if not isinstance(raw, list) or len(raw) > MAX_VOLUMES:
        raise fail(key, f"must be a list of at most {MAX_VOLUMES} folders")
    paths = [_inner(one, f"{key}[{number}]", fail) for number, one in enumerate(raw)]
    if paths != sorted(set(paths)):
        raise fail(key, "must be sorted, each folder once")
    for path in paths:
        if any(other.startswith(path + "/") for other in paths):
            raise fail(key, f"has a folder within {escaped(path)}, which is one too")
    return tuple(paths)


def check_egress(raw: object, key: str, fail: Fail) -> tuple[str, ...]:
    if not isinstance(raw, list) or len(raw) > MAX_EGRESS:
        raise fail(key, f"must be a list of at most {MAX_EGRESS} texts")
    return tuple(_destination(one, f"{key}[{number}]", fail) for number, one in enumerate(raw))


def check_env(raw: object, key: str, fail: Fail) -> dict[str, str]:
    if not isinstance(raw, dict) or len(raw) > MAX_ENV:
        raise fail(key, f"must be a table of at most {MAX_ENV} texts")
    for name in raw:
        if not VARIABLE.fullmatch(name) or name in _GIVEN:
            raise fail(f"{key}.{escaped(name)}", "is not a name that an app may set")
    return {name: check_text(value, f"{key}.{name}", MAX_VALUE, fail) for name, value in raw.items()}


def check_processes(raw: object, key: str, fail: Fail) -> dict[str, str]:
    """Command by name, `web` not among them."""
    if not isinstance(raw, dict) or len(raw) > MAX_PROCESSES:
        raise fail(key, f"must be a table of at most {MAX_PROCESSES} commands")
    for name in raw:
        if not _PROCESS.fullmatch(name) or name == WEB:
            raise fail(f"{key}.{escaped(name)}", "is not a name for a process: a-z, 0-9, - and _, at most 30")
    return {name: check_command(value, f"{key}.{name}", fail) for name, value in raw.items()}


def _inner(raw: object, key: str, fail: Fail) -> str:
    fault = path_fault(raw) if isinstance(raw, str) else "is not a text"
    if fault or not isinstance(raw, str):
        raise fail(key, "must be a plain path inside the tree")
    return raw


def _destination(raw: object, key: str, fail: Fail) -> str:
    text = check_text(raw, key, 512, fail)
    if not _SOCKET.fullmatch(text):
        try:
            Rule.parse(text)
        except HeadwayError:
            raise fail(key, "must be host, host:port, *.suffix or unix:/path") from None
    return text
