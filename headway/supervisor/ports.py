"""The block of ports of one stack: one number decides all, and a busy one is named before anything starts."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

DEFAULT: Final = 7070
# Offsets in the block. The object store's gRPC ports default to 10,000 above their HTTP ones; here they stay inside,
# so that a stack occupies one range and nothing else.
OFFSETS: Final[dict[str, int]] = {
    "api": 0,
    "sites": 1,
    "temporal": 2,
    "temporal-ui": 3,
    "s3": 4,
    "weed-master": 5,
    "weed-volume": 6,
    "weed-filer": 7,
    "weed-admin": 8,
    "temporal-http": 9,
    "temporal-metrics": 10,
    "s3-grpc": 11,
    "weed-master-grpc": 12,
    "weed-volume-grpc": 13,
    "weed-filer-grpc": 14,
    "weed-admin-grpc": 15,
}
SIZE: Final = 16
# Below the kernel's usual ephemeral range (32768 on), where outgoing connections would take ports from a block.
_FREE_RANGE: Final = range(10240, 32000, SIZE)


@dataclass(frozen=True)
class Block:
    """`Block(7070)["s3"]` is 7074."""

    first: int

    def __post_init__(self) -> None:
        if not 1024 <= self.first <= 65535 - SIZE:
            raise HeadwayError("stack.port_busy", f"--port {self.first} is outside 1024–{65535 - SIZE}.", param="port")

    def __getitem__(self, name: str) -> int:
        return self.first + OFFSETS[name]

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self[name]}"

    def origin(self, name: str) -> str:
        return f"http://{self.address(name)}"

    def store_sockets(self) -> tuple[str, ...]:
        """Where SeaweedFS also listens, whatever it is told: beside its ports, under their numbers."""
        parts = {
            "master": "weed-master",
            "volume": "weed-volume",
            "filer": "weed-filer",
            "admin": "weed-admin",
            "s3": "s3",
        }
        return tuple(f"/tmp/seaweedfs-{name}-grpc-{self[port + '-grpc']}.sock" for name, port in parts.items())  # noqa: S108


def is_free(port: int) -> bool:
    """Whether a server could listen there, on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def may_replace(path: str) -> bool:
    """Whether what lies there is nothing, or may be removed by us: in /tmp only its owner and root may."""
    try:
        return os.geteuid() in (0, os.lstat(path).st_uid)
    except FileNotFoundError:
        return True


def find_free_block(tries: int = 200) -> Block:
    """A block of which every port is free now; chosen at random, so that two stacks seldom choose the same."""
    for first in random.sample(_FREE_RANGE, min(tries, len(_FREE_RANGE))):
        block = Block(first)
        free = all(is_free(first + offset) for offset in range(SIZE))
        if free and all(may_replace(path) for path in block.store_sockets()):
            return block
    raise HeadwayError("stack.port_busy", f"No {SIZE} free ports in a row were found: name a block with --port.")


def require_free(ports: dict[str, int], *, suggestion: str) -> None:
    """Raise `stack.port_busy` for the first port that is taken, naming it, its use, and its holder where visible.

    `ports` maps a component's name for people to its port.
    """
    for component, port in ports.items():
        if not is_free(port):
            holder = holder_of(port)
            by = f" by process {holder[0]} ({holder[1]})" if holder else ""
            raise HeadwayError(
                "stack.port_busy", f"Port {port}, which {component} needs, is taken{by}: stop it, or {suggestion}."
            )


def require_replaceable(sockets: Iterable[str], *, suggestion: str) -> None:
    """Raise `stack.port_busy` for a socket that a stopped server of somebody else left, which we may not remove."""
    for path in sockets:
        if not may_replace(path):
            raise HeadwayError(
                "stack.port_busy",
                f"{path}, which the object store needs, is another user's: remove it, or {suggestion}.",
            )


def holder_of(port: int) -> tuple[int, str] | None:
    """The pid and name of a process of ours that listens there."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                if os.readlink(descriptor) in inodes:
                    return int(entry.name), (entry / "comm").read_text().strip()
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> list[str]:
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(f"socket:[{fields[9]}]")
    return found
