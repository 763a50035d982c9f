"""Private repositories: a token for https, deploy keys for ssh, each with a real server, and what is left of them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.egress.policy import EgressPolicy, Rule
from adapters.sandbox import Sandbox
from adapters.source.access import Access
from adapters.source.address import Remote, parse_address
from adapters.source.deploy_key import make_deploy_key
from adapters.source.git import FetchSpec, GitSource
from headway.errors import HeadwayError
from tests.adapters import ssh_server
from tests.adapters.git_server import ADDRESS, has_backend, serving
from tests.adapters.repositories import Repository

TOKEN = "canary-token-7f3a"


@dataclass
class Bench:
    root: Path
    sandbox: Sandbox
    source: GitSource = field(init=False)
    site: str = "site_1"

    def __post_init__(self) -> None:
        self.source = GitSource(self.sandbox, self.root / "mirrors", self._policy)

    def _policy(self, remote: Remote) -> EgressPolicy:
        host = remote.host or ""
        return EgressPolicy((Rule(host, remote.port or 0),), frozenset({host}))

    def spec(self, address: str, access: Access | None, ref: str = "main") -> FetchSpec:
        host = address.split("@")[-1].removeprefix("https://").split(":")[0]
        remote = parse_address(address, hosted=self.root, private_ok=(host,))
        return FetchSpec(self.site, remote, ref, access=access)

    def fetch(self, address: str, access: Access | None, ref: str = "main") -> str:
        with self.sandbox.workspace() as workspace:
            return self.source.fetch(self.spec(address, access, ref), workspace).commit_sha

    def code(self, address: str, access: Access | None) -> tuple[str, str]:
        with pytest.raises(HeadwayError) as caught:
            self.fetch(address, access)
        return caught.value.code, caught.value.message

    def leftovers(self, *secrets: str) -> list[Path]:
        """Files below the builder's folders that hold a secret."""
        files = [path for path in self.root.rglob("*") if path.is_file() and "repos" not in path.parts]
        return [path for path in files if any(one.encode() in path.read_bytes() for one in secrets)]


@pytest.fixture
def accounts() -> dict[str, str]:
    return {"deploy": TOKEN}


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def https(tmp_path: Path, accounts: dict[str, str], asked: list[str]) -> Iterator[tuple[Bench, str, Repository]]:
    if not has_backend():
        pytest.skip("git cannot serve over HTTP here")
    with serving(tmp_path / "repos", tmp_path, accounts, asked) as (port, authority):
        bench = Bench(tmp_path, Sandbox(state=tmp_path / "sandbox", slots=1, ca_files=[authority]))
        repository = Repository(tmp_path / "repos" / "site")
        repository.commit({"a": "1"})
        yield bench, f"https://{ADDRESS}:{port}/private/site/.git", repository


def test_a_token_reads_a_private_repository_and_is_left_nowhere(
    https: tuple[Bench, str, Repository], accounts: dict[str, str], asked: list[str]
) -> None:
    bench, address, repository = https
    head = repository.git("rev-parse", "HEAD")
    right = Access("deploy", TOKEN)
    assert bench.fetch(address, right) == head
    assert bench.source.look(bench.spec(address, right)) == {"main": head}
    assert set(asked) == {f"deploy:{TOKEN}"}
    for wrong, how in ((Access("deploy", "wrong-7f3a"), "refused"), (None, "not open to everybody")):
        code, message = bench.code(address, wrong)
        assert (code, how in message) == ("repository.access_denied", True)
        assert "7f3a" not in message
    # A public place of the same host is not told.
    asked.clear()
    assert bench.fetch(address.replace("/private", ""), right) == head
    assert asked == []
    accounts["deploy"] = "rotated-7f3a"
    assert bench.code(address, right)[0] == "repository.access_denied"
    assert bench.fetch(address, Access("deploy", "rotated-7f3a")) == head
    assert bench.leftovers(TOKEN, "7f3a") == []
    assert "7f3a" not in repr(right)


def test_what_a_killed_builder_left_is_removed(https: tuple[Bench, str, Repository]) -> None:
    bench, address, _ = https
    left = bench.root / "mirrors" / "site_1.access"
    left.mkdir(parents=True)
    (left / "token").write_text(TOKEN)
    for name in ("site_2.access", "site_2.fresh", ".removing-site_2.git-7", ".removing-site_1.fresh-1"):
        (bench.root / "mirrors" / name).mkdir()
    with open(bench.root / "mirrors" / "site_2.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        bench.source.tidy()
    found = {path.name for path in (bench.root / "mirrors").iterdir() if path.is_dir()}
    assert found == {"site_2.access", "site_2.fresh", ".removing-site_2.git-7"}
    left.mkdir()
    bench.fetch(address.replace("/private", ""), None)
    assert not left.exists()


def test_a_key_pair_is_made_as_ssh_keygen_makes_it(tmp_path: Path) -> None:
    made = make_deploy_key("headway-shop")
    assert made.public.startswith("ssh-ed25519 AAAA")
    assert made.public.endswith(" headway-shop")
    assert made.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert made.fingerprint.startswith("SHA256:")
    assert "PRIVATE" not in repr(made)


@pytest.mark.skipif(ssh_server.missing() is not None, reason=f"{ssh_server.missing()}")
def test_deploy_keys_read_over_ssh_while_one_of_them_is_allowed(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repos" / "site")
    head = repository.commit({"a": "1"})
    old, new = make_deploy_key("old"), make_deploy_key("new")
    bench = Bench(tmp_path, Sandbox(state=tmp_path / "sandbox", slots=1))
    with ssh_server.serving(tmp_path / "ssh") as server:
        address = server.address(repository.path / ".git")
        server.allow(old.public)
        only_old, both = Access(keys=(old.private,)), Access(keys=(new.private, old.private))
        assert bench.fetch(address, only_old) == head
        # A rotation: both are offered, until the forge has the new one and the old one is taken away.
        assert bench.fetch(address, both) == head
        server.allow(new.public)
        assert bench.code(address, only_old)[0] == "repository.access_denied"
        assert bench.source.look(bench.spec(address, both)) == {"main": head}
        assert bench.code(address, None)[0] == "repository.access_denied"
        assert not (tmp_path / "mirrors" / "site_1.access").exists()
    assert bench.leftovers("PRIVATE KEY") == [tmp_path / "ssh" / "host"]
