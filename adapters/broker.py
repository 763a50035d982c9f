"""The broker's client: the only way in which builders and hosts reach what the API keeps (headway/broker.py)."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Final, TypeVar

import httpx
import zstandard
from pydantic import ValidationError

from headway.broker import (
    Accepted,
    Begin,
    BuildSecrets,
    BuildSpec,
    CommandSpec,
    Committed,
    Contents,
    Drifts,
    Earlier,
    Events,
    ExecOutput,
    ExecSpec,
    Heard,
    HostHello,
    Hostnames,
    Inputs,
    KeptCache,
    Known,
    Leftovers,
    LogBatch,
    LogHeard,
    Missing,
    Noted,
    Output,
    RequestBatch,
    RequestsHeard,
    RollSpec,
    SealedConfig,
    Serving,
    StoredCache,
    Upload,
    UploadRequest,
    WantedCache,
    WantedSecrets,
    Wire,
)
from headway.errors import CODES, HeadwayError

PATIENCE: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_AWAY: Final = {502, 503, 504}
_LONG: Final = 64 << 10

Answer = TypeVar("Answer", bound=Wire)


class AnySocket(httpx.BaseTransport):
    """One unix socket, or of those in a folder the first that takes a connection; the last that did is asked first."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self._ways: dict[Path, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()
        self._best: Path | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        failure: httpx.ConnectError | None = None
        for path in self._sockets():
            try:
                response = self._way(path).handle_request(request)
            except httpx.ConnectError as error:
                failure, self._best = error, None
                continue
            self._best = path
            return response
        raise failure or httpx.ConnectError("no socket is there")

    def close(self) -> None:
        for way in self._ways.values():
            way.close()

    def _sockets(self) -> list[Path]:
        """The last that answered as it is, then every other that listens."""
        best = self._best
        all_of_them = sorted(self._at.glob("*.sock")) if self._at.is_dir() else [self._at]
        others = [path for path in all_of_them if path != best and _listens(path)]
        return [best, *others] if best in all_of_them else others

    def _way(self, path: Path) -> httpx.HTTPTransport:
        with self._lock:
            if path not in self._ways:
                self._ways[path] = httpx.HTTPTransport(uds=str(path))
            return self._ways[path]


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class BrokerClient:
    """Requests over the broker's unix socket, with this role's credential from a file. Thread-safe.

    `at` is its socket, or a folder, where each replica of the API has a socket of its own: whichever answers is used.
    Every request may be repeated: a lost connection, or an API that is starting again, is waited out for `patience`
    seconds and then is service.unavailable. What the broker answers as an error is raised with its own code.
    """

    def __init__(self, at: Path, token_file: Path, *, patience: float = PATIENCE) -> None:
        self._token_file = token_file
        self._patience = patience
        self._http = httpx.Client(
            transport=AnySocket(at),
            base_url="http://broker",
            timeout=httpx.Timeout(30, connect=3),
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def begin(self, build_id: str, begin: Begin) -> BuildSpec:
        """Take the build. The answer's `attempt` is the number to use from then on."""
        return self._ask(BuildSpec, "POST", f"/builds/{build_id}/begin", begin)

    def earlier(self, build_id: str, inputs: Inputs) -> Earlier:
        """The artifact that an earlier build has made of the same."""
        return self._ask(Earlier, "POST", f"/builds/{build_id}/earlier", inputs)

    def secrets(self, build_id: str, wanted: WantedSecrets) -> BuildSecrets:
        """What headway.toml lists of the environment's configuration."""
        return self._ask(BuildSecrets, "POST", f"/builds/{build_id}/secrets", wanted)

    def find_cache(self, build_id: str, wanted: WantedCache) -> StoredCache:
        """What the build may begin with."""
        return self._ask(StoredCache, "POST", f"/builds/{build_id}/cache", wanted)

    def keep_cache(self, build_id: str, kept: KeptCache) -> None:
        """What was uploaded is what the next build of this environment begins with."""
        self._ask(Wire, "POST", f"/builds/{build_id}/cached", kept)

    def missing(self, build_id: str, contents: Contents) -> Missing:
        """Which contents to upload."""
        return self._ask(Missing, "POST", f"/builds/{build_id}/contents", contents)

    def upload(self, build_id: str, request: UploadRequest) -> Upload:
        """Where to put one object."""
        return self._ask(Upload, "POST", f"/builds/{build_id}/uploads", request)

    def finish(self, build_id: str, output: Output) -> Accepted:
        """Hand in what was built."""
        return self._ask(Accepted, "POST", f"/builds/{build_id}/output", output)

    def begin_exec(self, job_id: str, begin: Begin) -> ExecSpec:
        return self._ask(ExecSpec, "POST", f"/execs/{job_id}/begin", begin)

    def upload_exec(self, job_id: str, request: UploadRequest) -> Upload:
        return self._ask(Upload, "POST", f"/execs/{job_id}/uploads", request)

    def finish_exec(self, job_id: str, output: ExecOutput) -> Heard:
        return self._ask(Heard, "POST", f"/execs/{job_id}/output", output)

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard:
        """Append to the job's stream; an empty batch only asks whether the job is to end."""
        return self._ask(Heard, "POST", f"/jobs/{job_id}/events", events, patience=patience)

    def get_rollout(self, rollout_id: str) -> RollSpec:
        return self._ask(RollSpec, "GET", f"/rollouts/{rollout_id}")

    def commit(self, rollout_id: str) -> Committed:
        """Pass the point of no return. Raises job.canceled where a cancel came first."""
        return self._ask(Committed, "POST", f"/rollouts/{rollout_id}/commit")

    def begin_command(self, job_id: str) -> CommandSpec:
        """Take a one-off command. Raises attempt.stale where another host has begun it, and job.canceled."""
        return self._ask(CommandSpec, "POST", f"/commands/{job_id}/begin")

    def get_config(self, rollout_id: str) -> SealedConfig:
        """A rollout's configuration, sealed to the key of the host that asks."""
        return self._ask(SealedConfig, "GET", f"/rollouts/{rollout_id}/config")

    def hello(self, host_id: str, hello: HostHello, *, patience: float | None = None) -> Known:
        """Say which key a host has. Raises host.key_changed where another one is pinned."""
        return self._ask(Known, "PUT", f"/hosts/{host_id}", hello, patience=patience)

    def report_drifts(self, host_id: str, drifts: Drifts, *, patience: float | None = None) -> Noted:
        """What this host found otherwise than it had left it."""
        return self._ask(Noted, "POST", f"/hosts/{host_id}/drifts", drifts, patience=patience)

    def tell_serving(self, host_id: str, serving: Serving) -> Leftovers:
        """Say what this host serves; which of it has no business here. One try: it is told again."""
        return self._ask(Leftovers, "POST", f"/hosts/{host_id}/serving", serving, patience=0.0)

    def get_hostnames(self, env_id: str) -> Hostnames:
        return self._ask(Hostnames, "GET", f"/environments/{env_id}/hostnames")

    def ship_logs(self, env_id: str, batch: LogBatch) -> LogHeard:
        """Hand in lines of instances. One try: the sender has them still."""
        return self._ask(LogHeard, "POST", f"/environments/{env_id}/logs", batch, patience=0.0)

    def ship_requests(self, env_id: str, batch: RequestBatch) -> RequestsHeard:
        """Hand in what visitors asked. One try: the web server's log has it still."""
        return self._ask(RequestsHeard, "POST", f"/environments/{env_id}/requests", batch, patience=0.0)

    def health(self) -> None:
        """Raises service.unavailable where the broker does not answer."""
        self._send("GET", "/health", None, 0.0)

    def _ask(
        self, shape: type[Answer], method: str, path: str, body: Wire | None = None, *, patience: float | None = None
    ) -> Answer:
        raw = None if body is None else body.model_dump_json().encode("utf-8", "replace")
        response = self._send(method, path, raw, self._patience if patience is None else patience)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise HeadwayError("internal.error", f"The broker answers {path} in an unknown shape.") from error

    def _send(self, method: str, path: str, body: bytes | None, patience: float) -> httpx.Response:
        deadline = time.monotonic() + patience
        pause = _FIRST_PAUSE
        sent, coding = packed(body)
        while True:
            try:
                response = self._http.request(method, path, content=sent, headers={**self._headers(body), **coding})
            except httpx.TransportError as error:
                failure = HeadwayError("service.unavailable", f"The broker does not answer: {type(error).__name__}.")
            else:
                if response.is_success:
                    return response
                failure = _failure(response)
                if response.status_code not in _AWAY:
                    raise failure
            if time.monotonic() + pause > deadline:
                raise failure
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        # Read each time: the API may have made it, or made it anew, since this process started.
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            message = f"This role's credential for the broker cannot be read: {type(error).__name__}."
            raise HeadwayError("service.unavailable", message) from error
        headers = {"Authorization": f"Bearer {token}"}
        return headers if body is None else {**headers, "Content-Type": "application/json"}


def packed(body: bytes | None) -> tuple[bytes | None, dict[str, str]]:
    """A body as it is sent, and the header that says so: lists of digests are half as long as they look."""
    if body is None or len(body) < _LONG:
        return body, {}
    return zstandard.compress(body, 3), {"Content-Encoding": "zstd"}


def _failure(response: httpx.Response) -> HeadwayError:
    try:
        error = response.json()["error"]
        code, message, param = error["code"], str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        return HeadwayError("internal.error", f"The broker answered {response.status_code}.")
    if code not in CODES:
        return HeadwayError("internal.error", f"{code}: {message}")
    return HeadwayError(code, message, param=param)
