"""`headway forge`, `notifications` and `env protect`: what is secret comes by stdin and is never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headway.cli.main import cli
from tests.unit.api_double import ApiDouble, running
from tests.unit.test_cli import ENV, SITE, E, job

CANARY = "canary-0123456789"
FORGE = f"/v1/sites/{SITE}/forge"
LINK = {"site_id": SITE, "provider": "gitea", "api_url": "https://git.test/api/v1", "repository": "a/b"}
REPORT: dict[str, Any] = {"id": "rep_1", "kind": "status", "status": "failed", "state": "success", "attempts": 1}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiDouble]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with running() as started:
        monkeypatch.setenv("HEADWAY_API_URL", started.url)
        monkeypatch.setenv("HEADWAY_TOKEN", "mfk_live_secret")
        started.data("GET", "/v1/sites", [{"id": SITE, "name": "Acme", "slug": "acme"}])
        started.data("GET", f"/v1/sites/{SITE}/environments", [{"id": ENV, "site_id": SITE, "kind": "production"}])
        yield started


def run(line: str, given: str | None = None) -> Result:
    done = CliRunner().invoke(cli, line.split(), input=given)
    assert CANARY not in done.output
    return done


def test_a_forges_token_is_read_from_stdin(double: ApiDouble) -> None:
    double.data("PUT", FORGE, LINK)
    line = "forge set --site acme --provider gitea --forge-url https://git.test/api/v1 --repository a/b"
    assert run(line, f"{CANARY}\n").exit_code == 0
    assert double.calls("PUT", FORGE)[-1].body == {
        "provider": "gitea",
        "api_url": "https://git.test/api/v1",
        "repository": "a/b",
        "statuses": True,
        "comments": True,
        "token": CANARY,
    }
    assert run("forge set --site acme --provider gitea --keep-token --no-comments").exit_code == 0
    body = double.calls("PUT", FORGE)[-1].body
    assert ("token" in body, body["comments"]) == (False, False)


def test_what_was_given_up_is_listed_and_sent_again(double: ApiDouble) -> None:
    tries = [{"at": "now", "status": 401, "error": "answered 401: the token is not accepted", "ms": 1}]
    double.data("GET", f"{FORGE}/reports", [{**REPORT, "commit_sha": "c" * 40, "tries": tries}])
    shown = run("forge reports --site acme --status failed")
    assert "the token is not accepted" in shown.stdout
    assert "c" * 12 in shown.stdout
    double.data("POST", f"{FORGE}/reports/rep_1/retry", {**REPORT, "status": "pending"}, status=201)
    assert "rep_1 is on its way" in run("forge retry rep_1 --site acme").output


def test_an_address_for_notices_is_read_from_stdin(double: ApiDouble) -> None:
    made = {"id": "ntf_1", "url": "slack://…", "events": ["site.deployed"], "enabled": True}
    double.data("POST", "/v1/notifications", made, status=201)
    done = run("notifications create --events site.deployed,job.failed --site acme", f"slack://{CANARY}\n")
    assert (done.exit_code, "slack://…" in done.stdout) == (0, True)
    body = double.calls("POST", "/v1/notifications")[-1].body
    assert body["url"] == f"slack://{CANARY}"
    assert (body["events"], body["resource"]) == (["site.deployed", "job.failed"], {"type": "site", "id": SITE})
    assert run("notifications update ntf_1").exit_code == 2


def test_a_password_is_read_from_stdin(double: ApiDouble) -> None:
    started = job("queued", type="environment.protect")
    double.data("PUT", f"{E}/password", started, status=202)
    double.data("DELETE", f"{E}/password", started, status=202)
    assert run("env protect --site acme --env production", f"{CANARY}\n").exit_code == 0
    assert double.calls("PUT", f"{E}/password")[-1].body == {"password": CANARY}
    assert run("env protect --site acme --env production --off").exit_code == 0
    at = f"/v1/sites/{SITE}/preview-password"
    double.data("PUT", at, {"protected": True, "set_at": "now"})
    assert run("env protect --site acme --new-previews", CANARY).exit_code == 0
    assert double.calls("PUT", at)[-1].body == {"password": CANARY}
    for line in ("env protect --site acme", "env protect --site acme --env production --new-previews"):
        assert run(line, CANARY).exit_code == 2
