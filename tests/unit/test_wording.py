"""Messages of the engine in the other dialect's words; what a caller has said stays his."""

from __future__ import annotations

import pytest

from api.miosa.names import worded


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Another site of this team has it.", "Another deployment of this organisation has it."),
        ("The job has ended: it is succeeded.", "The operation has ended: it is succeeded."),
        ("A key acts for a team, in a job.", "A key acts for an organisation, in an operation."),
        ("The site's rollout site_01ABCD waits.", "The deployment's promotion dep_01ABCD waits."),
        ("my-site.example.com is taken; so is site.test.", "my-site.example.com is taken; so is site.test."),
        ("'site' is no name, `team job` neither.", "'site' is no name, `team job` neither."),
        ("The team's 'my site' is a site.", "The organisation's 'my site' is a deployment."),
        ("web ended. Its last lines: the site is up\nthe job", "web ended. Its last lines: the site is up\nthe job"),
        ("/workspace/site/x and site/y are files.", "/workspace/site/x and site/y are files."),
    ],
)
def test_words(message: str, shown: str) -> None:
    assert worded(message) == shown
