"""`headway logs`, `metrics`, `request-logs`: what is asked, what is shown, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapters.router.caddy import ACCESS_LOG
from headway.cli.main import cli
from headway.settings import Settings
from tests.unit.api_double import ApiDouble, Reply, events
from tests.unit.test_cli import E, double, home, process_env, run

__all__ = ["double", "home"]
WHERE = "--site acme-store --env feature-checkout"


def line(number: int, text: str, instance: str = "web.0", **more: Any) -> dict[str, Any]:
    at = "2026-06-24T14:31:20.114Z"
    row = {"id": number, "ts": at, "host_id": "local", "sequence": 3, "release_id": "rel_1", "stream": "stdout"}
    return {**row, "instance": instance, "line": text, **more}


def test_the_last_lines(double: ApiDouble) -> None:
    double.data("GET", f"{E}/logs", [line(1, "hello"), line(2, "evil \x1b[2J\x9b31m\u202etxt", "web.1")])
    done = run(f"logs {WHERE} --tail 5 --release rel_1 --instance web.0 --since 10m")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "2026-06-24T14:31:20.114Z 3/web.0 | hello",
        "2026-06-24T14:31:20.114Z 3/web.1 | evil 31mtxt",
    ]
    assert double.asked[-1].path.partition("?")[2] == "tail=5&release=rel_1&instance=web.0&since=10m"


def test_json_is_one_document_and_following_one_a_line(double: ApiDouble) -> None:
    double.data("GET", f"{E}/logs", [line(1, "a\x9b\u202e")])
    done = run(f"logs {WHERE} --json")
    assert json.loads(done.stdout)[0]["line"] == "a\x9b\u202e"
    assert "\x9b" not in done.stdout
    frames = [("log", line(1, "a")), ("ping", None), ("log", line(2, "b\x9b")), ("end", {"status": "gone"})]
    double.on("GET", f"{E}/logs", events(*frames))
    done = run(f"logs {WHERE} --follow --json")
    assert [json.loads(one)["line"] for one in done.stdout.splitlines()] == ["a", "b\x9b"]
    assert "\x9b" not in done.stdout


def test_following_resumes_where_the_connection_broke(double: ApiDouble) -> None:
    first = events(("log", line(1, "a")), ("log", line(2, "b")))
    last = events(("log", line(3, "c")), ("end", {}))
    double.on("GET", f"{E}/logs", first, Reply(503, {}), last)
    done = run(f"logs {WHERE} --follow")
    assert [text.partition("| ")[2] for text in done.stdout.splitlines()] == ["a", "b", "c"]
    asked = [one for one in double.asked if one.path == f"{E}/logs?tail=100"]
    assert [one.headers.get("last-event-id") for one in asked] == [None, "2", "2"]
    assert all(one.headers["accept"] == "text/event-stream" for one in asked)


def test_an_instance_has_a_colour_where_somebody_looks(double: ApiDouble) -> None:
    double.data("GET", f"{E}/logs", [line(1, "a"), line(2, "b", "web.1"), line(3, "c")])
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "headway", "logs", *WHERE.split()]
    process = subprocess.Popen(command, env={**process_env(double), "TERM": "xterm"}, stdout=follower)
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(20) == 0
    heads = [text.partition(b"2026")[0] for text in shown.splitlines()]
    assert heads[0] == heads[2] != heads[1]
    assert all(head.startswith(b"\x1b[") for head in heads)


def test_what_is_not_there(double: ApiDouble) -> None:
    double.problem("GET", f"{E}/logs", 404, "release.not_found", "not_found")
    assert run(f"logs {WHERE} --release rel_9").exit_code == 4
    assert run(f"logs {WHERE} --follow --release rel_9").exit_code == 4


@pytest.mark.parametrize("counted", ["services", "all"])
def test_metrics(double: ApiDouble, counted: str) -> None:
    tally = {"requests": 3, "status_2xx": 2, "status_3xx": 0, "status_4xx": 0, "status_5xx": 1, "bytes": 9}
    tally |= {"p50_ms": 1.5, "p95_ms": 2.0, "p99_ms": 2.0}
    found = {"access_log": counted, "total": tally, "minutes": [{"minute": "2026-06-24T14:31:00Z", **tally}]}
    double.data("GET", f"{E}/metrics", found)
    done = run(f"metrics {WHERE} --minutes 5")
    head, minute, total = done.stdout.splitlines()
    assert head.split() == ["MINUTE", "REQUESTS", "2XX", "3XX", "4XX", "5XX", "P50_MS", "P95_MS", "P99_MS", "BYTES"]
    assert minute.split() == ["2026-06-24T14:31:00Z", "3", "2", "0", "0", "1", "1.5", "2.0", "2.0", "9"]
    assert total.split()[:2] == ["total", "3"]
    assert ("HEADWAY_ACCESS_LOG" in done.stderr) == (counted != "all")
    assert double.asked[-1].path.endswith("?minutes=5")


def test_request_logs(double: ApiDouble) -> None:
    row = {"id": 1, "ts": "2026-06-24T14:31:20.114Z", "method": "GET", "path": "/\x1b[2Jx", "status": 200}
    double.data("GET", f"{E}/request-logs", [{**row, "duration_ms": 1.25, "bytes": 5, "unlisted": 0}])
    done = run(f"request-logs {WHERE} --tail 7")
    assert done.stdout.splitlines()[1].split() == ["2026-06-24T14:31:20.114Z", "GET", "/x", "200", "1.25", "5"]
    assert json.loads(run(f"request-logs {WHERE} --json").stdout)[0]["path"] == "/\x1b[2Jx"


@pytest.mark.parametrize(
    ("state", "wanted", "logged"), [("caddy", "services", True), ("caddy", "off", False), ("elsewhere", "all", False)]
)
def test_a_further_host_counts_requests_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, wanted: str, logged: bool
) -> None:
    """The log is written where the host worker of the same data folder looks for it."""
    monkeypatch.setenv("HEADWAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWAY_ACCESS_LOG", wanted)
    done = CliRunner().invoke(cli, ["web-config", "--output", f"{tmp_path}/c.json", "--state", f"{tmp_path}/{state}"])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "c.json").read_text())
    assert ("logs" in config["apps"]["http"]["servers"]["sites"]) is logged
    if logged:
        written = config["logging"]["logs"]["access"]["writer"]["filename"]
        assert written == str(Settings().path("caddy", ACCESS_LOG))
        assert (tmp_path / "caddy").is_dir()
