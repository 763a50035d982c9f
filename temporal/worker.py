"""Worker: one process per role, composed here and nowhere else. Each role imports only what it needs.

`control` has the database and the object store; `signing` has these and the keys; `builder` and `host` have the
broker alone. A worker that starts before Temporal waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxRestrictions

from headway import __version__
from headway.errors import HeadwayError
from headway.ready import announce
from headway.settings import Settings
from temporal import names
from temporal.client import connect
from temporal.runner import PlainRunner

if TYPE_CHECKING:
    from activities.ledger import Ledger
    from adapters.broker import BrokerClient
    from adapters.objects import ObjectStore
    from adapters.runtime.driver import RuntimeDriver
    from adapters.signer.keyless import Keyless

log = logging.getLogger("headway.worker")
VERSION = WorkerDeploymentConfig(WorkerDeploymentVersion("headway", __version__), use_worker_versioning=False)
DRAIN = timedelta(seconds=5)
BEHIND_SECONDS = 10.0
FIRST_SECONDS = 10.0
# Passed through the workflow sandbox: definitions only, no state of ours lives in them. To read the stories anew for
# each run took a fifth of the control worker's time (docs/decisions/0049); the recorded histories are replayed so.
PASSED = ("temporal", "activities", "headway")
STORIES = ("workflows",)


@dataclass
class Role:
    """What one role's worker offers; `beside` runs as long as the worker. `lanes`: further queues of its process.

    `first` is waited for before it is said that the role is ready, but not for long: the rest of a stack may be away.
    """

    queue: str
    activities: Sequence[Callable[..., Any]]
    workflows: Sequence[type] = ()
    threads: int = 8
    beside: Sequence[Callable[[], Any]] = field(default_factory=tuple)
    polls: int = 5
    lanes: Sequence[Role] = ()
    first: Callable[[], Awaitable[None]] | None = None


# How much of each is done at once on a host. Most of it waits: threads are made when they are needed. Commands,
# bakes and releases of apps are counted by the host itself, which says so to whoever waits: 32 and 96 are started and
# wait, and 32 places are left for what is only files.
HOST_THREADS: dict[names.Lane | None, int] = {None: 32, "starts": 160, "bakes": 160, "commands": 128, "asides": 32}


# At once, and nearly all of it waits: a delivery ends after some seconds, whoever is at the other end.
OUTSIDE_THREADS = 64


def with_outside(role: Role) -> Role:
    """A role whose calls to other people's servers come from a queue of their own."""
    outside = [one for one in role.activities if _name_of(one) in names.OUTSIDERS]
    inside = [one for one in role.activities if one not in outside]
    return replace(role, activities=inside, lanes=[Role(names.OUTSIDE, outside, threads=OUTSIDE_THREADS, polls=2)])


def _name_of(offer: Callable[..., Any]) -> str:
    return str(getattr(offer, "__temporal_activity_definition").name)


def host_roles(host_id: str, activities: Sequence[Callable[..., Any]]) -> list[Role]:
    """The queue of a host and those beside it, as far as it offers something there."""
    found: dict[names.Lane | None, list[Callable[..., Any]]] = {lane: [] for lane in HOST_THREADS}
    for one in activities:
        name = _name_of(one)
        found[names.LANE_OF.get(name)].append(one)
        if name in ("host.take", "host.roll", "host.prepare"):
            found["starts"].append(one)
    return [
        Role(names.host_queue(host_id, lane), offers, threads=HOST_THREADS[lane], polls=2 if lane else 5)
        for lane, offers in found.items()
        if offers
    ]


def workflow_runner(*, strict: bool = False) -> WorkflowRunner:
    """The sandbox stays on. `strict`: only message, name, policy and reference modules pass through, no story does."""
    passed = PASSED if strict else (*PASSED, *STORIES)
    return PlainRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*passed))


def make_worker(client: Client, role: Role, **overrides: Any) -> Worker:
    """The production worker; tests use the same with a task queue of their own."""
    options: dict[str, Any] = {
        "task_queue": role.queue,
        # Shown with each task in Temporal's UI. Else the SDK reads every module anew for it: half a second at a start.
        "deployment_config": VERSION,
        "activities": role.activities,
        "workflows": role.workflows,
        "activity_executor": ThreadPoolExecutor(role.threads, thread_name_prefix=role.queue.replace("/", "-")),
        "max_concurrent_activities": role.threads,
        "max_concurrent_activity_task_polls": role.polls,
        # A killed worker's sticky queue would hold its workflows for 10 s otherwise.
        "sticky_queue_schedule_to_start_timeout": timedelta(seconds=1),
        # The default throttle makes a cancel wait for most of the heartbeat timeout.
        "max_heartbeat_throttle_interval": timedelta(milliseconds=300),
        "default_heartbeat_throttle_interval": timedelta(milliseconds=300),
        "graceful_shutdown_timeout": DRAIN,
    }
    if role.workflows:
        options["workflow_runner"] = workflow_runner()
    return Worker(client, **{**options, **overrides})


