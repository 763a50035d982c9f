"""Units as text that systemd itself reads, and the driver against a stand-in for `systemctl` and `journalctl`.

Nothing is started here: under a live systemd units are started by `test_live_systemd.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.runtime import door
from adapters.runtime.driver import Bounds, InstanceRef, InstanceSpec, Volume
from adapters.runtime.systemd import Setup, SystemdDriver, read_status
from adapters.runtime.units import BEGAN, CALM, COUNT, NOTE, NOTES, WAIT, environment_file, quoted
from headway.errors import HeadwayError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="units belong to root")
REF = InstanceRef("env_1", 7)
FAKE = f"""#!{sys.executable}
import json, sys
from pathlib import Path
here = Path(__file__).parent
words = [word for word in sys.argv[1:] if word != "--no-ask-password"]
with (here / "calls").open("a") as file:
    file.write(json.dumps(words) + "\\n")
state = here / "active"
verb = words[0]
if any(word.endswith(".service") and not word.endswith("-door.service") for word in words):
    if verb == "start":
        state.touch()
    if verb == "kill" or (verb == "stop" and not (here / "deaf").exists()):
        state.unlink(missing_ok=True)
if verb == "show":
    up = state.exists()
    print("ActiveState=" + ("active" if up else "inactive"))
    print("SubState=" + ("running" if up else "dead"))
    print("Result=success\\nMainPID=" + ("4242" if up else "0") + "\\nNRestarts=0")
    print("ExecMainCode=" + ("0" if up else "1") + "\\nExecMainStatus=0\\nStateChangeTimestampMonotonic=1000000")
