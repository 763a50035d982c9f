"""The embedded stack: each component with its flags, environment, readiness and place in the order."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from headway import __version__
from headway._launch import python_path
from headway.supervisor.accounts import Accounts
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Component, Plan
from headway.supervisor.ports import Block
from headway.supervisor.processes import NURSERY_SOCKET

# Without these, polling in the server delays each step of a workflow by 49 or 98 ms; with them by 5 to 10.
DYNAMIC_CONFIG: Final = {
    "history.transferProcessorMaxPollRPS": 2000,
    "history.timerProcessorMaxPollRPS": 2000,
    "history.visibilityProcessorMaxPollRPS": 2000,
    "history.outboundProcessorMaxPollRPS": 2000,
    # Shorter timers are rounded up to this, of a second by default: it is for servers whose clocks differ.
    "history.timerProcessorMaxTimeShift": "10ms",
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    "system.forceSearchAttributesCacheRefreshOnRead": False,
    # Nobody: the HTTP API takes a form of any page open in a browser here. The UI has its own way, with a token.
    "frontend.httpAllowedHosts": ["none.invalid"],
}
# What a host takes for a rollout that lies ready: its run begins behind it (docs/decisions/0055).
HOLD_MS: Final = 40
# The names of temporal.names, which this light process does not import; a test holds them equal.
SEARCH_ATTRIBUTES: Final = ("HeadwaySite", "HeadwayEnvironment", "HeadwayJobType", "HeadwayCommit", "HeadwayDigest")
NAMESPACE: Final = "default"
# The caller's own Temporal profile must not lead the embedded stack to another server.
NO_CONFIG: Final = ("--disable-config-file", "--disable-config-env")
# Closed runs outlive the jobs that they belong to by this much.
RETENTION_MARGIN_DAYS: Final = 2
WORKERS: Final = ("control", "builder", "signing", "host")
_KEYS = {
    "AWS_ACCESS_KEY_ID": "json:secrets/s3.json#identities.0.credentials.0.accessKey",
    "AWS_SECRET_ACCESS_KEY": "json:secrets/s3.json#identities.0.credentials.0.secretKey",
}


@dataclass(frozen=True)
class Options:
    """What `up` was asked for. `settings` are the caller's HEADWAY_* settings, none of them secret.

    `accounts`: the uids of the roles; None where all have the supervisor's. `web_config`: a digest of Caddy's file, so
    that one that has become another starts it again.
    """

    folder: Folder
    block: Block
    temporal: str
    weed: str
    caddy: str
    local_repos: tuple[str, ...] = ()
    allow_unsandboxed_builds: bool = False
    external_database: bool = False
    retention_days: int = 30
    settings: dict[str, str] = field(default_factory=dict)
    accounts: Accounts | None = None
    web_config: str = ""


def embedded(options: Options) -> Plan:
    """The whole stack, in the order in which it is shown."""
    components = (
        nursery(options),
        weed(options),
        temporal(options),
        *temporal_setup(options),
        caddy(options),
        rules(options),
        migrate(options),
        api(options),
        *(worker(options, role) for role in WORKERS),
    )
    if options.accounts is not None:
        components = tuple(_with_account(one, options.accounts) for one in components)
    return Plan(
        components=components,
        endpoints={
            "api": options.block.origin("api"),
            "sites": options.block.origin("sites"),
            "temporal": options.block.address("temporal"),
            "temporal_ui": options.block.origin("temporal-ui"),
            "s3": options.block.origin("s3"),
        },
        hints=(
            ("API docs", options.block.origin("api") + "/docs"),
            ("Temporal UI", options.block.origin("temporal-ui")),
            ("Sites", f"http://<site>-<env>.localhost:{options.block['sites']}"),
            ("First API key", str(options.folder.path("admin.key"))),
            (
                "To log in",
                f"headway login --api-url {options.block.origin('api')} < {options.folder.path('admin.key')}",
            ),
            ("To stop", f"headway down --data-dir {options.folder.root}"),
        ),
    )


def _with_account(component: Component, accounts: Accounts) -> Component:
    """Under its uid, which has no entry in /etc/passwd: who asks for a name finds it in the environment."""
    user, name = accounts.user(component.name), f"headway-{component.name}"
    if user is None:
        return component
    return replace(component, user=user, env={"USER": name, "LOGNAME": name, **component.env})


# servers of others


def weed(options: Options) -> Component:
    """SeaweedFS in one process. Every port is named: what is left out listens somewhere by default."""
    folder, block = options.folder, options.block
    ports = {
        "s3.port": "s3",
        "s3.port.grpc": "s3-grpc",
        "master.port": "weed-master",
        "master.port.grpc": "weed-master-grpc",
        "volume.port": "weed-volume",
        "volume.port.grpc": "weed-volume-grpc",
        "filer.port": "weed-filer",
        "filer.port.grpc": "weed-filer-grpc",
        "admin.port": "weed-admin",
        "admin.port.grpc": "weed-admin-grpc",
    }
    return Component(
        name="weed",
        title="object store (S3)",
        argv=(
            options.weed,
            "-logtostderr=true",
            "mini",
            f"-dir={folder.path('weed')}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            # Its file server asks nobody who he is, and answers pages of any origin: a served site, opened on this
            # machine, could read and delete every site's objects. S3 does not need it.
            "-disableHttp",
            f"-s3.config={folder.path('secrets', 's3.json')}",
            f"-s3.localSocket={folder.own('weed', 's3.sock')}",
            f"-filer.localSocket={folder.own('weed', 'filer.sock')}",
            *(f"-{flag}={block[name]}" for flag, name in ports.items()),
        ),
        ready=(f"{block.origin('s3')}/healthz",),
        cwd=str(folder.path("weed")),
        umask=0o077,
        ports={name: block[name] for name in ports.values()},
        leftovers=block.store_sockets(),
    )


def temporal(options: Options) -> Component:
    folder, block = options.folder, options.block
    ports = {"port": "temporal", "ui-port": "temporal-ui", "http-port": "temporal-http"}
    ports["metrics-port"] = "temporal-metrics"
    return Component(
        name="temporal",
        title="workflow engine and its UI",
        argv=(
            options.temporal,
            "server",
            "start-dev",
            "--ip=127.0.0.1",
            f"--db-filename={folder.path('temporal', 'temporal.db')}",
            "--sqlite-pragma=journal_mode=WAL",
            "--sqlite-pragma=synchronous=FULL",
            "--ui-disable-news-fetch",
            "--log-level=warn",
            *NO_CONFIG,
            *(f"--{flag}={block[name]}" for flag, name in ports.items()),
            *(f"--dynamic-config-value={key}={json.dumps(value)}" for key, value in DYNAMIC_CONFIG.items()),
        ),
        ready=(f"tcp://{block.address('temporal')}", f"tcp://{block.address('temporal-ui')}"),
        cwd=str(folder.path("temporal")),
        umask=0o077,
        ports={name: block[name] for name in ports.values()},
    )


def temporal_setup(options: Options) -> tuple[Component, ...]:
    """What the server forgets with its database: done at each of its starts, and harmless when done again."""
    hours = 24 * (options.retention_days + RETENTION_MARGIN_DAYS)
    reach = ("--address", options.block.address("temporal"), "--namespace", NAMESPACE, *NO_CONFIG)
    attributes = tuple(word for name in SEARCH_ATTRIBUTES for word in ("--name", name, "--type", "Keyword"))
    operator = (options.temporal, "operator")
    return (
        Component(
            name="retention",
            title=f"closed runs are kept for {hours // 24} days",
            argv=(*operator, "namespace", "update", "--retention", f"{hours}h", *reach),
            after=("temporal",),
            once=True,
            tries=10,
        ),
        Component(
            name="attributes",
            title="search attributes",
            argv=(*operator, "search-attribute", "create", *attributes, *reach),
            after=("temporal",),
            once=True,
            tries=10,
        ),
    )


def caddy(options: Options) -> Component:
    folder = options.folder
    home = str(folder.path("caddy"))
    return Component(
        name="caddy",
        title="web server of the sites",
        argv=(options.caddy, "run", "--config", str(folder.path("caddy", "caddy.json"))),
        env={"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home, "CADDY_CONFIG_SHA256": options.web_config},
        ready=(f"{options.block.origin('sites')}/",),
        tier=1,
        # Services are dialled by a path that is relative to here.
        cwd=str(folder.path("host")),
        # The host worker reads the access log.
        umask=0o027,
        ports={"sites": options.block["sites"]},
    )


# roles of ours


def _role(options: Options, name: str, *words: str, **changes: object) -> Component:
    env = {
        **options.settings,
        "HEADWAY_DATA_DIR": str(options.folder.root),
        "HEADWAY_API_HOST": "127.0.0.1",
        "HEADWAY_API_PORT": str(options.block["api"]),
        "HEADWAY_SITES_PORT": str(options.block["sites"]),
        "HEADWAY_BROKER_SOCKET": str(broker_socket(options.folder)),
        "HEADWAY_VERSION": __version__,
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
    }
    facts: dict[str, object] = {
        "name": name,
        "argv": (sys.executable, "-P", "-m", "headway", *words),
        "cwd": str(options.folder.root),
        **changes,
        "env": {**env, **_strings(changes.get("env"))},
    }
    return Component(**facts)  # type: ignore[arg-type]


def broker_socket(folder: Folder) -> Path:
    return folder.own("api", "broker.sock")


def rules_socket(folder: Folder) -> Path:
    return folder.own("rules", "rules.sock")


def _strings(value: object) -> dict[str, str]:
    return dict(value) if isinstance(value, dict) else {}


def _database(options: Options) -> dict[str, str]:
    return {"DATABASE_URL": "env:DATABASE_URL"} if options.external_database else {}


def _temporal_env(options: Options) -> dict[str, str]:
    return {"TEMPORAL_ADDRESS": options.block.address("temporal"), "TEMPORAL_NAMESPACE": NAMESPACE}


def _objects_env(options: Options) -> dict[str, str]:
    """The object store, and nothing of the caller's own cloud account."""
    return {
        "AWS_ENDPOINT_URL_S3": options.block.origin("s3"),
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _source_env(options: Options) -> dict[str, str]:
    return {
        "HEADWAY_LOCAL_REPOS": json.dumps(list(options.local_repos)),
        "HEADWAY_ALLOW_UNSANDBOXED_BUILDS": json.dumps(options.allow_unsandboxed_builds),
    }


def _token(folder: Folder, role: str) -> dict[str, str]:
    return {"HEADWAY_BROKER_TOKEN_FILE": str(folder.path("secrets", f"broker-{role}.token"))}


def migrate(options: Options) -> Component:
    """The schema. One try: a database that is damaged or too new does not get better."""
    return _role(
        options,
        "migrate",
        "migrate",
        title="database schema " + ("(DATABASE_URL)" if options.external_database else "(SQLite)"),
        secrets=_database(options),
        after=("nursery",),
        nursery=True,
        once=True,
        tries=1,
    )


def nursery(options: Options) -> Component:
    """Forks our own roles. It gets none of their settings, and no secret."""
    socket = options.folder.path("run", NURSERY_SOCKET)
    return Component(
        name="nursery",
        title="what the roles share, imported once",
        argv=(sys.executable, "-P", "-m", "headway.supervisor.nursery", str(socket)),
        env={"PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1", "HEADWAY_VERSION": __version__},
        ready=(_file(options.folder.ready("nursery")),),
        tier=3,
        grace=2.0,
    )


def rules(options: Options) -> Component:
    socket = rules_socket(options.folder)
    return _role(
        options,
        "rules",
        "rules",
        "--socket",
        str(socket),
        title="headers and redirects",
        ready=(f"unix://{socket}",),
        after=("nursery",),
        nursery=True,
        tier=1,
    )


def api(options: Options) -> Component:
    """The API and the broker: the only role beside signing that has keys of the object store.

    It waits for nobody: it brings the schema up to date itself, and Temporal and the object store may come later.
    """
    folder, block = options.folder, options.block
    return _role(
        options,
        "api",
        "api",
        title="API and broker",
        env={
            **_temporal_env(options),
            **_objects_env(options),
            **_source_env(options),
            "HEADWAY_TEMPORAL_UI": block.origin("temporal-ui"),
            "HEADWAY_HOLD_MS": options.settings.get("HEADWAY_HOLD_MS", str(HOLD_MS)),
        },
        secrets={**_database(options), **_KEYS},
        ready=(
            # Not the front page: that is made from all routes when somebody first asks for it, which takes seconds.
            f"{block.origin('api')}/health",
            f"unix://{broker_socket(folder)}",
            _file(folder.path("admin.key")),
        ),
        after=("nursery",),
        nursery=True,
        tier=2,
        ports={"api": block["api"]},
    )


def worker(options: Options, role: str) -> Component:
    """One worker. Only control and signing have the database and the object store, only signing has signing keys."""
    folder = options.folder
    env = {**_temporal_env(options), **_token(folder, role)}
    secrets: dict[str, str] = {}
    words = ["worker", "--role", role]
    if role == "builder":
        env |= _source_env(options)
    if role == "host":
        words += ["--host-id", options.settings.get("HEADWAY_HOST_ID", "local")]
    if role in ("control", "signing"):
        env |= _objects_env(options)
        secrets |= _database(options) | _KEYS
    if role == "signing":
        secrets |= {name: f"env:{name}" for name in ("HEADWAY_SIGNING_PASSWORD", "HEADWAY_LEDGER_PASSWORD")}
    return _role(
        options,
        role,
        *words,
        title=f"worker: {role}",
        env=env,
        secrets=secrets,
        ready=(_file(folder.ready(role)),),
        # Hosts and builders need no database: one that is away keeps neither from starting again.
        after=("nursery", "migrate") if role in ("control", "signing") else ("nursery",),
        nursery=True,
        tier=3,
    )


def _file(path: Path) -> str:
    return f"file://{path}"
