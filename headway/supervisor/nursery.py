"""`python -m headway.supervisor.nursery SOCKET`: a process that has imported what the roles share, and forks them.

Importing is most of what a role costs at its start (1 to 3 s) and half of its memory; a forked role starts in a
tenth of that and shares the pages. The nursery holds no credentials: a role's environment passes through it unread,
as a descriptor. A role is forked twice, so that it belongs to the supervisor (a subreaper) and not to the nursery.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headway import _launch
from headway.supervisor.becoming import User, become

# What more than one role imports. One that cannot be imported is left for the role to complain about.
SHARED: Final = (
    "headway.cli.main",
    "headway.cli.roles",
    "headway.settings",
    "temporal.client",
    "temporal.messages",
    "temporal.worker",
    "store.migrations",
    "store.models",
    "store.collection",
    "store.config_sets",
    "store.deliveries",
    "store.integrity",
    "store.ledger",
    "store.outcomes",
    "store.policies",
    "adapters.artifact.layout",
    "adapters.broker",
    "adapters.ledger.keyring",
    "adapters.objects",
    "adapters.signer.bundle",
    "boto3",
    "httpx",
)
LIMIT: Final = 65_536
_PR_SET_NAME: Final = 15


def main(arguments: list[str]) -> int:
    """Preload, then fork on request until SIGTERM."""
    from headway.ready import announce

    _launch.enter()
    # Looking for garbage among what is being imported finds none, and takes a tenth of the time.
    gc.disable()
    for name in SHARED:
        with suppress(Exception):
            importlib.import_module(name)
    gc.enable()
    gc.collect()
    # Objects of before the fork are never moved or marked by a collection, so their pages stay shared.
    gc.freeze()
    with _listen(Path(arguments[0])) as server:
        announce()
        while True:
            connection, _ = server.accept()
            words = _serve(server, connection)
            if words is not None:
                return _be(words)


def _listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    server.bind(str(beside))
    beside.chmod(0o600)
    beside.replace(path)
    server.listen(16)
    return server


def _serve(server: socket.socket, connection: socket.socket) -> list[str] | None:
    """Answer one request with a pid. In the new process: its words; in the nursery: None."""
    with connection:
        connection.settimeout(5)
        descriptors: list[int] = []
        try:
            body, descriptors, _, _ = socket.recv_fds(connection, LIMIT, 3)
            request = json.loads(body)
            pid = _fork()
            if pid == 0:
                server.detach()
                connection.detach()
                return _settled(request, *descriptors)
            connection.send(str(pid).encode())
        except (OSError, ValueError, TypeError) as error:
            sys.stderr.write(f"nursery: {error}\n")
        finally:
            if descriptors and os.getpid() == _NURSERY:
                for descriptor in descriptors:
                    os.close(descriptor)
    return None


def _fork() -> int:
    """The pid of a grandchild; 0 in it."""
    receiver, sender = os.pipe()
    middle = os.fork()
    if middle == 0:
        pid = os.fork()
        if pid:
            os.write(sender, str(pid).encode())
            os._exit(0)
        os.close(receiver)
        os.close(sender)
        return 0
    os.close(sender)
    try:
        os.waitpid(middle, 0)
        return int(os.read(receiver, 32))
    finally:
        os.close(receiver)


def _settled(request: dict[str, Any], lock: int, log: int, environment: int) -> list[str]:
    """`_settle`, or the end of the new process with its reason: it must not go on as a second nursery."""
    try:
        return _settle(request, lock, log, environment)
    except Exception as error:
        os.write(2, f"headway: cannot become {request.get('name', 'a role')}: {error}\n".encode())
        os._exit(1)


def _settle(request: dict[str, Any], lock: int, log: int, environment: int) -> list[str]:
    """In the new process: its own session, log, environment, folder and name. The lock stays open until its end.

    Nothing else of the nursery's stays open, its own lock least of all.
    """
    os.setsid()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in (lock, log, environment):
            with suppress(OSError):
                os.close(int(name))
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    with os.fdopen(environment, "rb") as file:
        values = json.loads(file.read())
    if request["user"] is not None:
        values |= _become(request["user"])
    os.environ.clear()
    os.environ.update(values)
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    words = [str(word) for word in request["words"]]
    _rename(request["name"], ["headway", *words])
    return words


def _become(raw: dict[str, Any]) -> dict[str, str]:
    user = User.of(raw)
    try:
        return become(user)
    except OSError as error:
        sys.stderr.write(f"uid {user.uid} cannot be had: {error.filename or ''} {error.strerror}\n")
        sys.stderr.flush()
        os._exit(126)


def _rename(name: str, argv: list[str]) -> None:
    """Let `ps` show the role: its name, and its words over the memory that holds the nursery's own."""
    sys.argv = argv
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"headway-{name}"[:15].encode(), 0, 0, 0)
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        text = b"\0".join(word.encode() for word in argv)[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _be(words: list[str]) -> int:
    from headway.cli.main import run

    run(words)
    return 0


def ask(path: Path, name: str, words: list[str], facts: dict[str, Any], descriptors: list[int]) -> int:
    """For the supervisor: the pid of a new role. `descriptors` are its lock, its log and its environment as JSON.

    Raises OSError where the nursery does not answer.
    """
    request = json.dumps({"name": name, "words": words, **facts}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(10)
        link.connect(str(path))
        socket.send_fds(link, [request], descriptors)
        answer = link.recv(32)
    if not answer.isdigit():
        raise ConnectionError("the nursery made no process")
    return int(answer)


_NURSERY = os.getpid()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
