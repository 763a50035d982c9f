"""Memory by component as PSS: what is shared between processes is counted once."""

from __future__ import annotations

import re
from pathlib import Path

from bench.stack import Stack

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_ROLE = re.compile(r"--role (\w+)")


def component(argv: list[str]) -> str:
    """What a process of the stack is, by its command line."""
    line = " ".join(argv)
    role = _ROLE.search(line)
    if role:
        return f"worker {role[1]}"
    program = Path(argv[0]).name
    for name in ("temporal", "weed", "caddy"):
        if program == name:
            return name
    for name in ("api", "rules", "up", "supervise"):
        if name in argv:
            return "supervisor" if name in ("up", "supervise") else name
    return program


def pss_by_component(stack: Stack) -> dict[str, int]:
    """MiB by component, of every process that names the stack's data folder in its arguments or environment."""
    wanted = str(stack.data).encode()
    sizes: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            belongs = wanted in b"\0".join(argv) or wanted in (process / "environ").read_bytes()
            found = _PSS.search((process / "smaps_rollup").read_text()) if belongs and argv != [b""] else None
        except (OSError, ProcessLookupError):
            continue
        if found:
            name = component([part.decode(errors="replace") for part in argv])
            sizes[name] = sizes.get(name, 0) + int(found[1])
    return {name: round(kib / 1024) for name, kib in sorted(sizes.items())}
