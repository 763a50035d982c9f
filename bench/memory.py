"""Memory by component as PSS: what is shared between processes is counted once."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.stack import Stack

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def pss_by_component(stack: Stack) -> dict[str, int]:
    """MiB by component, with every process that a component has started. The names are those of `DIR/run/`."""
    sizes = {}
    for record in sorted((stack.data / "run").glob("*.json")):
        pid = json.loads(record.read_text()).get("pid")
        if isinstance(pid, int) and Path(f"/proc/{pid}").exists():
            sizes[record.stem] = round(sum(map(_pss, _family(pid))) / 1024)
    return sizes


def _family(pid: int) -> list[int]:
    """A process and its descendants, unless they are components of their own: those have sessions of their own."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in children if not _leads_a_session(child) for one in _family(child))]


def _leads_a_session(pid: int) -> bool:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]) == pid
    except (OSError, IndexError):
        return True


def _pss(pid: int) -> int:
    """KiB; 0 for a process that has just ended."""
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0
