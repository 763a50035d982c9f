"""What a forge is shown of a job."""

from __future__ import annotations

import pytest

from headway.reporting import comment


@pytest.mark.parametrize(
    ("state", "shown"),
    [("failure", "| State | Failed (`build.step_failed`) |"), ("ended", "| State | This preview has ended |")],
)
def test_what_ended_a_preview_is_not_how_its_last_job_went(state: str, shown: str) -> None:
    wanted = {
        **{"state": state, "code": "build.step_failed", "url": None, "branch": "feature/x", "commit": "a" * 40},
        **{"job_id": "job_1", "site": "store", "environment": "feature-x"},
    }
    assert shown in comment(wanted, "site_1", "http://api.test").splitlines()
