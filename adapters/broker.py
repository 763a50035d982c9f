"""The broker's client: the only way in which builders and hosts reach what the API keeps (headway/broker)."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

import httpx
import zstandard
from pydantic import ValidationError

from adapters.unix_sockets import AnySocket
from headway.broker import (
    HOLDER,
    TLS_NAME,
    Accepted,
    Addresses,
    Begin,
    BeginLook,
    BuildSecrets,
    BuildSpec,
    Coming,
    CommandSpec,
    Committed,
    Contents,
    Deleted,
    Drifts,
    Earlier,
    Events,
    ExecOutput,
    ExecSpec,
    Fetched,
    Heard,
    HostHello,
    Hostnames,
    InputPart,
    Inputs,
    KeptCache,
    Known,
    KnownBuilder,
    Leads,
    Leftovers,
    LogBatch,
    LogHeard,
    LookSpec,
    MendSpec,
    Misled,
    Missing,
    Mounts,
    Noted,
    Offer,
    Output,
    Ready,
    RequestBatch,
    RequestsHeard,
    RollSpec,
    SealedConfig,
    Seen,
    Serving,
    StoredCache,
    Taken,
    Turn,
    Upload,
    UploadRequest,
    WantedCache,
    WantedInput,
    WantedPacks,
    WantedRepository,
    WantedSecrets,
    WantedTurn,
    Wire,
)
from headway.errors import CODES, HeadwayError

PATIENCE: Final = 10.0
# Seconds without a byte of the answer. What looks at every file of a tree may take long, and twice costs twice.
READING: Final = 30.0
THINKING: Final = 180.0
# How long one waits for what another builder is at, and may have been killed over.
_HELD: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_AWAY: Final = {502, 503, 504}
_LONG: Final = 64 << 10

Answer = TypeVar("Answer", bound=Wire)
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Remote:
    """A broker on another machine: `address` is `host:port`, `root` the certificate that vouches for it."""

    address: str
    root: Path


def _by_tls(at: Remote) -> httpx.BaseTransport:
    """Raises service.unavailable where the root cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(at.root)
    except OSError as error:
        message = f"The certificate that vouches for the broker, {at.root}, cannot be read: {error}."
        raise HeadwayError("broker.untrusted", message) from None
    return httpx.HTTPTransport(verify=context)


