"""The pipeline by its command line, as people and CI type it, against the whole stack."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.repositories import Repository
from tests.stack.conftest import NewRepository
from tests.stack.sites import end_of, visit

BIN = Path(sys.executable).parent
SEED = "mf build --site acme-store --env feature-checkout --ref feature/checkout --wait"
CONFIG = '[build]\ncommand = "{}; mkdir -p out; cp *.html out"\n'


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def fields(self) -> dict[str, str]:
        return {name: value.strip() for name, _, value in (line.partition(" ") for line in self.out.splitlines())}


@dataclass(frozen=True)
class Terminal:
    """A shell whose environment names server and key, and whose home is empty."""

    home: Path
    variables: Mapping[str, str]

    def run(self, line: str, *, code: int = 0, **changes: str) -> Run:
        """A command line as it is typed."""
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.home), **self.variables, **changes}
        done = subprocess.run(
            shlex.split(line),
            env={name: value for name, value in environment.items() if value},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def terminal(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("home"), {"HEADWAY_API_URL": stack.api, "HEADWAY_TOKEN": stack.key})


@pytest.fixture(scope="module")
def repository(new_repository: NewRepository) -> Repository:
    made = new_repository({"index.html": "<h1>main</h1>\n", "headway.toml": CONFIG.format("echo on main")})
    made.git("checkout", "-q", "-b", "feature/checkout")
    made.commit({"index.html": "<h1>checkout</h1>\n", "headway.toml": CONFIG.format("echo the till rings")})
    made.git("checkout", "-q", "main")
    return made


@pytest.fixture(scope="module")
def acme(terminal: Terminal, repository: Repository) -> Repository:
    """The site acme-store with an environment for the branch feature/checkout."""
    terminal.run(f"mf sites create acme-store --repository {repository.path.as_uri()} --wait")
    terminal.run("mf env create --site acme-store --branch feature/checkout --wait")
    return repository


@pytest.fixture(scope="module")
def built(acme: Repository, terminal: Terminal, stack: Stack) -> Run:
    """The published line to the letter, with the published variables."""
    others = {"HEADWAY_API_URL": "", "HEADWAY_TOKEN": "", "FORGE_API_URL": stack.api, "FORGE_TOKEN": stack.key}
    return terminal.run(SEED, **others)


def test_the_published_line_builds_and_tells_how_it_goes(built: Run, acme: Repository) -> None:
    assert built.fields["status"] == "succeeded"
    assert built.fields["commit_sha"] == acme.git("rev-parse", "feature/checkout")
    assert built.fields["artifact_id"].startswith("art_")
    assert "build | the till rings" in built.err
    # Nothing that only a terminal understands goes into a file.
    assert "\x1b" not in built.out + built.err


def test_deploy_promote_and_roll_back(built: Run, acme: Repository, terminal: Terminal, stack: Stack) -> None:
    artifact = built.fields["artifact_id"]
    deployed = terminal.run(f"mf deploy --site acme-store --env feature-checkout --artifact {artifact} --wait --json")
    assert (deployed.json["type"], deployed.json["status"]) == ("deployment.roll", "succeeded")
    shown = terminal.run("mf env url --site acme-store --env feature-checkout").out.strip()
    assert visit(stack, shown.removeprefix("http://").partition(":")[0]).text == "<h1>checkout</h1>\n"

    terminal.run("mf promote --site acme-store --from feature-checkout --to production --wait")
    assert visit(stack, "acme-store.localhost").text == "<h1>checkout</h1>\n"
    terminal.run("mf deploy --site acme-store --env production --ref main --wait")
    assert visit(stack, "acme-store.localhost").text == "<h1>main</h1>\n"
    terminal.run("mf rollback --site acme-store --env production --wait")
    assert visit(stack, "acme-store.localhost").text == "<h1>checkout</h1>\n"

    table = terminal.run("headway releases list --site acme-store --env production").out.splitlines()
    assert [artifact in line for line in table] == [False, True, False, True]
    assert [line.startswith("* ") for line in table] == [False, True, False, False]


def test_an_artifact_is_fetched_and_checked_offline(built: Run, terminal: Terminal, acme: Repository) -> None:
    folder = terminal.home / "proof"
    fetched = terminal.run(f"mf artifacts fetch {built.fields['artifact_id']} --output {folder} --files --json").json
    assert fetched["digest"] == built.fields["digest"]
    assert fetched["commit_sha"] == acme.git("rev-parse", "feature/checkout")
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "bundle.json",
        "key.pub",
        "trusted_root.json",
        "files",
    }
    assert (folder / "files" / "index.html").read_text() == "<h1>checkout</h1>\n"
    offline = {"HEADWAY_API_URL": "http://127.0.0.1:9", "HEADWAY_TOKEN": ""}
    proof = terminal.run(f"mf artifacts verify {folder} --json", **offline).json
    assert proof["verified"] is True
    assert proof["files_checked"] == fetched["files_checked"] == 1
    page = folder / "files" / "index.html"
    page.chmod(0o644)
    page.write_text("<h1>chicken0</h1>\n")
    refused = terminal.run(f"mf artifacts verify {folder} --json", code=1, **offline)
    assert refused.json["verified"] is False
    assert "Traceback" not in refused.err


def test_a_job_is_watched_and_a_wait_ends_in_time(acme: Repository, terminal: Terminal, caller: Caller) -> None:
    acme.git("checkout", "-q", "-B", "slow", "main")
    acme.commit({"headway.toml": CONFIG.format("echo begun; sleep 60")})
    acme.git("checkout", "-q", "main")
    began = time.monotonic()
    build = "mf build --site acme-store --env production --ref slow"
    given_up = terminal.run(f"{build} --wait --timeout 3s --json", code=124)
    assert time.monotonic() - began < 30
    job = given_up.json["id"]
    assert f"mf jobs watch {job}" in given_up.err
    assert given_up.json["status"] == "running"
    terminal.run(f"mf jobs cancel {job}")
    watched = terminal.run(f"mf jobs watch {job} --json", code=1)
    assert (watched.json["status"], watched.json["error"]["code"]) == ("canceled", "job.canceled")
    assert terminal.run(f"mf jobs cancel {job}", code=5).err.count("job.not_cancelable") == 1
    assert end_of(caller, watched.json)["status"] == "canceled"


def test_a_build_that_fails_is_exit_1_with_its_log(acme: Repository, terminal: Terminal) -> None:
    acme.git("checkout", "-q", "-B", "broken", "main")
    acme.commit({"headway.toml": CONFIG.format("echo oh no >&2; exit 3")})
    acme.git("checkout", "-q", "main")
    failed = terminal.run("mf build --site acme-store --env production --ref broken --wait --json", code=1)
    assert failed.json["error"]["code"] == "build.step_failed"
    assert failed.json["error"]["exit_code"] == 3
    assert "build | oh no" in failed.err
    log = terminal.run(f"mf builds log {failed.json['resource']['id']} --site acme-store").out
    assert "oh no" in log.splitlines()


@pytest.mark.parametrize(
    ("line", "code", "word", "changes"),
    [
        ("mf build --site acme-store --wait", 2, "--env", {}),
        ("mf deploy --site acme-store --env production", 2, "exactly one", {}),
        ("mf build --site acme-store --env production --ref=--upload-pack=touch", 2, "ref.invalid", {}),
        ("mf sites list", 3, "auth.missing", {"HEADWAY_TOKEN": ""}),
        ("mf sites list", 3, "auth.invalid_key", {"HEADWAY_TOKEN": "mfk_live_nobody"}),
        ("mf build --site nowhere --env production", 4, "site.not_found", {}),
        ("mf jobs get job_01J8AA1B2C3D4E5F6G7H8J9K0M", 4, "job.not_found", {}),
        ("mf env create --site acme-store --branch feature/checkout", 5, "environment.branch_taken", {}),
    ],
)
def test_each_kind_of_refusal_has_its_exit_code(
    acme: Repository, terminal: Terminal, line: str, code: int, word: str, changes: dict[str, str]
) -> None:
    run = terminal.run(line, code=code, **changes)
    assert run.out == ""
    assert word in run.err
    assert "Traceback" not in run.err
