"""The composition root of the API (`python -m headway api`): settings, parts, and both apps in one loop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, Literal, NoReturn

import uvicorn
import uvloop
from temporalio.client import Client

from adapters.config.vault import Vault, make_key_file
from adapters.domains.records import Plan
from adapters.githost.backend import Backend
from adapters.githost.pushhead import PushLimits
from adapters.notices.notifier import Notifier
from adapters.objects import ObjectStore
from adapters.webhooks.targets import Targets
from api.ahead import Announcing, Board
from api.app import create_app
from api.auth import Authenticator
from api.bootstrap import bootstrap, broker_tokens
from api.events import EventLog
from api.git.parts import GitParts
from api.inputs import Inputs
from api.instance_logs import InstanceLogs
from api.internal import tls
from api.internal.app import create_broker, create_remote_broker
from api.internal.parcels import what_comes
from api.limits import Budgets, RateLimiter
from api.parts import Addresses, Objects, Parts
from api.repositories import RepositoryPolicy
from api.requests import Requests
from api.unparsed import protocol
from api.watch import Watch
from headway import ready
from headway.errors import HeadwayError
from headway.settings import Settings
from store import migrations
from store.caches import CacheRules
from store.collection import Rules
from store.config_keys import WEBHOOKS, values_are_hidden
from store.pushes import Previews
from store.sandboxes import SandboxLimits
from store.session import Store
from temporal.client import connect
from temporal.starts import TemporalStarts

log = logging.getLogger("headway.api")
DRAIN = 8
# Longer than clients keep a connection that they do not use: who closes last never cuts a request off.
KEPT_OPEN: Final = 75


def run(settings: Settings | None = None) -> None:
    """Serve until SIGTERM or SIGINT. What keeps it from starting is one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings or Settings()))
    except HeadwayError as error:
        _stop(error.message)


async def serve(settings: Settings) -> None:
    """All servers in one loop. Raises internal.error where the folder, the database or a port cannot be had."""
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        config_file=settings.temporal_config_file,
        profile=settings.temporal_profile,
        lazy=True,
    )
    parts, tokens = compose(settings, client)
    public = _server(create_app(parts), protocol(settings.docs_url))
    broker = _server(create_broker(parts, tokens, settings.host_id))
    at_broker = own_socket(settings.broker_path)
    servers = [public, broker]
    sockets = [listen_tcp(settings.api_host, settings.api_port), listen_unix(at_broker)]
    if settings.broker_listen:
        servers.append(_by_tls(create_remote_broker(parts), settings))
        sockets.append(listen_tcp(*_place(settings.broker_listen)))

    def stop() -> None:
        parts.watch.close()
        parts.board.close()
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    serving = [asyncio.create_task(one.serve_quietly(sockets=[at])) for one, at in zip(servers, sockets, strict=True)]
    up = asyncio.create_task(_all_up(*servers))
    await asyncio.wait([up, *serving], return_when=asyncio.FIRST_COMPLETED)
    if up.done():
        log.info("serving %s", settings.api_url)
        ready.announce()
    try:
        await asyncio.gather(*serving)
    finally:
        at_broker.unlink(missing_ok=True)
        parts.store.close()


async def _all_up(*servers: QuietServer) -> None:
    for server in servers:
        await server.up.wait()


def compose(settings: Settings, client: Client) -> tuple[Parts, dict[str, str]]:
    """The parts and the broker's credentials, from the settings. Migrates and fills a new database."""
    for name, mode in (("db", 0o700), ("run", 0o755), ("secrets", 0o700), ("events", 0o700), ("observed", 0o700)):
        settings.path(name).mkdir(mode=mode, parents=True, exist_ok=True)
    migrations.upgrade(settings.database)
    store = Store.open(settings.database)
    bootstrap(store, settings.data_dir, secrets_dir=settings.secrets_dir, admin_key=settings.admin_key_file)
    ensure_key(store, settings.config_keys, values_are_hidden)
    ensure_key(store, settings.webhook_keys, partial(values_are_hidden, tables=WEBHOOKS), shared=True)
    budgets = Budgets(
        settings.rate_read, settings.rate_write, settings.rate_create, settings.rate_team, settings.rate_limits
    )
    events = EventLog(settings.path("events"))
    logs = InstanceLogs(settings.path("observed", "lines"), settings.log_bytes)
    objects, board = _objects(settings), Board()
    starts = TemporalStarts(client, timedelta(milliseconds=settings.hold_ms))
    announcing = Announcing(starts, board, partial(what_comes, objects))
    parts = Parts(
        store=store,
        starts=announcing,
        foresee=announcing.foresee,
        events=events,
        logs=logs,
        requests=Requests(settings.path("observed", "requests")),
        # Beside the logs of jobs: replicas share that folder.
        inputs=Inputs(settings.path("events", "inputs"), settings.run_input_bytes),
        watch=Watch(store, events, logs),
        auth=Authenticator(store),
        limiter=RateLimiter(budgets),
        objects=objects,
        addresses=Addresses(settings.sites_domain, settings.site_url, f"{settings.api_url}/git"),
        repositories=RepositoryPolicy(tuple(settings.local_repos), tuple(settings.egress_private_ok)),
        vault=Vault(settings.config_keys),
        webhook_vault=Vault(settings.webhook_keys),
        targets=Targets(settings.webhook_private_ok),
        notifier=Notifier(settings.webhook_private_ok, settings.webhook_timeout),
        signing_key=settings.trust_path / "signing.pub",
        broker_root=tls.authority(settings.secrets_path) if settings.broker_listen else None,
        docs_url=settings.docs_url,
        domains=Plan(settings.domains_lead_to, tuple(settings.domain_addresses)),
        api_url=settings.api_url,
        domain_patience=settings.domain_patience,
        access_log=settings.access_log,
        git=git_parts(settings),
        board=board,
        previews=Previews(
            settings.previews_per_site,
            timedelta(hours=settings.preview_idle_hours) if settings.preview_idle_hours else None,
        ),
        poll_every=timedelta(seconds=settings.poll_seconds),
        job_retention=timedelta(days=settings.job_retention_days),
        retention=Rules(
            timedelta(days=settings.artifact_retention_days), timedelta(hours=settings.collection_wait_hours)
        ),
        caches=CacheRules(settings.build_cache_bytes, timedelta(days=settings.build_cache_days)),
        sandboxes=SandboxLimits(
            settings.sandbox_files,
            settings.sandbox_bytes,
            settings.sandbox_file_bytes,
            settings.sandboxes_per_team,
            timedelta(hours=settings.sandbox_idle_hours),
        ),
    )
    return parts, broker_tokens(settings.data_dir, settings.secrets_dir)


