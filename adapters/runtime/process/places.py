"""Where the embedded driver keeps what it knows.

<state>/instances/<env_id>/<seq>.<process>.<index>/   {lock, state.json, spec.json, log, log.1, …}, mode 0700
<state>/s/<digest>                                    the endpoint's socket, and <digest>.c the keeper's own
<state>/uids.json                                     which environment has which uid
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.runtime.driver import InstanceRef
from headway.errors import HeadwayError

LONGEST_SOCKET = 107  # sockaddr_un, without its final zero
ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]{1,64}")
PROCESS = re.compile(r"[A-Za-z0-9_-]{1,40}")
FOLDER = re.compile(r"(\d+)\.([A-Za-z0-9_-]{1,40})\.(\d+)")


@dataclass(frozen=True)
class Places:
    state: Path

    def make(self) -> None:
        """Errors: `runtime.path_too_long` for a state folder in which no socket could be."""
        self.socket(InstanceRef("env", 0))
        for folder, mode in ((self.state, 0o711), (self.instances, 0o700), (self.state / "s", 0o711)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    @property
    def instances(self) -> Path:
        return self.state / "instances"

    def folder(self, ref: InstanceRef) -> Path:
        """Errors: `runtime.spec_invalid` for a ref that is no name of a folder."""
        if not (ENVIRONMENT.fullmatch(ref.env_id) and PROCESS.fullmatch(ref.process)) or min(ref.seq, ref.index) < 0:
            raise HeadwayError("runtime.spec_invalid", f"{ref} cannot name an instance")
        return self.instances / ref.env_id / f"{ref.seq}.{ref.process}.{ref.index}"

    def socket(self, ref: InstanceRef) -> Path:
        """The endpoint. Errors: `runtime.path_too_long`."""
        path = self.state / "s" / hashlib.sha256(str(ref).encode()).hexdigest()[:16]
        if len(os.fsencode(path)) + len(".c") > LONGEST_SOCKET:
            raise HeadwayError("runtime.path_too_long", f"{path} is too long for the path of a socket")
        return path

    def control(self, ref: InstanceRef) -> Path:
        return self.socket(ref).with_suffix(".c")

    def mark(self, ref: InstanceRef) -> str:
        """What names the instance among all of this machine: in cgroups, and in the environment of bubblewrap."""
        return hashlib.sha256(f"{self.state}\0{ref}".encode()).hexdigest()[:20]

    def environments(self) -> set[str]:
        return {folder.name for folder in _sorted(self.instances)}

    def known(self, env_id: str | None = None) -> Iterator[InstanceRef]:
        tops = [self.instances / env_id] if env_id is not None else _sorted(self.instances)
        for top in tops:
            for folder in _sorted(top):
                if match := FOLDER.fullmatch(folder.name):
                    yield InstanceRef(top.name, int(match[1]), match[2], int(match[3]))


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
