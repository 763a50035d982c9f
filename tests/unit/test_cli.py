"""The command line: help, where the key comes from, what is printed where, exit codes, and following a job."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import zstandard
from click.testing import CliRunner, Result

from adapters.artifact.manifest import File, make_manifest
from adapters.signer.bundle import attest
from adapters.signer.keys import create_key
from adapters.signer.statement import BuildFacts, statement
from api.managed import schemas
from headway import transport
from headway.cli import builds, deploy, jobs, main
from headway.cli.doctor import summary
from headway.cli.main import COMMANDS, cli
from headway.cli.output import clean, print_json
from headway.cli.profile import find_target, profile_path, write_profile
from headway.cli.session import Duration
from headway.errors import HeadwayError
from tests.unit.api_double import ApiDouble, Reply, events, problem, running

SITE = "site_01KVT00000000000000000000A"
ENV = "env_01KVT00000000000000000000A"
JOB = "job_01KVT00000000000000000000A"
E = f"/v1/sites/{SITE}/environments/{ENV}"
PUBLISHED = "build --site acme-store --env feature-checkout --ref feature/checkout --wait"
CLEAN = ("HEADWAY_API_URL", "FORGE_API_URL", "HEADWAY_TOKEN", "FORGE_TOKEN", "MANAGED_TOKEN")


def job(status: str = "queued", **fields: Any) -> dict[str, Any]:
    row = {"id": JOB, "type": "build.run", "status": status, "progress": 0, "stage": None, "result": None}
    return {**row, "error": None, "resource": {"type": "build", "id": "build_1234", "env_id": ENV}, **fields}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(transport, "_pause", lambda *_: 0.0)
    return tmp_path


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    with running() as started:
        monkeypatch.setenv("HEADWAY_API_URL", started.url)
        monkeypatch.setenv("HEADWAY_TOKEN", "mfk_live_secret")
        started.data("GET", "/v1/sites", [{"id": SITE, "name": "Acme", "slug": "acme-store"}])
        row = {"id": ENV, "site_id": SITE, "kind": "preview", "slug": "feature-checkout", "branch": "feature/checkout"}
        started.data("GET", f"/v1/sites/{SITE}/environments", [row])
        started.data("POST", f"{E}/builds", job(), status=202)
        yield started


def run(line: str, **kwargs: Any) -> Result:
    return CliRunner().invoke(cli, line.split(), prog_name="mf", **kwargs)


def process_env(double: ApiDouble) -> dict[str, str]:
    return {**os.environ, "HEADWAY_API_URL": double.url, "HEADWAY_TOKEN": "mfk_live_secret", "NO_COLOR": "1"}


# help


def test_help_names_every_command_and_loads_none() -> None:
    code = "import sys; from headway.__main__ import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    for name, (_, text) in COMMANDS.items():
        assert name in done.stdout
        assert text in done.stdout
    loaded = done.stdout.split()
    assert {"httpx", "rich", "pydantic", "sigstore", "temporalio", "headway.cli.builds"}.isdisjoint(loaded)


LAUNCHER = {"up", "down", "doctor", "api", "worker", "rules", "migrate"}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - LAUNCHER))
def test_every_command_has_help(name: str) -> None:
    done = run(f"{name} --help")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: mf {name}")


def test_commands_of_the_api_take_json(double: ApiDouble) -> None:
    for name in ("sites list", "env list", "build", "builds log", "deploy", "rollback", "jobs watch", "keys roll"):
        assert "--json" in run(f"{name} --help").output, name


# where server and key come from


def test_precedence_of_variables() -> None:
    everything = {
        "HEADWAY_API_URL": "http://a.test",
        "FORGE_API_URL": "http://b.test",
        "HEADWAY_TOKEN": "one",
        "FORGE_TOKEN": "two",
        "MANAGED_TOKEN": "three",
        "XDG_CONFIG_HOME": "/nonexistent",
    }
    seen = []
    for name in ("", "HEADWAY_TOKEN", "FORGE_TOKEN", "MANAGED_TOKEN"):
        everything.pop(name, None)
        seen.append(find_target(everything).token)
    assert seen == ["one", "two", "three", None]
    assert find_target(everything).api_url == "http://a.test"
    assert find_target({**everything, "HEADWAY_API_URL": ""}).api_url == "http://b.test"
    assert find_target(everything, api_url="http://c.test", token="four") == find_target(
        {"XDG_CONFIG_HOME": "/nonexistent"}, api_url="http://c.test", token="four"
    )


def test_the_profile_comes_last_and_its_key_stays_with_its_server(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    write_profile(profile_path(environ), "http://a.test/", 'k"e\\y')
    assert stat.S_IMODE(profile_path(environ).stat().st_mode) == 0o600
    assert find_target(environ).token == 'k"e\\y'
    assert find_target({**environ, "FORGE_TOKEN": "x"}).token == "x"
    assert find_target({**environ, "FORGE_TOKEN": "x"}).api_url == "http://a.test/"
    assert find_target({**environ, "HEADWAY_API_URL": "http://a.test"}).token == 'k"e\\y'
    assert find_target({**environ, "HEADWAY_API_URL": "http://evil.test"}).token is None
    assert find_target(environ, api_url="http://evil.test").token is None


def test_a_profile_that_others_may_read_is_refused(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    write_profile(profile_path(environ), "http://a.test", "x")
    profile_path(environ).chmod(0o644)
    with pytest.raises(HeadwayError, match="chmod 600"):
        find_target(environ)


def test_without_a_key_it_says_how_to_get_one() -> None:
    done = run("sites list")
    assert done.exit_code == 3
    assert "mf login" in done.stderr


def test_login_reads_the_key_from_stdin(double: ApiDouble, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double.data("GET", "/v1/account", {"account": {"name": "Ada"}, "team": {"name": "Shop"}, "role": "owner"})
    monkeypatch.delenv("HEADWAY_TOKEN")
    done = run("login", input="mfk_live_fromstdin\n")
    assert done.exit_code == 0, done.output
    assert "Ada" in done.stderr
    assert double.asked[-1].headers["authorization"] == "Bearer mfk_live_fromstdin"
    assert "mfk_live_fromstdin" in (home / "config/headway/profile.toml").read_text()
    assert "mfk_live_fromstdin" not in done.output
    monkeypatch.delenv("HEADWAY_API_URL")
    assert json.loads(run("whoami --json").stdout)["role"] == "owner"
    assert double.asked[-1].headers["authorization"] == "Bearer mfk_live_fromstdin"


def test_a_wrong_key_is_not_kept(double: ApiDouble, home: Path) -> None:
    double.problem("GET", "/v1/account", 401, "auth.invalid_key", "authentication")
    assert run("login", input="mfk_live_wrong\n").exit_code == 3
    assert not (home / "config/headway/profile.toml").exists()


def test_a_key_as_an_argument_is_warned_about(double: ApiDouble) -> None:
    done = run("sites list --token mfk_live_argv --json")
    assert "HEADWAY_TOKEN" in done.stderr
    assert "mfk_live_argv" not in done.output
    assert double.asked[-1].headers["authorization"] == "Bearer mfk_live_argv"


# output and exit codes


def test_lists_are_tables_or_json(double: ApiDouble) -> None:
    table = run("sites list").stdout.splitlines()
    assert table[0].split() == ["SLUG", "ID", "STATUS", "BRANCH", "REPOSITORY", "CREATED"]
    assert table[1].startswith("acme-store")
    assert json.loads(run("sites list --json").stdout) == [{"id": SITE, "name": "Acme", "slug": "acme-store"}]


def test_json_of_a_stranger_is_safe_on_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "\x9b2J\u202egnp.exe", "line": "\x1b[2J\x7f", "plain": "Zürich ✓"}
    print_json(document)
    shown = capsys.readouterr().out
    assert json.loads(shown) == document
    assert not set(shown) & set("\x9b\u202e\x1b\x7f")
    assert "Zürich ✓" in shown


def test_what_others_named_cannot_drive_the_terminal(double: ApiDouble) -> None:
    double.data("GET", "/v1/sites", [{"id": SITE, "name": "x", "slug": "a\x1b[2Jb\x1b]0;title\x07c\u202ed\re"}])
    assert run("sites list").stdout.splitlines()[1].split()[0] == "abcde"
    assert clean("\x1b[31mred\x1b[0m\tx\x9b1m") == "red    x1m"


@pytest.mark.parametrize(
    ("status", "code", "type", "exit_code"),
    [
        (400, "request.invalid_parameter", "invalid_request", 2),
        (401, "auth.expired_key", "authentication", 3),
        (403, "scope.insufficient", "permission", 3),
        (404, "site.not_found", "not_found", 4),
        (409, "environment.suspended", "conflict", 5),
        (410, "artifact.collected", "conflict", 5),
        (402, "quota.exceeded", "quota_exceeded", 6),
        (429, "rate_limit.exceeded", "rate_limit", 6),
        (500, "internal.error", "api_error", 7),
        (503, "service.unavailable", "api_error", 7),
        (418, "moon.full", "api_error", 7),
    ],
)
def test_exit_codes(double: ApiDouble, status: int, code: str, type: str, exit_code: int) -> None:
    double.problem("GET", "/v1/sites", status, code, type)
    done = run("sites list")
    assert done.exit_code == exit_code
    assert done.stdout == ""
    assert f"About {code}. [{code}]" in done.stderr
    assert "request id: req_TEST" in done.stderr
    answered = json.loads(run("sites list --json").stdout)
    assert (answered["error"]["code"], answered["request_id"]) == (code, "req_TEST")


@pytest.mark.parametrize(
    "line",
    [
        "build",
        "sites nonsense",
        "deploy --site s --env e",
        f"{PUBLISHED} --timeout never",
        "deploy --site s --env e --ref r --build b",
    ],
)
def test_usage_errors(double: ApiDouble, line: str) -> None:
    assert run(line).exit_code == 2
    assert double.asked == []


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TOKEN", "x")
    done = run("sites list --api-url http://127.0.0.1:1")
    assert done.exit_code == 7
    assert "Cannot reach http://127.0.0.1:1" in done.stderr


def test_the_version_and_the_key_of_a_request_are_sent(double: ApiDouble) -> None:
    done = run("build --site acme-store --env feature-checkout --idempotency-key once --forge-version 2026-06-23")
    assert done.exit_code == 0, done.output
    [asked] = double.calls("POST", f"{E}/builds")
    assert asked.headers["idempotency-key"] == "once"
    assert asked.headers["forge-version"] == "2026-06-23"
    assert asked.body == {}
    assert JOB in done.stdout
    assert f"mf jobs watch {JOB}" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("1.5s", 1.5), ("5m", 300.0), ("2h", 7200.0), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


# following


def test_what_a_command_prints_goes_to_a_pipe_as_it_is(double: ApiDouble) -> None:
    ended = job("succeeded", result={"exit_code": 3})
    said = [("log", {"stream": "stdout", "line": "1\ttwo\x1b[1m"}), ("log", {"stream": "stderr", "line": "\tno"})]
    double.data("POST", f"{E}/run", job("queued"), status=202)
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(*said, ("job", ended), ("end", {"status": "succeeded"})))
    done = run("run --site acme-store --env feature-checkout --no-input -- cat data.tsv")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "1\ttwo\x1b[1m\n", "\tno\n")


def test_the_published_line(double: ApiDouble) -> None:
    ended = job("succeeded", progress=100, result={"artifact_id": "art_1234", "digest": "sha256:ab"})
    double.on(
        "GET",
        f"/v1/jobs/{JOB}/stream",
        events(
            ("job", job("running", stage="build")),
            ("log", {"stage": "build", "line": "npm ci \x1b[31m!"}),
            ("job", ended),
            ("end", {"status": "succeeded"}),
        ),
    )
    done = run(PUBLISHED)
    assert done.exit_code == 0, done.output
    [asked] = double.calls("POST", f"{E}/builds")
    assert asked.body == {"ref": "feature/checkout"}
    assert done.stderr.splitlines() == [f"{JOB}  running build", "  build | npm ci !", f"{JOB}  succeeded"]
    assert "art_1234" in done.stdout
    as_json = run(f"{PUBLISHED} --json")
    assert json.loads(as_json.stdout)["result"] == ended["result"]


def reproduction(double: ApiDouble, *pages: str) -> None:
    """Two builds of one commit, whose page has these contents."""
    jobs = []
    for number, page in enumerate(pages):
        sha256 = hashlib.sha256(page.encode()).hexdigest()
        manifest = make_manifest([File("index.html", "644", len(page), sha256), File("a.css", "644", 1, "a" * 64)])
        row = {"id": f"art_{number}", "site_id": SITE, "digest": f"sha256:{manifest.digest}"}
        double.data("GET", f"{E}/artifacts/art_{number}", {**row, "links": {"manifest": f"/m/{number}"}})
        double.on("GET", f"/m/{number}", Reply(200, manifest.raw, {"Content-Type": "application/json"}))
        result = {"artifact_id": row["id"], "digest": row["digest"], "commit_sha": "c0ffee"}
        ended = {**job("succeeded", result=result), "id": f"{JOB[:-1]}{number}"}
        jobs.append(Reply(202, {"data": {**job(), "id": ended["id"]}, "request_id": "req_TEST"}))
        double.on("GET", f"/v1/jobs/{ended['id']}/stream", events(("job", ended), ("end", {"status": "succeeded"})))
    double.on("POST", f"{E}/builds", *jobs)


REPRODUCE = "build --site acme-store --env feature-checkout --ref main --reproduce"


def test_the_same_commit_built_again_to_the_same_bytes(double: ApiDouble) -> None:
    reproduction(double, "one", "one")
    done = run(f"{REPRODUCE} --idempotency-key k")
    assert done.exit_code == 0, done.output
    asked = double.calls("POST", f"{E}/builds")
    assert [one.body for one in asked] == [{"ref": "main"}, {"ref": "c0ffee", "clean": True}]
    assert [one.headers["idempotency-key"] for one in asked] == ["k", "k-again"]
    assert "same bytes" in done.stderr


def test_files_that_differ_are_named(double: ApiDouble) -> None:
    reproduction(double, "one", "two")
    done = run(REPRODUCE)
    assert done.exit_code == 1
    assert "differs: index.html" in done.stderr
    assert "a.css" not in done.output
    reproduction(double, "one", "two")
    shown = json.loads(run(f"{REPRODUCE} --json").stdout)
    assert shown["reproduced"] is False
    assert [one["path"] for one in shown["differing"]] == ["index.html"]


def test_a_failed_job(double: ApiDouble) -> None:
    error = {"type": "invalid_request", "code": "build.step_failed", "message": "npm exited with 1.", "exit_code": 1}
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", job("failed", error=error)), ("end", {})))
    done = run(PUBLISHED)
    assert done.exit_code == 1
    assert "npm exited with 1. [build.step_failed]" in done.stderr
    assert "Read the build's log." in done.stderr
    assert "build_1234" in done.stderr
    assert json.loads(run(f"{PUBLISHED} --json").stdout)["error"] == error


def test_a_canceled_job_is_no_success(double: ApiDouble) -> None:
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", job("canceled")), ("end", {})))
    assert run(f"jobs watch {JOB}").exit_code == 1


def test_a_wait_that_ran_out(double: ApiDouble) -> None:
    frames = events(("job", job("running")), hang=True)
    double.on("GET", f"/v1/jobs/{JOB}/stream", frames)
    done = run(f"{PUBLISHED} --timeout 300ms")
    assert done.exit_code == 124
    assert f"mf jobs watch {JOB}" in done.stderr


def test_ctrl_c_stops_the_wait_and_not_the_job(double: ApiDouble) -> None:
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", job("running", stage="build")), hang=True))
    command = [sys.executable, "-m", "headway", "jobs", "watch", JOB]
    process = subprocess.Popen(
        command, env=process_env(double), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "running build" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"{JOB} goes on. Watch it again: headway jobs watch {JOB}" in err
    assert out == ""
    assert not double.calls("POST", f"/v1/jobs/{JOB}/cancel")


def test_a_terminal_shows_it_live(double: ApiDouble) -> None:
    frames = [
        ("job", job("running", stage="pack", progress=70)),
        ("log", {"stage": "build", "line": "[bold]npm[/] ci"}),
    ]
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(*frames, ("job", job("succeeded")), ("end", {})))
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "headway", "jobs", "watch", JOB, "--json"]
    environment = {**process_env(double), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    assert process.stdout is not None
    with process.stdout as stdout:
        out = stdout.read()
    assert process.wait(20) == 0
    shown = b""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert json.loads(out)["status"] == "succeeded"
    assert b"build | [bold]npm[/] ci" in shown
    assert b"build.run" in shown


# what verbs ask for


@pytest.mark.parametrize("given", ["../sites/site_1", "whe_1/deliveries", "whe_1?x=1", "..", "whe 1", "whe_1\udcff"])
def test_an_id_that_leads_elsewhere_is_asked_for_nowhere(double: ApiDouble, given: str) -> None:
    for word in ("get", "delete"):
        done = CliRunner().invoke(cli, ["webhooks", word, given], prog_name="mf")
        assert (done.exit_code, "is no id" in done.output) == (2, True)
    assert double.asked == []


def test_an_answer_that_nobody_expects_is_a_sentence(double: ApiDouble) -> None:
    double.data("GET", "/v1/webhook-endpoints/whe_1", ["odd"])
    done = run("webhooks get whe_1")
    assert done.exit_code == 7
    assert "is not what this version expects" in done.output


def test_a_terminal_without_our_letters_is_written_to() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-m", "headway", "--help"], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2026" in done.stdout


def test_rollback_goes_by_what_is_live(double: ApiDouble) -> None:
    """The same command is the same request, whatever is live by then."""
    double.data("POST", f"{E}/deployments/current/rollback", job(), status=202)
    assert run("rollback --site acme-store --env feature-checkout").exit_code == 0
    assert run("rollback --site acme-store --env feature-checkout --to rel_1").exit_code == 0
    asked = double.calls("POST", f"{E}/deployments/current/rollback")
    assert [one.body for one in asked] == [{}, {"release_id": "rel_1"}]


def test_what_is_done_about_an_environment(double: ApiDouble) -> None:
    for action in ("suspend", "resume", "restart", "scale"):
        double.data("POST", f"{E}/{action}", job(), status=202)
    where = "--site acme-store --env feature-checkout"
    for verb in ("suspend", "resume", "restart", "scale 3"):
        assert run(f"env {verb} {where}").exit_code == 0
    assert double.calls("POST", f"{E}/scale")[0].body == {"instances": 3}
    assert run(f"env scale 9 {where}").exit_code == 2
    environment = {"id": ENV, "site_id": SITE, "kind": "preview", "slug": "feature-checkout", "bake_seconds": 60}
    double.data("PATCH", E, environment)
    assert "60" in run(f"env set --bake 60 {where}").output
    assert double.calls("PATCH", E)[0].body == {"bake_seconds": 60}
    drift = {"id": "drift_1", "env_id": ENV, "kind": "current", "what": "`current` was gone", "found_at": "then"}
    double.data("GET", f"{E}/drifts", [drift])
    said = run(f"env drift {where}").output
    assert "`current` was gone" in said
    assert "not yet" in said


def test_rollback_of_nothing(double: ApiDouble) -> None:
    double.problem("POST", f"{E}/deployments/current/rollback", 409, "release.none", "conflict")
    assert run("rollback --site acme-store --env feature-checkout").exit_code == 5


@pytest.mark.parametrize("what", ["ref", "build_id", "artifact_id"])
def test_deploy_of_each_kind(double: ApiDouble, what: str) -> None:
    double.data("POST", f"/v1/sites/{SITE}/deployments", job(), status=202)
    option = what.removesuffix("_id")
    assert run(f"deploy --site acme-store --env feature-checkout --{option} x_1234").exit_code == 0
    assert double.asked[-1].body == {"target": ENV, what: "x_1234"}


def test_promote(double: ApiDouble) -> None:
    double.data("POST", f"{E}/promote", job(), status=202)
    assert run("promote --site acme-store --from feature-checkout --to feature-checkout").exit_code == 0
    assert double.asked[-1].body == {"to_env": ENV}


def test_deleting_asks_first(double: ApiDouble) -> None:
    double.data("DELETE", f"/v1/sites/{SITE}", job(), status=202)
    assert run("sites delete acme-store", input="n\n").exit_code != 0
    assert not double.calls("DELETE", f"/v1/sites/{SITE}")
    assert run("sites delete acme-store --yes").exit_code == 0


def test_a_keys_secret_is_shown_once(double: ApiDouble) -> None:
    double.data("POST", "/v1/api-keys", {"id": "key_1", "name": "ci", "secret": "mfs_live_x"}, status=201)
    done = run("keys create ci --preset deploy-bot --site acme-store")
    assert "mfs_live_x" in done.stdout
    assert double.asked[-1].body == {
        "name": "ci",
        "scopes": "deploy-bot",
        "resource": {"type": "site", "id": SITE},
    }
    assert run("keys create ci").exit_code == 2
    for where, pin in (
        ("--site acme-store --env feature-checkout", {"type": "environment", "id": ENV}),
        ("--project proj_1234", {"type": "project", "id": "proj_1234"}),
    ):
        assert run(f"keys create ci --preset deploy-bot {where}").exit_code == 0
        assert double.asked[-1].body["resource"] == pin
    for where in ("--env feature-checkout", "--project proj_1234 --site acme-store"):
        assert run(f"keys create ci --preset deploy-bot {where}").exit_code == 2


def test_what_doctor_says_at_last() -> None:
    assert summary(["ok", "ok"]) == "All 2 checks passed."
    assert summary(["ok", "warning"]) == "1 warned of something, 1 passed."
    assert summary(["ok", "warning", "failure"]) == "1 failed, 1 warned of something, 1 passed."


def test_a_setting_that_is_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWAY_API_PORT", "seven")
    for words in (["apps", "list"], ["worker", "--role", "control"]):
        with pytest.raises(SystemExit) as ended:
            main.run(words)
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith("headway: The setting api_port is wrong: ")
        assert said.count("\n") == 1
        assert "seven" not in said
    monkeypatch.setenv("HEADWAY_DISK_FLOOR", "1GB")
    told = json.loads(run(f"doctor --json --data-dir {tmp_path}").stdout)
    assert any("HEADWAY_DISK_FLOOR" in one["what"] for one in told["findings"] if one["level"] == "failure")


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/"])
def test_what_is_no_address_is_one_sentence(url: str) -> None:
    done = run(f"verify {url}")
    assert done.exit_code == 1
    assert "That is no address" in done.stderr


def test_a_builds_log(double: ApiDouble) -> None:
    row = {"id": "build_1234", "site_id": SITE, "env_id": ENV, "ref": "main", "status": "succeeded"}
    double.data("GET", f"{E}/builds/build_1234", row)
    double.on("GET", f"{E}/builds/build_1234/log", Reply(200, b"one\n\x1b[2Jtwo\n", {"Content-Type": "text/plain"}))
    assert run("builds log build_1234 --site acme-store").stdout == "one\ntwo\n"
    double.on("GET", f"{E}/builds/build_1234/log", events(("log", {"line": "one"}), ("end", {"status": "succeeded"})))
    assert run("builds log build_1234 --site acme-store --env feature-checkout --follow").stdout == "one\n"


# artifacts


@pytest.fixture
def artifact(double: ApiDouble, tmp_path: Path) -> dict[str, bytes]:
    """An artifact of two files and a link, served with its proof; answers the files."""
    files = {"index.html": b"<h1>hello</h1>", "a/b.txt": b"deep"}
    entries = [File(path, "644", len(body), hashlib.sha256(body).hexdigest()) for path, body in files.items()]
    manifest = make_manifest(list(entries))
    key = create_key(tmp_path / "keys")
    facts = BuildFacts(
        site_id=SITE,
        env_id=ENV,
        build_id="build_1234",
        digest=manifest.digest,
        repository="https://git.test/shop.git",
        ref="main",
        commit_sha="1" * 40,
        source_sha256="2" * 64,
    )
    base = f"{E}/artifacts/art_1234"
    row = {"id": "art_1234", "site_id": SITE, "digest": f"sha256:{manifest.digest}"}
    links = {name: f"{base}/{name}" for name in ("manifest", "bundle", "download", "public_key")}
    double.data("GET", "/v1/sites", [{"id": SITE, "name": "A", "slug": "acme-store", "production_env_id": ENV}])
    double.data("GET", base, {**row, "links": links})
    double.on("GET", links["manifest"], Reply(200, manifest.raw))
    double.on("GET", links["bundle"], Reply(200, attest(statement(facts), key)))
    double.on("GET", links["public_key"], Reply(200, key.pem))
    double.on("GET", links["download"], Reply(200, archive(files)))
    return files


def archive(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as packed:
        for path, body in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    return zstandard.ZstdCompressor().compress(raw.getvalue())


def test_fetch_and_verify(double: ApiDouble, artifact: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = run(f"artifacts fetch art_1234 --output {folder} --files")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "files", "key.pub", "manifest.json"]
    assert {path: (folder / "files" / path).read_bytes() for path in artifact} == artifact
    double.over.set()
    said = json.loads(run(f"artifacts verify {folder} --json").stdout)
    assert said["verified"] is True
    assert (said["files_checked"], said["commit_sha"], said["site_id"]) == (2, "1" * 40, SITE)
    assert run(f"artifacts verify {folder} --key {folder}/key.pub --site-id {SITE}").exit_code == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "files/index.html").write_text("evil"),
        lambda folder: (folder / "files/a/b.txt").unlink(),
        lambda folder: (folder / "files/more").write_text("x"),
        lambda folder: (folder / "bundle.json").write_text("{}"),
        lambda folder: (folder / "bundle.json").unlink(),
        lambda folder: (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b" "),
        lambda folder: (folder / "key.pub").write_bytes(create_key(folder / "other").pem),
    ],
)
def test_a_spoiled_folder_does_not_verify(
    double: ApiDouble, artifact: dict[str, bytes], tmp_path: Path, spoil: Any
) -> None:
    folder = tmp_path / "out"
    assert run(f"artifacts fetch art_1234 --output {folder} --files").exit_code == 0
    spoil(folder)
    done = run(f"artifacts verify {folder} --json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["verified"] is False


def test_an_artifact_of_another_site_does_not_verify(
    double: ApiDouble, artifact: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert run(f"artifacts fetch art_1234 --output {folder}").exit_code == 0
    assert run(f"artifacts verify {folder} --site-id site_01KVT00000000000000000000B").exit_code == 1


@pytest.mark.parametrize(
    "files",
    [
        {"index.html": b"evil", "a/b.txt": b"deep"},
        {"index.html": b"<h1>hello</h1>"},
        {"index.html": b"<h1>hello</h1>", "a/b.txt": b"deep", "../../evil": b"x"},
        {"/etc/evil": b"x"},
    ],
)
def test_an_archive_that_is_not_the_manifests_leaves_nothing(
    double: ApiDouble, artifact: dict[str, bytes], tmp_path: Path, files: dict[str, bytes]
) -> None:
    double.on("GET", f"{E}/artifacts/art_1234/download", Reply(200, archive(files)))
    folder = tmp_path / "deep" / "out"
    done = run(f"artifacts fetch art_1234 --output {folder} --files")
    assert done.exit_code == 7
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_swapped_bundle_is_not_fetched(double: ApiDouble, artifact: dict[str, bytes], tmp_path: Path) -> None:
    double.on("GET", f"{E}/artifacts/art_1234/bundle", Reply(200, b"{}"))
    done = run(f"artifacts fetch art_1234 --output {tmp_path / 'out'}")
    assert done.exit_code == 5
    assert "artifact.signature_invalid" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_artifact(double: ApiDouble, tmp_path: Path) -> None:
    double.data("GET", "/v1/sites", [{"id": SITE, "name": "A", "slug": "acme-store", "production_env_id": ENV}])
    double.on("GET", f"{E}/artifacts/art_1234", problem(404, "artifact.not_found", "not_found"))
    assert run(f"artifacts fetch art_1234 --output {tmp_path}").exit_code == 4


def test_the_plan_of_a_folder_is_shown_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text("site_name: Weir\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Herons\n")
    told = CliRunner().invoke(cli, ["plan", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert told.output.startswith("plan from mkdocs.yml: static (MkDocs)")
    shown = json.loads(CliRunner().invoke(cli, ["plan", str(tmp_path), "--json"]).output)
    assert (shown["framework"], shown["outputs"][0]) == ("MkDocs", "site")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs", "mkdocs.yml"]


def test_what_cannot_be_planned_is_told(tmp_path: Path) -> None:
    (tmp_path / "headway.toml").write_text("[build]\ncomand = 'x'\n")
    refused = CliRunner().invoke(cli, ["plan", str(tmp_path)])
    assert isinstance(refused.exception, HeadwayError)
    assert "comand" in refused.exception.message


def test_a_place_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_words: object, **_how: object) -> None:
        (tmp_path / "gone" / "shop.tar").write_bytes(b"")

    monkeypatch.setattr(cli, "main", write)
    with pytest.raises(SystemExit) as ended:
        main.run(["export"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"headway: {tmp_path}/gone/shop.tar: No such file or directory.\n"


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (jobs.JOB_STATES, schemas.JobStatus),
        (jobs.RESOURCES, schemas.ResourceType),
        (builds.RUN_STATES, schemas.RunStatus),
        (deploy.ROLLOUT_STATES, schemas.RolloutStatus),
    ],
)
def test_lists_are_narrowed_by_what_the_api_takes(offered: tuple[str, ...], taken: Any) -> None:
    assert offered == get_args(taken)
