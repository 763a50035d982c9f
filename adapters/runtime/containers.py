"""What an engine is told to make of an instance: the app's container and that of its door."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.runtime import door, teller
from adapters.runtime.driver import InstanceSpec
from adapters.runtime.process.view import inside, port_of

SECRETS = "/run/headway-environment"
GIVEN = "/run/headway-input"
KEPT_FILES = 3
TMP_BYTES, HOME_BYTES = 256 << 20, 64 << 20
DOOR_MEMORY, DOOR_PIDS, DOOR_FILES = 96 << 20, 8, 8192
HOME, USER = "/home/app", 1000
# Of every container.
SHUT: dict[str, Any] = {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]}
# The first process of a container ignores signals it does not handle, so the app is its child: behind `&` a shell
# gives it nothing to read but what is named.
FIRST = f"""[ ! -r {SECRETS} ] || {{ set -a; . {SECRETS}; set +a; }}
trap 'kill -TERM "$app"' TERM
given=/dev/null
[ ! -r {GIVEN} ] || given={GIVEN}
"$@" <"$given" & app=$!
wait "$app"; code=$?
while kill -0 "$app" 2>/dev/null; do wait "$app"; code=$?; done
exit "$code"
"""


def app_body(
    spec: InstanceSpec, image: str, uid: int | None, binds: Sequence[str], names: Sequence[str] = (), *, restart: bool
) -> dict[str, Any]:
    """In no network at all: who serves joins that of its door instead. `restart`: the engine starts it again.

    `names`: the variables whose values are kept out of the engine's log.
    """
    env = {"HOME": HOME, "USER": "app", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **spec.env}
    port, bounds = port_of(spec), spec.bounds
    env |= {"PORT": str(port)} if port is not None else {}
    user = uid if uid is not None else USER
    # The engine takes the mode from the image's folder where there is one.
    owner = f"mode=0700,uid={user},gid={user}"
    words, memory, pids = ["sh", "-c", spec.command], bounds.memory, bounds.pids
    if names:
        words = teller.command(names, words, passes=True, foreign=True)
        binds = [*binds, *(f"{source}:{target}:ro" for source, target in teller.shown(foreign=True))]
        memory, pids = memory + teller.MEMORY, pids + teller.PROCESSES
    if spec.given is not None and not restart:
        binds = [*binds, f"{spec.given.absolute()}:{GIVEN}:ro"]
    return {
        "Image": image,
        "Entrypoint": ["sh", "-c", FIRST, "first"],
        "Cmd": words,
        "Env": [f"{key}={value}" for key, value in env.items()],
        "WorkingDir": inside(spec.cwd, "cwd") if spec.cwd else "/workspace",
        "User": f"{user}:{user}",
        "HostConfig": {
            **SHUT,
            "Binds": list(binds),
            "Tmpfs": {"/tmp": f"size={TMP_BYTES},{owner}", HOME: f"size={HOME_BYTES},{owner}"},  # noqa: S108
            "NetworkMode": "none",
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": pids,
            "NanoCpus": int(bounds.cpu * 1e9),
            "Ulimits": [{"Name": "nofile", "Soft": bounds.nofile, "Hard": bounds.nofile}],
            "RestartPolicy": {"Name": "unless-stopped" if restart else "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(bounds.log), "max-file": str(KEPT_FILES)},
            },
        },
    }


def door_body(image: str, folder: Path, uid: int | None, port: int, mode: int) -> dict[str, Any]:
    """The image is only there because an engine wants one. Never started again: its network would be another one."""
    user = uid if uid is not None else os.geteuid()
    binds = [f"{source}:{target}:ro" for source, target in door.shown()]
    return {
        "Image": image,
        "Entrypoint": door.command(port, mode),
        "Cmd": [],
        "WorkingDir": "/",
        "User": f"{user}:{user}",
        "HostConfig": {
            **SHUT,
            "Binds": [*binds, f"{folder}:{door.FOLDER}"],
            "NetworkMode": "none",
            "Memory": DOOR_MEMORY,
            "MemorySwap": DOOR_MEMORY,
            "PidsLimit": DOOR_PIDS,
            "Ulimits": [{"Name": "nofile", "Soft": DOOR_FILES, "Hard": DOOR_FILES}],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }
