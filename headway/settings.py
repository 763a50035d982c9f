"""Settings: environment variables and nothing else, read once by a composition root.

Standard names where there are any (`DATABASE_URL`, `TEMPORAL_*`, `AWS_*`), `HEADWAY_*` for our own.
`headway up` writes them for every role; by hand they are the same. A secret may be a file instead: `NAME_FILE` names
one that holds the value of `NAME`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headway.errors import HeadwayError

# The settings that carry a secret, and so may be files.
SECRETS: Final = ("DATABASE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class SecretFiles(PydanticBaseSettingsSource):
    """`NAME_FILE` for each of SECRETS. Raises stack.setting_invalid for a file that is away or empty, or set twice."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = field.alias or ""
        path = os.environ.get(f"{name}_FILE", "") if name in SECRETS else ""
        if not path:
            return None, field_name, False
        if os.environ.get(name):
            raise HeadwayError("stack.setting_invalid", f"{name} and {name}_FILE are both set: leave one of them out.")
        try:
            value = Path(path).read_text().strip()
        except OSError as error:
            raise HeadwayError(
                "stack.setting_invalid", f"{name}_FILE names {path}, which cannot be read: {error.strerror}."
            ) from None
        if not value:
            raise HeadwayError("stack.setting_invalid", f"{name}_FILE names {path}, which is empty.")
        return value, name, False

    def __call__(self) -> dict[str, Any]:
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {name: value for value, name, _ in found if value is not None}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HEADWAY_", extra="ignore", populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's own signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, SecretFiles(settings_cls), env_settings

    data_dir: Path = Field(default=Path("~/.local/share/headway").expanduser(), description="Everything that is kept.")
    database_url: str = Field(default="", alias="DATABASE_URL", description="SQLite in the data folder if empty.")

    api_host: str = Field(default="127.0.0.1", description="Where the API listens.")
    api_port: int = Field(default=7070, description="The API's port; `up` takes a block of ports from here.")
    public_url: str = Field(default="", description="How callers reach the API; http://127.0.0.1:PORT if empty.")
    docs_url: str = Field(default="https://docs.managed.dev", description="Base of `doc_url` in errors.")
    sites_port: int = Field(default=7071, description="Where Caddy serves the sites.")
    sites_domain: str = Field(default="localhost", description="Sites are <site>-<env>.<domain>.")
    sites_scheme: str = Field(default="http", description="http, or https behind TLS.")
    dev_port_in_url: bool = Field(default=True, description="Whether a site's address names the port.")

    temporal_address: str = Field(
        default="127.0.0.1:7072", alias="TEMPORAL_ADDRESS", description="Host and port of the Temporal frontend."
    )
    temporal_namespace: str = Field(
        default="default", alias="TEMPORAL_NAMESPACE", description="The Temporal namespace of this installation."
    )
    temporal_config_file: Path | None = Field(
        default=None,
        alias="TEMPORAL_CONFIG_FILE",
        description="A TOML file of Temporal client profiles (address, namespace, API key, TLS); none is looked for.",
    )
    temporal_profile: str = Field(default="default", alias="TEMPORAL_PROFILE", description="Which profile of it.")
    temporal_ui: str = Field(default="", description="The Temporal UI's address, for links.")
    hold_ms: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="How many ms a rollout's run begins behind a host that may have it ready (`up`: 40); 0 where the "
        "Temporal server has another history.timerProcessorMaxTimeShift than 10ms.",
    )

    s3_endpoint: str = Field(
        default="http://127.0.0.1:7074", alias="AWS_ENDPOINT_URL_S3", description="The object store's address."
    )
    s3_region: str = Field(default="us-east-1", alias="AWS_REGION", description="The object store's region.")
    s3_access_key: SecretStr = Field(
        default=SecretStr(""),
        alias="AWS_ACCESS_KEY_ID",
        description="The object store's key: API, control and signing only.",
    )
    s3_secret_key: SecretStr = Field(
        default=SecretStr(""), alias="AWS_SECRET_ACCESS_KEY", description="Its secret: API, control and signing only."
    )
    s3_bucket: str = Field(default="headway", description="The bucket of artifacts.")

    broker_socket: Path | None = Field(
        default=None,
        description="The broker's socket, DATA/run/broker.sock if empty; a folder: one socket for each API replica.",
    )
    broker_listen: str = Field(
        default="", description="ADDRESS:PORT where the API's broker takes other machines by TLS; nowhere if empty."
    )
    broker_address: str = Field(
        default="", description="HOST:PORT of a broker on another machine; its socket on this one if empty."
    )
    broker_root_file: Path | None = Field(
        default=None, description="The certificate that vouches for it; TRUST_DIR/broker.pem if empty."
    )
    broker_token_file: Path | None = Field(default=None, description="This role's credential for the broker.")
    config_key_file: Path | None = Field(
        default=None, description="What hides variables and secrets; DATA/secrets/config.key if empty. API only."
    )
    webhook_key_file: Path | None = Field(
        default=None,
        description="What hides the secrets of webhooks; DATA/secrets/webhooks.key if empty. API and control only.",
    )
    secrets_dir: Path | None = Field(
        default=None, description="Where the API finds the roles' credentials for the broker; DATA/secrets if empty."
    )
    admin_key_file: Path | None = Field(default=None, description="The operator's API key; DATA/admin.key if empty.")
    trust_dir: Path | None = Field(
        default=None,
        description="Where signing leaves its public key for the API and for hosts that join; DATA/keys if empty.",
    )
    host_id: str = Field(default="local", description="The id of this serving machine.")
    host_patience: int = Field(
        default=10, ge=1, description="Seconds in which one host of several takes up its work, or counts as away."
    )
    host_labels: list[str] = Field(default_factory=list, description="Labels of this serving machine.")

    temporal_bin: str = Field(default="", description="The `temporal` binary; else PATH's, else the installed one.")
    weed_bin: str = Field(default="", description="The `weed` binary; else PATH's, else the installed one.")
    caddy_bin: str = Field(default="", description="The `caddy` binary; else PATH's, else the installed one.")

    ledger_host: str = Field(
        default="headway.local", description="The ledger's name in its checkpoints: fixed once the ledger has begun."
    )

    signing_password: SecretStr = Field(
        default=SecretStr(""), description="Opens encrypted signing keys, and encrypts new ones."
    )
    ledger_password: SecretStr = Field(default=SecretStr(""), description="The same for the ledger's key.")

    signing_mode: Literal["key", "keyless"] = Field(
        default="key", description="What artifacts are signed with, and the only thing that a host believes."
    )
    sigstore_trust: str = Field(
        default="public", description="`public`, or a client trust configuration (JSON) of a private Sigstore."
    )
    sigstore_identity: str = Field(default="", description="The identity whose keyless signatures count.")
    sigstore_issuer: str = Field(default="", description="Who has to have vouched for that identity.")
    sigstore_token_file: Path | None = Field(
        default=None,
        description="The signing worker's identity token, renewed by who gives it; else the machine's own.",
    )
    sigstore_client_id: str = Field(default="sigstore", description="The audience of that token.")

    local_repos: list[Path] = Field(default_factory=list, description="Folders below which file:// is allowed.")
    allow_unsandboxed_builds: bool = Field(default=False, description="Build without bubblewrap. Not for strangers.")
    egress_allow: list[str] = Field(default_factory=list, description="Hosts builds may reach beside the indexes.")
    egress_private_ok: list[str] = Field(
        default_factory=lambda: ["indexes"],
        description="Allowed hosts that may be private; `indexes`: those that npm, pip and go are set up with.",
    )
    build_timeout: int = Field(default=900, description="Seconds of wall clock for one build.")
    build_memory: int = Field(default=4 << 30, description="Bytes of memory for one build.")
    build_pids: int = Field(default=512, description="Processes of one build.")
    build_disk: int = Field(default=8 << 30, description="Bytes that one build may write.")
    build_log: int = Field(
        default=16 << 20, description="Bytes that the log of one build keeps, before it is cut with a note."
    )
    build_output: int = Field(default=8 << 30, description="Bytes that one build may print before it is ended.")
    build_slots: int = Field(default=2, description="Builds at once on one builder.")
    build_cache_bytes: int = Field(
        default=4 << 30, ge=0, description="Bytes that the caches of a site's builds may take in the object store."
    )
    build_cache_days: int = Field(default=14, ge=1, description="Days after which a cache goes that no build used.")
    builds_per_site: int = Field(default=2, ge=0, description="Builds of one site at once; 0: no limit.")
    builds_per_team: int = Field(default=6, ge=0, description="Builds of one team at once; 0: no limit.")

    sandbox_files: int = Field(default=20_000, description="Files of one sandbox.")
    sandbox_bytes: int = Field(default=1 << 30, description="Bytes of one sandbox.")
    sandbox_file_bytes: int = Field(default=64 << 20, description="Bytes of one file in a sandbox.")
    sandboxes_per_team: int = Field(default=200, description="Sandboxes of a team at once.")
    sandbox_idle_hours: int = Field(default=168, description="Hours without a use that end a sandbox.")

    git_push_bytes: int = Field(default=256 << 20, description="Bytes of one `git push`.")
    git_push_objects: int = Field(default=500_000, description="Objects of one `git push`.")
    git_push_refs: int = Field(default=1000, description="Refs of one `git push`.")
    git_push_seconds: float = Field(default=600, description="Seconds for receiving a push, and for a whole fetch.")
    git_repository_bytes: int = Field(default=4 << 30, description="Bytes that the hosted repository of a site holds.")
    previews_per_site: int = Field(default=20, description="Previews that a site may have at once.")
    preview_idle_hours: int = Field(
        default=336, description="Hours after which a preview ends that nobody pushes to or renews; 0: with its branch."
    )

    run_input_bytes: int = Field(
        default=1 << 30, ge=1, description="Bytes that a one-off command may be given on its standard input."
    )

    poll_seconds: float = Field(
        default=300, ge=0, description="Seconds between two looks at a remote repository that has a hook; 0: none."
    )
    poll_at_once: int = Field(default=1, ge=1, description="Looks at remote repositories at once.")

    keep_trees: int = Field(default=5, description="Release trees kept per environment on a host.")
    mounts_keep_days: int = Field(
        default=30, ge=0, description="Days for which a host keeps the mounts of a deleted environment; 0: for ever."
    )
    disk_floor: int = Field(default=512 << 20, description="Bytes that must stay free on a host.")

    warm_seconds: float = Field(default=600, description="Seconds that a replaced service stays ready to come back.")
    drain_seconds: float = Field(default=60, description="Seconds that its visitors may take to leave after that.")
    scrub_seconds: float = Field(
        default=86400, description="Seconds between two readings of all that a host stores; 0: never."
    )
    runtime: Literal["process", "docker", "systemd"] = Field(
        default="process", description="Who keeps the apps of this serving machine (docs/services.md)."
    )
    engine_socket: Path = Field(
        default=Path("/var/run/docker.sock"), description="The engine's socket: HEADWAY_RUNTIME=docker alone."
    )
    engine_image: str = Field(
        default="", description="The image that it runs apps in: a shell, and the languages that they need."
    )
    object_scrub_hours: float = Field(
        default=24, ge=0, description="Hours between two readings of a part of the object store; 0: never."
    )
    object_scrub_bytes: int = Field(
        default=4 << 30, ge=1, description="Bytes of it that are read at a time: the next reading goes on from there."
    )
    host_sockets: list[Path] = Field(
        default_factory=list, description="Sockets, or folders of them, that `unix:` in [run] egress may name."
    )

    access_log: Literal["services", "all", "off"] = Field(
        default="services", description="Whose requests are logged and counted; `all` costs static sites throughput."
    )
    log_bytes: int = Field(default=32 << 20, description="Bytes of apps' log lines kept per environment.")

    dns_servers: list[str] = Field(
        default_factory=list,
        description="Whom domains are looked up with, as `address` or `address:port`; the machine's resolver if empty.",
    )
    domain_target: str = Field(
        default="",
        description="What callers lead their domains to, wildcard and all; HEADWAY_SITES_DOMAIN if empty.",
    )
    domain_addresses: list[str] = Field(
        default_factory=list, description="The public addresses of the sites, for records of bare domains."
    )
    domain_patience: float = Field(
        default=86400, description="Seconds that `domain.attach` looks for the records before it fails."
    )
    sites_tls_port: int = Field(
        default=0, description="Where Caddy serves the sites by TLS, with certificates on demand; 0: nowhere."
    )
    acme_directory: str = Field(default="", description="The authority's ACME directory; Caddy's own choice if empty.")
    acme_email: str = Field(default="", description="Whom the authority may write to.")
    acme_root: Path | None = Field(default=None, description="Roots (PEM) that the authority itself is trusted by.")
    tls_ask_url: str = Field(
        default="", description="Whom Caddy asks whether a name may have a certificate; the API if empty."
    )

    webhook_private_ok: list[str] = Field(
        default_factory=list, description="Hosts that webhooks may reach though they are private, by http:// too."
    )
    webhook_timeout: float = Field(default=10, description="Seconds that a webhook's receiver has to answer.")
    webhook_waits: list[float] = Field(
        default_factory=lambda: [10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 86400.0],
        min_length=1,
        description="Seconds between the tries of a webhook's delivery.",
    )
    webhook_disable_hours: float = Field(
        default=72, description="Hours without a success that disable a webhook endpoint."
    )

    rate_read: int = Field(default=1000, description="GETs a minute per key.")
    rate_write: int = Field(default=100, description="Writes a minute per key.")
    rate_create: int = Field(default=5, description="Sites and environments made a minute per key.")
    rate_team: int = Field(default=5000, description="Requests a minute per team.")
    rate_limits: bool = Field(default=True, description="Whether rate limits are on.")
    job_retention_days: int = Field(default=30, description="Days that jobs and their logs are kept.")
    artifact_retention_days: float = Field(default=30, ge=0, description="Days that an artifact is kept after its use.")
    collection_wait_hours: float = Field(
        default=24, ge=0, description="Hours between mark and collection: more than the longest job takes."
    )
    collection_every_hours: float = Field(default=1, gt=0, description="Hours from one collection to the next.")

    def path(self, *parts: str) -> Path:
        """A path in the data folder."""
        return self.data_dir.joinpath(*parts)

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.path('db', 'headway.db')}"

    @property
    def engine(self) -> tuple[str, str]:
        """Socket and image of the engine; empty where another driver keeps the apps."""
        return (str(self.engine_socket), self.engine_image) if self.runtime == "docker" else ("", "")

    @property
    def broker_path(self) -> Path:
        return self.broker_socket or self.path("run", "broker.sock")

    @property
    def broker_root(self) -> Path:
        return self.broker_root_file or self.trust_path / "broker.pem"

    @property
    def config_keys(self) -> Path:
        return self.config_key_file or self.path("secrets", "config.key")

    @property
    def webhook_keys(self) -> Path:
        return self.webhook_key_file or self.path("secrets", "webhooks.key")

    @property
    def domains_lead_to(self) -> str:
        return self.domain_target or self.sites_domain

    @property
    def ask_url(self) -> str:
        return self.tls_ask_url or f"http://{self.api_host}:{self.api_port}/tls/ask"

    @property
    def secrets_path(self) -> Path:
        return self.secrets_dir or self.path("secrets")

    @property
    def trust_path(self) -> Path:
        return self.trust_dir or self.path("keys")

    @property
    def ledger_root(self) -> Path:
        """The folder in which signing leaves the ledger's trust root for hosts that join."""
        return self.trust_dir or self.path("ledger")

    @property
    def api_url(self) -> str:
        return self.public_url or f"http://{self.api_host}:{self.api_port}"

    def site_url(self, hostname: str) -> str:
        """`http://<hostname>:<port>`; host names in the table carry their domain."""
        default = {"http": 80, "https": 443}[self.sites_scheme]
        number = self.sites_tls_port if self.sites_scheme == "https" and self.sites_tls_port else self.sites_port
        port = f":{number}" if self.dev_port_in_url and number != default else ""
        return f"{self.sites_scheme}://{hostname}{port}"
