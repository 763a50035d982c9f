"""Make installed libraries the same bytes on every machine: `python3 tidy.py FOLDER`.

Scripts find Python by PATH; notes of where and when something was installed go; stale bytecode goes, and bytecode of
the libraries is made anew, by content (PEP 552: unchecked), so that a read-only tree starts fast.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import sys
from pathlib import Path

SHEBANG = re.compile(rb"\A#!(?:[^\n]*/)?(?:env )?python[\d.]*[^\n]*\n")
# What pip's and uv's scripts begin with where the path is too long, or has a space, for a shebang.
POLYGLOT = re.compile(rb"\A#!/bin/sh\n'''exec' [^\n]*python[^\n]*\n' '''\n")
# direct_url.json holds the folder of a local install, uv_cache.json its time.
NOTES = ("direct_url.json", "uv_cache.json", "uv_build.json")


def main(folder: str) -> None:
    drop_bytecode(".")
    if not os.path.isdir(folder):
        return
    for notes in Path(folder).glob("*.dist-info"):
        for name in NOTES:
            (notes / name).unlink(missing_ok=True)
        forget(notes / "RECORD")
    programs = Path(folder, "bin")
    for program in sorted(programs.iterdir()) if programs.is_dir() else []:
        if program.is_file() and not program.is_symlink():
            free(program)
    os.chdir(folder)
    # What does not compile (templates, Python 2) is left to fail, or not, where it is used.
    compileall.compile_dir(".", quiet=2, maxlevels=64, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def drop_bytecode(folder: str) -> None:
    for above, folders, _ in os.walk(folder):
        if "node_modules" in folders:
            folders.remove("node_modules")
        if "__pycache__" in folders:
            folders.remove("__pycache__")
            shutil.rmtree(os.path.join(above, "__pycache__"), ignore_errors=True)


def forget(record: Path) -> None:
    """Drop the lines of what was removed, and the hashes of scripts, which are rewritten."""
    if not record.is_file():
        return
    kept = []
    for line in record.read_text(encoding="utf-8").splitlines():
        path = line.rsplit(",", 2)[0]
        if path.endswith(NOTES) or "__pycache__" in path:
            continue
        kept.append(f"{path},," if re.search(r"(?:\A|/)bin/[^/]+\Z", path) else line)
    record.write_text("".join(f"{line}\n" for line in sorted(kept)), encoding="utf-8")


def free(program: Path) -> None:
    """Let a script find Python on PATH."""
    raw = program.read_bytes()
    fixed = POLYGLOT.sub(b"#!/usr/bin/env python3\n", SHEBANG.sub(b"#!/usr/bin/env python3\n", raw, count=1), count=1)
    if fixed != raw:
        program.write_bytes(fixed)


if __name__ == "__main__":
    main(sys.argv[1])
