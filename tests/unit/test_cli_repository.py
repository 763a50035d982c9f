"""`headway repository` and `headway hooks calls`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api_double import ApiDouble, running
from tests.unit.test_cli import SITE, run

R = f"/v1/sites/{SITE}/repository"
CRED = "cred_01KVT00000000000000000000A"
ROW = {"id": CRED, "kind": "token", "host": "forge.example", "created_at": "2026-01-01T00:00:00Z"}
KEY = {**ROW, "kind": "deploy_key", "public_key": "ssh-ed25519 AAAA headway-acme", "fingerprint": "SHA256:x"}
POLLING = {"enabled": None, "active": True, "interval_seconds": 300, "failures": 0, "error": None}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiDouble]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with running() as started:
        monkeypatch.setenv("HEADWAY_API_URL", started.url)
        monkeypatch.setenv("HEADWAY_TOKEN", "mfk_live_secret")
        started.data("GET", "/v1/sites", [{"id": SITE, "name": "Acme", "slug": "acme"}])
        yield started


def test_a_token_is_read_from_stdin_and_takes_the_place_of_one_that_is_there(double: ApiDouble) -> None:
    double.data("GET", f"{R}/credentials", [])
    double.data("POST", f"{R}/credentials", ROW, status=201)
    assert run("repository set-token --site acme", input="hush-hush\n").exit_code == 0
    assert double.calls("POST", f"{R}/credentials")[0].body == {"kind": "token", "token": "hush-hush"}
    double.data("GET", f"{R}/credentials", [ROW])
    double.data("POST", f"{R}/credentials/{CRED}/rotate", ROW, status=201)
    done = run("repository set-token --site acme --username bot", input="second\n")
    assert (done.exit_code, "second" in done.output) == (0, False)
    assert double.calls("POST", f"{R}/credentials/{CRED}/rotate")[0].body == {"token": "second", "username": "bot"}


def test_a_token_that_is_given_again_under_its_key_is_the_same(double: ApiDouble) -> None:
    """The first try found none and made one; now it is there, and another request would take its place."""
    row = {"id": "cred_1", "kind": "token", "host": "forge.test"}
    double.data("GET", f"{R}/credentials", [row])
    double.problem("POST", f"{R}/credentials/cred_1/rotate", 400, "idempotency.key_reused", "invalid_request")
    double.data("POST", f"{R}/credentials", row, status=201)
    done = run("repository set-token --site acme --idempotency-key once", input="hush-hush\n")
    assert done.exit_code == 0, done.output
    assert "cred_1" in done.output
    [asked] = double.calls("POST", f"{R}/credentials")
    assert asked.headers["idempotency-key"] == "once"


def test_keys_are_shown_rotated_and_removed(double: ApiDouble) -> None:
    double.data("POST", f"{R}/credentials", KEY, status=201)
    double.data("GET", f"{R}/credentials", [KEY])
    double.data("POST", f"{R}/credentials/{CRED}/rotate", KEY, status=201)
    double.data("DELETE", f"{R}/credentials/{CRED}", {"id": CRED, "deleted": True})
    assert "ssh-ed25519 AAAA headway-acme" in run("repository add-key --site acme").stdout
    assert "SHA256:x" in run("repository credentials --site acme").stdout
    assert f"remove {CRED} --site acme" in run(f"repository rotate {CRED} --site acme").stderr
    assert run(f"repository remove {CRED} --site acme").exit_code == 0


def test_polling_and_branches(double: ApiDouble) -> None:
    double.data("GET", f"{R}/polling", POLLING)
    double.data("PUT", f"{R}/polling", POLLING)
    branch = {"branch": "main", "commit_sha": "a" * 40, "via": "poll", "verdict": "accepted", "text": "deployed job_1"}
    double.data("GET", f"{R}/branches", [branch])
    assert json.loads(run("repository polling --site acme --json").stdout) == POLLING
    assert run("repository polling --site acme --off --interval 60").exit_code == 0
    assert run("repository polling --site acme --default").exit_code == 0
    asked = [one.body for one in double.calls("PUT", f"{R}/polling")]
    assert asked == [{"enabled": False, "interval_seconds": 60}, {"enabled": None, "interval_seconds": None}]
    assert run("repository polling --site acme --on --default").exit_code == 2
    assert "deployed job_1" in run("repository branches --site acme").stdout


def test_calls_show_their_verdicts(double: ApiDouble) -> None:
    call = {"id": "call_1", "ref": "main", "verdict": "refused", "text": "refused: no such thing", "repeats": 2}
    double.data("GET", f"/v1/sites/{SITE}/hooks/hook_1/calls", [call])
    assert "refused: no such thing" in run("hooks calls hook_1 --site acme").stdout
