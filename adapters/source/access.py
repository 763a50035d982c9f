"""What a private repository is read with, for the one run that fetches: files that only its uid can read.

Neither an argument, nor a variable, nor the mirror's configuration holds a secret. Git asks for a token only where the
remote's own host wants one; ssh is offered the keys and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adapters.sandbox.command import Mount
from adapters.sandbox.removal import remove_tree
from adapters.source.address import Remote

INSIDE: Final = "/access"
_HELPER: Final = '"!f() { test \\"$1\\" = get && cat \\"$HW_ACCESS/token\\"; }; f"'


@dataclass(frozen=True)
class Access:
    """A token with its user's name for https, private keys (OpenSSH) for ssh, the one to try first first."""

    username: str = ""
    token: str = field(default="", repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)

    def hide(self, text: str) -> str:
        """A complaint without the token, should a server have sent it back."""
        return text.replace(self.token, "***") if self.token else text


def configuration(remote: Remote, access: Access | None) -> str:
    """What git's configuration needs beside: whom to ask for the token, for this origin alone."""
    if access is None or not access.token or remote.transport != "https":
        return ""
    origin = urlsplit(remote.url)
    return f'[credential "{origin.scheme}://{origin.netloc}"]\n\thelper = {_HELPER}\n'


@contextmanager
def lent(folder: Path, remote: Remote, access: Access | None) -> Iterator[tuple[Mount, ...]]:
    """The files, for as long as the run lasts, in `folder`, which nobody else uses. A killed builder's are removed."""
    remove_tree(folder)
    if access is None or remote.transport == "file":
        yield ()
        return
    files = {f"key-{number}": key for number, key in enumerate(access.keys)} if remote.transport == "ssh" else {}
    if access.token and remote.transport == "https":
        files["token"] = f"username={access.username}\npassword={access.token}\n"
    folder.mkdir(mode=0o700)
    try:
        for name, text in files.items():
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        # Writable, because only then it belongs to the run's uid: others can neither read nor list it.
        yield (Mount(folder, INSIDE, writable=True),)
    finally:
        remove_tree(folder)
