"""What an app cannot see, reach or use up: `stage` is every driver's, `box` the embedded one's."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.runtime.driver import InstanceRef, Volume
from adapters.runtime.process.driver import ProcessDriver, Setup
from headway.errors import HeadwayError
from tests.runtime.conftest import QUICK
from tests.runtime.stage import Stage, until

CANARY = "canary-4711-of-the-host"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="uids are only dropped by root")


def test_python_is_there_by_either_name(box: Stage) -> None:
    command = (
        "python -c 'import sys; print(sys.version_info[0], sys.prefix)'; python3 -c 'import sys; print(sys.prefix)'"
    )
    code, lines = box.driver.run_once(box.spec(command=command, ref=InstanceRef("env_1", 1, "release")), 60.0)
    said = [one.line for one in lines if one.stream == "stdout"]
    assert (code, said[0]) == (0, f"3 {said[1]}")


@pytest.fixture
def neighbour() -> Iterator[int]:
    """A service on the host's loopback, as Headway's own are; the port."""
    server = socket.create_server(("127.0.0.1", 0))
    open_ = True

    def serve() -> None:
        while open_:
            one, _ = server.accept()
            with one:
                one.recv(4096)
                one.sendall(b"HTTP/1.0 200 OK\r\n\r\nsecret of the host")

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    open_ = False
    with socket.create_connection(server.getsockname()) as last:
        last.sendall(b"bye")
    thread.join()
    server.close()


def test_the_hosts_files_are_out_of_reach(stage: Stage, place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "key").write_text(CANARY)
    ref = stage.serve()
    # An engine gives each container a name of its own there.
    names = ["/etc/hostname"] if stage.driver.capabilities().name != "docker" else []
    for path in ("/etc/shadow", "/root", place / "data" / "key", place / "state", "/var/lib", "/home", *names):
        said = stage.text(ref, "/read", path=path)
        assert said.startswith(("FileNotFoundError", "PermissionError", "entries: app")), (path, said)
    assert CANARY not in stage.text(ref, "/read", path="/proc/1/environ")


def test_other_processes_are_out_of_sight(box: Stage) -> None:
    ref = box.serve()
    seen = json.loads(box.get(ref, "/whoami"))
    assert len(seen["pids"]) <= 4
    assert seen["uid"] == 1000
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["Seccomp"] == "2"


@root_only
def test_each_environment_has_a_uid_of_its_own(box: Stage) -> None:
    refs = [box.serve(ref=InstanceRef(env, seq)) for env, seq in (("env_a", 1), ("env_a", 2), ("env_b", 1))]
    uids = [os.stat(f"/proc/{box.driver.status(ref).pid}").st_uid for ref in refs]
    assert uids[0] == uids[1] != uids[2]
    assert 0 not in uids


def test_the_hosts_loopback_is_another_one(stage: Stage, neighbour: int) -> None:
    ref = stage.serve()
    assert stage.text(ref, "/connect", host="127.0.0.1", port=neighbour).startswith("ConnectionRefusedError")
    inside = stage.text(ref, "/connect", host="127.0.0.1", port=8080)
    assert inside.startswith("answered"), "its own loopback is there"


def test_nothing_goes_out_without_a_rule(stage: Stage) -> None:
    ref = stage.serve()
    assert stage.text(ref, "/connect", host="192.0.2.1", port=443).startswith("OSError 101")
    assert "HTTP_PROXY" not in json.loads(stage.get(ref, "/env"))


def test_a_rule_opens_its_host_and_no_other(place: Path, box: Stage, neighbour: int) -> None:
    driver = ProcessDriver(Setup(place / "state", pace=QUICK, private_ok=frozenset({"127.0.0.1"})))
    stage = Stage(driver, box.tree)
    ref = stage.serve(egress=(f"127.0.0.1:{neighbour}", "example.invalid"))
    try:
        # urllib passes 127.0.0.1 by the proxy, so the proxy is spoken to as such
        assert _through_proxy(stage, ref, f"127.0.0.1:{neighbour}") == 200
        assert _through_proxy(stage, ref, "127.0.0.1:22") == 403
        assert _through_proxy(stage, ref, "example.org:443") == 403
        assert "refused example.org:443" in stage.until_line(ref, "example.org", "system")
    finally:
        driver.remove(ref)


def test_a_private_address_needs_the_operators_word(box: Stage, neighbour: int) -> None:
    ref = box.serve(egress=(f"127.0.0.1:{neighbour}", "public"))
    assert _through_proxy(box, ref, f"127.0.0.1:{neighbour}") == 403
    assert "not public" in box.until_line(ref, f"127.0.0.1:{neighbour}", "system")
    assert _through_proxy(box, ref, "10.0.0.1:443") == 403, "`public` leads to no private address"
    assert _through_proxy(box, ref, "192.168.1.1:8443") == 403


def test_a_named_host_has_a_door_for_clients_without_proxy(place: Path, box: Stage, neighbour: int) -> None:
    driver = ProcessDriver(Setup(place / "state", pace=QUICK, private_ok=frozenset({"db.test"})))
    stage = Stage(driver, box.tree)
    ref = stage.serve(egress=(f"db.test:{neighbour}",))
    try:
        said = stage.text(ref, "/connect", host="db.test", port=neighbour)
        assert said in ("answered: ", "ConnectionResetError 104"), "nobody listens at the name's door"
        stage.until_line(ref, f"db.test:{neighbour} (the name does not resolve)", "system")
    finally:
        driver.remove(ref)


def test_a_socket_of_the_host_only_by_the_operators_word(box: Stage, place: Path) -> None:
    path = place / "shared" / "db.sock"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        with pytest.raises(HeadwayError) as caught:
            box.driver.ensure(box.spec(egress=(f"unix:{path}",)))
        assert caught.value.code == "runtime.egress_refused"
        driver = ProcessDriver(Setup(place / "state", pace=QUICK, host_sockets=(path.parent,)))
        stage = Stage(driver, box.tree)
        ref = stage.serve(egress=(f"unix:{path}",))
        try:

            def serve() -> None:
                one, _ = server.accept()
                with one:
                    one.sendall(b"select 1")

            answer = threading.Thread(target=serve)
            answer.start()
            assert stage.text(ref, "/unix", path=path) == "answered: select 1"
            answer.join()
            with pytest.raises(HeadwayError) as caught:
                driver.ensure(stage.spec(seq=2, egress=(f"unix:{path.parent}/../state/s/x",)))
            assert caught.value.code == "runtime.spec_invalid"
        finally:
            driver.remove(ref)


def test_memory_to_its_limit_is_named_and_restarted(stage: Stage) -> None:
    if "memory" not in stage.driver.capabilities().limits:
        pytest.skip("no memory cgroup here")
    ref = stage.serve(limits={"memory": 96 << 20})
    with pytest.raises((OSError, http.client.HTTPException)):
        stage.get(ref, "/eat", mib=400)
    until(lambda: stage.driver.status(ref).restarts >= 1 and stage.answers(ref), "not started again")
    if stage.driver.capabilities().name == "process":
        assert any("out of memory: the limit is 96 MiB" in line for line in stage.lines(ref, "system"))


def test_a_fork_bomb_ends_at_the_limit_and_leaves_nothing(box: Stage) -> None:
    ref = box.serve(limits={"pids": 40})
    made = int(box.text(ref, "/fork").removeprefix("made "))
    assert 0 < made < 40
    box.until_line(ref, "too many processes: the limit is 40", "system")
    app = box.driver.status(ref).pid
    box.driver.stop(ref, 0.0)
    assert app is not None
    until(lambda: not Path(f"/proc/{app}").exists(), "it is still there")


def test_a_volume_outlives_releases_and_belongs_to_its_environment(stage: Stage, place: Path) -> None:
    volume = Volume(place / "volumes" / "env_1" / "data", "storage/data")
    (stage.tree / "storage").mkdir()
    (stage.tree / "storage" / "readme").write_text("beside")
    first = stage.serve(volumes=(volume,))
    assert stage.text(first, "/write", path="storage/data/rows") == "written"
    assert stage.text(first, "/read", path="storage/readme") == "content: beside"
    assert stage.text(first, "/write", path="storage/other").startswith("OSError 30")
    stage.driver.remove(first)
    second = stage.serve(seq=2, volumes=(volume,))
    assert stage.text(second, "/read", path="storage/data/rows") == "content: written"
    assert not (stage.tree / "storage" / "data").exists(), "the tree itself was changed"


def test_a_link_is_no_volume(box: Stage, place: Path) -> None:
    hidden = place / "host"
    hidden.mkdir(mode=0o711)
    (place / "volumes").mkdir()
    (place / "volumes" / "data").symlink_to(hidden)
    with pytest.raises(HeadwayError) as caught:
        box.driver.ensure(box.spec(volumes=(Volume(place / "volumes" / "data", "data"),)))
    assert caught.value.code == "runtime.spec_invalid"
    assert hidden.stat().st_mode & 0o777 == 0o711


def test_whoever_comes_first_has_its_volume_in_a_folder_that_is_closed_to_it(box: Stage, place: Path) -> None:
    """A release command runs before anything has written there."""
    (place / "volumes").mkdir(mode=0o700)
    volume = Volume(place / "volumes" / "data", "data")
    command = "echo made > data/rows && cat data/rows"
    spec = box.spec(command=command, ref=InstanceRef("env_1", 1, "release"), volumes=(volume,))
    code, lines = box.driver.run_once(spec, 60.0)
    assert (code, [one.line for one in lines if one.stream == "stdout"]) == (0, ["made"]), lines


def test_temporary_files_are_private_and_bounded(box: Stage) -> None:
    first, second = box.serve(seq=1), box.serve(seq=2)
    assert box.text(first, "/write", path="/tmp/mine") == "written"
    assert box.text(second, "/read", path="/tmp/mine").startswith("FileNotFoundError")


def _through_proxy(stage: Stage, ref: InstanceRef, destination: str) -> int:
    """The status with which the instance's proxy answers a CONNECT."""
    said = stage.text(ref, "/connect_by_proxy", destination=destination)
    return int(said.split()[1])
