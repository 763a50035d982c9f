"""A real sshd for tests, on a loopback address: Debian's `openssh-server`, with users and keys of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
# Whoever has root here gets the users that sshd wants in a mount namespace of its own.
PASSWD: Final = "root:x:0:0:root:/:/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\ngit:x:0:0:git:/:/bin/sh\n"
START: Final = (
    'set -e; mount --bind "$1/passwd" /etc/passwd; mount -t tmpfs tmpfs /run; mkdir -m 0755 /run/sshd; shift; exec "$@"'
)


def place() -> tuple[str, str] | None:
    """A name of this machine that is no `localhost`, and the loopback address that it leads to."""
    for name in dict.fromkeys((socket.gethostname(), *_named())):
        try:
            address = socket.gethostbyname(name)
        except OSError:
            continue
        if ip_address(address).is_loopback and name != "localhost":
            return name.lower(), address
    return None


def _named() -> list[str]:
    lines = Path("/etc/hosts").read_text().splitlines()
    return [word for line in lines if line.startswith("127.") for word in line.split()[1:]]


def missing() -> str | None:
    """Why there is no server here."""
    if SSHD is None:
        return "no sshd (Debian's package openssh-server)"
    if os.geteuid() != 0:
        return "sshd needs root for users of its own"
    return None if place() is not None else "no name of this machine leads to a loopback address"


@dataclass
class SshServer:
    host: str
    port: int
    keys: Path
    log: Path

    def allow(self, *public: str) -> None:
        """Exactly these keys may read, and nothing else."""
        rules = "no-pty,no-port-forwarding"
        self.keys.write_text("".join(f"{rules} {key}\n" for key in public))

    def address(self, repository: Path) -> str:
        return f"ssh://git@{self.host}:{self.port}{repository}"


@contextmanager
def serving(folder: Path) -> Iterator[SshServer]:
    found = place()
    assert found is not None
    assert SSHD is not None
    name, address = found
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    (folder / "passwd").write_text(PASSWD)
    (folder / "keys").write_text("")
    lines = (
        *(f"ListenAddress {address}", f"Port {port}", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/keys"),
        *("StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PidFile none"),
        *("PermitRootLogin prohibit-password", "MaxStartups 100"),
        "SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*",
    )
    (folder / "config").write_text("\n".join(lines) + "\n")
    words = ["unshare", "-m", "sh", "-c", START, "start", folder, SSHD, "-D", "-e", "-f", folder / "config"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, address, port, folder / "log")
        yield SshServer(name, port, folder / "keys", folder / "log")
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
