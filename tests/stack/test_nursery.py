"""Roles out of the nursery: the same as executed ones, sooner."""

import ctypes
import os
import signal
import sys

import pytest

from headway._launch import python_path
from headway.supervisor import identity, processes
from headway.supervisor.folder import open_folder, read_record
from headway.supervisor.plan import Component
from headway.supervisor.processes import NURSERY_SOCKET
from tests.stack.dummies import eventually


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "data")


@pytest.fixture
def begin(folder):
    started = []

    def start(component):
        process = processes.start(component, folder)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.kill_group()
        process.dead(5.0)
        process.bury()


@pytest.fixture
def nursery(begin, folder):
    socket = folder.path("run", NURSERY_SOCKET)
    argv = (sys.executable, "-P", "-m", "headway.supervisor.nursery", str(socket))
    process = begin(Component(name="nursery", argv=argv, env={"PYTHONPATH": python_path()}))
    eventually(folder.ready("nursery").exists, 120)
    return process


def rules(folder, **facts):
    """A role that needs nothing but its folder."""
    return Component(
        name="rules",
        argv=(sys.executable, "-P", "-m", "headway", "rules"),
        env={"HEADWAY_DATA_DIR": str(folder.root), "PYTHONPATH": python_path(), "CANARY": "only-for-the-role"},
        cwd=str(folder.root),
        nursery=True,
        **facts,
    )


def command_line(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().rstrip(b"\0").split(b"\0")


def test_a_forked_role_leads_its_own_session_under_its_own_name(folder, nursery, begin):
    process = begin(rules(folder))
    eventually(folder.path("run", "rules.sock").exists)
    assert process.child is None
    assert os.getsid(process.pid) == process.pid
    assert command_line(process.pid) == [b"headway", b"rules"]
    assert read_record(folder.record("rules"))["pid"] == process.pid
    assert processes.adopt("rules", folder).pid == process.pid
    with pytest.raises(Exception, match="runs already"):
        processes.start(rules(folder), folder)


def test_roles_do_not_hold_what_is_the_nurserys(folder, nursery, begin):
    role = begin(rules(folder))
    eventually(folder.path("run", "rules.sock").exists)
    nursery.signal(signal.SIGKILL)
    assert nursery.dead(5.0)
    assert processes.adopt("nursery", folder) is None
    assert not role.dead()


def test_the_nursery_never_holds_what_a_role_is_given(folder, nursery, begin):
    begin(rules(folder))
    eventually(folder.path("run", "rules.sock").exists)
    with open(f"/proc/{nursery.pid}/environ", "rb") as file:
        assert b"only-for-the-role" not in file.read()
    with open(f"/proc/{nursery.pid}/maps") as maps, open(f"/proc/{nursery.pid}/mem", "rb") as memory:
        heap = [line.split()[0].split("-") for line in maps if line.split()[1] == "rw-p"]
        for start, end in heap:
            memory.seek(int(start, 16))
            assert b"only-for-the-role" not in memory.read(int(end, 16) - int(start, 16))


def test_a_forked_role_stops_on_sigterm(folder, nursery, begin):
    process = begin(rules(folder))
    eventually(folder.path("run", "rules.sock").exists)
    process.signal(signal.SIGTERM)
    assert process.dead(30.0)


def test_without_a_nursery_the_role_is_executed(folder, begin):
    process = begin(rules(folder))
    assert process.child is not None
    eventually(folder.path("run", "rules.sock").exists)
    assert identity.alive(read_record(folder.record("rules")))


def task(folder, words):
    """`headway migrate`, or with other words one that fails."""
    return Component(
        name="migrate",
        argv=(sys.executable, "-P", "-m", "headway", *words),
        env={"HEADWAY_DATA_DIR": str(folder.root), "PYTHONPATH": python_path()},
        cwd=str(folder.root),
        nursery=True,
        once=True,
    )


@pytest.fixture
def subreaper():
    """As the supervisor is: what comes out of the nursery becomes a child of this process."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


@pytest.mark.usefixtures("subreaper")
def test_a_task_is_forked_where_its_end_is_known(folder, nursery):
    done = processes.start(task(folder, ["migrate"]), folder, own_nursery=True)
    assert done.child is None
    assert done.dead(60.0)
    assert done.bury() == "exit code 0"
    assert folder.path("db", "headway.db").exists()
    failed = processes.start(task(folder, ["migrate", "--nonsense"]), folder, own_nursery=True)
    assert failed.dead(60.0)
    assert failed.bury() == "exit code 2"


def test_a_task_is_executed_where_the_nursery_is_a_strangers_child(folder, nursery):
    done = processes.start(task(folder, ["migrate"]), folder)
    assert done.child is not None
    assert done.dead(60.0)
    assert done.bury() == "exit code 0"
