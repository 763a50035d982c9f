"""Instances as containers of a Docker-compatible engine, over its HTTP API on a unix socket.

The engine is the supervisor: it starts again what ends, and keeps running while every process of ours is away. One
container per instance, found by its name and labels; nothing is remembered here. The containers share one internal
network on which they cannot reach each other: this host reaches them by address, they reach nothing outside. So
`egress` has to be empty, but for `unix:`; an app that needs the way out runs under the embedded driver.

Sealed configurations are opened here and handed over as a file in memory that the container's first process reads:
the engine keeps a container's environment on disk, and shows it to whoever may ask. The engine's own log files are
not redacted; what is read from them through `logs` is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from adapters.redaction import Redactor
from adapters.runtime.driver import Capabilities, InstanceRef, InstanceSpec, Lines, LogLine, Status
from adapters.runtime.engine import LABEL, established, frames, nanoseconds, ref_of, status_of
from adapters.runtime.process.app import children, term_targets
from adapters.runtime.process.opening import CannotOpen, open_configuration
from adapters.runtime.process.recipe import Opener
from adapters.runtime.process.uids import uid_of
from adapters.runtime.process.view import PORT, allowed_sockets, inside
from headway.errors import HeadwayError

API = "/v1.40"
SCOPE = "headway.scope"
NETWORK = "headway-apps"
SECRETS = "/run/headway-environment"
KEPT_FILES = 3
TMP_BYTES, HOME_BYTES = 256 << 20, 64 << 20
HOME, USER = "/home/app", 1000
KILLED = 137
LOOK = 0.02
SECONDS = 60.0
# The first process of a container ignores signals it does not handle, so the app is its child.
FIRST = f"""[ ! -r {SECRETS} ] || {{ set -a; . {SECRETS}; set +a; }}
trap 'kill -TERM "$app"' TERM
sh -c "$1" & app=$!
wait "$app"; code=$?
while kill -0 "$app" 2>/dev/null; do wait "$app"; code=$?; done
exit "$code"
"""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Setup:
    """`socket` is the engine's, `image` what every instance runs in: `sh`, and what apps need beside their tree.

    `state` is a folder of this driver; `memory` one on a tmpfs, for opened configurations. The rest is as for the
    embedded driver.
    """

    socket: Path
    image: str
    state: Path
    memory: Path = Path("/dev/shm")  # noqa: S108 – a folder of mode 0700 is made in it
    key_file: Path | None = None
    host_sockets: Sequence[Path] = ()
    opener: str = "adapters.config.sealed:open_sealed"


class DockerDriver:
    """`RuntimeDriver` of an engine. Endpoints are `tcp:<address>:<port>`: another one after each start."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        setup.state.mkdir(parents=True, exist_ok=True)
        self._scope = hashlib.sha256(os.fsencode(setup.state.absolute())).hexdigest()[:12]
        self._secrets = setup.memory / f"headway-{self._scope}"
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(setup.socket)), base_url=f"http://engine{API}", timeout=SECONDS
        )

    def close(self) -> None:
        self._http.close()

    def capabilities(self) -> Capabilities:
        info = self._call("GET", "/info").json()
        limits = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
        held = tuple(name for name, key in limits.items() if info.get(key))
        missing = [f"{name} by the engine" for name in limits if name not in held]
        return Capabilities("docker", True, os.geteuid() == 0, held, (*missing, "egress by name"))

    def ensure(self, spec: InstanceSpec) -> Status:
        self._run(spec, restart=True)
        return self.status(spec.ref)

    def stop(self, ref: InstanceRef, grace: float) -> Status:
        found = self._inspect(ref)
        if found is None:
            return Status(ref, "absent")
        name = self._name(ref)
        self._call("POST", f"/containers/{name}/update", {"RestartPolicy": {"Name": "no"}}, fine=(404, 409))
        if found["State"]["Running"]:
            if not self._terminate(int(found["State"]["Pid"])):
                self._call("POST", f"/containers/{name}/kill?signal=TERM", fine=(404, 409))
            self._until_ended(ref, grace)
        self._call("POST", f"/containers/{name}/stop?t=0", fine=(304, 404))
        return self.status(ref)

    def remove(self, ref: InstanceRef) -> None:
        found = self._inspect(ref)
        if found is None:
            return
        self.stop(ref, float(json.loads(found["Config"]["Labels"][LABEL])["stop_grace"]))
        self._call("DELETE", f"/containers/{self._name(ref)}?force=true&v=true", fine=(404,))
        (self._secrets / self._name(ref)).unlink(missing_ok=True)

    def status(self, ref: InstanceRef) -> Status:
        found = self._inspect(ref)
        return Status(ref, "absent") if found is None else status_of(ref, found)

    def list(self, env_id: str | None = None) -> list[Status]:
        return [self.status(ref) for ref in sorted(self._refs()) if env_id in (None, ref.env_id)]

    def environments(self) -> set[str]:
        return {ref.env_id for ref in self._refs()}

    def _refs(self) -> Iterator[InstanceRef]:
        wanted = {"label": [f"{SCOPE}={self._scope}"]}
        rows = self._call("GET", f"/containers/json?all=true&filters={json.dumps(wanted)}").json()
        return (ref_of(json.loads(row["Labels"][LABEL])) for row in rows)

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        """Numbers are the engine's time stamps, in nanoseconds."""
        # The engine compares whole time stamps with `>=`.
        at = f"{since // 10**9}.{since % 10**9:09d}"
        query = f"stdout=true&stderr=true&timestamps=true&since={at}"
        answer = self._call("GET", f"/containers/{self._name(ref)}/logs?{query}", fine=(404, 409))
        if answer.status_code != 200:
            return
        redactor = Redactor(self._opened(ref))
        last = given = 0
        for stream, line in frames(answer.content):
            stamp, _, text = line.partition(b" ")
            number = max(nanoseconds(stamp.decode()), last + 1)
            last = number
            if number > since and given < limit:
                given += 1
                shown = redactor.hide(text).decode("utf-8", "backslashreplace")
                yield LogLine(number, stamp.decode()[:23] + "Z", cast("Any", stream), shown)

    def run_once(
        self, spec: InstanceSpec, timeout: float, *, canceled: Callable[[], bool] = lambda: False
    ) -> tuple[int, Lines]:
        self._run(spec, restart=False)
        deadline = time.monotonic() + timeout
        late = False
        while not self._until_ended(spec.ref, LOOK):
            late = time.monotonic() > deadline
            if late or canceled():
                self._call("POST", f"/containers/{self._name(spec.ref)}/kill?signal=KILL", fine=(404, 409))
            if canceled():
                self.remove(spec.ref)
                raise HeadwayError("job.canceled", "The command was canceled while it ran.")
        lines = [*self.logs(spec.ref, limit=1 << 62)]
        if late:
            number = lines[-1].number + 1 if lines else 1
            lines.append(LogLine(number, lines[-1].ts if lines else "", "system", "it ran out of time"))
        return self.status(spec.ref).exit_code or 0, lines

    def connections(self, ref: InstanceRef) -> int:
        found = self._inspect(ref)
        if found is None or not found["State"]["Running"]:
            return 0
        port = int(json.loads(found["Config"]["Labels"][LABEL])["port"] or 0)
        return established(int(found["State"]["Pid"]), port)

    def _run(self, spec: InstanceSpec, *, restart: bool) -> None:
        """Created and started, whoever of several callers does which."""
        name = self._name(spec.ref)
        for _ in range(3):
            found = self._inspect(spec.ref)
            if found is None:
                self._create(spec, restart=restart)
            elif found["State"]["Status"] in ("exited", "dead"):
                if not restart:
                    return  # one run has one result
                self._call("DELETE", f"/containers/{name}?force=true&v=true", fine=(404, 409))
                continue
            elif found["State"]["Status"] != "created":
                return
            if self._call("POST", f"/containers/{name}/start", fine=(304, 404)).status_code != 404:
                return
        raise HeadwayError("runtime.unavailable", f"the container of {spec.ref} is removed by somebody else")

    def _create(self, spec: InstanceSpec, *, restart: bool) -> None:
        self._network()
        answer = self._call(
            "POST",
            f"/containers/create?name={self._name(spec.ref)}",
            self._body(spec, restart=restart),
            fine=(404, 409),
        )
        if answer.status_code == 404:
            raise HeadwayError("runtime.unavailable", f"the engine has no image {self._setup.image}")

    def _body(self, spec: InstanceSpec, *, restart: bool) -> dict[str, Any]:
        root = Path(os.path.realpath(spec.root))
        if not root.is_dir():
            raise HeadwayError("runtime.spec_invalid", f"{spec.root} is no folder")
        if any(not text.startswith("unix:") for text in spec.egress):
            raise HeadwayError("runtime.egress_refused", "Containers of this host have no way out.", param="egress")
        uid = uid_of(self._setup.state, spec.ref.env_id) if os.geteuid() == 0 else None
        port = spec.port if spec.port is not None else (PORT if spec.ref.process == "web" else None)
        binds = [f"{root}:/workspace:ro"]
        for volume in spec.volumes:
            volume.source.mkdir(parents=True, exist_ok=True)
            if uid is not None:
                os.chown(volume.source, uid, uid)
            binds.append(f"{volume.source.absolute()}:{inside(volume.target, 'a volume')}")
        binds += [f"{path}:{path}" for path in allowed_sockets(spec, self._setup.host_sockets)]
        if (secrets := self._open(spec, uid)) is not None:
            binds.append(f"{secrets}:{SECRETS}:ro")
        env = {"HOME": HOME, "USER": "app", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **spec.env}
        env |= {"PORT": str(port)} if port is not None else {}
        bounds = spec.bounds
        user = uid if uid is not None else USER
        owner = (
            f"mode=0700,uid={user},gid={user}"  # the engine takes the mode from the image's folder where there is one
        )
        told = {
            "env_id": spec.ref.env_id,
            "seq": spec.ref.seq,
            "process": spec.ref.process,
            "index": spec.ref.index,
            "stop_grace": spec.stop_grace,
            "port": port,
        }
        return {
            "Image": self._setup.image,
            "Entrypoint": ["sh", "-c", FIRST, "first"],
            "Cmd": [spec.command],
            "Env": [f"{key}={value}" for key, value in env.items()],
            "WorkingDir": inside(spec.cwd, "cwd") if spec.cwd else "/workspace",
            "User": f"{user}:{user}",
            "Labels": {LABEL: json.dumps(told), SCOPE: self._scope},
            "HostConfig": {
                "Binds": binds,
                "Tmpfs": {"/tmp": f"size={TMP_BYTES},{owner}", HOME: f"size={HOME_BYTES},{owner}"},  # noqa: S108
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "NetworkMode": NETWORK,
                "Memory": bounds.memory,
                "MemorySwap": bounds.memory,
                "PidsLimit": bounds.pids,
                "NanoCpus": int(bounds.cpu * 1e9),
                "Ulimits": [{"Name": "nofile", "Soft": bounds.nofile, "Hard": bounds.nofile}],
                "RestartPolicy": {"Name": "unless-stopped" if restart else "no"},
                "LogConfig": {
                    "Type": "json-file",
                    "Config": {"max-size": str(bounds.log), "max-file": str(KEPT_FILES)},
                },
            },
        }

    def _network(self) -> None:
        body = {
            "Name": NETWORK,
            "CheckDuplicate": True,
            "Internal": True,
            "Options": {"com.docker.network.bridge.enable_icc": "false"},
        }
        if self._call("GET", f"/networks/{NETWORK}", fine=(404,)).status_code == 404:
            self._call("POST", "/networks/create", body, fine=(409,))

    def _open(self, spec: InstanceSpec, uid: int | None) -> Path | None:
        """The configuration as a file of shell assignments, in memory."""
        if spec.sealed is None:
            return None
        if self._setup.key_file is None:
            raise HeadwayError("runtime.unavailable", "this host has no key for sealed configurations")
        import sys

        opener = Opener(str(spec.sealed), str(self._setup.key_file), self._setup.opener, tuple(sys.path))
        try:
            values = open_configuration(opener)
        except CannotOpen as error:
            raise HeadwayError("runtime.unavailable", str(error)) from None
        if odd := next((key for key in values if not NAME.fullmatch(key)), None):
            raise HeadwayError("runtime.spec_invalid", f"{odd!r} is no name of a variable for a shell")
        self._secrets.mkdir(mode=0o700, exist_ok=True)
        path = self._secrets / self._name(spec.ref)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{key}={shlex.quote(value)}\n" for key, value in values.items())
        owner = uid if uid is not None else USER
        with contextlib.suppress(PermissionError):
            os.chown(path, owner, owner)
        return path

    def _opened(self, ref: InstanceRef) -> dict[str, str]:
        try:
            words = shlex.split((self._secrets / self._name(ref)).read_text())
        except OSError:
            return {}
        return dict(word.split("=", 1) for word in words)

    def _terminate(self, first: int) -> bool:
        """SIGTERM to the app, past shells that would not pass it on; False where its processes are not ours to see."""
        apps = children(first)
        if not apps:
            return False
        for pid in term_targets(apps[0]):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
            except PermissionError:
                return False
        return True

    def _until_ended(self, ref: InstanceRef, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            found = self._inspect(ref)
            if found is None or found["State"]["Status"] in ("exited", "dead"):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK)

    def _inspect(self, ref: InstanceRef) -> dict[str, Any] | None:
        answer = self._call("GET", f"/containers/{self._name(ref)}/json", fine=(404,))
        return None if answer.status_code == 404 else cast("dict[str, Any]", answer.json())

    def _name(self, ref: InstanceRef) -> str:
        return f"headway-{self._scope}-{hashlib.sha256(str(ref).encode()).hexdigest()[:16]}"

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, fine: tuple[int, ...] = ()
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise HeadwayError("runtime.unavailable", f"the engine does not answer: {error}") from error
        if answer.status_code >= 300 and answer.status_code not in fine:
            try:
                said = str(answer.json().get("message", ""))
            except ValueError:
                said = answer.reason_phrase
            raise HeadwayError("runtime.unavailable", f"the engine refused: {said}")
        return answer
