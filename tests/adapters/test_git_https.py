"""Fetching over the network: through the egress proxy, from a real git server with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.egress.policy import EgressPolicy, Rule
from adapters.sandbox import Sandbox
from adapters.source.address import Remote, parse_address
from adapters.source.git import Checkout, FetchSpec, GitSource
from headway.errors import HeadwayError
from tests.adapters.git_server import ADDRESS, has_backend, serving
from tests.adapters.repositories import Repository

pytestmark = pytest.mark.skipif(not has_backend(), reason="git cannot serve over HTTP here")


@dataclass
class Network:
    root: Path
    port: int
    sandbox: Sandbox
    private_ok: frozenset[str] = frozenset({ADDRESS})

    def policy(self, remote: Remote) -> EgressPolicy:
        return EgressPolicy((Rule(remote.host or "", remote.port or 0),), self.private_ok)

    def fetch(self, path: str, *, port: int | None = None) -> Checkout:
        address = f"https://{ADDRESS}:{port or self.port}{path}"
        remote = parse_address(address, hosted=self.root, private_ok=(ADDRESS,))
        source = GitSource(self.sandbox, self.root / "mirrors", self.policy)
        with self.sandbox.workspace() as workspace:
            return source.fetch(FetchSpec("site_1", remote, "main"), workspace)

    def code(self, path: str, *, port: int | None = None) -> str:
        with pytest.raises(HeadwayError) as caught:
            self.fetch(path, port=port)
        return caught.value.code


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with serving(tmp_path / "repos", tmp_path) as (port, authority):
        sandbox = Sandbox(state=tmp_path / "sandbox", slots=1, ca_files=[authority])
        yield Network(tmp_path, port, sandbox)


def test_a_remote_over_https(network: Network) -> None:
    repo = Repository(network.root / "repos" / "site")
    commit = repo.commit({"a": "1"})
    assert network.fetch("/site/.git").commit_sha == commit
    newer = repo.commit({"a": "2"})
    assert network.fetch("/site/.git").commit_sha == newer


def test_redirects_are_not_followed(network: Network) -> None:
    Repository(network.root / "repos" / "site").commit({"a": "1"})
    assert network.code("/moved/site/.git") == "repository.unreachable"


def test_what_is_not_there(network: Network) -> None:
    assert network.code("/none/.git") == "repository.unreachable"
    assert network.code("/site", port=9) == "repository.unreachable"


def test_a_private_address_needs_the_operators_word(network: Network) -> None:
    Repository(network.root / "repos" / "site").commit({"a": "1"})
    network.private_ok = frozenset()
    assert network.code("/site/.git") == "repository.not_allowed"


def test_plain_files_are_held_to_the_same_rules(network: Network) -> None:
    repo = Repository(network.root / "repos" / "site")
    commit = repo.commit({"a": "1"})
    repo.git("update-server-info")
    assert network.fetch("/plain/site/.git").commit_sha == commit
    folder = repo.git("rev-parse", "main^{tree}")
    for name in (".git", "..", ".GIT"):
        repo.commit_tree(("40000", name, folder))
        repo.git("update-server-info")
        assert network.code("/plain/site/.git") == "source.invalid", name
