"""What the API is made of: built by the composition root, handed to `create_app`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from sqlmodel import Session

from adapters.config.vault import Vault
from adapters.domains.records import Plan
from adapters.notices.notifier import Notifier
from adapters.webhooks.targets import Targets
from api.ahead import Board
from api.auth import Authenticator
from api.events import EventLog
from api.forgeries import Forgeries
from api.git.parts import GitParts
from api.inputs import Inputs
from api.instance_logs import InstanceLogs
from api.limits import RateLimiter
from api.repositories import RepositoryPolicy
from api.requests import Requests
from api.starting import Starts
from api.watch import Watch
from store.caches import CacheRules
from store.collection import Rules
from store.models import Job
from store.pushes import Previews
from store.sandboxes import SandboxLimits
from store.session import Store


def nothing(_session: Session, _job: Job) -> None:
    """Nobody is told."""


class Objects(Protocol):
    """What the API asks of the object store; keys are relative to its bucket, hashes lower-case hex."""

    def presign_put(
        self, key: str, sha256: str, size: int, expires: int, *, instead_of: str | None = None
    ) -> tuple[str, dict[str, str]]: ...

    def presign_get(self, key: str, expires: int = ...) -> str: ...

    def head(self, key: str) -> int | None: ...

    def stat(self, key: str) -> tuple[int, str] | None: ...

    def get(self, key: str, max_bytes: int) -> bytes: ...

    def get_range(self, key: str, offset: int, size: int) -> bytes: ...

    def read_range(self, key: str, offset: int, size: int) -> Iterator[bytes]: ...

    def put_new(self, key: str, body: bytes | bytearray, sha256: str) -> bool: ...

    def replace_that(self, key: str, body: bytes, sha256: str, etag: str) -> bool: ...

    def delete(self, keys: Iterable[str]) -> None: ...


@dataclass(frozen=True)
class Addresses:
    """How sites are reached: host names end in `domain`; `site_url` makes an address of one."""

    domain: str
    site_url: Callable[[str], str]
    git_base: str | None = None


@dataclass(frozen=True)
class Parts:
    store: Store
    starts: Starts
    events: EventLog
    logs: InstanceLogs
    requests: Requests
    inputs: Inputs
    watch: Watch
    auth: Authenticator
    limiter: RateLimiter
    objects: Objects
    addresses: Addresses
    repositories: RepositoryPolicy
    vault: Vault
    webhook_vault: Vault
    targets: Targets
    signing_key: Path
    docs_url: str
    domains: Plan
    api_url: str = ""
    domain_patience: float = 86_400.0
    broker_root: str | None = None
    access_log: str = "services"
    job_retention: timedelta = timedelta(days=30)
    git: GitParts | None = None
    board: Board = field(default_factory=Board)
    # Told of each job that a transaction is about to accept.
    foresee: Callable[[Session, Job], None] = nothing
    previews: Previews = field(default_factory=Previews)
    forgeries: Forgeries = field(default_factory=Forgeries)
    poll_every: timedelta = timedelta(minutes=5)
    retention: Rules = field(default_factory=Rules)
    caches: CacheRules = field(default_factory=CacheRules)
    sandboxes: SandboxLimits = field(default_factory=SandboxLimits)
    notifier: Notifier = field(default_factory=Notifier)
    # How long a publish waits for its end before it answers 202, in seconds: clients give up after 60.
    patience: float = 50.0
