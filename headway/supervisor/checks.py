"""Readiness: short questions to a component that has just started."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

_TIMEOUT = 0.5


def holds(check: str) -> bool:
    """Whether a check of `Component.ready` holds now."""
    target = urlsplit(check)
    try:
        if target.scheme == "file":
            return os.path.exists(target.path)
        if target.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_TIMEOUT)
                link.connect(target.path)
            return True
        with socket.create_connection((target.hostname or "127.0.0.1", target.port or 80), _TIMEOUT) as link:
            return target.scheme == "tcp" or http_status(link, target.path or "/") < 500
    except OSError:
        return False


def http_status(link: socket.socket, path: str, host: str = "headway.invalid") -> int:
    """The status of one GET on an open connection; 599 where the answer is not HTTP."""
    link.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    head = link.recv(64).split(b" ", 2)
    return int(head[1][:3]) if len(head) > 1 and head[0].startswith(b"HTTP/") and head[1][:3].isdigit() else 599