@contextlib.asynccontextmanager
async def working(client: Client, roles: Sequence[Role]) -> AsyncIterator[list[Worker]]:
    """A worker for each and for its lanes, in one process; they end together, within one drain time."""
    queues = [one for role in roles for one in (role, *role.lanes)]
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(make_worker(client, one)) for one in queues]
        yield workers
        await asyncio.gather(*(worker.shutdown() for worker in workers))


def control(settings: Settings, client: Client) -> Role:
    from activities.builds import BuildRecords
    from activities.commands import CommandRecords
    from activities.domains import DomainRecords
    from activities.environments import EnvironmentRecords
    from activities.polling import Poller
    from activities.reconcile import Reconciler
    from activities.reports import Reports
    from activities.retention import Retention
    from activities.rollouts import RolloutRecords
    from activities.scrub import Scrubs
    from activities.webhooks import Webhooks
    from adapters.config.vault import Vault
    from adapters.domains.lookup import Lookup
    from adapters.domains.records import Plan
    from adapters.notices.notifier import Notifier
    from adapters.webhooks.sending import Sender
    from adapters.webhooks.targets import Targets
    from store.caches import CacheRules
    from store.collection import Rules
    from store.deliveries import Pace
    from store.session import Store
    from store.turns import Shares
    from temporal.schedules import keep_retention, keep_scrub
    from workflows.stories import ALL

    store = Store.open(settings.database)
    objects = _objects(settings)
    rules = Rules(
        after=timedelta(days=settings.artifact_retention_days),
        wait=timedelta(hours=settings.collection_wait_hours),
        warm=timedelta(seconds=settings.warm_seconds + settings.drain_seconds),
    )
    caches = CacheRules(settings.build_cache_bytes, timedelta(days=settings.build_cache_days))
    retention = Retention(store, objects, rules, caches)
    builds = BuildRecords(store, Shares(settings.builds_per_site, settings.builds_per_team))
    rollouts = RolloutRecords(store, client, settings.site_url, settings.host_patience)
    environments = EnvironmentRecords(store, settings.path("repos"), settings.site_url, settings.host_patience)
    reconciler = Reconciler(store, client)
    targets, vault = Targets(settings.webhook_private_ok), Vault(settings.webhook_keys)
    sender = Sender(targets, settings.webhook_timeout)
    notifier = Notifier(settings.webhook_private_ok, settings.webhook_timeout)
    pace = Pace(tuple(settings.webhook_waits), timedelta(hours=settings.webhook_disable_hours))
    webhooks = Webhooks(store, client, vault, sender, settings.docs_url, pace, notifier)
    reports = Reports(store, client, vault, targets, settings.api_url, pace, seconds=settings.webhook_timeout)
    commands = CommandRecords(store, settings.host_patience)
    plan = Plan(settings.domains_lead_to, tuple(settings.domain_addresses))
    domains = DomainRecords(store, Lookup(plan, settings.dns_servers), settings.host_patience)
    poller = Poller(store, client, timedelta(seconds=settings.poll_seconds), settings.poll_at_once)
    scrubs = Scrubs(store, objects, budget=settings.object_scrub_bytes)
    looking = (reconciler, webhooks, reports, poller)
    records = (commands, builds, rollouts, environments, domains, retention, scrubs, *looking)
    role = Role(
        queue=names.CONTROL,
        workflows=ALL,
        activities=[one for record in records for one in offered(record)],
        beside=[
            reconciler.watch,
            webhooks.watch,
            reports.watch,
            poller.watch,
            lambda: keep_retention(client, timedelta(hours=settings.collection_every_hours)),
            lambda: keep_scrub(client, timedelta(hours=settings.object_scrub_hours)),
        ],
    )
    return with_outside(role)


def builder(settings: Settings, _client: Client) -> Role:
    from activities.produce import make_producer
    from adapters.sandbox import Limits

    limits = Limits(
        wall=settings.build_timeout,
        memory=settings.build_memory,
        pids=settings.build_pids,
        disk=settings.build_disk,
        log=settings.build_output,
    )
    producer = make_producer(
        data_dir=settings.data_dir,
        broker=_introduced(_broker(settings, "builder")),
        slots=settings.build_slots,
        limits=limits,
        local_repos=tuple(settings.local_repos),
        egress_allow=tuple(settings.egress_allow),
        private_ok=tuple(settings.egress_private_ok),
        allow_unsandboxed=settings.allow_unsandboxed_builds,
        log=settings.build_log,
    )
    activities = [*offered(producer), *offered(producer.executor()), *offered(producer.looker())]
    return Role(queue=names.BUILDERS, activities=activities, threads=settings.build_slots)


