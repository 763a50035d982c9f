"""Projects that are not ours, as their authors published them, through the whole stack: built twice alike, served.

`HEADWAY_TAKEN=FILE` appends a line of JSON for each, from which docs/results is written.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.real.conftest import Commit
from tests.real.projects import PROJECTS
from tests.real.taking import note, take

# Hundreds of packages, twice, on as many processors as there are.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_published_project(stack: Stack, caller: Caller, commit: Commit, name: str) -> None:
    project = PROJECTS[name]
    taken = take(stack, caller, commit, name, project)
    if path := os.environ.get("HEADWAY_TAKEN"):
        note(Path(path), name, taken)
    assert (taken.kind, taken.plan["framework"]) == (project.kind, project.framework)
    assert taken.different == () or not project.alike
    assert taken.missing == ()
