"""A network namespace for the calling thread, with a loopback device that is up and nothing else.

A process holds it, not a mount: it ends with its last holder. A thread that began before stays outside.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAP_SYS_ADMIN = 21
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


def enter() -> None:
    """What a keeper does, as a whole, where nothing has to stay outside. Errors: OSError."""
    if not may_make_one():
        own_user_namespace()
    own_network()


def may_make_one() -> bool:
    """Whether this process may make a network namespace as it is: root, and not one whose rights were cut."""
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) & 1 << CAP_SYS_ADMIN)


def own_user_namespace() -> None:
    """Without root: the rights to make the other one. Only for a process with a single thread. Errors: OSError."""
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def own_network() -> None:
    """Errors: OSError."""
    _unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP | IFF_RUNNING, b""))


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "unshare")
