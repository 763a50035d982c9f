"""What a container adds to the promises of all drivers."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from adapters.redaction import forms_of
from adapters.runtime.docker import DockerDriver, Setup
from headway.errors import HeadwayError
from tests.runtime.stage import Stage, until

pytestmark = pytest.mark.containers
SECRET = "hunter2-of-the-engine"


def test_a_container_is_shut_in(docker_box: Stage) -> None:
    driver = docker_box.driver
    assert isinstance(driver, DockerDriver)
    ref = docker_box.serve()
    host = driver._http.get(f"/containers/{driver._name(ref)}/json").json()["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (256 << 20, 256 << 20, 64)
    said = docker_box.text(ref, "/connect", host="192.0.2.1", port=443)
    assert said.startswith(("OSError 101", "TimeoutError")), said
    status = json.loads(docker_box.get(ref, "/whoami"))["status"]
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (int(facts["CapEff"], 16), facts["NoNewPrivs"]) == (0, "1")


def test_a_way_out_is_refused_and_not_forgotten(docker_box: Stage) -> None:
    with pytest.raises(HeadwayError) as caught:
        docker_box.driver.ensure(docker_box.spec(egress=("example.com",)))
    assert caught.value.code == "runtime.egress_refused"


def test_secrets_are_not_in_what_the_engine_keeps(docker_box: Stage, place: Path) -> None:
    inner = docker_box.driver
    assert isinstance(inner, DockerDriver)
    (place / "key").touch()
    (place / "sealed.json").write_text(json.dumps({"TOKEN": SECRET, "ODD": "it's $HOME `x`"}))
    driver = DockerDriver(
        Setup(
            inner._setup.socket,
            inner._setup.image,
            place / "state",
            key_file=place / "key",
            opener="tests.runtime.opener:open_plain",
        )
    )
    stage = Stage(driver, docker_box.tree)
    ref = stage.serve(sealed=place / "sealed.json")
    try:
        env = json.loads(stage.get(ref, "/env"))
        assert (env["TOKEN"], env["ODD"]) == (SECRET, "it's $HOME `x`")
        assert SECRET not in driver._http.get(f"/containers/{driver._name(ref)}/json").text
        stage.get(ref, "/secrets", names="TOKEN")
        until(lambda: "plain [TOKEN redacted]" in stage.lines(ref), str(stage.lines(ref)))
        assert SECRET not in "\n".join(stage.lines(ref))
        kept = Path(driver._http.get(f"/containers/{driver._name(ref)}/json").json()["LogPath"]).read_text()
        assert "plain [TOKEN redacted]" in kept
        assert not [form for form in forms_of(SECRET) if form.decode() in kept]
    finally:
        driver.remove(ref)
        driver.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_is_away_is_said_so(place: Path) -> None:
    driver = DockerDriver(Setup(place / "none.sock", "image", place / "state"))
    with pytest.raises(HeadwayError) as caught:
        driver.list()
    assert (caught.value.code, caught.value.retryable) == ("runtime.unavailable", True)
    driver.close()
    del caught
    gc.collect()  # the HTTP library leaves the socket that did not connect to the collector
