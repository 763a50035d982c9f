"""Paths in a sandbox: `/workspace/a/b` or `a/b`, and nothing that leads elsewhere."""

from __future__ import annotations

from typing import Final

from adapters.artifact.paths import MAX_DEPTH, MAX_PATH, escaped, name_fault
from headway.errors import HeadwayError

ROOT: Final = "/workspace"


def workspace_path(given: str, *, folder: bool = False) -> str:
    """Relative to the workspace; `""` is the workspace itself, for folders only. Raises sandbox.path_invalid."""
    text = given.strip("\n") if given.strip() else given
    if text.startswith("/"):
        if text != ROOT and not text.startswith(ROOT + "/"):
            raise _invalid(given, f"lies outside of {ROOT}")
        text = text[len(ROOT) :]
    parts = [part for part in text.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise _invalid(given, "leads out of its folder")
        fault = name_fault(part)
        if fault:
            raise _invalid(given, fault)
    path = "/".join(parts)
    if len(path.encode()) > MAX_PATH:
        raise _invalid(given, f"is longer than {MAX_PATH} bytes")
    if path.count("/") > MAX_DEPTH:
        raise _invalid(given, f"is more than {MAX_DEPTH} folders deep")
    if not path and not folder:
        raise _invalid(given, "names no file")
    if not folder and text.endswith("/"):
        raise _invalid(given, "names a folder")
    return path


def _invalid(given: str, why: str) -> HeadwayError:
    return HeadwayError("sandbox.path_invalid", f"The path {escaped(given[:200])!r} {why}.", param="path")
