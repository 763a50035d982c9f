"""Both versions of cgroups on made-up file trees, and one real kill where version 2 is mounted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from adapters import cgroup
from adapters.cgroup import Cgroup, Cgroups, Events
from adapters.sandbox.command import Limits

LIMITS = Limits(wall=1, memory=1 << 28, pids=64, disk=1, log=1, cpu=1.5)


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def machine(monkeypatch: pytest.MonkeyPatch, mountinfo: list[str], own: str) -> None:
    texts = {"/proc/self/mountinfo": "\n".join(mountinfo), "/proc/self/cgroup": own}
    true = cgroup._read
    monkeypatch.setattr(cgroup, "_read", lambda path: texts.get(str(path)) or true(path))


def test_version_2_below_our_own_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {"cgroup.controllers": "cpuset cpu io memory pids", "cgroup.subtree_control": ""}
    write(tmp_path, offered)
    write(tmp_path / "service", offered)
    write(tmp_path / "service" / "headway", offered)
    machine(monkeypatch, [f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw"], "0::/service")
    found = cgroup.find()
    assert found == Cgroups(2, dict.fromkeys(("memory", "pids", "cpu"), tmp_path / "service" / "headway"))
    for folder in (tmp_path / "service", tmp_path / "service" / "headway"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (tmp_path / "cgroup.subtree_control").read_text() == ""


def test_version_2_goes_to_the_top_when_our_own_cgroup_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {"cgroup.controllers": "memory pids", "cgroup.subtree_control": ""}
    for folder in (tmp_path, tmp_path / "service", tmp_path / "headway"):
        write(folder, offered)
    true = cgroup._delegate
    monkeypatch.setattr(cgroup, "_delegate", lambda folder: folder.name != "service" and true(folder))
    machine(monkeypatch, [f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw"], "0::/service")
    found = cgroup.find()
    assert found is not None
    assert found.bases == dict.fromkeys(("memory", "pids"), tmp_path / "headway")


def test_version_1_stays_below_the_limits_that_hold_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memory", "pids", "cpu"):
        write(tmp_path / name / "outer", {})
    lines = [
        f"3{at} 1 0:2 /docker/abc {tmp_path}/{name} rw - cgroup cgroup rw,{name}"
        for at, name in enumerate(("memory", "pids"))
    ]
    machine(monkeypatch, lines, "4:memory:/docker/abc/outer\n5:pids:/docker/abc\n0::/")
    found = cgroup.find()
    assert found == Cgroups(
        1, {"memory": tmp_path / "memory" / "outer" / "headway", "pids": tmp_path / "pids" / "headway"}
    )


def test_a_hybrid_whose_version_2_has_no_controllers_uses_version_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "unified", {"cgroup.controllers": "hugetlb"})
    write(tmp_path / "pids", {})
    lines = [
        f"30 1 0:26 / {tmp_path}/unified rw - cgroup2 cgroup2 rw",
        f"31 1 0:27 / {tmp_path}/pids rw - cgroup cgroup rw,pids",
    ]
    machine(monkeypatch, lines, "8:pids:/\n0::/")
    found = cgroup.find()
    assert found == Cgroups(1, {"pids": tmp_path / "pids" / "headway"})


def test_a_machine_without_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ["30 1 0:26 / / rw - ext4 /dev/sda rw"], "0::/")
    assert cgroup.find() is None


def test_limits_in_words_of_version_2(tmp_path: Path) -> None:
    names = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max", "cpu.weight")
    folder = write(tmp_path / "run", dict.fromkeys(names, ""))
    Cgroup(2, dict.fromkeys(("memory", "pids", "cpu"), folder)).limit(LIMITS)
    written = {name: (folder / name).read_text() for name in names}
    assert written == {
        "memory.max": str(1 << 28),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "64",
        "cpu.max": "150000 100000",
        "cpu.weight": "20",
    }


@pytest.mark.parametrize(
    ("version", "files", "events"),
    [
        (
            2,
            {"memory.events": "low 0\noom 1\noom_kill 1", "pids.events": "max 0", "memory.peak": "77"},
            Events(True, False, 77),
        ),
        (2, {"memory.events": "oom_kill 0", "pids.events": "max 3"}, Events(False, True, None)),
        (
            1,
            {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2", "memory.max_usage_in_bytes": "9"},
            Events(True, False, 9),
        ),
        (1, {}, Events(False, False, None)),
    ],
)
def test_events_are_read(tmp_path: Path, version: int, files: dict[str, str], events: Events) -> None:
    folder = write(tmp_path / "run", files)
    assert Cgroup(version, {"memory": folder, "pids": folder}).events() == events


def test_a_cgroup_is_killed_whole_and_removed() -> None:
    found = cgroup.find()
    if found is None:
        pytest.skip("no cgroup can be written here")
    made = found.make(f"test-{os.getpid()}", LIMITS)
    child = subprocess.Popen(["sh", "-c", "read go; sleep 60 & sleep 60 & wait"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    with child.stdin:
        made.add(child.pid)
        child.stdin.write(b"go\n")
    assert child.pid in made.processes()
    made.kill()
    child.wait()
    assert made.processes() == []
    assert made.remove()
    assert not any(folder.exists() for folder in made.folders.values())
