"""What every runtime driver does with one instance, whoever supervises it.

An instance is one process of one placed release: `web` 0, `web` 1, `worker` 0. A driver owns no desired state: it is
told, each call may be repeated, and what it finds from before a restart of ours it adopts. Whether an instance is
healthy is asked through its endpoint, never of the driver.

Kubernetes fits as one Deployment of one replica per instance (`ensure` applies, the endpoint is a Service's address),
Nomad as one job with one allocation: both keep desired state themselves, so `ensure` hands it over and `status` reads
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

State = Literal["starting", "running", "backoff", "crash_loop", "stopping", "stopped", "absent"]


@dataclass(frozen=True, order=True)
class InstanceRef:
    """`process` is `web` or the name of a line of `[processes]`; `index` counts from 0 within it on this host."""

    env_id: str
    seq: int
    process: str = "web"
    index: int = 0

    def __str__(self) -> str:
        return f"{self.env_id}/{self.seq}/{self.process}.{self.index}"


@dataclass(frozen=True)
class Bounds:
    """`memory` in bytes, `pids` in tasks, `cpu` in cores, `nofile` per process, `log` in bytes per kept log file."""

    memory: int = 512 << 20
    pids: int = 256
    cpu: float = 1.0
    nofile: int = 4096
    log: int = 8 << 20


@dataclass(frozen=True)
class Volume:
    """A folder that outlives releases: `source` on the host is writable at `target` inside the release tree."""

    source: Path
    target: str


@dataclass(frozen=True)
class InstanceSpec:
    """Everything that a driver needs to start the instance again by itself, with the control plane away.

    `root` is the release tree, read-only inside; `command` goes to `sh -c` in its folder `cwd`. `port` is what the app
    listens on and finds in `PORT`; None: the driver picks one for `web`, and any other process serves nobody. `env`
    holds no secrets; `sealed` is a file with the frozen configuration, sealed to this host's key, opened at each start
    and added to the environment by whoever starts the process. `egress` are rules of `adapters.egress.policy`
    (`host:port`), the word `public` (ports 443 and 80 of every public address), or `unix:/path` for a socket of the
    host that the operator allowed. Nothing: nothing goes out.
    `stop_grace` in seconds between SIGTERM and SIGKILL. `given`: a file that one run (`run_once`) finds on its standard
    input; nothing there otherwise.
    """

    ref: InstanceRef
    root: Path
    command: str
    cwd: str = ""
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    sealed: Path | None = None
    egress: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    stop_grace: float = 10.0
    given: Path | None = None


@dataclass(frozen=True)
class Status:
    """`endpoint` is `unix:/path` or `tcp:host:port`, None where nobody listens; `pid` is the app's own, on the host.

    `crash_loop`: it ended early several times in a row; it is still started again, at the slowest pace.
    `restarts` counts since `ensure`; `exit_code` is the last one's (128 + signal); `since` is Unix seconds.
    """

    ref: InstanceRef
    state: State
    endpoint: str | None = None
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class LogLine:
    """`number` grows within an instance, across restarts and rotations; `stream` is stdout, stderr or system."""

    number: int
    ts: str
    stream: Literal["stdout", "stderr", "system"]
    line: str


Lines = list[LogLine]  # `list` is a method further down
# Of one run: an app may print millions.
MOST_LINES: Final = 10_000


@dataclass(frozen=True)
class Capabilities:
    """What a driver can hold to on this machine; `headway doctor` shows what is missing."""

    name: str
    isolated_network: bool
    own_uid: bool
    limits: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class RuntimeDriver(Protocol):
    """`leaving` is called with each instance that is about to be forgotten, while its log can still be read.
    `counts_lines`: whether the numbers of lines have no gaps; else they only grow.

    Thread-safe. Errors of all: `runtime.unavailable` (retryable) where the supervisor does not answer;
    `runtime.spec_invalid` for an instance that cannot be one; `runtime.isolation_missing` where the machine lacks what
    the walls are made of.
    """

    leaving: Callable[[InstanceRef], None]

    @property
    def counts_lines(self) -> bool: ...

    def capabilities(self) -> Capabilities: ...

    def ensure(self, spec: InstanceSpec) -> Status:
        """Start the instance, or adopt the one that runs under this ref. Does not wait for it to listen."""

    def stop(self, ref: InstanceRef, grace: float) -> Status:
        """SIGTERM to the app itself, SIGKILL to all that is left after `grace` seconds; back when nothing is left."""

    def remove(self, ref: InstanceRef) -> None:
        """Forget a stopped instance and its logs. Stops it first where it runs."""

    def status(self, ref: InstanceRef) -> Status: ...

    def list(self, env_id: str | None = None) -> list[Status]:
        """What is there, running or not, of one environment or of all."""

    def environments(self) -> set[str]:
        """Those of which anything may be there; cheaper than `list`."""

    def logs(self, ref: InstanceRef, since: int = 0, limit: int = 1000) -> Iterator[LogLine]:
        """The kept lines with a number above `since`, oldest first. Following is asking again."""

    def run_once(
        self, spec: InstanceSpec, timeout: float, *, canceled: Callable[[], bool] = lambda: False
    ) -> tuple[int, Lines]:
        """Run to the end in the same isolation (release commands, one-off commands): exit code and its last lines.

        The ref is its name: asked again (after a crash of the caller), a run that goes on is joined, and one that has
        ended answers with its result until `remove(ref)`. So each new run needs a ref of its own. After `timeout`
        seconds it is killed: 137, and a system line says why. Canceled: killed and forgotten, `job.canceled`.
        """

    def connections(self, ref: InstanceRef) -> int:
        """How many connections through the endpoint are open now: 0 is drained. 0 where nothing runs."""
