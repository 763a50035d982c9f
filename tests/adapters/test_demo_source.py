"""The demo's repository: made of a package that is in the cache already, by real git."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from headway.cli.demo_source import NPM_PACKAGE, git, head, make_repository, second_commit, title_of
from headway.errors import HeadwayError

PAGE = "<!doctype html><title>\n a deck</title><h1>Slides</h1>"


def npm_archive(cache: Path) -> None:
    cache.mkdir()
    with tarfile.open(cache / (NPM_PACKAGE.replace("@", "-") + ".tgz"), "w:gz") as packed:
        for name, body in {"package/index.html": PAGE, "package/package.json": '{"scripts":{"build":"x"}}'}.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body.encode()))


@pytest.fixture
def with_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an `npm` that is found and never needed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "npm").write_text("#!/bin/sh\nexit 1\n")
    (tools / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_package_becomes_a_repository_with_two_commits(with_npm: Path) -> None:
    npm_archive(with_npm / "cache")
    repository = make_repository(with_npm / "source", with_npm / "cache")
    assert repository.origin == f"npm {NPM_PACKAGE}"
    assert repository.url.startswith("file:///")
    first = head(repository)
    assert git(repository.bare, "show", f"{first}:headway.toml").endswith('command = ""')
    second = second_commit(repository)
    assert git(repository.bare, "rev-parse", "main") == second != first
    assert title_of(git(repository.bare, "show", f"{second}:index.html")) == "a deck, second edition"
    assert title_of(git(repository.bare, "show", f"{first}:index.html")) == "a deck"


def test_without_npm_a_wheel_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.cli.demo_source.shutil.which", lambda _: None)
    cache = tmp_path / "cache"
    cache.mkdir()
    with zipfile.ZipFile(cache / "swagger_ui_bundle-1.1.0-py3-none-any.whl", "w") as packed:
        packed.writestr("swagger_ui_bundle/__init__.py", "")
        packed.writestr("swagger_ui_bundle/vendor/ui/index.html", PAGE)
    repository = make_repository(tmp_path / "source", cache)
    assert repository.origin.startswith("PyPI swagger-ui-bundle")
    assert git(repository.bare, "ls-tree", "--name-only", "main").split() == ["headway.toml", "index.html"]


def test_nothing_to_fetch_is_one_sentence(with_npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.cli.demo_source.sys.executable", "/bin/false")
    with pytest.raises(HeadwayError, match="No site could be fetched") as caught:
        make_repository(with_npm / "source", with_npm / "cache")
    assert caught.value.code == "source.invalid"
    assert list((with_npm / "cache").iterdir()) == []
