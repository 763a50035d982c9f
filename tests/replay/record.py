"""Record the corpus: `python -m tests.replay.record [STORY …]`. Each story runs on a real server with real workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import select
from temporalio.client import WorkflowFailureError

from adapters.config.vault import Vault
from headway.ids import new_id
from store.deliveries import send_test
from store.domains import DomainRequest, accept_attach, accept_detach, add_domain
from store.forge_links import LinkRequest, put_link
from store.models import Environment, Job, Site
from store.models_domains import Domain
from store.models_reports import ForgeReport
from store.protection import accept_lock
from store.webhooks import EndpointRequest, create_endpoint
from temporal import names
from temporal.messages import DeliveryRef, ReportRef
from temporal.worker import host_roles, working
from tests.adapters.dns_server import DnsServer
from tests.adapters.forge_server import REPOSITORY, TOKEN, ForgeServer, Odd
from tests.adapters.receiver import Receiver
from tests.adapters.weed import ACCESS, SECRET, open_store, running_weed
from tests.workflows.doubles import Host
from tests.workflows.engine import Engine, engine
from tests.workflows.test_poll import polling, watch_remotes

HISTORIES = Path(__file__).parent / "histories"
Story = Callable[[Engine], Awaitable[dict[str, str]]]


async def build_succeeds(made: Engine) -> dict[str, str]:
    job = await made.run(made.world.accept_build())
    return {"build-succeeds": job.id}


async def build_breaks(made: Engine) -> dict[str, str]:
    made.builder.broken["main"] = "build.step_failed"
    job = await made.run(made.world.accept_build())
    return {"build-breaks": job.id}


async def build_is_canceled(made: Engine) -> dict[str, str]:
    made.builder.gates["main"] = asyncio.Event()
    job = made.world.accept_build()
    await made.start(job)
    await made.until(lambda: made.builder.started, lambda started: started)
    await made.starts.cancel(job.id)
    await made.ended(job)
    return {"build-is-canceled": job.id}


async def rollouts(made: Engine) -> dict[str, str]:
    artifact = made.world.artifact("a" * 64)
    roll = await made.run(made.world.accept_roll(artifact))
    promote = await made.run(made.world.accept_roll(artifact, "promote"))
    rollback = await made.run(made.world.accept_roll(artifact, "rollback"))
    made.host.refuse = "artifact.signature_invalid"
    refused = await made.run(made.world.accept_roll(artifact))
    return {
        "roll": roll.id,
        "promote": promote.id,
        "rollback": rollback.id,
        "roll-refused": refused.id,
    }


async def at_once(made: Engine) -> dict[str, str]:
    """Taken up by the host itself, by way of the rows after it broke off, and refused."""
    made.at_once = "local"
    artifact = made.world.artifact("a" * 64)
    roll = await made.run(made.world.accept_roll(artifact))
    back = await made.run(made.world.accept_roll(artifact, "rollback"))
    push = await made.run(made.world.accept_push())
    made.host.breaks = 1
    broken = await made.run(made.world.accept_roll(artifact, "promote"))
    made.host.refuse = "artifact.signature_invalid"
    refused = await made.run(made.world.accept_roll(artifact))
    return {
        "roll-at-once": roll.id,
        "rollback-at-once": back.id,
        "push-at-once": push.id,
        "promote-breaks-off": broken.id,
        "roll-at-once-refused": refused.id,
    }


async def roll_is_preempted(made: Engine) -> dict[str, str]:
    artifact = made.world.artifact("a" * 64)
    made.host.place_gate = asyncio.Event()
    slow = made.world.accept_roll(artifact)
    await made.start(slow)
    await made.until(lambda: made.host.placing, lambda placing: placing)
    back = made.world.accept_roll(artifact, kind="rollback")
    await made.start(back)
    await made.ended(slow)
    made.host.place_gate.set()
    await made.ended(back)
    return {"roll-is-preempted": slow.id, "rollback-waits": back.id}


async def pushes(made: Engine) -> dict[str, str]:
    made.builder.gates["slow"] = asyncio.Event()
    slow, fast = made.world.accept_push("slow"), made.world.accept_push("fast")
    await made.start(slow)
    await made.run(fast)
    made.builder.gates["slow"].set()
    await made.ended(slow)
    made.builder.broken["bad"] = "build.timeout"
    bad = await made.run(made.world.accept_push("bad"))
    return {"push": fast.id, "push-superseded": slow.id, "push-breaks": bad.id}


async def lifecycle(made: Engine) -> dict[str, str]:
    artifact = made.world.artifact("a" * 64, "dynamic")
    await made.run(made.world.accept_roll(artifact))
    ids = {}
    for kind in ("restart", "suspend", "resume"):
        ids[kind] = (await made.run(made.world.act(kind))).id
    ids["scale"] = (await made.run(made.world.act("scale", instances=2))).id
    ids["repair"] = (await made.run(made.world.act("repair"))).id
    return ids


async def bakes(made: Engine) -> dict[str, str]:
    artifact = made.world.artifact("a" * 64, "dynamic")
    await made.run(made.world.accept_roll(artifact))
    with made.store.write() as session:
        session.get_one(Environment, made.world.env_id).bake_seconds = 60
    good = await made.run(made.world.accept_roll(artifact))
    made.host.bad = "/ was bad 3 times in a row"
    bad = await made.run(made.world.accept_roll(artifact))
    made.host.bad, made.host.bake_gate = "", asyncio.Event()
    ended = made.world.accept_roll(artifact)
    await made.start(ended)
    await made.until(lambda: made.host.baking, lambda baking: ended.resource_id in baking)
    await made.run(made.world.accept_roll(artifact, "rollback"))
    return {"roll-bakes": good.id, "roll-bakes-badly": bad.id, "roll-bake-is-ended": ended.id}


async def lost_runs(made: Engine) -> dict[str, str]:
    made.host.switch_gate = asyncio.Event()
    roll = made.world.accept_roll(made.world.artifact("a" * 64))
    await made.start(roll)
    await made.until(lambda: made.host.switching, lambda switching: switching)
    await made.client.get_workflow_handle(roll.id).terminate("recorded")
    await made.ended(roll)
    return {"reconcile": names.RECONCILE_WORKFLOW}


async def environments(made: Engine) -> dict[str, str]:
    made_ids: dict[str, str] = {}
    for kind in ("environment.create", "environment.delete"):
        env_id = new_id("env")
        job = Job(
            id=new_id("job"),
            team_id=made.world.team_id,
            site_id=made.world.site_id,
            env_id=env_id,
            type=kind,
            resource_type="environment",
            resource_id=env_id,
        )
        with made.store.write() as session:
            session.add(
                Environment(
                    id=env_id, site_id=made.world.site_id, kind="preview", slug=env_id.lower()[-20:], branch=env_id
                )
            )
            session.add(job)
        await made.run(job)
        made_ids[kind.replace(".", "-")] = job.id
    job = Job(
        id=new_id("job"),
        team_id=made.world.team_id,
        site_id=made.world.site_id,
        env_id=made.world.env_id,
        type="site.create",
        resource_type="site",
        resource_id=made.world.site_id,
    )
    with made.store.write() as session:
        session.get_one(Site, made.world.site_id).status = "provisioning"
        session.add(job)
    await made.run(job)
    return {**made_ids, "site-create": job.id}


async def stops(made: Engine) -> dict[str, str]:
    await made.run(made.world.accept_roll(made.world.artifact("a" * 64)))
    stopped = await made.run(made.world.accept_stop())
    return {"stop": stopped.id}


async def commands(made: Engine) -> dict[str, str]:
    done = await made.run(made.world.accept_exec())
    assert made.executor is not None
    made.executor.broken = "build.unsandboxed"
    broken = await made.run(made.world.accept_exec())
    return {"exec": done.id, "exec-breaks": broken.id}


async def one_offs(made: Engine) -> dict[str, str]:
    await made.run(made.world.accept_roll(made.world.artifact("a" * 64, "dynamic")))
    done = await made.run(made.world.accept_command())
    made.host.refuse = "runtime.unavailable"
    broken = await made.run(made.world.accept_command())
    return {"run": done.id, "run-breaks": broken.id}


async def several_hosts(made: Engine) -> dict[str, str]:
    with made.store.write() as session:
        session.get_one(Environment, made.world.env_id).hosts = ["local", "second"]
    other, artifact = Host(host_id="second"), made.world.artifact("a" * 64)
    acts = [other.prepare, other.switch, other.undo, other.fence, other.bake]
    async with working(made.client, host_roles("second", acts)):
        good = await made.run(made.world.accept_roll(artifact))
        other.refuse_switch = "roll.stale"
        bad = await made.run(made.world.accept_roll(artifact))
        return {"roll-two-hosts": good.id, "roll-two-hosts-go-back": bad.id}


async def deliveries(made: Engine) -> dict[str, str]:
    vault = Vault(made.settings.webhook_keys)
    with Receiver([500]) as receiver:
        wanted = EndpointRequest("managed", receiver.url, ["*"], 7)
        with made.store.write() as session:
            endpoint, _ = create_endpoint(session, vault, made.world.team_id, wanted, None, {})
            delivery = send_test(session, endpoint)
        run = names.delivery_workflow(delivery.id)
        await made.client.execute_workflow(names.DELIVER, DeliveryRef(delivery.id), id=run, task_queue=names.CONTROL)
    return {"deliver": run}


async def reports(made: Engine) -> dict[str, str]:
    """What a forge should show: tried twice."""
    with ForgeServer("github", [Odd(503)]) as forge:
        wanted = LinkRequest("github", forge.api_url, REPOSITORY, TOKEN)
        with made.store.write() as session:
            site = session.get_one(Site, made.world.site_id)
            put_link(session, Vault(made.settings.webhook_keys), site, wanted, {})
            report = session.exec(select(ForgeReport)).one()
        run = names.report_workflow(report.id)
        await made.client.execute_workflow(names.REPORT, ReportRef(report.id), id=run, task_queue=names.CONTROL)
    return {"report": run}


async def locks(made: Engine) -> dict[str, str]:
    with made.store.write() as session:
        site, env = session.get_one(Site, made.world.site_id), session.get_one(Environment, made.world.env_id)
        job = accept_lock(session, site, env, None, {})
    return {"protect": (await made.run(job)).id}


async def scrub(made: Engine) -> dict[str, str]:
    """Nothing of the artifact is there: no host has its manifest, and no row its bundle."""
    made.world.artifact("a" * 64)
    lost = await made.run(made.world.accept_scrub(whole=True))
    return {"scrub": lost.id}


async def retention(made: Engine) -> dict[str, str]:
    looked = await made.run(made.world.accept_retention(dry_run=True))
    done = await made.run(made.world.accept_retention(dry_run=False))
    return {"retention-looks": looked.id, "retention": done.id}


async def polls(made: Engine) -> dict[str, str]:
    """Two remotes, of which one does not answer."""
    assert made.remotes is not None
    made.remotes.away = {made.world.site_id}
    watch_remotes(made.store, made.world, 2)
    async with polling(made):
        await made.until(lambda: made.remotes.looked, lambda looked: len(looked) == 2)
    return {"poll": names.POLL_WORKFLOW}


def attach(made: Engine, hostname: str) -> Job:
    with made.store.write() as session:
        site, env = session.get_one(Site, made.world.site_id), session.get_one(Environment, made.world.env_id)
        domain = add_domain(session, site, env, DomainRequest(hostname), {})
        return accept_attach(session, site, domain, {}, patience=0.5)


async def domains(made: Engine) -> dict[str, str]:
    """One that is proven at once, one that never is, and one that is detached."""
    missing = await made.run(attach(made, "www.missing.test"))
    job = attach(made, "www.acme.test")
    with made.store.read() as session:
        token = session.get_one(Domain, job.resource_id).token
    DNS.set("www.acme.test", "CNAME", f"dom-{token}.localhost")
    await made.run(job)
    with made.store.write() as session:
        site, domain = session.get_one(Site, made.world.site_id), session.get_one(Domain, job.resource_id)
        gone = accept_detach(session, site, domain, {})
    await made.run(gone)
    return {"attach": job.id, "attach-unproven": missing.id, "detach": gone.id}


DNS = DnsServer()
STORIES: tuple[tuple[Story, bool], ...] = (
    (build_succeeds, False),
    (build_breaks, False),
    (build_is_canceled, False),
    (rollouts, False),
    (at_once, False),
    (roll_is_preempted, False),
    (pushes, False),
    (lost_runs, True),
    (lifecycle, False),
    (bakes, False),
    (environments, False),
    (stops, False),
    (commands, False),
    (one_offs, False),
    (several_hosts, False),
    (deliveries, False),
    (reports, False),
    (locks, False),
    (retention, False),
    (polls, False),
    (scrub, False),
    (domains, False),
)


async def record(objects: str, only: Sequence[str] = ()) -> None:
    """Every story, or those whose functions are named. `objects` is an object store's address."""
    s3 = {"s3_endpoint": objects, "s3_access_key": ACCESS, "s3_secret_key": SECRET}
    HISTORIES.mkdir(exist_ok=True)
    for story, reconcile in STORIES:
        if only and story.__name__ not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            async with engine(Path(folder), reconcile=reconcile, dns_servers=[DNS.place], **s3) as made:
                for name, workflow_id in (await story(made)).items():
                    await _save(made, name, workflow_id)


async def _save(made: Engine, name: str, workflow_id: str) -> None:
    handle = made.client.get_workflow_handle(workflow_id)
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    history = json.loads((await handle.fetch_history()).to_json())
    (HISTORIES / f"{name}.json").write_text(json.dumps(_anonymous(history), indent=1) + "\n")


def _anonymous(value: Any) -> Any:
    """Without the names and paths of the machine that recorded: replay needs neither."""
    if isinstance(value, list):
        return [_anonymous(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"\d+@[\w.-]+", "recorder", value)
    if not isinstance(value, dict):
        return value
    return {key: "" if key == "stackTrace" else _anonymous(item) for key, item in value.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as store, DNS, running_weed(Path(store)) as address:
        open_store(address)
        asyncio.run(record(address, sys.argv[1:]))
