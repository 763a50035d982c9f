"""One-off commands on the real stack: same release, configuration and walls; streamed, counted once, canceled."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest

from adapters.hosting.turns import AT_ONCE
from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewRepository
from tests.stack.service_app import service
from tests.stack.sites import Place, refusal
from tests.stack.test_services import component, instances, until

Json = dict[str, Any]


@pytest.fixture(scope="module")
def place(stack: Stack, caller: Caller, new_repository: NewRepository) -> Place:
    """A service that is served, with a secret."""
    repository = new_repository(service("first"))
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri(), runtime="auto")
    made = Place(stack, caller, site, repository)
    path = made.path(site.production, "secrets", "TOKEN")
    caller.http.put(path, json={"value": "canary-5b2e8d"}).raise_for_status()
    made.push()
    return made


def run(place: Place, *command: str, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    words, env = words_of(place, *command)
    stdin = None if given is not None else subprocess.DEVNULL
    done = subprocess.run(words, env=env, capture_output=True, input=given, stdin=stdin, timeout=180, check=False)
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


def words_of(place: Place, *command: str) -> tuple[list[str], dict[str, str]]:
    env = {**os.environ, "HEADWAY_API_URL": place.stack.api, "HEADWAY_TOKEN": place.stack.key}
    words = [sys.executable, "-m", "headway", "run", "--site", place.site.id, "--env", "production", "--", *command]
    return words, env


def start(place: Place, command: str, **more: Any) -> Json:
    job: Json = place.caller.post(place.path(place.site.production, "run"), {"command": command, **more})
    return job


def test_a_command_finds_what_the_release_has_and_its_exit_code_is_carried(place: Place) -> None:
    script = "ls; echo with $TOKEN; test $TOKEN = canary-5b2e8d && echo complaint >&2; exit 7"
    done = run(place, "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[-1] == "with [TOKEN redacted]"
    assert "app.py" in done.stdout
    assert "complaint" in done.stderr
    # The app beside it is what it was, and nobody starts the command again.
    assert place.page().text == "first None canary-5b2e8d"
    serving = [one for one in instances(place) if one.ref.process == "web"]
    assert [one.state for one in serving] == ["running"]


def test_a_command_finds_what_it_is_given_and_nobody_keeps_it(place: Place) -> None:
    given = b"canary-7d1f40 \x00\xff" + os.urandom(9 << 20)
    done = run(place, "sh", "-c", "sha256sum; wc -c", given=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{hashlib.sha256(given).hexdigest()}  -", "0"]
    for folder in ("db", "temporal", "events", "observed", "host", "run"):
        for path in (place.stack.data / folder).rglob("*"):
            if path.is_file():
                assert b"canary-7d1f40" not in path.read_bytes(), path


def test_who_goes_away_in_the_middle_of_an_input_has_run_nothing(place: Place) -> None:
    before = [job["id"] for job in place.caller.http.get("/v1/jobs").json()["data"]]
    words, env = words_of(place, "cat")
    with subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdin is not None
        one.stdin.write(b"x" * (17 << 20))
        one.stdin.flush()
        until(lambda: [*(place.stack.data / "events" / "inputs").glob("*.part")], "its first part is there")
        one.kill()
    assert [job["id"] for job in place.caller.http.get("/v1/jobs").json()["data"]] == before


def test_a_command_has_the_walls_of_an_instance_and_its_time(place: Place) -> None:
    port = place.stack.api.rpartition(":")[2]
    reach = f"import socket; socket.create_connection(('127.0.0.1', {port}), 3)"
    job = place.caller.finish(start(place, f'python3 -c "{reach}" || cat /etc/shadow || ls {place.stack.data}'))
    assert job["result"]["exit_code"] != 0
    assert job["result"]["release_id"] == place.releases(place.site.production)[0]["id"]
    job = place.caller.finish(start(place, "sleep 600", timeout=1))
    assert job["result"]["exit_code"] == 137


def test_a_canceled_command_ends_with_all_that_it_started(place: Place) -> None:
    job = start(place, "sleep 601 & echo begun; sleep 602; wait")
    until(lambda: runs(place), "it runs")
    place.caller.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    ended = place.ended(job)
    assert (ended["status"], ended["error"]["code"]) == ("canceled", "job.canceled")
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 601" not in processes
    assert "sleep 602" not in processes


def runs(place: Place) -> bool:
    return any(one.ref.process.startswith("run-") and one.pid for one in instances(place))


@pytest.mark.slow
def test_a_killed_host_worker_joins_the_command_and_runs_it_once(place: Place) -> None:
    job = start(place, "echo once; sleep 8; exit 3")
    until(lambda: runs(place), "it runs")
    os.kill(component(place.stack, "host"), 9)
    ended = place.caller.finish(job)
    assert ended["result"]["exit_code"] == 3
    told = place.caller.http.get(f"/v1/jobs/{job['id']}/stream", headers={"Last-Event-ID": "0"}).text
    assert told.count('"line":"once"') == 1


def test_what_has_no_instances_runs_nothing(stack: Stack, caller: Caller, new_repository: NewRepository) -> None:
    repository = new_repository({"index.html": "page"})
    site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri())
    still = Place(stack, caller, site, repository)
    path = still.path(site.production, "run")
    assert refusal(caller.http.post(path, json={"command": "ls"}), 409)["code"] == "release.none"
    still.push()
    answer = caller.http.post(path, json={"command": "ls"})
    assert refusal(answer, 409)["code"] == "environment.capability_unsupported"
    assert refusal(caller.http.post(path, json={"command": ""}), 400)["code"] == "request.invalid_parameter"


@pytest.mark.slow
def test_a_host_full_of_commands_says_so_and_rolls_back_all_the_same(place: Place) -> None:
    place.repository.commit(service("second"))
    place.push()
    jobs = [start(place, "sleep 600") for _ in range(AT_ONCE)]
    until(
        lambda: sum(one.ref.process.startswith("run-") and bool(one.pid) for one in instances(place)) == AT_ONCE, "all"
    )
    late = start(place, "echo at last")

    def told() -> str:
        path = place.stack.data / "events" / f"{late['id']}.jsonl"
        return path.read_text() if path.exists() else ""

    until(lambda: "waits for its turn" in told(), "who waits is told")
    assert place.caller.finish(place.start_rollback(place.site.production))["status"] == "succeeded"
    assert place.caller.get(f"/v1/jobs/{late['id']}")["status"] == "running"
    place.caller.http.post(f"/v1/jobs/{jobs[0]['id']}/cancel").raise_for_status()
    assert place.caller.finish(late)["result"]["exit_code"] == 0
    for job in jobs[1:]:
        place.caller.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
