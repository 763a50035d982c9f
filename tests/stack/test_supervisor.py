"""The supervisor over stand-ins: order, restarts, its own death, hand-over, the end."""

import errno
import json
import signal
import subprocess
import time
import urllib.request

import pytest

from headway.cli.down import stop_stack
from headway.errors import HeadwayError
from headway.supervisor import identity, tenure
from headway.supervisor.folder import read_record
from headway.supervisor.plan import Component
from headway.supervisor.twin import TWIN
from tests.stack.dummies import Stack, eventually, server, task


@pytest.fixture
def stack(tmp_path):
    made = Stack(tmp_path / "data")
    yield made
    made.close()


def pid_that_answers(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return int(answer.read())


@pytest.fixture
def pair(stack):
    """A server, a task that sets it up, and a server that needs both: all healthy."""
    a, b = stack.block["api"], stack.block["sites"]
    stack.plan(server("a", a), task("setup", stack.ran, after=("a",)), server("b", b, after=("a", "setup"), tier=1))
    stack.up()
    stack.healthy()
    return stack


def test_everything_is_up_in_order_and_says_where(pair):
    assert json.loads(pair.folder.endpoints.read_text()) == {"api": pair.block.origin("api")}
    lines = [line.split("] ")[1].split()[0] for line in pair.said().splitlines()]
    assert lines[:4] == ["a", "setup", "b", "Headway"]
    assert pid_that_answers(pair.block["api"]) == pair.pid("a")


def test_a_component_that_dies_is_started_again(pair):
    before = pair.kill("b")
    after = pair.successor("b", before)
    eventually(lambda: "b" in pair.said() and tenure.current(pair.folder)["components"]["b"]["state"] == "ready")
    assert pid_that_answers(pair.block["sites"]) == after
    assert tenure.current(pair.folder)["components"]["b"]["restarts"] == 1


def test_what_sets_a_component_up_is_done_again_when_it_restarts(pair):
    assert pair.ran.read_text() == "setup\n"
    pair.kill("a")
    eventually(lambda: pair.ran.read_text() == "setup\nsetup\n")


def test_the_twin_takes_over_from_a_killed_supervisor(pair):
    served = {name: pair.pid(name) for name in ("a", "b")}
    twin = pair.pid(TWIN)
    before = pair.kill("supervisor")
    began = time.monotonic()
    assert pair.successor("supervisor", before) == twin
    pair.healthy()
    assert time.monotonic() - began < 20
    assert {name: pair.pid(name) for name in ("a", "b")} == served
    assert pair.ran.read_text() == "setup\n"
    assert pair.successor(TWIN, twin) != twin


def test_a_component_that_dies_after_the_take_over_is_started_again(pair):
    before = pair.kill("supervisor")
    pair.successor("supervisor", before)
    pair.healthy()
    dead = pair.kill("b")
    assert pair.successor("b", dead) != dead


def test_a_component_that_died_without_a_supervisor_is_started_by_the_twin(pair):
    twin = pair.pid(TWIN)
    identity.send(read_record(pair.folder.record(TWIN)), signal.SIGSTOP)
    supervisor, dead = pair.kill("supervisor"), pair.kill("a")
    identity.send(read_record(pair.folder.record(TWIN)), signal.SIGCONT)
    assert pair.successor("supervisor", supervisor) == twin
    assert pair.successor("a", dead) != dead


def test_a_killed_twin_is_replaced(pair):
    before = pair.kill(TWIN)
    assert pair.successor(TWIN, before) != before


def test_the_next_up_takes_over_from_a_detached_supervisor(pair):
    served = {name: pair.pid(name) for name in ("a", "b")}
    before = pair.pid("supervisor")
    pair.up()
    assert pair.successor("supervisor", before) == pair.children[-1].pid
    pair.healthy()
    assert pair.children[0].wait(60) == 0
    assert {name: pair.pid(name) for name in ("a", "b")} == served


def test_the_next_up_restarts_only_what_has_other_settings(pair):
    before = {name: pair.pid(name) for name in ("a", "b")}
    a, b = pair.block["api"], pair.block["sites"]
    pair.plan(server("a", a), server("b", b, env={"NEW": "setting"}))
    supervisor = pair.pid("supervisor")
    pair.up()
    pair.successor("supervisor", supervisor)
    pair.healthy()
    assert pair.pid("a") == before["a"]
    assert pair.pid("b") != before["b"]


def test_a_stack_in_somebodys_terminal_is_not_taken(stack):
    stack.plan(server("a", stack.block["api"]))
    stack.up(tenure.FOREGROUND)
    stack.healthy()
    with pytest.raises(HeadwayError) as caught:
        tenure.take(stack.folder, patience=5)
    assert caught.value.code == "stack.running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_twin_included(stack, number):
    stack.plan(server("a", stack.block["api"]))
    supervisor = stack.up(tenure.FOREGROUND)
    stack.healthy()
    a, twin = stack.pid("a"), stack.pid(TWIN)
    supervisor.send_signal(number)
    assert supervisor.wait(60) == 0
    assert [identity.start_time(pid) for pid in (a, twin)] == [None, None]
    assert not stack.folder.endpoints.exists()


def test_tiers_stop_from_the_highest(stack):
    def slow(name, tier):
        code = f"trap 'echo {name} >> {stack.ran}; exit 0' TERM; while :; do sleep 0.02; done"
        return Component(name=name, argv=("sh", "-c", code), tier=tier)

    stack.plan(slow("store", 0), slow("worker", 2), slow("api", 1))
    supervisor = stack.up()
    stack.healthy()
    time.sleep(0.2)
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(60)
    assert stack.ran.read_text().split() == ["worker", "api", "store"]


def test_down_needs_neither_a_plan_nor_a_supervisor_for_the_order(stack):
    def slow(name, tier):
        code = f"trap 'echo {name} >> {stack.ran}; exit 0' TERM; echo up >> {stack.ran}; while :; do sleep 0.02; done"
        return Component(name=name, argv=("sh", "-c", code), tier=tier)

    stack.plan(slow("store", 0), slow("worker", 2), slow("api", 1))
    stack.up()
    stack.healthy()
    eventually(lambda: stack.ran.exists() and stack.ran.read_text().split() == ["up"] * 3)
    stack.kill(TWIN)
    stack.kill("supervisor")
    stack.folder.plan.write_text('{"version": 1, "compon')
    assert stop_stack(stack.folder)
    assert stack.ran.read_text().split() == ["up"] * 3 + ["worker", "api", "store"]


@pytest.mark.parametrize("said", ["", '{"pid": 1', "[]"])
def test_down_finds_a_supervisor_whose_record_is_damaged(stack, said):
    stack.plan(server("a", stack.block["api"]))
    supervisor = stack.up()
    stack.healthy()
    a = stack.pid("a")
    stack.folder.record("supervisor").write_text(said)
    stack.folder.plan.write_text(said)
    assert stop_stack(stack.folder)
    assert supervisor.wait(60) == 0
    assert identity.start_time(a) is None


def test_down_needs_no_room_on_the_disk(stack, monkeypatch):
    stack.plan(server("a", stack.block["api"]))
    supervisor = stack.up()
    stack.healthy()
    a = stack.pid("a")

    def full(path, *_words, **_how):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("headway.supervisor.tenure.write_json", full)
    with pytest.raises(OSError, match="No space"):
        tenure.want(stack.folder, tenure.UP)
    assert stop_stack(stack.folder)
    assert supervisor.wait(60) == 0
    assert identity.start_time(a) is None
    assert tenure.wanted(stack.folder) == tenure.DOWN


def test_a_component_that_cannot_start_fails_the_start_and_leaves_nothing(stack):
    stack.plan(
        server("a", stack.block["api"]),
        Component(name="broken", argv=("sh", "-c", "echo the reason; exit 3"), tries=2, ready=("tcp://127.0.0.1:1",)),
    )
    supervisor = stack.up()
    assert supervisor.wait(60) == 1
    assert "broken ended with exit code 3: the reason" in stack.said()
    assert not identity.alive(read_record(stack.folder.record("a")))
    assert not identity.alive(read_record(stack.folder.record(TWIN)))


def test_a_component_that_is_never_ready_fails_the_start(stack):
    stack.plan(Component(name="mute", argv=("sleep", "600"), ready=("tcp://127.0.0.1:1",), patience=0.5))
    assert stack.up().wait(60) == 1
    assert "mute was not ready within" in stack.said()


def test_a_missing_binary_fails_the_start_in_one_sentence(stack):
    stack.plan(Component(name="ghost", argv=("/nowhere/ghost",)))
    assert stack.up().wait(60) == 1
    assert "headway: ghost cannot be started: /nowhere/ghost" in stack.said()


def test_a_crash_loop_is_slowed_down_and_told(stack):
    code = f"echo x >> {stack.ran}; [ -f {stack.ran}.good ] && exec sleep 600; exit 9"
    good = stack.ran.with_name("ran.good")
    good.touch()
    stack.plan(Component(name="flaky", argv=("sh", "-c", code)))
    stack.up()
    stack.healthy()
    good.unlink()
    stack.kill("flaky")
    eventually(lambda: "keeps dying" in stack.said(), 60)
    assert len(stack.ran.read_text().split()) <= 7
    good.touch()
    stack.pid("flaky")


def test_stacks_side_by_side_do_not_touch_each_other(pair, tmp_path):
    other = Stack(tmp_path / "other")
    other.plan(server("a", other.block["api"]))
    other.up()
    other.healthy()
    mine = pair.pid("a")
    other.close()
    assert pid_that_answers(pair.block["api"]) == mine
    assert pair.healthy()["components"]["a"]["restarts"] == 0


def test_orphans_of_components_leave_no_zombies(stack):
    stack.plan(Component(name="parent", argv=("sh", "-c", "sh -c 'sleep 0.05 &'; exec sleep 600")))
    supervisor = stack.up()
    stack.healthy()
    time.sleep(1)
    listing = subprocess.run(["ps", "-eo", "ppid=,stat="], capture_output=True, text=True, check=True).stdout
    states = [line.split()[1] for line in listing.splitlines() if line.split()[0] == str(supervisor.pid)]
    assert len(states) == 2
    assert not [state for state in states if state.startswith("Z")]


def test_a_component_that_does_not_come_with_the_next_up_leaves_the_others_serving(pair):
    served = {name: pair.pid(name) for name in ("a", "b")}
    a, b = pair.block["api"], pair.block["sites"]
    broken = Component(name="broken", argv=("false",), tries=1, ready=("tcp://127.0.0.1:1",))
    pair.plan(server("a", a), server("b", b, tier=1), broken)
    supervisor = pair.up()
    eventually(lambda: tenure.current(pair.folder).get("state") == "degraded")
    assert "broken ended with exit code 1" in pair.said()
    assert {name: pair.pid(name) for name in ("a", "b")} == served
    assert supervisor.poll() is None
    pair.plan(server("a", a), server("b", b, tier=1))
    pair.up()
    assert supervisor.wait(60) == 0
    pair.healthy()
    assert {name: pair.pid(name) for name in ("a", "b")} == served
