"""One stack for all the files that use it: it takes ten seconds to start.

With DATABASE_URL it is on that PostgreSQL; with HEADWAY_TEST_STACK=compose it is docker-compose.yml on an engine.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.adapters.dns_server import DnsServer
from tests.adapters.repositories import Repository
from tests.containers.compose import running
from tests.stack.sites import Place

NUMBERS = itertools.count(1)
# Whom the stack asks about domains.
DNS = DnsServer()
# Small limits, so that builds which run into them do so soon. A mirror of the package indexes mostly is private.
SETTINGS = {
    "HEADWAY_BUILD_DISK": str(64 << 20),
    "HEADWAY_BUILD_OUTPUT": str(100 << 20),
    "HEADWAY_BUILD_MEMORY": str(512 << 20),
    "HEADWAY_BUILD_PIDS": "64",
    "HEADWAY_SANDBOX_FILE_BYTES": str(1 << 20),
    "HEADWAY_EGRESS_PRIVATE_OK": '["indexes"]',
    "HEADWAY_WEBHOOK_PRIVATE_OK": '["127.0.0.1"]',
    "HEADWAY_WEBHOOK_WAITS": "[0.2]",
    "HEADWAY_POLL_SECONDS": "3600",
}

NewRepository = Callable[[Mapping[str, str]], Repository]
NewPlace = Callable[[Mapping[str, str]], Place]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    if os.environ.get("HEADWAY_TEST_STACK") == "compose":
        with running() as compose:
            yield compose.stack()
        return
    # A short path: unix sockets below it have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hws-") as folder, DNS:
        made = Stack.start(Path(folder), env={**SETTINGS, "HEADWAY_DNS_SERVERS": json.dumps([DNS.place])})
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.http.close()


@pytest.fixture(scope="session")
def new_repository(stack: Stack) -> NewRepository:
    """A repository in the folder that the operator allowed, with one commit of these files (none: no commit)."""

    def make(files: Mapping[str, str]) -> Repository:
        made = Repository(stack.repos / f"r{next(NUMBERS)}")
        if files:
            made.commit(dict(files))
        return made

    return make


@pytest.fixture(scope="session")
def new_place(stack: Stack, caller: Caller, new_repository: NewRepository) -> NewPlace:
    """A site of a repository of its own."""

    def make(files: Mapping[str, str]) -> Place:
        repository = new_repository(files)
        site = caller.new_site(f"s-{repository.path.name}", repository.path.as_uri())
        return Place(stack, caller, site, repository)

    return make
