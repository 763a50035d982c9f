"""`headway policy`, approvals, pins, and what a wait does with a job that is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from headway.cli.main import cli
from tests.unit.api_double import ApiDouble, Reply, events, running
from tests.unit.test_cli import ENV, JOB, SITE, E, job, run

DEP = "dep_01KVT00000000000000000000A"
WAITS = {"deployment_id": DEP, "reasons": [{"rule": "approvals", "message": "It has 0 of 2 approvals by bob, eve."}]}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiDouble]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with running() as started:
        monkeypatch.setenv("HEADWAY_API_URL", started.url)
        monkeypatch.setenv("HEADWAY_TOKEN", "mfk_live_secret")
        site = {"id": SITE, "name": "Acme", "slug": "acme"}
        started.data("GET", "/v1/sites", [site])
        started.data("GET", f"/v1/sites/{SITE}/environments", [{"id": ENV, "site_id": SITE, "kind": "production"}])
        yield started


def test_a_wait_ends_where_a_policy_holds_and_says_why(double: ApiDouble) -> None:
    held = job("queued", stage="hold", waits_for=WAITS)
    double.data("POST", f"/v1/sites/{SITE}/deployments", job(), status=202)
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", job()), ("job", held), hang=True))
    done = run("deploy --site acme --env production --ref main --wait")
    assert done.exit_code == 3
    assert "held: It has 0 of 2 approvals by bob, eve." in done.stderr
    assert f"jobs watch {JOB}" in done.stderr
    assert DEP in done.stdout
    shown = run("deploy --site acme --env production --ref main --wait --json")
    assert (shown.exit_code, json.loads(shown.stdout)["waits_for"]) == (3, WAITS)


def test_watching_a_job_goes_on_through_a_hold(double: ApiDouble) -> None:
    held, ended = job("queued", stage="hold", waits_for=WAITS), job("succeeded", waits_for=None)
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", held), ("job", ended)))
    double.data("GET", f"/v1/jobs/{JOB}", ended)
    assert run(f"jobs watch {JOB}").exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        'refs = ["main"]\n[[freezes]]\nstart = 2026-12-20T00:00:00Z\nend = 2027-01-03T00:00:00Z\n',
        '{"refs": ["main"], "freezes": [{"start": "2026-12-20T00:00:00+00:00", "end": "2027-01-03T00:00:00+00:00"}]}',
    ],
)
@pytest.mark.parametrize("env", ["", " --env production"])
def test_a_policy_is_set_from_a_file_or_from_stdin(double: ApiDouble, tmp_path: Path, text: str, env: str) -> None:
    at = f"{E if env else f'/v1/sites/{SITE}'}/policy"
    double.data("PUT", at, {"id": "pol_1", "version": 1, "digest": "d" * 64, "document": {}})
    (tmp_path / "policy").write_text(text)
    for file, given in ((str(tmp_path / "policy"), None), ("-", text)):
        line = f"policy set --site acme{env} {file}"
        done = CliRunner().invoke(cli, line.split(), input=given)
        assert done.exit_code == 0, done.output
        body = double.calls("PUT", at)[-1].body
        assert body["freezes"] == [{"start": "2026-12-20T00:00:00+00:00", "end": "2027-01-03T00:00:00+00:00"}]


def test_what_is_no_policy_file(double: ApiDouble) -> None:
    done = CliRunner().invoke(cli, ["policy", "set", "--site", "acme", "-"], input="refs: [main]")
    assert done.exit_code == 2
    assert "neither TOML nor JSON" in done.stderr
    assert not [one for one in double.asked if one.method == "PUT"]


def test_approving_breaking_the_glass_and_pins(double: ApiDouble) -> None:
    row = {"id": "apr_1", "deployment_id": DEP, "account_id": "acc_1", "given_at": "2026-07-01T00:00:00Z"}
    double.data("POST", f"{E}/deployments/{DEP}/approvals", row, status=201)
    decision = {"id": "dec_1", "override": {"reason": "down"}}
    double.data("POST", f"{E}/deployments/{DEP}/break-glass", decision, status=201)
    double.data("PATCH", E, {"id": ENV, "site_id": SITE, "kind": "production"})
    place = f"--site acme --env production {DEP}"
    assert run(f"deployments approve {place}").exit_code == 0
    assert run(f"deployments break-glass {place}").exit_code == 2
    assert run(f"deployments break-glass {place} --reason down").exit_code == 0
    assert double.calls("POST", f"{E}/deployments/{DEP}/break-glass")[-1].body == {"reason": "down"}
    assert run("env pin --site acme --env production --reason demo").exit_code == 0
    assert run("env unpin --site acme --env production").exit_code == 0
    assert [one.body for one in double.calls("PATCH", E)] == [{"pinned": True, "pin_reason": "demo"}, {"pinned": False}]


def test_a_decision_is_shown_with_what_does_not_count(double: ApiDouble) -> None:
    given = [{"account_id": one, "actor": {"label": one}, "given_at": "2026-07-01T00:00:00Z"} for one in ("ada", "bob")]
    row = {"id": "dec_1", "outcome": "held", "judged_at": "t", "decided_at": None, "log_index": None, "override": None}
    row |= {"findings": [{"message": "Frozen until tomorrow."}], "approvals": given[1:], "given": given}
    double.on("GET", f"{E}/deployments/{DEP}/decision", Reply(200, {"data": row, "request_id": "req_1"}))
    lines = run(f"deployments decision --site acme --env production {DEP}").stdout.splitlines()
    assert "against    Frozen until tomorrow." in lines
    assert [line.endswith("(does not count)") for line in lines if line.startswith("approval")] == [True, False]


def test_a_promotion_says_whose_bytes_these_are(double: ApiDouble) -> None:
    promoted = {"env_id": "env_1", "environment": "staging", "release_id": "rel_1", "sequence": 7}
    ended = job("succeeded", type="deployment.promote", result={"promoted": promoted, "digest": "sha256:1f0c"})
    double.data("GET", f"/v1/jobs/{JOB}", ended)
    double.on("GET", f"/v1/jobs/{JOB}/stream", events(("job", ended)))
    done = run(f"jobs watch {JOB}")
    assert done.exit_code == 0
    assert "the same bytes as staging release 7 (sha256:1f0c)" in done.stdout.splitlines()
