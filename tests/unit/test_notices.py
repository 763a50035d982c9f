"""What people are told: the facts, in one order, and nothing that calls a channel."""

from __future__ import annotations

from headway.notices import words_of
from headway.webhooks import Told


def test_a_deployment_is_told_with_its_address_and_job() -> None:
    facts = {"id": "dep_1", "environment": "production", "ref": "main", "url": "https://acme.test", "job_id": "job_1"}
    words = words_of(Told("evt_1", "site.deployed", "now", {"deployment": facts}), "Acme")
    assert (words.title, words.level) == ("Acme: site.deployed", "success")
    assert words.body.splitlines() == [
        "A deployment has finished rolling.",
        "Environment: production",
        "Ref: main",
        "Address: https://acme.test",
        "Job: job_1",
    ]


def test_a_failure_says_why_and_nobody_is_called() -> None:
    error = {"code": "build.step_failed", "message": "exit 1\n<!channel> @everyone"}
    facts = {"id": "job_1", "type": "build.run", "ref": "@here", "error": error}
    words = words_of(Told("evt_1", "job.failed", "now", {"job": facts}), "<!here>")
    assert words.level == "failure"
    assert "Error: build.step_failed: exit 1 " in words.body
    assert "Job: job_1" in words.body
    for call in ("@everyone", "@here", "<!", "\n<"):
        assert call not in words.title + words.body
