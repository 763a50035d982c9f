"""Sockets that listen inside a sandbox's network namespace and are served from outside.

A socket stays in the namespace in which it was made, whoever holds it. So nothing of ours runs inside the sandbox:
no relay, no interpreter, no shared folder; the build sees 127.0.0.1:3128 and this process accepts on it.

Root joins the namespace with one short-lived thread (setns(2): a thread may join a network namespace). Without root
the user namespace has to be joined first, which a process with threads cannot: a helper process does it and hands the
sockets over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from adapters.egress import join

PROXY_ADDRESS = ("127.0.0.1", 3128)
PROXY_URL = "http://127.0.0.1:3128"
NS_GET_USERNS = 0xB701  # linux/nsfs.h
MOST = 200  # one message carries at most 253 descriptors (SCM_MAX_FD)
HELPER_SECONDS = 30


def listen_within(pid: int, addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    """One listening TCP socket per `(IPv4 address, port)`, at most 200, in the network namespace of process `pid`.

    Raises OSError where the namespace cannot be joined.
    """
    if len(addresses) > MOST:
        raise ValueError(f"at most {MOST} addresses")
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if os.geteuid() == 0:
            try:
                return _in_thread(net, addresses)
            except PermissionError:
                pass  # root without CAP_SYS_ADMIN goes the way of everybody else
        return _in_helper(net, addresses)
    finally:
        os.close(net)


def _in_thread(net: int, addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    opened: list[int] = []
    failed: list[OSError] = []

    def join_and_listen() -> None:
        try:
            join.join(net, join.CLONE_NEWNET)
            opened.extend(join.listen(addresses))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=join_and_listen, name="egress-listen")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return [socket.socket(fileno=number) for number in opened]


def _in_helper(net: int, addresses: Sequence[tuple[str, int]]) -> list[socket.socket]:
    user = fcntl.ioctl(net, NS_GET_USERNS)
    ours, theirs = socket.socketpair()
    words = [f"{host}:{port}" for host, port in addresses]
    argv = [sys.executable, "-I", "-S", "-E", join.__file__, str(user), str(net), str(theirs.fileno()), *words]
    try:
        with ours:
            helper = subprocess.Popen(
                argv,
                pass_fds=(user, net, theirs.fileno()),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            theirs.close()
            ours.settimeout(HELPER_SECONDS)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, len(addresses))
            _, complaint = helper.communicate()
    finally:
        os.close(user)
        theirs.close()
    opened = [socket.socket(fileno=number) for number in descriptors]
    if len(opened) != len(addresses):
        for one in opened:
            one.close()
        raise PermissionError(complaint.decode(errors="replace").strip()[-300:] or "the namespace was not joined")
    return opened
