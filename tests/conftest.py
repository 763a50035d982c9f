"""How the tests are shared out among the processes of `make test`, and what a process leaves behind: nothing."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath
from typing import Any

# Its plugin imports it at the latest after the last test: by then the interpreter compiles while left coroutines are
# finalized, which CPython 3.11 now and then answers with a SystemError.
import hypothesis  # noqa: F401
import pytest
from xdist.scheduler import LoadFileScheduling

# Files of tests/stack that start stacks of their own, or none.
OWN_STACKS = {
    "test_demo.py",
    "test_keyless.py",
    "test_large_sandboxes.py",
    "test_nursery.py",
    "test_other_machines.py",
    "test_remotes.py",
    "test_retention.py",
    "test_supervisor.py",
    "test_up_down.py",
    "test_up_refusals.py",
}


class ByStack(LoadFileScheduling):
    """A file goes to one process; all those on the shared stack go to the same one: to start another costs more."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.split("::", 1)[0])
        shared = file.parent.as_posix() == "tests/stack" and file.name not in OWN_STACKS
        return "the shared stack" if shared else file.as_posix()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByStack | None:
    return ByStack(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_sessionfinish() -> None:
    # Not imported for it: most runs have no such database.
    if (databases := sys.modules.get("tests.databases")) is not None:
        databases.drop_template()
