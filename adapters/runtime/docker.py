"""Instances as containers of a Docker-compatible engine, over its HTTP API on a unix socket.

The engine is the supervisor: it starts again what ends, and keeps running while every process of ours is away. One
container per instance, found by its name and labels; nothing is remembered here. Beside what serves visitors stands a
second container, its door: it has a network of its own with a loopback device and nothing else, which the app joins,
and leads from the endpoint, a unix socket in a folder of this host, to the app's port. So an app reaches neither the
host, nor others, nor anything outside, and `egress` has to be empty, but for `unix:`; an app that needs the way out
runs under the embedded driver. A door that ends takes its app along: the next `ensure` starts both.

Sealed configurations are opened here and handed over as a file in memory that the container's first process reads:
the engine keeps a container's environment on disk, and shows it to whoever may ask. The values are taken out of what
the app prints before the engine has it (`teller.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx

from adapters.redaction import Redactor
from adapters.runtime import door
from adapters.runtime.containers import SECRETS, USER, app_body, door_body
from adapters.runtime.driver import MOST_LINES, Capabilities, InstanceRef, InstanceSpec, Lines, LogLine, Status
from adapters.runtime.engine import LABEL, established, frames, nanoseconds, ref_of, status_of
from adapters.runtime.frame import lay
from adapters.runtime.process.app import children, term_targets
from adapters.runtime.process.opening import CannotOpen, open_configuration
from adapters.runtime.process.places import Places
from adapters.runtime.process.recipe import Opener
from adapters.runtime.process.uids import uid_of
from adapters.runtime.process.view import allowed_sockets, inside, make_volume, port_of
from adapters.unix_sockets import AnySocket
from headway.errors import HeadwayError

API = "/v1.40"
SCOPE = "headway.scope"
TRIES = 5
LOOK = 0.02
SECONDS = 60.0
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
    socket_mode: int = 0o666
    opener: str = "adapters.config.sealed:open_sealed"


class DockerDriver:
    """`RuntimeDriver` of an engine."""

    counts_lines = False

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._places = Places(setup.state.absolute())
        self._places.make()
        self.leaving: Callable[[InstanceRef], None] = lambda _ref: None
        self._scope = hashlib.sha256(os.fsencode(setup.state.absolute())).hexdigest()[:12]
        self._secrets = setup.memory / f"headway-{self._scope}"
        self._http = httpx.Client(transport=AnySocket(setup.socket), base_url=f"http://engine{API}", timeout=SECONDS)

    def close(self) -> None:
        self._http.close()

    def capabilities(self) -> Capabilities:
        info = self._call("GET", "/info").json()
        limits = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
        held = tuple(name for name, key in limits.items() if info.get(key))
        missing = [f"{name} by the engine" for name in limits if name not in held]
        return Capabilities("docker", True, os.geteuid() == 0, held, (*missing, "egress by name"))

    def require_image(self) -> None:
        """Raises runtime.unavailable where the engine does not answer, or has no such image."""
        if self._call("GET", f"/images/{self._setup.image}/json", fine=(404,)).status_code == 404:
            raise HeadwayError("runtime.unavailable", f"The engine has no image {self._setup.image}: pull or load it.")

    def ensure(self, spec: InstanceSpec) -> Status:
        self._run(spec, restart=True)
        if port_of(spec) is not None:
            door.until_open(self._folder(spec.ref) / door.SOCKET)
        return self.status(spec.ref)

    def stop(self, ref: InstanceRef, grace: float) -> Status:
        name = self._name(ref)
        found = self._inspect(name)
        if found is None:
            return self.status(ref)
        self._call("POST", f"/containers/{name}/update", {"RestartPolicy": {"Name": "no"}}, fine=(404, 409))
        began = time.monotonic()
        if found["State"]["Running"]:
            self._call("POST", f"/containers/{self._door(ref)}/kill?signal=TERM", fine=(404, 409))
            if not self._terminate(int(found["State"]["Pid"])):
                self._call("POST", f"/containers/{name}/kill?signal=TERM", fine=(404, 409))
            self._until_ended(name, grace)
        self._call("POST", f"/containers/{name}/stop?t=0", fine=(304, 404))
        # What the app had sent already still goes out, as long as the grace lasts.
        self._until_ended(self._door(ref), began + grace - time.monotonic())
        self._call("POST", f"/containers/{self._door(ref)}/stop?t=0", fine=(304, 404))
        return self.status(ref)

    def remove(self, ref: InstanceRef) -> None:
        found = self._inspect(self._name(ref))
        if found is not None:
            self.stop(ref, float(_told(found)["stop_grace"]))
            self.leaving(ref)
        # The door first: what is left of an instance is found by its own container.
        for name in (self._door(ref), self._name(ref)):
            self._call("DELETE", f"/containers/{name}?force=true&v=true", fine=(404, 409))
        (self._secrets / self._name(ref)).unlink(missing_ok=True)
        for folder in (self._places.folder(ref), self._folder(ref)):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._places.folder(ref).parent.rmdir()

    def status(self, ref: InstanceRef) -> Status:
        found = self._inspect(self._name(ref))
        if found is None:
            left = self._inspect(self._door(ref)) is not None
            return Status(ref, "stopped", reason="only its door is there") if left else Status(ref, "absent")
        served = _told(found)["port"] is not None
        status = status_of(ref, found, f"unix:{self._folder(ref) / door.SOCKET}" if served else None)
        if status.endpoint is not None and status.state != "starting" and not self._door_stands(ref):
            return replace(status, state="stopped", endpoint=None, reason="its door is gone")
        return status

    def list(self, env_id: str | None = None) -> list[Status]:
        return [self.status(ref) for ref in sorted(self._refs()) if env_id in (None, ref.env_id)]

    def environments(self) -> set[str]:
        return {ref.env_id for ref in self._refs()}

    def _refs(self) -> set[InstanceRef]:
        """Also those of which only a door is left."""
        wanted = {"label": [f"{SCOPE}={self._scope}"]}
        rows = self._call("GET", f"/containers/json?all=true&filters={json.dumps(wanted)}").json()
        return {ref_of(json.loads(row["Labels"][LABEL])) for row in rows}

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        """Numbers are the engine's time stamps, in nanoseconds."""
        # The engine compares whole time stamps with `>=`.
        at = f"{since // 10**9}.{since % 10**9:09d}"
        query = f"stdout=true&stderr=true&timestamps=true&since={at}"
        answer = self._call("GET", f"/containers/{self._name(ref)}/logs?{query}", fine=(404, 409))
        if answer.status_code != 200:
            return
        redactor = Redactor(self._hidden(ref))
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
        while not self._until_ended(self._name(spec.ref), LOOK):
            late = time.monotonic() > deadline
            if late or canceled():
                self._call("POST", f"/containers/{self._name(spec.ref)}/kill?signal=KILL", fine=(404, 409))
            if canceled():
                self.remove(spec.ref)
                raise HeadwayError("job.canceled", "The command was canceled while it ran.")
        lines = [*deque(self.logs(spec.ref, limit=1 << 62), maxlen=MOST_LINES)]
        if late:
            number = lines[-1].number + 1 if lines else 1
            lines.append(LogLine(number, lines[-1].ts if lines else "", "system", "it ran out of time"))
        return self.status(spec.ref).exit_code or 0, lines

    def connections(self, ref: InstanceRef) -> int:
        found = self._inspect(self._name(ref))
        if found is None or not found["State"]["Running"]:
            return 0
        return established(int(found["State"]["Pid"]), int(_told(found)["port"] or 0))

    def _run(self, spec: InstanceSpec, *, restart: bool) -> None:
        """Created and started, whoever of several callers does which."""
        name = self._name(spec.ref)
        for _ in range(TRIES):
            found = self._inspect(name)
            if found is None:
                self._create(spec, restart=restart)
            elif found["State"]["Status"] in ("exited", "dead") and not restart:
                return  # one run has one result
            elif found["State"]["Status"] in ("exited", "dead") or self._cut_off(spec.ref, found):
                self._clear(found)
                continue
            elif found["State"]["Status"] != "created":
                return
            if self._call("POST", f"/containers/{name}/start", fine=(304, 404, 409)).status_code in (204, 304):
                return
        raise HeadwayError("runtime.unavailable", f"the container of {spec.ref} is removed by somebody else")

    def _create(self, spec: InstanceSpec, *, restart: bool) -> None:
        uid = uid_of(self._places.state, spec.ref.env_id) if os.geteuid() == 0 else None
        port = port_of(spec) if restart else None
        told = {**asdict(spec.ref), "stop_grace": spec.stop_grace, "port": port}
        body = self._body(spec, uid, restart=restart) | {"Labels": {LABEL: json.dumps(told), SCOPE: self._scope}}
        self._places.folder(spec.ref).mkdir(parents=True, exist_ok=True)
        if port is not None:
            at = door.folder_of(self._places.state, self._folder(spec.ref).name, uid)
            beside = door_body(self._setup.image, at, uid, port, self._setup.socket_mode)
            self._make(self._door(spec.ref), beside | {"Labels": body["Labels"]})
            self._call("POST", f"/containers/{self._door(spec.ref)}/start", fine=(304, 404))
            body["HostConfig"]["NetworkMode"] = f"container:{self._door(spec.ref)}"
        self._make(self._name(spec.ref), body)

    def _make(self, name: str, body: dict[str, Any]) -> None:
        answer = self._call("POST", f"/containers/create?name={name}", body, fine=(404, 409))
        if answer.status_code == 404:
            raise HeadwayError("runtime.unavailable", f"the engine has no image {self._setup.image}")

    def _clear(self, found: dict[str, Any]) -> None:
        """By id: another caller may have made new ones under these names."""
        ids = [found["Id"]]
        beside = self._inspect(self._door(ref_of(_told(found))))
        if beside is not None and beside["State"]["Status"] != "created":
            ids.append(beside["Id"])
        for one in ids:
            self._call("DELETE", f"/containers/{one}?force=true&v=true", fine=(404, 409))

    def _cut_off(self, ref: InstanceRef, found: dict[str, Any]) -> bool:
        """Whether its door ended: nobody reaches it any more, and another door would be in another network."""
        return _told(found)["port"] is not None and not self._door_stands(ref)

    def _door_stands(self, ref: InstanceRef) -> bool:
        found = self._inspect(self._door(ref))
        return found is not None and bool(found["State"]["Running"])

    def _body(self, spec: InstanceSpec, uid: int | None, *, restart: bool) -> dict[str, Any]:
        root = Path(os.path.realpath(spec.root))
        if not root.is_dir():
            raise HeadwayError("runtime.spec_invalid", f"{spec.root} is no folder")
        if any(not text.startswith("unix:") for text in spec.egress):
            raise HeadwayError("runtime.egress_refused", "Containers of this host have no way out.", param="egress")
        volumes = [(volume.source.absolute(), inside(volume.target, "a volume")) for volume in spec.volumes]
        shown = lay(root, [target for _, target in volumes], self._places.folder(spec.ref) / "tree")
        binds = [f"{source}:{target}:ro" for source, target in shown]
        for source, target in volumes:
            make_volume(source)
            if uid is not None:
                os.chown(source, uid, uid)
            binds.append(f"{source}:{target}")
        binds += [f"{path}:{path}" for path in allowed_sockets(spec, self._setup.host_sockets)]
        names: tuple[str, ...] = ()
        if spec.sealed is not None:
            secrets, names = self._open(spec, uid)
            binds.append(f"{secrets}:{SECRETS}:ro")
        return app_body(spec, self._setup.image, uid, binds, names, restart=restart)

    def _open(self, spec: InstanceSpec, uid: int | None) -> tuple[Path, tuple[str, ...]]:
        """The configuration as a file of shell assignments, in memory; and the names in it that are hidden."""
        if self._setup.key_file is None:
            raise HeadwayError("runtime.unavailable", "this host has no key for sealed configurations")
        import sys

        opener = Opener(str(spec.sealed), str(self._setup.key_file), self._setup.opener, tuple(sys.path))
        try:
            opened = open_configuration(opener)
        except CannotOpen as error:
            raise HeadwayError("runtime.unavailable", str(error)) from None
        if odd := next((key for key in opened.values if not NAME.fullmatch(key)), None):
            raise HeadwayError("runtime.spec_invalid", f"{odd!r} is no name of a variable for a shell")
        self._secrets.mkdir(mode=0o700, exist_ok=True)
        path = self._secrets / self._name(spec.ref)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(handle, "w") as file:
            file.write(f"# {' '.join(opened.hidden)}\n")
            file.writelines(f"{key}={shlex.quote(value)}\n" for key, value in opened.values.items())
        owner = uid if uid is not None else USER
        with contextlib.suppress(PermissionError):
            os.chown(path, owner, owner)
        return path, tuple(sorted(opened.hidden))

    def _hidden(self, ref: InstanceRef) -> dict[str, str]:
        try:
            text = (self._secrets / self._name(ref)).read_text()
        except OSError:
            return {}
        hidden = text.partition("\n")[0].split()[1:]
        values = dict(word.split("=", 1) for word in shlex.split(text, comments=True))
        return {name: values[name] for name in hidden}

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

    def _until_ended(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            found = self._inspect(name)
            if found is None or found["State"]["Status"] in ("exited", "dead"):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK)

    def _inspect(self, name: str) -> dict[str, Any] | None:
        answer = self._call("GET", f"/containers/{name}/json", fine=(404,))
        return None if answer.status_code == 404 else cast("dict[str, Any]", answer.json())

    def _door(self, ref: InstanceRef) -> str:
        return f"{self._name(ref)}-door"

    def _folder(self, ref: InstanceRef) -> Path:
        """Of the endpoint: one that no other instance's door sees."""
        return self._places.state / "d" / self._places.socket(ref).name

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


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(found["Config"]["Labels"][LABEL]))
