"""What is told ahead lies ready, counts once and only for what it was told of; what went wrong is done in its turn."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from adapters.artifact.run import RunSettings
from adapters.hosting import ahead
from adapters.hosting.ahead import Ahead
from adapters.hosting.host import Limits
from adapters.hosting.services import Plan
from adapters.hosting.store import Content
from headway.broker import Coming, Parcel, Ready, RollSpec
from headway.errors import HeadwayError
from tests.adapters.sites import ENV, Machine, keep_on

SITE = {"index.html": b"<h1>one</h1>", "big.bin": bytes(range(256)) * 400}


class Telling:
    """A broker that knows what comes."""

    def __init__(self) -> None:
        self.coming_next: list[Parcel] = []

    def coming(self, host_id: str) -> Coming:
        assert host_id == "local"
        told, self.coming_next = self.coming_next, []
        return Coming(parcels=told)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


def told(machine: Machine, parcel: Parcel) -> Ahead:
    broker = Telling()
    broker.coming_next = [parcel]
    made = Ahead("local", machine.host, broker)
    made.look()
    until(lambda: made._waiting == 0)
    return made


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_lies_ready_is_told_of_and_what_has_no_job_is_not(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    gone: list[str] = []
    for job_id in ("job_one", ""):
        broker = Telling()
        broker.coming_next = [parcel_of(spec, job_id=job_id)]
        made = Ahead("local", machine.host, broker)
        made.go = gone.append
        made.look()
        wait((made._begun[spec.site_id, spec.digest].found,), timeout=30)
        made._pool.shutdown(wait=True)
    assert gone == ["job_one"]


def test_a_service_is_ready_if_what_it_goes_back_to_has_answered_just_now(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, manifest = machine.shelf.artifact({"app.py": b"app"}, run=RunSettings("python3 app.py"))
    parcel, plan = parcel_of(spec, hostname="shop.test"), Plan(3, manifest.digest, 7, 2)
    asked: list[tuple[str, str, str]] = []
    found: list[Plan | None] = [plan, None]

    def warm(env_id: str, digest: str, hostname: str) -> Plan | None:
        asked.append((env_id, digest, hostname))
        return found[0]

    def looked_at(parcel: Parcel) -> Ahead:
        broker = Telling()
        broker.coming_next = [parcel]
        made = Ahead("local", machine.host, broker)
        made.warm = warm
        made.look()
        wait((made._begun[spec.site_id, spec.digest].warm,), timeout=30)
        return made

    ready = looked_at(parcel).ready(spec.job_id)
    assert ready is not None
    assert (ready.digest, ready.config_version, ready.web) == (manifest.digest, 7, 2)
    assert asked == [(spec.env_id, manifest.digest, "shop.test")]
    assert looked_at(parcel_of(spec)).ready(spec.job_id) is None, "it goes forward: something has to be started"
    found.pop(0)
    assert looked_at(parcel).ready(spec.job_id) is None, "nothing is warm"
    found.insert(0, plan)
    monkeypatch.setattr(ahead, "WARM_SECONDS", -1.0)
    assert looked_at(parcel).ready(spec.job_id) is None, "an answer is soon old"


def test_a_way_back_does_not_wait_for_an_app_that_hangs(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact({"app.py": b"app"}, run=RunSettings("python3 app.py"))
    broker, goes_on = Telling(), threading.Event()
    broker.coming_next = [parcel_of(spec, hostname="shop.test")]
    made = Ahead("local", machine.host, broker)
    made.warm = lambda *_: Plan(3, spec.digest, 0, 1) if goes_on.wait(30) else None
    made.look()
    wait((made._begun[spec.site_id, spec.digest].found,), timeout=30)
    assert made.ready(spec.job_id) is None

    def stop() -> None:
        raise HeadwayError("roll.timeout", "it waits")

    assert made.take(spec, stop) is not None
    goes_on.set()
    made._pool.shutdown(wait=True)


def parcel_of(spec: RollSpec, **changes: Any) -> Parcel:
    fields = {name: getattr(spec, name) for name in Parcel.model_fields}
    return Parcel(**{**fields, **changes})


def test_what_was_told_is_placed_without_another_byte(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    ready = told(machine, parcel_of(spec))
    examined = ready.take(spec, keep_on)
    assert examined is not None
    assert machine.host.trees.exists(manifest.digest)
    assert list(machine.host.folders.environments.iterdir()) == [], "nothing leads to it"
    machine.shelf.objects.clear()
    machine.host.place(spec, 1, keep_on, examined)
    assert (machine.host.environment(ENV).release(1) / "root" / "index.html").read_bytes() == SITE["index.html"]
    assert ready.take(spec, keep_on) is None, "it counts once"


def test_what_is_not_signed_yet_is_fetched_and_examined_in_its_turn(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    bundle = machine.shelf.objects.pop(spec.bundle_url)
    ready = told(machine, parcel_of(spec, bundle_url=""))
    until(lambda: machine.host.trees.exists(manifest.digest))
    assert ready.take(spec, keep_on) is None
    with pytest.raises(HeadwayError, match="signature"):
        machine.host.place(spec, 1, keep_on)
    machine.shelf.objects[spec.bundle_url] = bundle
    machine.shelf.asked.clear()
    machine.host.place(spec, 1, keep_on)
    assert machine.shelf.asked == []


def test_it_says_which_rollout_needs_nothing_more(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    told_of = told(machine, parcel_of(spec))
    wait((told_of._begun[spec.site_id, spec.digest].found,), timeout=30)
    keyring = hashlib.sha256(spec.keyring.encode()).hexdigest()
    assert told_of.ready(spec.job_id) == Ready(digest=manifest.digest, keyring_sha256=keyring)
    assert told_of.ready("job_another") is None
    told_of.take(spec, keep_on)
    assert told_of.ready(spec.job_id) is None


def test_it_waits_a_moment_for_what_is_being_looked_at(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    read, goes_on = machine.shelf.read, threading.Event()

    def slowly(url: str, limit: int) -> bytes:
        assert goes_on.wait(30)
        return read(url, limit)

    monkeypatch.setattr(machine.shelf, "read", slowly)
    told_of = told(machine, parcel_of(spec))
    until(lambda: told_of._begun[spec.site_id, spec.digest].started)
    assert told_of.ready(spec.job_id) is None, "not for longer than a moment"
    monkeypatch.setattr(ahead, "MOMENT_SECONDS", 30.0)
    threading.Timer(0.05, goes_on.set).start()
    assert told_of.ready(spec.job_id) is not None


def test_what_did_not_verify_is_not_ready(machine: Machine) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    machine.shelf.objects[spec.bundle_url] = b"another"
    told_of = told(machine, parcel_of(spec))
    wait((told_of._begun[spec.site_id, spec.digest].found,), timeout=30)
    assert told_of.ready(spec.job_id) is None


@pytest.mark.parametrize("other", ["digest", "site_id", "keyring"])
def test_it_counts_for_that_artifact_site_and_keyring_alone(machine: Machine, other: str) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    ready = told(machine, parcel_of(spec))
    assert ready.take(spec.model_copy(update={other: "other"}), keep_on) is None


def test_it_is_over_after_a_while(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "COUNTS_SECONDS", -1.0)
    spec, _ = machine.shelf.artifact(SITE)
    assert told(machine, parcel_of(spec)).take(spec, keep_on) is None


def test_a_signature_that_does_not_hold_is_the_rollouts_own_to_refuse(machine: Machine) -> None:
    spec, manifest = machine.shelf.artifact(SITE)
    machine.shelf.objects[spec.bundle_url] = b"another"
    assert told(machine, parcel_of(spec)).take(spec, keep_on) is None
    assert not machine.host.trees.exists(manifest.digest)
    with pytest.raises(HeadwayError) as caught:
        machine.host.place(spec, 1, keep_on)
    assert caught.value.code == "artifact.signature_invalid"


def test_much_is_left_to_the_rollout_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_BYTES", 1000)
    spec, manifest = machine.shelf.artifact(SITE)
    assert told(machine, parcel_of(spec)).take(spec, keep_on) is not None
    assert (machine.shelf.asked, machine.host.trees.exists(manifest.digest)) == ([], False)


def test_who_takes_is_stopped_by_its_own_check(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = machine.shelf.artifact(SITE)
    read = machine.shelf.read

    def slowly(url: str, limit: int) -> bytes:
        time.sleep(1)
        return read(url, limit)

    monkeypatch.setattr(machine.shelf, "read", slowly)
    ready = told(machine, parcel_of(spec))

    def stop() -> None:
        raise HeadwayError("job.canceled", "canceled")

    with pytest.raises(HeadwayError, match="canceled"):
        ready.take(spec, stop)


def test_what_nobody_came_for_is_forgotten(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "COUNTS_SECONDS", -1.0)
    spec, _ = machine.shelf.artifact(SITE)
    ready = told(machine, parcel_of(spec))
    assert len(ready._begun) == 1
    ready.look()
    assert ready._begun == {}


def test_nothing_makes_way_for_what_may_come(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "host", Limits(floor=1 << 62))
    kept = Content(hashlib.sha256(b"of a rollout that is being placed").hexdigest(), 33, "644")
    machine.host.store.put(kept, [b"of a rollout that is being placed"])
    spec, manifest = machine.shelf.artifact(SITE)
    assert told(machine, parcel_of(spec)).take(spec, keep_on) is not None, "its signature counts all the same"
    assert (machine.host.store.holds(kept), machine.host.trees.exists(manifest.digest)) == (True, False)


def test_what_cannot_be_looked_at_in_time_is_not_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_KEPT", 4)
    goes_on, looked = threading.Event(), []

    def stuck(parcel: Parcel, most: int, manifest: object = None) -> None:
        looked.append(parcel.digest)
        assert goes_on.wait(30)

    monkeypatch.setattr(machine.host, "prepare", stuck)
    broker = Telling()
    made = Ahead("local", machine.host, broker)
    spec, _ = machine.shelf.artifact(SITE)
    try:
        for number in range(1, 13):
            broker.coming_next = [parcel_of(spec, digest=f"{number}", bundle_url="")]
            made.look()
            until(lambda: made._waiting + len(looked) == min(number, 4 + ahead.AT_ONCE))  # noqa: B023
        assert made._pool._work_queue.qsize() == made._waiting == 4
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 2 * ahead.COUNTS_SECONDS)
    finally:
        goes_on.set()
    until(lambda: made._waiting == 0)
    assert len(looked) == ahead.AT_ONCE, "what waited for too long is nobody's any more"
