"""The embedded stack itself, by the commands that people type. One stack for the module: it takes seconds to start."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from headway.supervisor import identity
from headway.supervisor.components import SEARCH_ATTRIBUTES, WORKERS
from headway.supervisor.folder import Folder, read_json, read_record, s3_credentials
from headway.supervisor.plan import Plan
from temporal import names
from tests.stack.dummies import eventually


def headway(*words, check=True, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY_", "DATABASE_URL"))}
    return subprocess.run(
        [sys.executable, "-P", "-m", "headway", *words],
        capture_output=True,
        text=True,
        timeout=170,
        env={**clean, **environment},
        check=check,
    )


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def shown(tmp_path_factory, repositories):
    """The folder of a running stack, and what `up` printed."""
    root = tmp_path_factory.mktemp("stack") / "d"
    first = headway("up", "--detach", "--port", "0", "--data-dir", str(root), "--local-repos", str(repositories))
    yield Folder(root), first.stdout
    headway("down", "--data-dir", str(root))


@pytest.fixture
def folder(shown):
    return shown[0]


def components(folder):
    return [one for one in Plan.read(folder).components if not one.once]


def pids(folder):
    return {one.name: read_record(folder.record(one.name))["pid"] for one in components(folder)}


def living(folder):
    return {name for name in pids(folder) if identity.alive(read_record(folder.record(name)))}


def get(url, token=""):
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=10)
    return answer.status_code, answer.content


def test_up_shows_each_component_and_where_things_are(shown):
    folder, output = shown
    told = [line.split()[0] for line in output.splitlines() if line.endswith(" s") and line.startswith("  ")]
    assert set(told) == {one.name for one in Plan.read(folder).components}
    for part in ("/docs", "Temporal UI", ".localhost:", str(folder.path("admin.key"))):
        assert part in output


def test_the_endpoints_answer(folder):
    endpoints = read_json(folder.endpoints)
    assert set(endpoints) == {"api", "sites", "temporal", "temporal_ui", "s3"}
    assert get(endpoints["api"] + "/docs")[0] == 200
    assert get(endpoints["temporal_ui"])[0] == 200
    assert get(endpoints["s3"] + "/healthz")[0] == 200
    host, port = endpoints["temporal"].split(":")
    socket.create_connection((host, int(port)), 5).close()


def test_the_first_key_is_private_and_works(folder):
    key = folder.path("admin.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    status, body = get(read_json(folder.endpoints)["api"] + "/v1/sites", key.read_text().strip())
    assert status == 200
    assert json.loads(body)["data"] == []


def test_doctor_is_content(folder):
    done = headway("doctor", "--json", "--data-dir", str(folder.root), check=False)
    findings = json.loads(done.stdout)["findings"]
    assert [one for one in findings if one["level"] == "failure"] == []
    assert done.returncode == 0
    seen = {one["name"] for one in findings}
    assert {"object store", "web server", "Temporal", "database", "user namespaces", "queue builders"} <= seen


def test_closed_runs_outlive_jobs_and_are_found_by_our_attributes(folder):
    retention = next(one for one in Plan.read(folder).components if one.name == "retention")
    address = read_json(folder.endpoints)["temporal"]
    asked = [
        retention.argv[0],
        "operator",
        "namespace",
        "describe",
        "-n",
        "default",
        "--address",
        address,
        "-o",
        "json",
    ]
    described = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    kept = described["config"]["workflowExecutionRetentionTtl"]
    assert int(kept.removesuffix("s")) > 30 * 24 * 3600
    ours = (names.SITE_ATTRIBUTE, names.ENVIRONMENT_ATTRIBUTE, names.JOB_TYPE_ATTRIBUTE)
    assert (*ours, names.COMMIT_ATTRIBUTE, names.DIGEST_ATTRIBUTE) == SEARCH_ATTRIBUTES


def test_everything_listens_on_loopback_only(folder):
    inodes = set()
    for pid in pids(folder).values():
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            inodes |= {target[8:-1]} if target.startswith("socket:") else set()
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as file:
            rows = [line.split() for line in file.readlines()[1:]]
        listening += [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert len(listening) > 15
    assert set(listening) == {"0100007F"}


def test_builders_and_hosts_are_given_no_keys_of_the_object_store(folder):
    access, secret = s3_credentials(folder)
    given = {one.name: one.environment(folder) for one in components(folder)}
    with_keys = {name for name, environment in given.items() if secret in environment.values()}
    assert with_keys == {"api", "control", "signing"}
    for name in WORKERS:
        assert given[name]["HEADWAY_BROKER_TOKEN_FILE"].endswith(f"secrets/broker-{name}.token")
    arguments = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids(folder).values())
    tokens = [path.read_bytes() for path in folder.path("secrets").glob("*.token")]
    assert not [one for one in (access.encode(), secret.encode(), *tokens) if one in arguments]
    logged = b"".join(path.read_bytes() for path in folder.path("logs").iterdir())
    assert not [one for one in (secret.encode(), *tokens) if one in logged]


def test_a_killed_supervisor_is_succeeded_and_everything_serves_on(folder):
    before, supervisor = pids(folder), read_record(folder.record("supervisor"))["pid"]
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: read_record(folder.record("supervisor")).get("pid") not in (None, supervisor))
    eventually(lambda: read_record(folder.record("supervisor")).get("state") == "healthy", 60)
    assert pids(folder) == before
    assert living(folder) == set(before)


@pytest.mark.parametrize("name", ["weed", "temporal", "caddy", "rules", "control", "host", "nursery", "api"])
def test_a_killed_component_is_back(folder, name):
    before = read_record(folder.record(name))["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: read_record(folder.record(name)).get("pid") != before, 60)
    state = lambda: read_record(folder.record("supervisor"))["components"][name]  # noqa: E731
    eventually(lambda: state()["state"] == "ready" and state()["pid"] != before, 120)


def test_up_on_a_running_stack_changes_nothing(folder, repositories):
    before = pids(folder)
    headway("up", "--detach", "--data-dir", str(folder.root), "--local-repos", str(repositories))
    assert pids(folder) == before


def test_down_and_up_again_continues_at_the_same_addresses(folder, repositories):
    endpoints, key = read_json(folder.endpoints), folder.path("admin.key").read_text()
    headway("down", "--data-dir", str(folder.root))
    assert living(folder) == set()
    assert not folder.endpoints.exists()
    assert "Nothing runs" in headway("down", "--data-dir", str(folder.root)).stdout
    # Two at once: the second waits for the first, finds everything running, and is content.
    words = ["up", "--detach", "--data-dir", str(folder.root), "--local-repos", str(repositories)]
    both = [subprocess.Popen([sys.executable, "-P", "-m", "headway", *words], stdout=subprocess.DEVNULL) for _ in "ab"]
    assert [one.wait(170) for one in both] == [0, 0]
    restarts = [one["restarts"] for one in read_record(folder.record("supervisor"))["components"].values()]
    assert not any(restarts)
    assert read_json(folder.endpoints) == endpoints
    assert folder.path("admin.key").read_text() == key
    assert get(endpoints["api"] + "/v1/sites", key.strip())[0] == 200


def test_down_with_a_dead_supervisor_stops_everything(folder, repositories):
    os.kill(read_record(folder.record("twin"))["pid"], signal.SIGKILL)
    os.kill(read_record(folder.record("supervisor"))["pid"], signal.SIGKILL)
    assert len(living(folder)) == len(components(folder))
    headway("down", "--data-dir", str(folder.root))
    assert living(folder) == set()
