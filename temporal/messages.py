"""One frozen dataclass in and one out for every workflow, activity, signal and update. References only, never bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from headway.labels import Ahead as Ahead
from headway.labels import Labels as Labels


@dataclass(frozen=True)
class JobRef:
    """The outermost workflow of a job: everything else is in the row.

    `host`: where its rollout may be taken up at once; empty where it asks for its turn first.
    """

    job_id: str
    host: str = ""


@dataclass(frozen=True)
class EnvironmentRef:
    env_id: str


@dataclass(frozen=True)
class BuildOrder:
    """A claimed build. `job_id` names the job whose stream gets the log. With `artifact_id` it is made already.

    `rollout_id` is set where the job goes on to deploy it. `waiting`: it is not claimed, because others of its site or
    team come first.
    """

    job_id: str
    build_id: str
    site_id: str
    env_id: str
    ref: str
    labels: Labels = field(default_factory=Labels)
    artifact_id: str = ""
    digest: str = ""
    rollout_id: str = ""
    waiting: bool = False


@dataclass(frozen=True)
class BuildOutput:
    """What a builder made: the manifest is in the object store, the rest in the build's row.

    `artifact_id` is of an earlier build's artifact that was taken: then there is nothing to sign.
    """

    build_id: str
    manifest_sha256: str
    commit_sha: str
    uploaded_bytes: int
    artifact_id: str = ""


@dataclass(frozen=True)
class Signed:
    build_id: str
    artifact_id: str
    digest: str


@dataclass(frozen=True)
class RollOrder:
    """A claimed rollout with its two sequence numbers (DESIGN section 3, invariant 3).

    Of several hosts: `away` says what is done about one that takes up no work within `patience` seconds (`fail`,
    `skip`), and `leader` is the one that does what is done once. `team` is only named where there is a bake.
    """

    job_id: str
    rollout_id: str
    kind: str
    env_id: str
    hosts: tuple[str, ...]
    apply_seq: int
    undo_seq: int
    labels: Labels = field(default_factory=Labels)
    bake_seconds: int = 0
    away: str = "fail"
    patience: int = 10
    leader: str = ""
    team: str = ""


@dataclass(frozen=True)
class Bake:
    """Watch a release that was just switched to. What it has replaced stays ready to come back meanwhile.

    `team`: whose share of the host's bakes it takes.
    """

    rollout_id: str
    job_id: str
    env_id: str
    seq: int
    seconds: int
    team: str = ""


@dataclass(frozen=True)
class Measured:
    """What one host saw in a bake: looks at the health path, those that were bad, restarts, the slowest look.

    `requests` and `errors` are visitors' (None: nobody counts them here). `why` is empty where all was well.
    """

    host_id: str
    seconds: float
    looks: int = 0
    bad: int = 0
    restarts: int = 0
    slowest_ms: int = 0
    requests: int | None = None
    errors: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Baked:
    """The bake of a rollout: begun (no measurements yet), or over."""

    rollout_id: str
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class TurnRef:
    """A job whose rollout asks for its turn. `artifact_id`: its build has made this, so that it may join the queue."""

    job_id: str
    artifact_id: str = ""


@dataclass(frozen=True)
class Turn:
    """Whether a rollout may go: with its order it may; without one, `status` says how it stands, `reason` why."""

    rollout_id: str
    status: str
    order: RollOrder | None = None
    reason: str = ""


@dataclass(frozen=True)
class Placed:
    """A host is ready to switch to this sequence number."""

    host_id: str
    seq: int
    digest: str


@dataclass(frozen=True)
class Switch:
    """Compare and rename under the environment's lock. `back_to` (0: to nothing) is set on an undo."""

    rollout_id: str
    env_id: str
    seq: int
    back_to: int | None = None


@dataclass(frozen=True)
class Live:
    """What a host serves for an environment: 0 is nothing. `previous` is what it served before the switch."""

    host_id: str
    env_id: str
    seq: int
    previous: int = 0


@dataclass(frozen=True)
class Taken:
    """A rollout that its host has taken up and carried out; without `live` it was not to be had like that."""

    rollout_id: str = ""
    live: Live | None = None


@dataclass(frozen=True)
class Failure:
    """A failure as the row keeps it: stage, code and a message without secrets.

    `undone`: no host serves anything of it, also where its point of no return was passed; but for those in `away`,
    which could not be asked.
    """

    subject_id: str
    stage: str
    code: str
    message: str
    canceled: bool = False
    details: str = ""
    undone: bool = False
    away: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A row has ended; `status` says how. `committed`: it has not, and only its hosts know what is live."""

    subject_id: str
    status: str


@dataclass(frozen=True)
class BuildRef:
    build_id: str


@dataclass(frozen=True)
class RolloutRef:
    """`away`: its hosts that were left out."""

    rollout_id: str
    away: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlaceOrder:
    """What one environment's job (provision, protect, retire) does, and on which hosts.

    `away` and `patience` as in RollOrder; `left_out` are those of them that did not answer.
    """

    job_id: str
    env_id: str
    hosts: tuple[str, ...]
    site_id: str = ""
    hosted: bool = False
    labels: Labels = field(default_factory=Labels)
    patience: int = 10
    away: str = "fail"
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetireOrder:
    job_id: str
    site_id: str
    environments: tuple[PlaceOrder, ...]
    whole_site: bool = False


@dataclass(frozen=True)
class ExecOrder:
    """A claimed command in a sandbox. What it is stands in the row: a command may hold a secret."""

    job_id: str
    sandbox_id: str


@dataclass(frozen=True)
class CommandOrder:
    """A claimed one-off command, and where it may run. What it is stands in the row: it may hold a secret."""

    job_id: str
    hosts: tuple[str, ...]
    patience: int = 10
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True)
class CommandEnded:
    job_id: str
    exit_code: int
    duration_ms: int


@dataclass(frozen=True)
class Settle:
    """A rollout of which only the hosts know: what each of them serves, after its fence.

    `failure` is what its run said, None where the run is gone. `away` are the hosts that could not be asked.
    """

    rollout_id: str
    lives: tuple[Live, ...]
    failure: Failure | None = None
    away: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suspects:
    """Claimed rows whose runs are closed or unknown."""

    jobs: tuple[str, ...] = ()
    rollouts: tuple[RollOrder, ...] = ()


@dataclass(frozen=True)
class PollOrder:
    """Look at the remotes that are due: so many in this run."""

    limit: int = 50


@dataclass(frozen=True)
class LookRef:
    """One look at one site's remote. What it saw is in the rows: Temporal learns how much was new."""

    site_id: str
    attempt: int
    news: int = 0