class BrokerClient:
    """Requests to the broker, with this role's credential from a file. Thread-safe.

    `at` is its socket, or a folder, where each replica of the API has a socket of its own: whichever answers is used;
    or where it is reached by TLS from another machine (broker.untrusted where it is not the one that was pinned).
    Every request may be repeated: a lost connection, or an API that is starting again, is waited out for `patience`
    seconds and then is service.unavailable. What the broker answers as an error is raised with its own code.
    What a builder begins is this client's: another one, with the same credential too, is refused.
    """

    def __init__(self, at: Path | Remote, token_file: Path, *, patience: float = PATIENCE) -> None:
        self._token_file = token_file
        self._patience = patience
        self._holder = secrets.token_urlsafe(32)
        # Nothing of the API's machine lies beside this one.
        self.elsewhere = isinstance(at, Remote)
        # The same name for every broker: the root vouches for nothing else.
        self._asked = {"sni_hostname": TLS_NAME} if isinstance(at, Remote) else {}
        self._http = httpx.Client(
            transport=_by_tls(at) if isinstance(at, Remote) else AnySocket(at),
            base_url=f"https://{at.address}" if isinstance(at, Remote) else "http://broker",
            timeout=httpx.Timeout(READING, connect=3),
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def begin(self, build_id: str, begin: Begin) -> BuildSpec:
        """Take the build. The answer's `attempt` is the number to use from then on.

        Raises attempt.held where another process is at it, after a wait.
        """
        return self._begin(BuildSpec, f"/builds/{build_id}/begin", begin)

    def tell_fetched(self, build_id: str, fetched: Fetched) -> None:
        """Say which commit is built."""
        self._ask(Wire, "POST", f"/builds/{build_id}/fetched", fetched)

    def save_repository(self, build_id: str, wanted: WantedRepository, file: IO[bytes], stopped: Stopped) -> None:
        """The site's own repository, as a git bundle. One try: the build is tried again. Raises job.canceled too."""
        headers, raw = self._headers(b""), wanted.model_dump_json().encode()
        try:
            with self._http.stream(
                "POST",
                f"/builds/{build_id}/repository",
                content=raw,
                headers=headers,
                timeout=httpx.Timeout(THINKING, connect=3),
                extensions=self._asked,
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _failure(answer)
                for chunk in answer.iter_raw():
                    if stopped():
                        raise HeadwayError("job.canceled", "The job was canceled while its repository was fetched.")
                    file.write(chunk)
        except httpx.TransportError as error:
            _refuse_stranger(error)
            message = f"The broker does not answer: {type(error).__name__}."
            raise HeadwayError("service.unavailable", message) from error

    def packs(self, build_id: str, wanted: WantedPacks) -> Addresses:
        """Where to read packs that the build's snapshot names."""
        return self._ask(Addresses, "POST", f"/builds/{build_id}/packs", wanted)

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
        return self._ask(Missing, "POST", f"/builds/{build_id}/contents", contents, reading=THINKING)

    def upload(self, build_id: str, request: UploadRequest) -> Upload:
        """Where to put one object."""
        return self._ask(Upload, "POST", f"/builds/{build_id}/uploads", request)

    def finish(self, build_id: str, output: Output) -> Accepted:
        """Hand in what was built."""
        return self._ask(Accepted, "POST", f"/builds/{build_id}/output", output, reading=THINKING)

    def begin_look(self, site_id: str, begin: BeginLook) -> LookSpec:
        """Which remote to look at. Raises attempt.stale where the look is over."""
        return self._begin(LookSpec, f"/looks/{site_id}/begin", begin)

    def tell_seen(self, site_id: str, seen: Seen) -> Taken:
        """Hand in what was seen, or why nothing was."""
        return self._ask(Taken, "POST", f"/looks/{site_id}/seen", seen)

    def begin_exec(self, job_id: str, begin: Begin) -> ExecSpec:
        return self._begin(ExecSpec, f"/execs/{job_id}/begin", begin)

    def packs_exec(self, job_id: str, wanted: WantedPacks) -> Addresses:
        return self._ask(Addresses, "POST", f"/execs/{job_id}/packs", wanted)

    def upload_exec(self, job_id: str, request: UploadRequest) -> Upload:
        return self._ask(Upload, "POST", f"/execs/{job_id}/uploads", request)

    def finish_exec(self, job_id: str, output: ExecOutput) -> Heard:
        return self._ask(Heard, "POST", f"/execs/{job_id}/output", output, reading=THINKING)

    def append(self, job_id: str, events: Events, *, patience: float | None = None) -> Heard:
        """Append to the job's stream; an empty batch only asks whether the job is to end."""
        return self._ask(Heard, "POST", f"/jobs/{job_id}/events", events, patience=patience)

    def get_rollout(self, rollout_id: str, ready: Ready | None = None) -> RollSpec:
        """With `ready` it may be committed by the same question. Raises as `commit` then."""
        if ready is not None:
            return self._ask(RollSpec, "POST", f"/rollouts/{rollout_id}/ready", ready)
        return self._ask(RollSpec, "GET", f"/rollouts/{rollout_id}")

    def take(self, job_id: str, ready: Ready | None = None, *, early: bool = False) -> Turn:
        """A job's rollout for this host alone, at once; `early`: if its run is known to exist. Raises as `commit`."""
        return self._ask(Turn, "POST", f"/jobs/{job_id}/take", WantedTurn(ready=ready, early=early))

    def commit(self, rollout_id: str) -> Committed:
        """Pass the point of no return. Raises job.canceled where a cancel came first."""
        return self._ask(Committed, "POST", f"/rollouts/{rollout_id}/commit")

    def begin_command(self, job_id: str) -> CommandSpec:
        """Take a one-off command. Raises attempt.stale where another host has begun it, and job.canceled."""
        return self._ask(CommandSpec, "POST", f"/commands/{job_id}/begin")

    def command_input(self, job_id: str, start: int) -> InputPart:
        """The next part of what a command is given."""
        return self._ask(InputPart, "POST", f"/commands/{job_id}/input", WantedInput(start=start))

    def get_config(self, rollout_id: str) -> SealedConfig:
        """A rollout's configuration, sealed to the key of the host that asks."""
        return self._ask(SealedConfig, "GET", f"/rollouts/{rollout_id}/config")

    def hello(self, host_id: str, hello: HostHello, *, patience: float | None = None) -> Known:
        """Say which key a host has. Raises host.key_changed where another one is pinned."""
        return self._ask(Known, "PUT", f"/hosts/{host_id}", hello, patience=patience)

    def report_drifts(self, host_id: str, drifts: Drifts, *, patience: float | None = None) -> Noted:
        """What this host found otherwise than it had left it."""
        return self._ask(Noted, "POST", f"/hosts/{host_id}/drifts", drifts, patience=patience)

    def coming(self, host_id: str) -> Coming:
        """What this host will be asked to place soon; nothing where the broker knew of none for a while. One try."""
        return self._ask(Coming, "GET", f"/hosts/{host_id}/coming", patience=0.0)

    def tell_serving(self, host_id: str, serving: Serving) -> Leftovers:
        """Say what this host serves; which of it has no business here. One try: it is told again."""
        return self._ask(Leftovers, "POST", f"/hosts/{host_id}/serving", serving, patience=0.0)

    def tell_leads(self, host_id: str, leads: Leads) -> Misled:
        """Say which names lead where on this host; which of them are otherwise by now. One try: it is told again."""
        return self._ask(Misled, "POST", f"/hosts/{host_id}/leads", leads, patience=0.0)

    def tell_mounts(self, host_id: str, mounts: Mounts) -> Deleted:
        """Whose mounts lie on this host; which of these environments are deleted. One try: it is asked again."""
        return self._ask(Deleted, "POST", f"/hosts/{host_id}/mounts", mounts, patience=0.0)

    def offer(self, finding_id: str, offer: Offer) -> MendSpec:
        """How to put a damaged object right that this host may have whole. Raises finding.not_found."""
        return self._ask(MendSpec, "POST", f"/findings/{finding_id}", offer)

    def get_hostnames(self, env_id: str) -> Hostnames:
        return self._ask(Hostnames, "GET", f"/environments/{env_id}/hostnames")

    def ship_logs(self, env_id: str, batch: LogBatch) -> LogHeard:
        """Hand in lines of instances. One try: the sender has them still."""
        return self._ask(LogHeard, "POST", f"/environments/{env_id}/logs", batch, patience=0.0)

    def ship_requests(self, env_id: str, batch: RequestBatch) -> RequestsHeard:
        """Hand in what visitors asked. One try: the web server's log has it still."""
        return self._ask(RequestsHeard, "POST", f"/environments/{env_id}/requests", batch, patience=0.0)

    def let_go(self, subject_id: str) -> None:
        """What was begun and came to no end: another builder need not wait. One try, and no matter if it fails."""
        with contextlib.suppress(HeadwayError):
            self._send("DELETE", f"/leases/{subject_id}", None, 0.0)

    def who(self) -> str:
        """Which builder this is. One try. Raises auth.invalid_key, role.insufficient, service.unavailable."""
        return self._ask(KnownBuilder, "GET", "/builder", patience=0.0).builder_id

    def health(self) -> None:
        """Raises service.unavailable where the broker does not answer."""
        self._send("GET", "/health", None, 0.0)

    def _begin(self, shape: type[Answer], path: str, begin: Wire) -> Answer:
        deadline = time.monotonic() + _HELD
        while True:
            try:
                return self._ask(shape, "POST", path, begin)
            except HeadwayError as error:
                if error.code != "attempt.held" or time.monotonic() > deadline:
                    raise
            time.sleep(0.3)

    def _ask(
        self,
        shape: type[Answer],
        method: str,
        path: str,
        body: Wire | None = None,
        *,
        patience: float | None = None,
        reading: float = READING,
    ) -> Answer:
        raw = None if body is None else body.model_dump_json().encode("utf-8", "replace")
        response = self._send(method, path, raw, self._patience if patience is None else patience, reading)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise HeadwayError("internal.error", f"The broker answers {path} in an unknown shape.") from error

    def _send(
        self, method: str, path: str, body: bytes | None, patience: float, reading: float = READING
    ) -> httpx.Response:
        timeout = httpx.Timeout(reading, connect=3)
        deadline = time.monotonic() + patience
        pause = _FIRST_PAUSE
        sent, coding = packed(body)
        while True:
            try:
                response = self._http.request(
                    method,
                    path,
                    content=sent,
                    headers={**self._headers(body), **coding},
                    timeout=timeout,
                    extensions=self._asked,
                )
            except httpx.TransportError as error:
                _refuse_stranger(error)
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
        headers = {"Authorization": f"Bearer {token}", HOLDER: self._holder}
        return headers if body is None else {**headers, "Content-Type": "application/json"}


def _refuse_stranger(error: BaseException | None) -> None:
    """No patience with one that is not the pinned broker: it gets no credential, and nothing is tried again."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            message = f"What answers at the broker's address is not the pinned broker: {error.verify_message}."
            raise HeadwayError("broker.untrusted", message) from None
        error = error.__cause__ or error.__context__


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
