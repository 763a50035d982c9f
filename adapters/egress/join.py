"""Listening sockets in another network namespace: what `listener` calls, and the program it starts without root.

Started for every run of an ordinary user, so it imports next to nothing.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import os
import sys
from collections.abc import Sequence

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
IP_FREEBIND = 15  # the loopback device may not be up yet
BACKLOG = 128
SIOCSIFADDR = 0x8916
SECOND_ADDRESS = b"\x7f\x4d\x00\xfe"  # 127.77.0.254


def join(namespace: int, kind: int) -> None:
    """The calling thread enters the namespace behind a descriptor (setns(2)). Errors: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, kind) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "setns")


def listen(addresses: Sequence[tuple[str, int]]) -> list[int]:
    """Descriptors of TCP sockets that listen on each address; none is left open on an error."""
    opened: list[int] = []
    seem_connected()
    try:
        for address in addresses:
            one = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
            one.setsockopt(_socket.SOL_IP, IP_FREEBIND, 1)
            one.bind(address)
            one.listen(BACKLOG)
            opened.append(one.detach())
    except OSError:
        for number in opened:
            os.close(number)
        raise
    return opened


def seem_connected() -> None:
    """Give the loopback device a second address (netdevice(7)); where that cannot be, nothing is different.

    Classic Yarn looks whether there is any address but 127.0.0.1, and where there is none it waits for a network
    for ever instead of failing.
    """
    request = b"lo:1".ljust(16, b"\0") + _socket.AF_INET.to_bytes(2, sys.byteorder) + b"\0\0" + SECOND_ADDRESS
    try:
        with open(_socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM).detach(), "rb", buffering=0) as device:
            fcntl.ioctl(device.fileno(), SIOCSIFADDR, request.ljust(40, b"\0"))
    except OSError:
        pass


def main(argv: Sequence[str]) -> None:
    """`USER NET REPLY ADDRESS:PORT…`, the first three descriptors; the sockets go out on REPLY."""
    user, net, reply = (int(word) for word in argv[:3])
    addresses = [(host, int(port)) for host, _, port in (word.rpartition(":") for word in argv[3:])]
    join(user, CLONE_NEWUSER)
    join(net, CLONE_NEWNET)
    numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in listen(addresses))
    answer = _socket.socket(fileno=reply)
    answer.sendmsg([b"+"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
    answer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