def signing(settings: Settings, _client: Client) -> Role:
    from activities.ledger import Ledger
    from activities.recorder import Recorder
    from activities.sign import Signer
    from adapters.signer.folder import KeyFolder
    from adapters.signer.keys import publish_key
    from store.session import Store

    objects = _objects(settings)
    store = Store.open(settings.database)
    sealed = [one.get_secret_value().encode() or None for one in (settings.ledger_password, settings.signing_password)]
    ledger = Ledger.open(store, settings.path("ledger"), settings.ledger_host, sealed[0])
    keys = KeyFolder(settings.path("keys"), sealed[1])
    if settings.trust_dir is not None:
        publish_key(keys.current(), settings.trust_dir)
    else:
        keys.current()
    keyless = _keyless(settings, ledger) if settings.signing_mode == "keyless" else None
    recorder = Recorder(store, objects, ledger, keys, settings.ledger_root)
    signer = Signer(store, objects, keys, ledger=ledger, announce=recorder.announce, keyless=keyless)
    return Role(queue=names.SIGNING, activities=offered(signer), threads=4, beside=[recorder.watch])


def _keyless(settings: Settings, ledger: Ledger) -> Keyless:
    """Opened and told to hosts that join, and to outsiders. Without it nothing is signed: there is no other mode."""
    from adapters.signer.keyless import SIGSTORE_NAME, open_keyless

    made = open_keyless(
        settings.sigstore_trust,
        settings.sigstore_identity,
        settings.sigstore_issuer,
        settings.sigstore_token_file,
        settings.sigstore_client_id,
    )
    ledger.publish_document("sigstore", made.trusted.raw, settings.ledger_root / SIGSTORE_NAME)
    return made


def host(settings: Settings, _client: Client) -> Role:
    from activities.host import HostActivities
    from activities.mending import Mending
    from activities.running import Commands
    from adapters.hosting.access import AccessLog, RequestShipper, Visits
    from adapters.hosting.admission import Admission
    from adapters.hosting.ahead import Ahead
    from adapters.hosting.baking import Bakery
    from adapters.hosting.baking import Visits as Counted
    from adapters.hosting.configuration import Configuration
    from adapters.hosting.drift import DriftBook, DriftReports
    from adapters.hosting.fetch import HttpDownloads
    from adapters.hosting.host import Host, Limits
    from adapters.hosting.layout import HostFolders
    from adapters.hosting.lending import HttpUploads, Lender
    from adapters.hosting.mending import Mender, Scrubber
    from adapters.hosting.mounts import MountCollection
    from adapters.hosting.services import Services
    from adapters.hosting.serving import ServingReports
    from adapters.hosting.shipping import Shipper
    from adapters.hosting.trust import Trust
    from adapters.hosting.upkeep import Pace, Upkeep
    from adapters.router.caddy import ACCESS_LOG
    from adapters.router.handshake import Handshake
    from adapters.router.routes import list_routes
    from adapters.runtime import choice

    folders = HostFolders(settings.path("host"))
    trust = Trust(folders.trust, settings.trust_path, settings.ledger_root, settings.signing_mode)
    limits = Limits(keep=settings.keep_trees, floor=settings.disk_floor)
    downloads = HttpDownloads()
    admission = Admission(folders, trust.check_record)
    serving = Host(folders, trust.verify, downloads, limits, learn=trust.learn, admit=admission.admit)
    broker = _broker(settings, "host")
    configuration = Configuration(settings.host_id, folders.identity, broker, settings.host_labels)
    means = choice.Means(folders.identity, frozenset(settings.egress_private_ok), tuple(settings.host_sockets))
    chosen = choice.Choice(settings.runtime, *settings.engine)
    driver = choice.take(chosen, settings.path("host", "run"), means)
    shipper = Shipper(settings.host_id, driver, broker)
    driver.leaving = shipper.leaving
    services = Services(folders, driver)
    book = DriftBook(folders.root / "drifts")
    mender = Mender(folders, serving.store, serving.trees, book)
    pace = Pace(settings.warm_seconds, settings.drain_seconds)
    upkeep = Upkeep(folders, services, pace, book, mender.mend, mender.pace)
    scrubber = Scrubber(folders, mender.forget_broken, settings.scrub_seconds)
    access = AccessLog(settings.path("caddy", ACCESS_LOG))
    requests = RequestShipper(settings.host_id, access, lambda: list_routes(folders.routes), broker)
    ahead = Ahead(settings.host_id, serving, broker)
    loops = {
        "ahead": ahead.run,
        "upkeep": lambda: upkeep.run(after=lambda: stack_answers(driver, broker)),
        "scrub": scrubber.run,
        "shipping": shipper.run,
        "requests": requests.run,
    }
    for name, loop in loops.items():
        threading.Thread(target=loop, name=name, daemon=True).start()
    counted: Counted = Visits(access, lambda: list_routes(folders.routes))
    if settings.access_log == "off":
        counted = lambda _env, _since: None  # noqa: E731 – nobody counts
    bakery = Bakery(services, counted, static_counted=settings.access_log == "all")
    handshake = Handshake(settings.sites_tls_port)
    activities = HostActivities(
        settings.host_id, serving, broker, services, configuration, upkeep, bakery, handshake=handshake, ahead=ahead
    )
    lender = Lender(serving, downloads, HttpUploads(), floor=settings.disk_floor)
    commands = Commands(settings.host_id, broker, services)
    beside = (commands, Mending(settings.host_id, lender, broker))
    serving_reports = ServingReports(settings.host_id, folders, broker, serving.leave, activities.naming.route)
    mounts = MountCollection(
        settings.host_id, folders.root / "volumes", broker, timedelta(days=settings.mounts_keep_days)
    )
    role, *lanes = host_roles(settings.host_id, [one for part in (activities, *beside) for one in offered(part)])
    return replace(
        role,
        lanes=lanes,
        first=configuration.answered,
        beside=[
            configuration.stay_registered,
            DriftReports(settings.host_id, book, broker).run,
            serving_reports.run,
            commands.watch,
            mounts.run,
        ],
    )


