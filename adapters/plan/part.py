"""What one language contributes to a plan, and the text files by which it is recognised."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from adapters.artifact.folder import Folder
from headway.errors import HeadwayError
from headway.toml import parse_toml

MAX_FILE: Final = 4 << 20
# Large lock files are read for names only.
MAX_LOCK: Final = 32 << 20
# What Windows' own programs write: `pip freeze > requirements.txt` of its shell is UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# The version of a program that builds find, or None where they find none.
Tools = Callable[[str], str | None]


@dataclass(frozen=True)
class Start:
    """`command` as somebody would type it in the root; `source` says where it comes from."""

    command: str
    source: str
    framework: str | None = None


@dataclass(frozen=True)
class Part:
    """`install` gets everything that a build needs, `install_for_run` only what the app needs to run.

    `build` is what the language's own files say; `tidy` runs last and makes the tree fit to be published. `prune` drops
    what only the build needed, `clear` everything, where the language has done its part then. `path` are
    folders of the tree whose programs an app may call, `env` what it needs to find its libraries, both relative.
    `start` is the server that was recognised; `static` where the files say that a site is made, into `outputs`.
    `wants` is what to add where a server was seen that cannot be started. `needs` are programs without which nothing
    goes, `uses` those that are told if they are there. `installs` finds commands that install by themselves.
    `whole_for`: whether a command of the app needs what else only the build would.
    """

    source: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    installs: re.Pattern[str] | None = None
    install: str | None = None
    install_for_run: str | None = None
    build: str | None = None
    tidy: str | None = None
    prune: str | None = None
    clear: str | None = None
    lock: str | None = None
    path: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    start: Start | None = None
    static: bool = False
    framework: str | None = None
    outputs: tuple[str, ...] = ()
    wants: str | None = None
    whole_for: Callable[[str], bool] = lambda _command: False

    def whole(self) -> Part:
        """With all that the build needs, at run time, too."""
        return replace(self, install_for_run=self.install, prune=None)


def read_text(root: Folder, path: str, most: int = MAX_FILE) -> str | None:
    """A text file of the repository, None where there is none. Raises build.detect_failed.

    One below what is no folder of the repository's (a link, a file) is not there.
    """
    above = path.rpartition("/")[0]
    if above and not is_folder(root, above):
        return None
    try:
        raw = root.read(path, most)
    except HeadwayError as error:
        raise HeadwayError("build.detect_failed", error.message) from error
    return None if raw is None else _decoded(raw)


def read_source(root: Folder, path: str, most: int = 1 << 20) -> str:
    """A source file; empty where it is none, too large, or behind a link."""
    try:
        return read_text(root, path, most) or ""
    except HeadwayError:
        return ""


def _decoded(raw: bytes) -> str:
    mark, encoding = next((one for one in _MARKS if raw.startswith(one[0])), (b"", "utf-8"))
    return raw[len(mark) :].decode(encoding, "replace")


def read_json(root: Folder, path: str) -> dict[str, Any] | None:
    """A JSON object; {} where it is another value. Raises build.detect_failed where it is not JSON."""
    text = read_text(root, path)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise HeadwayError("build.detect_failed", f"{path} is not JSON.") from None
    return document if isinstance(document, dict) else {}


def read_toml(root: Folder, path: str) -> dict[str, Any] | None:
    """Raises build.detect_failed where it is not TOML."""
    text = read_text(root, path)
    if text is None:
        return None
    try:
        return parse_toml(text)
    except (ValueError, RecursionError):
        raise HeadwayError("build.detect_failed", f"{path} is not TOML.") from None


def table(document: Mapping[str, Any] | None, *keys: str) -> dict[str, Any]:
    """The table at `keys`; {} where there is none or something else."""
    at: Any = document or {}
    for key in keys:
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def is_folder(root: Folder, path: str) -> bool:
    try:
        inner = root.folder(path)
    except HeadwayError:
        return False
    if inner is None:
        return False
    inner.close()
    return True


_OPERATORS = re.compile(r"[;&|<>()`\n]")
_QUOTED = re.compile(r"'[^']*'")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_BUILTINS: Final = frozenset(
    (
        *("cd", "exec", "export", "if", "for", "while", "until", "case", "set", "source", ".", ":", "ulimit", "trap"),
        *("!", "{", "umask", "wait", "eval"),
    )
)


def as_exec(command: str) -> str:
    """`exec` before a simple command, so that it is the app itself, and no shell, that gets the signals."""
    first = command.split(None, 1)[0] if command.split() else ""
    if not first or first in _BUILTINS or _OPERATORS.search(_QUOTED.sub("", command)):
        return command
    return f"exec env {command}" if _ASSIGNMENT.match(first) else f"exec {command}"