"""
JOURNAL = f"""#!{sys.executable}
import json, sys
from pathlib import Path
Path(__file__).with_name("asked").write_text(" ".join(sys.argv))
for at, said in enumerate(["serving", "token hunter2-secret", list(b"odd \\xff")]):
    print(json.dumps({{"__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + at // 2), "MESSAGE": said, "_PID": "77"}}))
"""


@pytest.fixture
def driver(place: Path, monkeypatch: pytest.MonkeyPatch) -> SystemdDriver:
    # The stand-in starts nothing, a door least of all.
    monkeypatch.setattr(door, "until_open", lambda _endpoint: None)
    for name, text in (("systemctl", FAKE), ("journalctl", JOURNAL)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "key").touch()
    (place / "tree").mkdir()
    return SystemdDriver(
        Setup(
            place / "state",
            units=place / "units",
            secrets=place / "secrets",
            key_file=place / "key",
            opener="tests.runtime.opener:open_plain",
            systemctl=str(place / "systemctl"),
            journalctl=str(place / "journalctl"),
        )
    )


def spec(place: Path, **changes: object) -> InstanceSpec:
    given: dict[str, object] = {
        "command": "cd web && exec python3 -m app --name \"a 'b' $HOME 100%\"",
        "env": {"GREETING": 'say "hi" \\ 5% $x\nnext', "PLAIN": "1"},
        "bounds": Bounds(memory=100 << 20, pids=33, cpu=0.5, nofile=512),
        "volumes": (Volume(place / "volume:odd", "data"),),
        **changes,
    }
    return InstanceSpec(REF, place / "tree", **given)  # type: ignore[arg-type]


def calls(place: Path) -> list[list[str]]:
    return [json.loads(line) for line in (place / "calls").read_text().splitlines()]


def test_when_a_command_has_ended_is_known_though_systemd_forgets_it(driver: SystemdDriver, place: Path) -> None:
    fake = (place / "systemctl").read_text()
    forgotten = fake.replace('"ExecMainCode=" + ("0" if up else "1")', '"ExecMainCode=0"').replace(
        "StateChangeTimestampMonotonic=1000000", "StateChangeTimestampMonotonic=0"
    )
    assert forgotten != fake
    (place / "systemctl").write_text(forgotten)
    ref = InstanceRef("env_1", 1, "run-a")
    driver._write(InstanceSpec(ref, place / "tree", "true"), once=60.0)
    (driver._places.folder(ref) / "ended").write_text("exited 3")
    status = driver.status(ref)
    assert (status.state, status.exit_code) == ("stopped", 3)
    assert abs(status.since - time.time()) < 60, "it is kept for who may not have been told"


def test_systemd_finds_nothing_to_complain_about(driver: SystemdDriver, place: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    driver.ensure(spec(place))
    units = sorted((place / "units").iterdir())
    assert [unit.name.partition(".")[2] for unit in units] == ["service", "service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    about = [line for line in done.stderr.splitlines() if "headway-" in line]
    assert about == [], done.stderr
    assert done.returncode == 0, done.stderr


def test_the_walls_are_in_the_unit(driver: SystemdDriver, place: Path) -> None:
    driver.ensure(spec(place))
    (unit,) = [path for path in (place / "units").glob("*.service") if "-door" not in path.name]
    lines = unit.read_text().splitlines()
    for line in (
        "PrivateNetwork=yes",
        "NoNewPrivileges=yes",
        "TemporaryFileSystem=/:ro",
        "RestrictNamespaces=yes",
        "MemoryMax=104857600",
        "TasksMax=33",
        "CPUQuota=50%",
        "LimitNOFILE=512",
        "Restart=always",
        "KillMode=control-group",
        f'BindPaths="{place}/volume\\:odd":"/workspace/data"',
        'Environment="PORT=8080"',
        r'Environment="GREETING=say \"hi\" \\ 5%% $x\nnext"',
    ):
        assert line in lines, line
    [start] = [line for line in lines if line.startswith("ExecStart=")]
    assert start.endswith(r''' "/bin/sh" "-c" "cd web && exec python3 -m app --name \"a 'b' $$HOME 100%%\""''')
    dropped = re.match(r"ExecStart=/usr/bin/setpriv --reuid=(\d+) --regid=\1 --clear-groups --bounding", start)
    assert dropped is not None
    assert int(dropped[1]) > 1000
    assert os.stat(place / "volume:odd").st_uid == int(dropped[1])
    shown = [line for line in lines if line.startswith("BindReadOnlyPaths=") and line.endswith(':"/workspace"')]
    assert len(shown) == 1


def test_the_way_of_an_instance(driver: SystemdDriver, place: Path) -> None:
    assert driver.status(REF).state == "absent"
    status = driver.ensure(spec(place))
    assert (status.state, status.pid) == ("running", 4242)
    assert status.endpoint == f"unix:{driver._endpoint(REF)}"
    before = len(calls(place))
    driver.ensure(spec(place))
    assert [words[0] for words in calls(place)[before:]] == ["show", "show"], "it was started a second time"
    assert [one.ref for one in driver.list("env_1")] == [REF]
    stopped = driver.stop(REF, 5.0)
    assert (stopped.state, stopped.exit_code, stopped.endpoint) == ("stopped", 0, None)
    driver.remove(REF)
    assert list((place / "units").iterdir()) == []
    assert driver.list() == []


def test_one_that_does_not_stop_is_killed(driver: SystemdDriver, place: Path) -> None:
    (place / "deaf").touch()
    driver.ensure(spec(place))
    assert driver.stop(REF, 0.2).state == "stopped"
    assert ["kill", "--signal=SIGKILL"] in [words[:2] for words in calls(place)]


def test_secrets_are_in_a_private_file_and_in_no_unit(driver: SystemdDriver, place: Path) -> None:
    sealed = place / "sealed.json"
    sealed.write_text(json.dumps({"TOKEN": "hunter2-secret"}))
    driver.ensure(spec(place, sealed=sealed))
    assert not [path for path in (place / "units").iterdir() if "hunter2-secret" in path.read_text()]
    (file,) = [path for path in (place / "secrets").iterdir() if not path.suffix]
    assert file.read_text() == 'TOKEN="hunter2-secret"\n'
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.line for one in driver.logs(REF)] == ["serving", "token [redacted]", r"odd \xff"]
    # Of a process that has ended nobody knows the unit: it is found by a name that only its own uid may use.
    unit = next(path for path in (place / "units").iterdir() if not path.stem.endswith("-door"))
    asked = (place / "asked").read_text().split()
    assert f"--identifier={unit.stem}" in unit.read_text()
    assert asked[asked.index(f"SYSLOG_IDENTIFIER={unit.stem}") + 1].startswith("_UID=")
    numbers = [one.number for one in driver.logs(REF)]
    assert numbers == sorted(set(numbers))
    assert len(list(driver.logs(REF, since=numbers[0]))) == 2
    driver.remove(REF)
    assert list((place / "secrets").iterdir()) == []


def test_what_it_cannot_hold_to_is_refused(driver: SystemdDriver, place: Path) -> None:
    with pytest.raises(HeadwayError) as caught:
        driver.ensure(spec(place, egress=("example.com",)))
    assert caught.value.code == "runtime.egress_refused"
    assert driver.status(REF).state == "absent"


def test_who_ends_again_and_again_waits_ever_longer_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "$1" >>"$0.said"\n')
    (tmp_path / "sleep").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "EXIT_CODE": "exited", "EXIT_STATUS": "1"}

    def turn(script: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", script.replace(NOTES, str(tmp_path))], env=env, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""

    def waits() -> list[str]:
        said = tmp_path / "sleep.said"
        return said.read_text().split() if said.exists() else []

    for _ in range(7):
        turn(WAIT)
        turn(f"{NOTE}; {COUNT}")
    assert waits() == ["1", "3", "7", "29", "29"]
    turn(WAIT)
    (tmp_path / BEGAN).write_text(str(int(time.time()) - CALM))  # a long run
    turn(COUNT)
    turn(WAIT)
    assert waits()[5:] == ["29"]


def test_a_command_is_a_oneshot_with_its_time(driver: SystemdDriver, place: Path) -> None:
    (place / "deaf").touch()
    once = InstanceSpec(InstanceRef("env_1", 7, "release"), place / "tree", "true")
    with pytest.raises(HeadwayError) as caught:
        driver.run_once(once, 12.0, canceled=lambda: True)
    assert caught.value.code == "job.canceled"
    assert driver.status(once.ref).state == "absent"


@pytest.mark.parametrize(
    ("shown", "state", "code", "reason"),
    [
        ({"ActiveState": "active", "SubState": "running", "MainPID": "9"}, "running", None, ""),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "1", "ExecMainCode": "1",
             "ExecMainStatus": "3", "Result": "exit-code"},
            "backoff", 3, "exit code 3",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "9", "ExecMainCode": "2",
             "ExecMainStatus": "9", "Result": "oom-kill"},
            "crash_loop", 137, "out of memory",
        ),
        (
            {"ActiveState": "activating", "SubState": "start-pre", "NRestarts": "5", "ExecMainCode": "1",
             "ExecMainStatus": "3", "Result": "success"},
            "crash_loop", 3, "",
        ),
        ({"ActiveState": "activating", "SubState": "start-pre", "NRestarts": "0"}, "starting", None, ""),
        (
            {"ActiveState": "failed", "SubState": "failed", "ExecMainCode": "2", "ExecMainStatus": "9",
             "Result": "timeout"},
            "stopped", 137, "it outlived its grace and was killed",
        ),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm", "MainPID": "9"}, "stopping", None, ""),
    ],
)  # fmt: skip
def test_what_systemd_says_in_our_words(shown: dict[str, str], state: str, code: int | None, reason: str) -> None:
    status = read_status(REF, shown, "unix:/x")
    assert (status.state, status.exit_code, status.reason) == (state, code, reason)
    assert (status.endpoint is None) == (state in ("stopped", "stopping"))


def test_words_are_quoted_for_both_readers() -> None:
    assert quoted('a "b" \\ %h\n$c') == r'"a \"b\" \\ %%h\n$c"'
    assert quoted("$c", dollars=True) == '"$$c"'
    assert environment_file({"K": 'a "b"\n$c `d`'}) == 'K="a \\"b\\"\n\\$c \\`d\\`"\n'
