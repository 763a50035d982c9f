"""What the supervisor does once a minute, and what must not end it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from headway.supervisor import logs
from headway.supervisor.folder import Folder
from headway.supervisor.plan import Plan
from headway.supervisor.progress import Progress
from headway.supervisor.supervise import IDLE, Supervisor
from headway.supervisor.twin import Twin


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    return Folder(tmp_path)


def _none(*_words: object, **_more: object) -> None:
    raise OSError(11, "Resource temporarily unavailable")


def test_it_looks_around_by_the_clock_however_busy_the_host_is(folder: Folder) -> None:
    standby = Twin(folder, {})
    standby.due = time.monotonic() + 600
    supervisor = Supervisor(folder, Plan(()), Progress(folder.log("supervisor"), None), standby)
    shutil.rmtree(folder.path("run"))
    with supervisor._wake, supervisor._woken:
        supervisor._woken.setblocking(False)
        for ago, seen in ((IDLE - 5, False), (IDLE + 1, True)):
            supervisor._looked = time.monotonic() - ago
            supervisor._wake.send(b"orphan")
            supervisor._sleep()
            assert bool(supervisor.failure) is seen
    assert supervisor._patience() <= IDLE


def test_a_log_that_cannot_be_copied_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.log"
    path.write_text("a line\n" * 10)
    older = path.with_name("api.log.1")
    older.write_text("older")
    monkeypatch.setattr(shutil, "copyfile", _none)
    assert not logs.rotate(path, 10)
    assert (path.read_text(), older.read_text()) == ("a line\n" * 10, "older")
    monkeypatch.undo()
    assert logs.rotate(path, 10)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2"]


def test_a_standby_that_cannot_be_started_is_tried_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", _none)
    standby = Twin(folder, {})
    standby.keep()
    assert standby.process is None
    assert standby.due > time.monotonic()
