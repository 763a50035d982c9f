"""A site's own repository, for a builder on another machine: one file, fetched from as the folder beside the API is."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.egress.policy import EgressPolicy
from adapters.githost.repositories import HIDDEN, Repositories
from adapters.sandbox import Sandbox
from adapters.source.address import parse_address
from adapters.source.git import FetchSpec, GitSource
from headway.errors import HeadwayError
from headway.ids import new_id
from tests.adapters.repositories import QUIET, Repository


def test_a_bundle_is_fetched_from_like_the_folder(tmp_path: Path) -> None:
    site = new_id("site")
    (tmp_path / "config").write_text("")
    hosted = Repositories(tmp_path / "hosted", tmp_path / "config")
    with pytest.raises(HeadwayError) as caught:
        hosted.bundle(site)
    assert caught.value.code == "repository.empty"
    hosted.ensure(site, "main")
    with pytest.raises(HeadwayError, match="Nothing has been pushed"):
        hosted.bundle(site)

    work = Repository(tmp_path / "work")
    first = work.commit({"index.html": "first"})
    bare = hosted.path(site)

    def push(what: str) -> None:
        subprocess.run(["git", "push", "-q", str(bare), what], cwd=work.path, env=QUIET, check=True)

    push("main:main")
    accepted = work.commit({"index.html": "accepted, and on no branch yet"})
    push(f"main:{HIDDEN}/job_1/{accepted}")

    sandbox = Sandbox(state=tmp_path / "sandbox", slots=1)
    source = GitSource(sandbox, tmp_path / "mirrors", lambda _: EgressPolicy(()))
    remote = parse_address(f"hosted:{site}", hosted=tmp_path / "nothing is here")

    def fetched(ref: str) -> tuple[str, str]:
        with source.bundle() as file, sandbox.workspace() as workspace:
            file.writelines(hosted.bundle(site))
            file.flush()
            checkout = source.fetch(FetchSpec(site, replace(remote, folder=Path(file.name)), ref), workspace)
            return checkout.commit_sha, (workspace / "index.html").read_text()

    assert fetched("main") == (first, "first")
    assert fetched(accepted) == (accepted, "accepted, and on no branch yet")
    assert fetched("")[0] == first
    push("main:main")
    assert fetched("main")[0] == accepted
    assert fetched(first)[0] == first
    with pytest.raises(HeadwayError) as missing:
        fetched("elsewhere")
    assert missing.value.code == "ref.not_found"
    assert not list((tmp_path / "mirrors").glob("bundle-*")), "it is gone with its build"
