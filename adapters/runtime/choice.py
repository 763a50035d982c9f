"""Which driver keeps this host's instances, written down beside them: whoever comes next uses the same one.

The file `driver.json` in the state folder says it, so that `headway apps`, `down` and `doctor` need none of the host
worker's settings. Another driver would not see what runs under the one before: it is only taken when nothing does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from adapters.hosting.durable import write_file
from adapters.runtime.driver import RuntimeDriver
from headway.errors import HeadwayError

Kind = Literal["process", "docker", "systemd"]
FILE: Final = "driver.json"
SYSTEMD: Final = Path("/run/systemd/system")


@dataclass(frozen=True)
class Choice:
    """`engine` is the socket of a Docker-compatible engine, `image` what it runs apps in: for `docker` alone."""

    kind: Kind = "process"
    engine: str = ""
    image: str = ""


@dataclass(frozen=True)
class Means:
    """What the operator gives to every driver; `private_ok` is of use to one with a way out."""

    key_file: Path | None = None
    private_ok: frozenset[str] = frozenset()
    host_sockets: Sequence[Path] = ()


def driver_of(choice: Choice, state: Path, means: Means | None = None) -> RuntimeDriver:
    """The driver on its folder. It is not asked whether it can work here: `check` does."""
    given = means or Means()
    if choice.kind == "docker":
        from adapters.runtime import docker

        return docker.DockerDriver(
            docker.Setup(
                Path(choice.engine),
                choice.image,
                state,
                key_file=given.key_file,
                host_sockets=given.host_sockets,
            )
        )
    if choice.kind == "systemd":
        from adapters.runtime import systemd

        return systemd.SystemdDriver(systemd.Setup(state, key_file=given.key_file, host_sockets=given.host_sockets))
    from adapters.runtime.process import driver

    return driver.ProcessDriver(
        driver.Setup(
            state,
            key_file=given.key_file,
            private_ok=given.private_ok,
            host_sockets=given.host_sockets,
        )
    )


def check(choice: Choice, driver: RuntimeDriver) -> None:
    """Raises runtime.driver_unusable where this machine has not what the driver is of.

    The embedded one is not asked: it says so at the first instance, and a host of static sites needs none.
    """
    if choice.kind == "docker":
        if not choice.image:
            raise HeadwayError("runtime.driver_unusable", "HEADWAY_ENGINE_IMAGE names no image to run apps in.")
        from adapters.runtime.docker import DockerDriver

        assert isinstance(driver, DockerDriver)  # noqa: S101
        try:
            driver.require_image()
        except HeadwayError as error:
            raise HeadwayError("runtime.driver_unusable", error.message) from error
    if choice.kind == "systemd":
        if not SYSTEMD.is_dir():
            raise HeadwayError("runtime.driver_unusable", f"{SYSTEMD} is not there: systemd is not PID 1 here.")
        if os.geteuid() != 0:
            raise HeadwayError("runtime.driver_unusable", "Units belong to root: run the host worker as root.")


def recorded(state: Path) -> Choice:
    """What keeps the instances of this folder; the embedded driver where nothing says otherwise."""
    try:
        found: dict[str, Any] = json.loads((state / FILE).read_bytes())
        return Choice(**found)
    except (FileNotFoundError, NotADirectoryError):
        return Choice()
    except (OSError, ValueError, TypeError):
        raise HeadwayError("stack.folder_invalid", f"{state / FILE} cannot be read.") from None


def take(choice: Choice, state: Path, means: Means) -> RuntimeDriver:
    """The driver of the settings, once nothing runs under another one. Raises runtime.driver_unusable."""
    driver, before = driver_of(choice, state, means), recorded(state)
    check(choice, driver)
    if before.kind != choice.kind:
        other = driver_of(before, state)
        try:
            left = other.list()
        except HeadwayError as error:
            said = f"What runs under the driver {before.kind} cannot be looked at: {error.message}"
            raise HeadwayError("runtime.driver_unusable", f"{said}; else remove {state / FILE}.") from error
        if running := [str(one.ref) for one in left if one.state != "stopped"]:
            raise HeadwayError(
                "runtime.driver_unusable",
                f"{len(running)} instances run under the driver {before.kind} still, {running[0]} among them: "
                "stop them with `headway apps stop`, and start the host worker again.",
            )
        for one in left:
            other.remove(one.ref)
    if before != choice:
        state.mkdir(parents=True, exist_ok=True)
        write_file(state / FILE, json.dumps(asdict(choice)).encode())
    return driver
