"""`headway up` says how many apps are still coming back, and they come back behind the platform."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.runtime.driver import InstanceRef, Status
from headway.errors import HeadwayError
from headway.supervisor.apps import coming_back, keeper_of, stop_apps
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Component
from headway.supervisor.processes import becoming
from temporal import worker


def release(root: Path, env: str, *, service: bool = True) -> Path:
    folder = root / "host" / "env" / env / "r" / "4"
    folder.mkdir(parents=True)
    (folder.parent.parent / "current").symlink_to("r/4")
    if service:
        (folder / "service").touch()
    return folder


def test_those_without_an_endpoint_are_counted(tmp_path: Path) -> None:
    assert coming_back(Folder(tmp_path)) == 0
    release(tmp_path, "env_static", service=False)
    release(tmp_path, "env_away")
    (tmp_path / "s").mkdir()
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for name, at in (("env_there", one), ("env_stale", other)):
            at.bind(str(tmp_path / "s" / name))
            at.listen()
            (release(tmp_path, name) / "sock.0").symlink_to(tmp_path / "s" / name)
        other.close()  # as after a power cut: the socket's file is there, and nobody behind it
        assert coming_back(Folder(tmp_path)) == 2


@dataclass
class Double:
    """A driver with so many running instances, and a broker that answers at the given look."""

    running: int
    answers_at: int
    looks: int = 0

    def list(self) -> list[Status]:
        return [
            Status(InstanceRef("env_1", 1), "stopped"),
            *[Status(InstanceRef("env_2", 1), "running")] * self.running,
        ]

    def health(self) -> None:
        self.looks += 1
        if self.looks < self.answers_at:
            raise HeadwayError("service.unavailable", "not yet")


@pytest.mark.parametrize(("running", "answers_at", "looks"), [(1, 5, 0), (0, 2, 2)])
def test_apps_wait_for_the_platform_where_none_runs(running: int, answers_at: int, looks: int) -> None:
    double: Any = Double(running, answers_at)
    worker.stack_answers(double, double)
    assert double.looks == looks


def test_apps_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEHIND_SECONDS", 0.3)
    double: Any = Double(0, 10_000)
    worker.stack_answers(double, double)
    assert double.looks >= 1


@pytest.mark.parametrize("user", [None, User(uid=1_200_000_004)])
def test_apps_are_stopped_under_the_uid_that_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: User | None
) -> None:
    (tmp_path / "host" / "run" / "instances" / "env_1" / "1.web.0").mkdir(parents=True)
    asked: list[list[str]] = []

    def run(words: list[str], **_more: object) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    host = Component("host", ("headway",), user=user)
    stop_apps(Folder(tmp_path), print, keeper_of([Component("api", ("headway",), user=User(uid=7)), host]))
    assert asked[0][-2:] == ["apps", "stop"]
    assert asked[0][:-6] == ([*becoming(user)] if user is not None else [])
