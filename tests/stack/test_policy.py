"""Policies and the audit log on the whole stack, by the command line: held, let through, promoted, proven."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.stack.conftest import NewPlace
from tests.stack.sites import Place
from tests.stack.test_cli_pipeline import Terminal, terminal

__all__ = ["terminal"]
pytestmark = pytest.mark.slow
POLICY = """
repositories = ["file://*"]
refs = ["main"]
promote_from = ["staging"]

[[freezes]]
start = 2020-01-01T00:00:00Z
end = 2999-01-01T00:00:00Z
reason = "the feast"
"""


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    made = new_place({"index.html": "<h1>first</h1>\n"})
    made.push(made.site.production)
    made.push(made.site.staging)
    return made


def test_what_a_pin_holds_is_built_and_goes_live_without_it(place: Place, terminal: Terminal) -> None:
    at = f"--site {place.site.id} --env production"
    terminal.run(f"headway env pin {at} --reason demo")
    place.repository.commit({"index.html": "<h1>second</h1>\n"})
    held = terminal.run(f"headway deploy {at} --ref main --wait --json", code=3).json
    assert held["waits_for"]["reasons"][0]["rule"] == "pin"
    assert place.page().text == "<h1>first</h1>\n"
    terminal.run(f"headway env unpin {at}")
    assert place.ended(held)["status"] == "succeeded"
    assert place.page().text == "<h1>second</h1>\n"


def test_a_freeze_a_rollback_through_it_and_a_promotion_that_proves_itself(place: Place, terminal: Terminal) -> None:
    at = f"--site {place.site.id} --env production"
    (terminal.home / "policy.toml").write_text(POLICY)
    terminal.run(f"headway policy set {at} policy.toml")
    # A rollback waits for no freeze.
    terminal.run(f"headway rollback {at} --wait")
    assert place.page().text == "<h1>first</h1>\n"
    place.push(place.site.staging)
    promote = f"headway promote --site {place.site.id} --from staging --to production --wait"
    held = terminal.run(f"{promote} --json", code=3).json
    deployment = held["waits_for"]["deployment_id"]
    assert "the feast" in terminal.run(f"headway deployments decision {at} {deployment}").out
    terminal.run(f"headway deployments break-glass {at} {deployment} --reason down")
    ended = terminal.run(f"headway jobs watch {held['id']}").out
    [artifact] = [one for one in place.artifacts() if one["id"] == json_of(terminal, held["id"])["artifact_id"]]
    [staged] = [row for row in place.releases(place.site.staging) if row["current"]]
    assert f"({artifact['digest']})" in ended.splitlines()[-1]
    assert staged["artifact_id"] == artifact["id"]
    assert place.page().text == "<h1>second</h1>\n"
    deadline = time.monotonic() + 60
    while "not in the ledger" in (said := terminal.run(f"headway why {at}").out):
        assert time.monotonic() < deadline, said
    assert "glass broken by" in said


def json_of(terminal: Terminal, job_id: str) -> dict[str, str]:
    return dict(terminal.run(f"headway jobs get {job_id} --json").json["result"])


def test_what_no_policy_allows_is_refused_with_the_reason(place: Place, terminal: Terminal) -> None:
    at = f"--site {place.site.id} --env staging"
    (terminal.home / "none.json").write_text(json.dumps({"repositories": ["https://git.example.org/*"]}))
    terminal.run(f"headway policy set {at} none.json")
    refused = terminal.run(f"headway deploy {at} --ref main --wait", code=1)
    assert "policy.refused" in refused.err
    assert "file://" in refused.err
    assert place.page(env=place.site.staging).status == 200


def test_the_audit_log_proves_itself_elsewhere(place: Place, terminal: Terminal, tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (rows := terminal.run("headway audit list --action break_glass --json").json) or rows[0]["seq"] is None:
        assert time.monotonic() < deadline
    assert (rows[0]["site_id"], rows[0]["method"]) == (place.site.id, "POST")
    made = terminal.run("headway audit export --output audit.jsonl --json").json
    assert made["links"] > 10
    assert made["anchors"] >= 1
    nowhere = {"HEADWAY_API_URL": "http://127.0.0.1:9", "HEADWAY_TOKEN": ""}
    proof = terminal.run("headway audit verify audit.jsonl --json", **nowhere).json
    assert (proof["verified"], proof["links"], proof["anchors"]) == (True, made["links"], made["anchors"])
    text = (terminal.home / "audit.jsonl").read_text()
    (terminal.home / "bad.jsonl").write_text(text.replace('"action": "update_environment"', '"action": "nothing"', 1))
    assert "does not hold" in terminal.run("headway audit verify bad.jsonl", code=7, **nowhere).err
