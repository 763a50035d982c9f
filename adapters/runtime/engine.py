"""What a Docker-compatible engine says, in our words."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from adapters.runtime.driver import InstanceRef, Status
from adapters.runtime.process.app import children

LABEL = "headway.instance"
CRASHES = 5
ESTABLISHED, CLOSE_WAIT = "01", "08"  # of /proc/net/tcp


def ref_of(told: dict[str, Any]) -> InstanceRef:
    """The instance that a label names."""
    return InstanceRef(told["env_id"], int(told["seq"]), told["process"], int(told["index"]))


def status_of(ref: InstanceRef, found: dict[str, Any], endpoint: str | None) -> Status:
    """Of an inspected container; `endpoint` is where it is reached for as long as it is kept running."""
    state, restarts = found["State"], int(found["RestartCount"])
    word = state["Status"]
    kind = {"running": "running", "restarting": "backoff", "created": "starting"}.get(word, "stopped")
    if kind == "backoff" and restarts >= CRASHES:
        kind = "crash_loop"
    apps = children(int(state["Pid"])) if kind == "running" else []
    # Before the first end there is no code, and the engine says 0.
    ended = kind != "running" or restarts > 0
    began = state["FinishedAt"] if kind == "stopped" else state["StartedAt"]
    return Status(
        ref,
        cast("Any", kind),
        endpoint=endpoint if kind != "stopped" else None,
        pid=apps[0] if apps else None,
        restarts=restarts,
        exit_code=int(state["ExitCode"]) if ended and kind != "starting" else None,
        reason="out of memory" if state.get("OOMKilled") else str(state.get("Error", "")),
        since=nanoseconds(began) / 1e9,
    )


def nanoseconds(stamp: str) -> int:
    """Of RFC 3339 with any number of digits, as the engine writes it."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    except ValueError:
        return 0
    return max(0, seconds) * 10**9 + int(rest.ljust(9, "0")[:9] or 0)


def frames(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The engine's multiplexed stream: a byte for the stream, three zeros, a length, a line."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(">B3xI", content, at)
        piece = content[at + 8 : at + 8 + size]
        at += 8 + size
        yield ("stderr" if kind == 2 else "stdout"), piece.removesuffix(b"\n")


def established(pid: int, port: int) -> int:
    """Connections to `port` in the network of process `pid`."""
    count = 0
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] in (ESTABLISHED, CLOSE_WAIT):
                    count += 1
    return count