def stack_answers(driver: RuntimeDriver, broker: BrokerClient) -> None:
    """Where no app runs, this machine, or its stack, has just started: apps come back behind the platform, which needs
    the same processors. Not for long: a host needs no API.
    """
    if any(one.state not in ("stopped", "absent") for one in driver.list()):
        return
    until = time.monotonic() + BEHIND_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(HeadwayError):
            return broker.health()
        time.sleep(0.2)


def _objects(settings: Settings) -> ObjectStore:
    from adapters.objects import ObjectStore

    return ObjectStore(
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_bucket,
        settings.s3_access_key.get_secret_value(),
        settings.s3_secret_key.get_secret_value(),
    )


def _broker(settings: Settings, role: str) -> BrokerClient:
    from adapters.broker import BrokerClient, Remote

    token = settings.broker_token_file or settings.secrets_path / f"broker-{role}.token"
    remote = Remote(settings.broker_address, settings.broker_root) if settings.broker_address else None
    return BrokerClient(remote or settings.broker_path, token)


def _introduced(broker: BrokerClient) -> BrokerClient:
    """Raises auth.invalid_key, role.insufficient or broker.untrusted: who may not build takes no build from others.

    A broker that does not answer yet is waited for with the first build.
    """
    try:
        log.info("this is the builder %s", broker.who())
    except HeadwayError as error:
        if error.code != "service.unavailable":
            raise
        log.warning("nobody knows this builder yet: %s", error.message)
    return broker


ROLES: dict[str, Callable[[Settings, Client], Role]] = {
    "control": control,
    "builder": builder,
    "signing": signing,
    "host": host,
}


def offered(instance: object) -> list[Callable[..., Any]]:
    """The activities that an object offers: its methods with an activity definition."""
    methods = (getattr(instance, name) for name in dir(type(instance)) if not name.startswith("__"))
    return [method for method in methods if hasattr(method, "__temporal_activity_definition")]


async def serve(name: str, settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is in hand within the drain time."""
    client = await _patiently(settings)
    role = ROLES[name](settings, client)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with working(client, [role]):
        log.info("%s polls %s", name, ", ".join(one.queue for one in (role, *role.lanes)))
        beside = [asyncio.create_task(work()) for work in role.beside]
        if role.first is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(role.first(), FIRST_SECONDS)
        announce()
        await stop.wait()
        for task in beside:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _patiently(settings: Settings) -> Client:
    while True:
        try:
            return await connect(
                settings.temporal_address,
                settings.temporal_namespace,
                config_file=settings.temporal_config_file,
                profile=settings.temporal_profile,
            )
        except (RPCError, RuntimeError) as error:
            log.warning("Temporal at %s does not answer yet: %s", settings.temporal_address, type(error).__name__)
            await asyncio.sleep(0.5)


def run(role: str, settings: Settings) -> None:
    """The entry point of `headway worker --role …`. What keeps it from starting is one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It names each address: whoever reads a presigned one in a log may write that object for an hour.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(role, settings))
    except HeadwayError as error:
        sys.stderr.write(f"worker {role}: {error.message}\n")
        raise SystemExit(1) from None
