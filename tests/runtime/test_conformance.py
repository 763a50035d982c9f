"""What every runtime driver does, whoever supervises: the same tests for all of them."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from pathlib import Path

import pytest

from adapters.runtime.driver import InstanceRef, InstanceSpec
from headway.errors import HeadwayError
from tests.runtime.stage import Stage, environment_of, until


def test_from_start_to_the_first_answer_to_nothing_left(stage: Stage) -> None:
    ref = stage.start(env={"NAME": "one"})
    until(lambda: stage.answers(ref), f"never answered: {stage.lines(ref)}")
    assert stage.text(ref) == "hello from one"
    status = stage.until_state(ref, "running")
    assert status.restarts == 0
    assert status.endpoint
    assert [one.ref for one in stage.driver.list("env_1")] == [ref]
    stopped = stage.driver.stop(ref, 5.0)
    assert (stopped.state, stopped.exit_code, stopped.endpoint) == ("stopped", 0, None)
    assert "finished" in stage.lines(ref), "SIGTERM did not reach the app itself"
    stage.driver.remove(ref)
    assert stage.driver.status(ref).state == "absent"
    assert stage.driver.list() == []


def test_ensure_again_adopts_what_runs(stage: Stage) -> None:
    ref = stage.serve(env={"NAME": "first"})
    before = stage.driver.status(ref)
    after = stage.driver.ensure(stage.spec(env={"NAME": "second"}))
    assert after.pid == before.pid
    assert stage.text(ref) == "hello from first"


def test_two_ensures_at_once_make_one_copy(stage: Stage) -> None:
    specs = [stage.spec() for _ in range(4)]
    threads = [threading.Thread(target=stage.driver.ensure, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ref = specs[0].ref
    until(lambda: stage.answers(ref), "never answered")
    assert stage.lines(ref).count("serving") == 1


def test_old_and_new_side_by_side(stage: Stage) -> None:
    old = stage.serve(seq=1, env={"NAME": "old"})
    new = stage.serve(seq=2, env={"NAME": "new"})
    assert stage.text(old) == "hello from old"
    assert stage.text(new) == "hello from new"
    assert {one.ref for one in stage.driver.list("env_1")} == {old, new}
    stage.driver.stop(old, 5.0)
    assert stage.text(new) == "hello from new"


def test_the_environment_is_what_was_given_and_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_CANARY", "not for apps")
    ref = stage.serve(env={"NAME": "x", "ODD": "a b\n'c' \"d\" $e"}, port=9321)
    env = environment_of(stage, ref)
    assert env["ODD"] == "a b\n'c' \"d\" $e"
    assert env["PORT"] == "9321"
    assert not [key for key in env if "HEADWAY" in key or "canary" in env[key]]


def test_a_dead_app_is_started_again(stage: Stage) -> None:
    ref = stage.serve()
    with pytest.raises((OSError, Exception)):
        stage.get(ref, "/die", code=7)
    until(lambda: stage.driver.status(ref).restarts >= 1 and stage.answers(ref), "it was not started again")


@pytest.mark.slow
def test_one_that_ends_at_once_is_started_again_ever_more_seldom(stage: Stage) -> None:
    ref = stage.start(command="exit 3")
    time.sleep(11)
    status = stage.driver.status(ref)
    assert 2 <= status.restarts <= 7 + 11 / stage.pause
    assert (status.state in ("backoff", "crash_loop"), status.exit_code) == (True, 3)
    began = time.monotonic()
    stage.driver.remove(ref)
    assert time.monotonic() - began < 10, "a pause holds no stop"


def test_one_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    ref = stage.serve("deaf")
    began = time.monotonic()
    assert stage.driver.stop(ref, 0.5).state == "stopped"
    assert time.monotonic() - began >= 0.5
    assert stage.driver.status(ref).exit_code == 137


def test_an_endpoint_before_the_app_listens_closes_at_once(stage: Stage) -> None:
    ref = stage.start("elsewhere")
    stage.until_line(ref, "serving")
    with contextlib.suppress(ConnectionRefusedError, BrokenPipeError), stage.dial(ref) as one:
        one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert not _heard(one)
    assert stage.driver.status(ref).state == "running", "health is not the driver's business"


def test_one_that_listens_late_is_reached_when_it_does(stage: Stage) -> None:
    ref = stage.start("late")
    until(lambda: stage.answers(ref), "never answered")
    assert stage.driver.status(ref).restarts == 0


@pytest.mark.parametrize(
    "command", ["echo before; python3 app.py; echo after", "./start.sh", "cd . && sh start.sh; echo after"]
)
def test_shells_in_front_of_the_app_pass_the_signal_on(stage: Stage, command: str) -> None:
    script = stage.tree / "start.sh"
    script.write_text("#!/bin/sh\necho before\npython3 app.py\necho after\n")
    script.chmod(0o755)
    ref = stage.serve(command=command)
    assert stage.driver.stop(ref, 10.0).state == "stopped"
    assert "finished" in stage.lines(ref)


def test_the_tree_is_read_only(stage: Stage) -> None:
    ref = stage.serve()
    assert stage.text(ref, "/write", path="new.txt").startswith("OSError 30")
    assert stage.text(ref, "/write", path="app.py").startswith(("OSError 30", "PermissionError"))
    assert stage.text(ref, "/write", path="/tmp/scratch") == "written"


def test_a_connection_is_counted_and_survives_while_it_is_used(stage: Stage) -> None:
    ref = stage.serve()
    until(lambda: stage.driver.connections(ref) == 0, "not drained before")
    with stage.dial(ref) as one:
        one.sendall(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert b"101" in one.recv(4096)
        until(lambda: stage.driver.connections(ref) >= 1, "not counted")
        for word in (b"to", b"and", b"fro"):
            one.sendall(word)
            assert one.recv(100) == word
        one.shutdown(socket.SHUT_WR)
        assert one.recv(100) == b"bye", "a half-closed connection still brings the answer"
    until(lambda: stage.driver.connections(ref) == 0, "not drained after")


def test_a_command_runs_once_and_answers_again(stage: Stage) -> None:
    spec = stage.spec(command="echo migrated; echo trouble >&2; exit 4", ref=InstanceRef("env_1", 1, "release"))
    code, lines = stage.driver.run_once(spec, 60.0)
    assert code == 4
    assert sorted((one.stream, one.line) for one in lines if one.stream != "system") == [
        ("stderr", "trouble"),
        ("stdout", "migrated"),
    ]
    again, same = stage.driver.run_once(spec, 60.0)
    assert again == 4
    assert [one.line for one in same] == [one.line for one in lines], "it ran a second time"


def test_a_command_finds_what_it_is_given_byte_for_byte_and_its_end(stage: Stage, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(bytes(range(256)) * 4096 + b"no end of line")
    given.chmod(0o644)
    ref = InstanceRef("env_1", 1, "run-given")
    spec = stage.spec(command="sha256sum; cat", ref=ref, given=given)
    code, lines = stage.driver.run_once(spec, 60.0)
    assert code == 0
    digest = hashlib.sha256(given.read_bytes()).hexdigest()
    assert [one.line for one in lines if one.stream == "stdout"] == [f"{digest}  -"]


def test_a_command_that_is_given_nothing_finds_an_end(stage: Stage, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch(0o644)
    for number, given in enumerate((None, empty)):
        spec = stage.spec(command="wc -c", ref=InstanceRef("env_1", 1, f"run-{number}"), given=given)
        _, lines = stage.driver.run_once(spec, 60.0)
        assert [one.line for one in lines if one.stream == "stdout"] == ["0"]


def test_a_command_that_takes_too_long_is_killed(stage: Stage) -> None:
    spec = stage.spec(command="echo begun; sleep 600", ref=InstanceRef("env_1", 1, "release"))
    # An engine and systemd take their time to begin.
    code, lines = stage.driver.run_once(spec, 1.0 if stage.driver.counts_lines else 8.0)
    assert code == 137
    assert "begun" in [one.line for one in lines]
    assert any("time" in one.line for one in lines if one.stream == "system")


def test_a_command_can_be_canceled(stage: Stage) -> None:
    spec = stage.spec(command="echo begun; sleep 600", ref=InstanceRef("env_1", 1, "release"))
    with pytest.raises(HeadwayError) as caught:
        stage.driver.run_once(spec, 600.0, canceled=lambda: "begun" in stage.lines(spec.ref))
    assert caught.value.code == "job.canceled"
    assert stage.driver.status(spec.ref).state == "absent"


def test_what_was_never_there_is_absent(stage: Stage) -> None:
    ref = InstanceRef("env_never", 1)
    assert stage.driver.status(ref).state == "absent"
    assert stage.driver.stop(ref, 0.0).state == "absent"
    stage.driver.remove(ref)
    assert list(stage.driver.logs(ref)) == []
    assert stage.driver.connections(ref) == 0


def test_a_tree_that_is_missing_is_named(stage: Stage) -> None:
    ref = InstanceRef("env_1", 3)
    with pytest.raises(HeadwayError) as caught:
        stage.driver.ensure(InstanceSpec(ref, stage.tree / "missing", "true"))
    assert caught.value.code == "runtime.spec_invalid"
    assert "missing" in caught.value.message


def test_lines_are_numbered_across_restarts(stage: Stage) -> None:
    ref = stage.serve()
    with pytest.raises((OSError, Exception)):
        stage.get(ref, "/die")
    until(lambda: stage.lines(ref).count("serving") == 2, "not started again")
    numbers = [one.number for one in stage.driver.logs(ref)]
    assert numbers == sorted(set(numbers))
    middle = numbers[len(numbers) // 2]
    assert [one.number for one in stage.driver.logs(ref, since=middle)] == [n for n in numbers if n > middle]
    assert len(list(stage.driver.logs(ref, limit=1))) == 1


def _heard(one: socket.socket) -> bytes:
    try:
        return one.recv(100)
    except ConnectionResetError:
        return b""
