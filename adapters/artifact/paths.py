"""What a path in an artifact may look like, and where a symbolic link in it may lead."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

ETAG_SUFFIX: Final = ".headway-etag"
MAX_PATH: Final = 1024
MAX_DEPTH: Final = 64
# A host writes `<name>.headway-etag` beside each file, and a name has at most 255 bytes.
MAX_NAME: Final = 255 - len(ETAG_SUFFIX)
MAX_HOPS: Final = 40

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def name_fault(name: str) -> str | None:
    """Why one component of a path is refused, or None."""
    if name in ("", ".", ".."):
        return "is not a file name"
    if _CONTROL.search(name):
        return "has a control character in its name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if size > MAX_NAME:
        return f"has a name of more than {MAX_NAME} bytes"
    if name.endswith(ETAG_SUFFIX):
        return f"ends in {ETAG_SUFFIX}, which is reserved"
    return None


def path_fault(path: str) -> str | None:
    """Why a relative path (`a/b.html`, UTF-8, no `.` or `..`) is refused, or None."""
    for name in path.split("/"):
        fault = name_fault(name)
        if fault:
            return fault
        if name == ".git":
            return "lies in a .git folder"
    return f"is longer than {MAX_PATH} bytes" if len(path.encode()) > MAX_PATH else None


def link_fault(path: str, links: Mapping[str, str]) -> str | None:
    """Why the symbolic link at `path` is refused, or None. `links` holds every link of the tree: path → target.

    The target is followed through the other links as a kernel would: `s/../..` with a link `s` may leave the tree
    although it does not look like it.
    """
    target = links[path]
    if _CONTROL.search(target) or not target or not _is_utf8(target) or len(target.encode()) > MAX_PATH:
        return "is a symbolic link with a target that cannot be kept"
    at = path.split("/")[:-1]
    ahead = [links[path]]
    hops = 0
    while ahead:
        step = ahead.pop()
        if step.startswith("/"):
            return "is a symbolic link to an absolute path"
        name, _, rest = step.partition("/")
        if rest:
            ahead.append(rest.lstrip("/"))
        if name in ("", "."):
            continue
        if name == "..":
            if not at:
                return "is a symbolic link that leaves the output"
            at.pop()
            continue
        at.append(name)
        onward = links.get("/".join(at))
        if onward is not None:
            hops += 1
            if hops > MAX_HOPS:
                return "is a symbolic link that leads in a circle"
            at.pop()
            ahead.append(onward)
    return None


def can_be_told(text: str) -> bool:
    """Whether the system takes it as a path: no NUL, no half of a character."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def escaped(path: str | bytes) -> str:
    r"""A path for a message: control characters and foreign bytes as `\n`, `\xff`."""
    raw = (
        path
        if isinstance(path, bytes)
        else path.encode("utf-8", "surrogateescape" if can_be_told(path) else "backslashreplace")
    )
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:MAX_PATH]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
