"""Which driver keeps a host's apps: written beside them, and not changed under them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from adapters.runtime import choice
from adapters.runtime.choice import Choice, Means, recorded, take
from adapters.runtime.process.driver import ProcessDriver
from adapters.runtime.systemd import SystemdDriver
from headway.errors import HeadwayError
from headway.supervisor.examine_machine import services
from headway.supervisor.folder import Folder
from tests.runtime.stage import Stage


def refused(chosen: Choice, state: Path) -> str:
    with pytest.raises(HeadwayError) as caught:
        take(chosen, state, Means())
    assert caught.value.code == "runtime.driver_unusable"
    return caught.value.message


def test_without_a_word_it_is_the_embedded_one(place: Path) -> None:
    state = place / "state"
    assert recorded(state) == Choice("process")
    assert isinstance(take(Choice(), state, Means()), ProcessDriver)
    assert not (state / choice.FILE).exists()


def test_what_a_machine_has_not_is_refused_at_the_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = place / "state"
    assert "HEADWAY_ENGINE_IMAGE" in refused(Choice("docker", "/nowhere.sock", ""), state)
    assert "does not answer" in refused(Choice("docker", str(place / "nowhere.sock"), "apps:1"), state)
    monkeypatch.setattr(choice, "SYSTEMD", place / "nothing")
    assert "PID 1" in refused(Choice("systemd"), state)
    assert recorded(state) == Choice("process")


@pytest.mark.skipif(os.geteuid() != 0, reason="units belong to root")
def test_a_driver_is_not_changed_under_what_runs(box: Stage, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "SYSTEMD", place)
    state, ref = place / "state", box.serve()
    said = refused(Choice("systemd"), state)
    assert str(ref) in said
    assert "headway apps stop" in said
    assert box.answers(ref)
    box.driver.stop(ref, 5.0)
    assert isinstance(take(Choice("systemd"), state, Means()), SystemdDriver)
    assert recorded(state).kind == "systemd"
    assert box.driver.list() == [], "what was stopped under the one before is forgotten"


def test_doctor_says_from_what_is_written_who_keeps_the_apps(place: Path) -> None:
    folder = Folder(place / "data")
    state = folder.path("host", "run")
    state.mkdir(parents=True)
    (state / choice.FILE).write_text(
        json.dumps({"kind": "docker", "engine": str(place / "gone.sock"), "image": "apps:1"})
    )
    [found] = services(folder)
    assert (found.level, "does not answer" in found.what, "docker" in found.fix) == ("failure", True, True)


def test_what_cannot_be_looked_at_is_not_left_behind(place: Path) -> None:
    state = place / "state"
    state.mkdir()
    record = {"kind": "docker", "engine": str(place / "gone.sock"), "image": "apps:1"}
    (state / choice.FILE).write_text(json.dumps(record))
    assert choice.FILE in refused(Choice(), state)
    (state / choice.FILE).write_text("{")
    with pytest.raises(HeadwayError) as caught:
        recorded(state)
    assert caught.value.code == "stack.folder_invalid"
