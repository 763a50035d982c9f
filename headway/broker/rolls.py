"""What a host asks for a rollout."""

from __future__ import annotations

from pydantic import Field

from headway.broker.wire import Wire


class Parcel(Wire):
    """An artifact's parts by presigned addresses; `packs` maps a pack's sha256 to its address.

    `bundle_url` is empty while it is not signed; `keyring` is signed, or empty. `job_id`: the one that it is for.
    Where that goes back to a service, `hostname` is what the instances in `env_id` that may be warm are asked as.
    """

    site_id: str
    digest: str
    manifest_url: str
    layout_url: str
    packs: dict[str, str]
    bundle_url: str = ""
    keyring: str = ""
    job_id: str = ""
    env_id: str = ""
    hostname: str = ""


class Coming(Wire):
    """What a host will be asked to place soon, so that it lies there by then. A help: none of it has to be had."""

    parcels: list[Parcel] = Field(default=[])


class RollSpec(Parcel):
    """What to place.

    `config_version` is 0 where there is no configuration to ask for; `instances` is 0 where the artifact says how many.
    `policies` are signed records of what the environment is held to, `proof` that of the
    decision, or of the release that runs there; `awaited`: the signing worker has not entered them yet, ask again.
    `committed`: the point of no return is passed, as the host was ready. `team`: whose share of a host's starts an app
    takes.
    """

    rollout_id: str
    kind: str
    artifact_id: str
    apply_seq: int
    undo_seq: int
    hostnames: list[str]
    config_version: int = 0
    instances: int = 0
    lock: str = ""
    policies: list[str] = Field(default=[])
    proof: str = ""
    awaited: bool = False
    committed: bool = False
    team: str = ""


class Ready(Wire):
    """What a host has examined ahead, by the keyring of that `sha256`, and needs nothing more for than to place it.

    Of a service: so many warm instances of its web process, with this configuration, have answered just now.
    """

    digest: str
    keyring_sha256: str
    config_version: int = 0
    web: int = 0


class WantedTurn(Wire):
    """A host would take a job's rollout up at once; `ready` as above. `early`: it has not heard of it from its run."""

    ready: Ready | None = None
    early: bool = False


class Turn(Wire):
    """What the host has taken up; nothing where the rollout's run has to ask for its turn."""

    spec: RollSpec | None = None


class SealedConfig(Wire):
    """A rollout's configuration, sealed to one host's key: base64 of what `adapters/config/sealed.py` opens."""

    rollout_id: str
    config_version: int
    sealed: str


class Committed(Wire):
    """The point of no return is passed: the host may switch. Refused as job.canceled where a cancel came first."""

    rollout_id: str
    job_id: str = ""


class Hostnames(Wire):
    """`redirects`: of some of the names, the origin (`https://www.example.com`) that answers in their place."""

    env_id: str
    hostnames: list[str]
    redirects: dict[str, str] = Field(default_factory=dict)
    lock: str = Field(default="", description="Of its visitors' password, for the web server; empty: there is none.")
