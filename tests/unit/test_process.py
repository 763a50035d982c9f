"""One component's process: started once, adopted by whoever comes later, stopped with all that it started."""

import os
import signal
import socket
import sys
import time

import pytest

from headway.errors import HeadwayError
from headway.supervisor import identity, locks, processes
from headway.supervisor.folder import open_folder, read_record
from headway.supervisor.plan import Component, Plan

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
PARENT = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "data")


@pytest.fixture
def begin(folder):
    """Start a component; whatever of it still lives at the end of the test is killed."""
    started = []

    def start(name="one", *argv, **facts):
        process = processes.start(Component(name=name, argv=argv or ("sleep", "600"), **facts), folder)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill_group()
        process.child.wait()


def said(folder, name):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if text := folder.log(name).read_text().strip():
            return text
        time.sleep(0.01)
    raise AssertionError(f"{name} said nothing")


def test_a_started_process_is_recorded_and_leads_its_own_session(folder, begin):
    process = begin()
    record = read_record(folder.record("one"))
    assert record["pid"] == process.pid
    assert record["boot_id"] == identity.boot_id()
    assert identity.alive(record)
    assert os.getsid(process.pid) == process.pid
    assert not process.dead()


def test_never_a_second_copy(folder, begin):
    begin()
    with pytest.raises(HeadwayError, match="runs already"):
        begin()


def test_what_runs_is_adopted_and_its_death_noticed(folder, begin):
    process = begin()
    adopted = processes.adopt("one", folder)
    assert adopted is not None
    assert (adopted.pid, adopted.child) == (process.pid, None)
    assert adopted.fingerprint == Component(name="one", argv=("sleep", "600")).fingerprint()
    os.kill(process.pid, signal.SIGKILL)
    assert adopted.dead(5.0)
    process.bury()
    assert processes.adopt("one", folder) is None


def test_a_pid_that_was_given_to_a_stranger_is_not_adopted(folder, begin):
    begin()
    record = read_record(folder.record("one"))
    assert identity.open_process({**record, "start_time": record["start_time"] + 1}) is None
    assert identity.open_process({**record, "boot_id": "another"}) is None
    assert identity.open_process({}) is None


def test_a_runner_without_a_record_is_ended_before_anything_starts(folder, begin):
    process = begin()
    folder.record("one").unlink()
    assert processes.adopt("one", folder) is None
    assert process.dead(5.0)
    free = locks.try_lock(folder.lock("one"))
    assert free is not None
    os.close(free)


def test_stop_is_gentle_first(folder, begin):
    process = begin()
    assert processes.stop([(process, 10.0)]) == []
    assert process.child.returncode == -signal.SIGTERM


def test_the_deaf_are_killed_after_their_grace(folder, begin):
    process = begin("deaf", sys.executable, "-c", DEAF)
    said(folder, "deaf")
    assert processes.stop([(process, 0.2)]) == ["deaf"]
    assert process.child.returncode == -signal.SIGKILL


def test_a_hurry_ends_the_grace(folder, begin):
    process = begin("deaf", sys.executable, "-c", DEAF)
    said(folder, "deaf")
    assert processes.stop([(process, 600.0)], lambda: True) == ["deaf"]


def test_what_a_component_leaves_behind_ends_with_it(folder, begin):
    process = begin("parent", sys.executable, "-c", PARENT)
    grandchild = int(said(folder, "parent"))
    assert identity.start_time(grandchild) is not None
    os.kill(process.pid, signal.SIGKILL)
    assert process.dead(5.0)
    assert process.bury() == "killed by SIGKILL"
    deadline = time.monotonic() + 5
    while identity.start_time(grandchild) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert identity.start_time(grandchild) is None


def test_a_binary_that_is_not_there(folder, begin):
    with pytest.raises(HeadwayError) as caught:
        begin("ghost", "/nowhere/ghost")
    assert caught.value.code == "stack.start_failed"
    assert "/nowhere/ghost" in caught.value.message
    assert processes.adopt("ghost", folder) is None


def test_secrets_are_in_the_environment_and_nowhere_else(folder, begin, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://canary-of-the-caller")
    monkeypatch.setenv("HEADWAY_TOKEN", "canary-token")
    secret = "json:secrets/s3.json#identities.0.credentials.0.secretKey"
    code = "import os, json; print(json.dumps(dict(os.environ)), flush=True); import time; time.sleep(600)"
    component = Component(
        name="env", argv=(sys.executable, "-c", code), secrets={"KEY": secret, "URL": "env:DATABASE_URL"}
    )
    process = begin("env", *component.argv, secrets=component.secrets)
    environment = said(folder, "env")
    key = component.environment(folder)["KEY"]
    assert len(key) > 20
    assert key in environment
    assert "canary-of-the-caller" in environment
    assert "canary-token" not in environment
    Plan((component,)).write(folder)
    written = "".join(path.read_text() for path in folder.path("run").iterdir() if path.is_file())
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        written += file.read().decode()
    assert key not in written
    assert "canary" not in written


def test_a_plan_comes_back_from_the_folder_as_it_was(folder):
    plan = Plan(
        (
            Component(
                name="a", argv=("a", "b"), ready=("tcp://127.0.0.1:1",), after=("c",), env={"A": "b"}, ports={"x": 1}
            ),
        ),
        endpoints={"api": "http://127.0.0.1:1"},
        hints=(("API", "there"),),
    )
    plan.write(folder)
    assert Plan.read(folder) == plan
    assert Plan.read(folder).components[0].fingerprint() == plan.components[0].fingerprint()


def test_a_socket_that_an_earlier_server_left_is_gone_at_the_start(folder, begin, tmp_path):
    left, kept = tmp_path / "left.sock", tmp_path / "kept"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    kept.write_text("no socket")
    begin(leftovers=(str(left), str(kept), str(tmp_path / "never")))
    assert not left.exists()
    assert kept.read_text() == "no socket"