def git_parts(settings: Settings) -> GitParts:
    limits = PushLimits(settings.git_push_refs, settings.git_push_objects, settings.git_push_bytes)
    return GitParts(
        backend=Backend.install(settings.path("repos"), limits),
        seconds=settings.git_push_seconds,
        size=settings.git_repository_bytes,
    )


def ensure_key(store: Store, path: Path, is_needed: Callable[[Store], bool], *, shared: bool = False) -> None:
    """A new key where nothing needs an old one: with another key beside it, the lost one would be missed too late.

    `shared`: the control worker reads it too.
    """
    if path.exists():
        return
    if is_needed(store):
        log.error("%s is missing: put it back, or what it hides can be neither read nor set", path)
    else:
        make_key_file(path, shared=shared)


def _objects(settings: Settings) -> Objects:
    access, secret = s3_credentials(settings)
    objects = ObjectStore(settings.s3_endpoint, settings.s3_region, settings.s3_bucket, access, secret)
    try:
        objects.ensure_bucket()
    except HeadwayError as error:
        # Uploads say so too, and by then it may be back: an API without its object store still answers.
        log.warning("the bucket %s is not ensured: %s", settings.s3_bucket, error.message)
    return objects


def s3_credentials(settings: Settings) -> tuple[str, str]:
    """`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, else the first identity of `DATA/secrets/s3.json`."""
    access, secret = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    if access and secret:
        return access, secret
    path = settings.secrets_path / "s3.json"
    try:
        one = json.loads(path.read_text())["identities"][0]["credentials"][0]
        return str(one["accessKey"]), str(one["secretKey"])
    except (OSError, ValueError, KeyError, IndexError):
        raise HeadwayError(
            "internal.error", f"No credentials of the object store: set AWS_ACCESS_KEY_ID, or restore {path}."
        ) from None


class QuietServer(uvicorn.Server):
    """A server that leaves the signals to whoever runs two of them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def serve_quietly(self, sockets: list[socket.socket]) -> None:
        await self._serve(sockets)


def _server(app: object, http: type[asyncio.Protocol] | Literal["auto"] = "auto") -> QuietServer:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=http,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=KEPT_OPEN,
        ws="none",
    )
    return QuietServer(config)


def _by_tls(app: object, settings: Settings) -> QuietServer:
    made = _server(app)
    made.config.load()
    made.config.ssl = tls.context(settings.secrets_path)
    return made


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise HeadwayError("stack.setting_invalid", f"HEADWAY_BROKER_LISTEN is {text!r}: write ADDRESS:PORT.")
    return host.strip("[]"), int(port)


def listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise HeadwayError("internal.error", f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    made.listen(2048)
    made.setblocking(False)
    return made


def own_socket(path: Path) -> Path:
    """The broker's socket of this process: `path`, or one of its own where that is a folder that replicas share.

    What dead replicas left in the folder is removed.
    """
    if not path.is_dir():
        return path
    for other in path.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(other))
            except ConnectionRefusedError:
                other.unlink(missing_ok=True)
            except OSError:
                continue
    return path / f"{socket.gethostname()}-{os.getpid()}.sock"


def listen_unix(path: Path) -> socket.socket:
    """A socket in the place of whatever an earlier process left there."""
    if len(str(path).encode()) > 107:
        raise HeadwayError("internal.error", f"{path} is too long for a unix socket: use a shorter data folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise HeadwayError("internal.error", f"Cannot listen on {path}: {error.strerror}.") from None
    # Roles may have uids of their own; their credentials are what admits them.
    path.chmod(0o666)
    made.listen(512)
    made.setblocking(False)
    return made


def _stop(sentence: str) -> NoReturn:
    sys.stderr.write(f"api: {sentence}\n")
    raise SystemExit(1)