@dataclass(frozen=True)
class Looks:
    """The looks that were claimed, and how many of them may be made at once."""

    looks: tuple[LookRef, ...] = ()
    at_once: int = 1


@dataclass(frozen=True)
class DeliveryRef:
    """One event for one webhook: what is sent, and to whom, is in the rows."""

    delivery_id: str


@dataclass(frozen=True)
class Tried:
    """Which try it was (0: there was nothing to send), and the seconds until the next; None: there is no next."""

    delivery_id: str
    number: int = 0
    wait: float | None = None


@dataclass(frozen=True)
class ReportRef:
    """What a forge should show: of what, and what, is in the row."""

    report_id: str


@dataclass(frozen=True)
class Reported:
    """Which try it was (0: there was nothing to say), and the seconds until the next; None: there is no next."""

    report_id: str
    number: int = 0
    wait: float | None = None


@dataclass(frozen=True)
class DomainOrder:
    """A claimed attach or detach. `patience`: how many seconds the proof is looked for; 0: once.

    `away` and `host_patience` as `away` and `patience` in RollOrder; `left_out` are hosts that did not answer.
    """

    job_id: str
    domain_id: str
    env_id: str
    hostname: str
    hosts: tuple[str, ...]
    patience: float = 0.0
    labels: Labels = field(default_factory=Labels)
    away: str = "fail"
    host_patience: int = 10
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """What a look at the DNS found; `why` where the name is not proven."""

    domain_id: str
    proven: bool = False
    points_here: bool = False
    why: str = ""


@dataclass(frozen=True)
class Certified:
    """Whether the web server has a certificate for the name. `left_out` as in DomainOrder."""

    job_id: str
    domain_id: str
    issued: bool = False
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetentionOrder:
    """`job_id` is "" where the schedule asks."""

    job_id: str
    dry_run: bool = False


@dataclass(frozen=True)
class Retained:
    """What a step did, in numbers: artifacts marked, collected, spared; packs dropped, repacked; leases ended;
    objects deleted. `bytes` are those of the files that were marked; of sandboxes, packs with their bytes and
    snapshots that were collected, in a dry run those that nothing needs."""

    marked: int = 0
    collected: int = 0
    spared: int = 0
    packs: int = 0
    repacked: int = 0
    leases: int = 0
    objects: int = 0
    bytes: int = 0
    sandbox_packs: int = 0
    sandbox_bytes: int = 0
    snapshots: int = 0

    def plus(self, other: Retained) -> Retained:
        return Retained(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def sentence(self) -> str:
        told = [f"{name} {value}" for name, value in vars(self).items() if value]
        return ", ".join(told) or "nothing to do"


@dataclass(frozen=True)
class ScrubOrder:
    """`job_id` is "" where the schedule asks. `whole`: everything, not what one turn reads. `suspects`: only what a
    host has lost contents of."""

    job_id: str
    whole: bool = False
    suspects: bool = False


@dataclass(frozen=True)
class Damaged:
    """A finding, and the hosts that may have its object whole; none for what rows can make anew."""

    finding_id: str
    object: str
    name: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """What one look read: objects and bytes, and what of it is damaged. `more`: there is more to read."""

    objects: int = 0
    bytes: int = 0
    damaged: tuple[Damaged, ...] = ()
    more: bool = False


@dataclass(frozen=True)
class Mend:
    finding_id: str
    object: str
    name: str


@dataclass(frozen=True)
class MendTried:
    """By whom a finding was mended, or why not: `why` is empty where it was."""

    finding_id: str
    by: str
    why: str = ""


@dataclass(frozen=True)
class Settled:
    """Every try at a finding, in order."""

    finding_id: str
    tried: tuple[MendTried, ...] = ()


@dataclass(frozen=True)
class Scrubbed:
    """What a scrub did, in numbers. `lost` is what nothing whole is left of, as far as was asked."""

    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    mended: int = 0
    lost: int = 0

    def plus(self, other: Scrubbed) -> Scrubbed:
        return Scrubbed(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def sentence(self) -> str:
        told = [f"{name} {value}" for name, value in vars(self).items() if value]
        return ", ".join(told) or "nothing to read"
