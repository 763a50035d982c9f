"""Git's own `http-backend`, as a CGI program: what it is started with, and the hook that it runs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters.githost import proc_receive
from adapters.githost.pushhead import PushLimits
from adapters.githost.repositories import HIDDEN, Repositories
from adapters.source.script import HARMLESS

_PROTOCOL: Final = re.compile(r"[a-z0-9=:.,-]{1,100}")
_CONFIG: Final = """\
[safe]
	directory = *
[core]
	hooksPath = {hooks}
	fsmonitor = false
	attributesFile = /dev/null
	logAllRefUpdates = false
	protectHFS = true
	protectNTFS = true
	bigFileThreshold = 32m
[http]
	receivepack = true
	uploadpack = true
	getanyfile = false
[receive]
	procReceiveRefs = refs
	maxInputSize = {size}
	fsckObjects = true
	unpackLimit = 1
	advertiseAtomic = false
	advertisePushOptions = true
	autogc = false
	updateServerInfo = false
	shallowUpdate = false
	keepAlive = 5
[transfer]
	hideRefs = {hidden}
	fsckObjects = true
	unpackLimit = 1
[uploadpack]
	allowFilter = true
	keepAlive = 5
[gc]
	auto = 0
[maintenance]
	auto = false
[pack]
	threads = 1
	windowMemory = 64m
	deltaCacheSize = 64m
[receive "fsck"]
""" + "".join(f"\t{name} = ignore\n" for name in HARMLESS)


@dataclass(frozen=True)
class Asked:
    """One request: the service is `git-upload-pack` or `git-receive-pack`."""

    site_id: str
    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    address: str


@dataclass(frozen=True)
class Backend:
    repositories: Repositories
    limits: PushLimits

    @classmethod
    def install(cls, folder: Path, limits: PushLimits) -> Backend:
        """Write git's configuration and the hook below `folder`, the one that holds the repositories."""
        own = folder / ".headway"
        hooks = own / "hooks"
        hooks.mkdir(parents=True, exist_ok=True)
        # Isolated and without site packages: neither the environment nor a folder says what it imports.
        run = shlex.join([sys.executable, "-I", "-S", str(Path(proc_receive.__file__).resolve())])
        _replace(hooks / "proc-receive", f"#!/bin/sh\nexec {run}\n", 0o755)
        config = own / "gitconfig"
        _replace(config, _CONFIG.format(hooks=hooks, hidden=HIDDEN, size=limits.size), 0o644)
        return cls(Repositories(folder, config), limits)

    argv = ("git", "http-backend")

    def environment(self, asked: Asked, push_fd: int | None) -> dict[str, str]:
        """Without CONTENT_LENGTH: receive-pack then reads the request itself, and nobody holds it."""
        given = {
            **self.repositories.environment(),
            "GIT_PROJECT_ROOT": str(self.repositories.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": f"/{asked.site_id}.git{asked.path}",
            "QUERY_STRING": asked.query,
            "CONTENT_TYPE": asked.headers.get(b"content-type", b"").decode("latin-1"),
            "REMOTE_ADDR": asked.address,
        }
        protocol = asked.headers.get(b"git-protocol", b"").decode("latin-1")
        if _PROTOCOL.fullmatch(protocol):
            given["GIT_PROTOCOL"] = protocol
        if push_fd is not None:
            given[proc_receive.FD] = str(push_fd)
        return given


def _replace(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)
