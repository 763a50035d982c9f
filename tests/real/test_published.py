"""Projects that are not ours, as their authors published them, through the whole stack: built twice alike, served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.client import Caller, Watch
from bench.stack import Stack
from tests.real.apps import ask, build, started
from tests.real.conftest import Commit
from tests.real.published import Files, generated, locked, npm_package, sdist

pytestmark = pytest.mark.slow

CLICK = """[build]
install = '''
python3 -m venv .tools
.tools/bin/pip install -q . sphinx sphinx-tabs myst-parser pallets-sphinx-themes sphinxcontrib-log-cabinet
'''
command = ".tools/bin/sphinx-build -q -D intersphinx_timeout=1 -d .doctrees docs site"
output = "site"
"""
FLASKR = """[run]
command = "flask --app flaskr run --host ${HOST:-0.0.0.0} --port $PORT"
health_check_path = "/auth/login"
"""

SITES: dict[str, tuple[Callable[[str], Files], str, str]] = {
    "vite-react": (
        lambda npm: locked(npm, npm_package(npm, "create-vite", "template-react/")),
        "/",
        "/assets/index-",
    ),
    "vite-vue": (
        lambda npm: locked(npm, npm_package(npm, "create-vite", "template-vue/")),
        "/",
        "/assets/index-",
    ),
    "docusaurus": (
        # Without a lock: npm leaves packages of other machines out of one that it only resolves, and refuses it then.
        lambda npm: npm_package(npm, "create-docusaurus", "templates/shared/", "templates/classic/"),
        "/docs/intro/",
        "Tutorial Intro",
    ),
    "click": (lambda _: {**sdist("click"), "headway.toml": CLICK}, "/quickstart.html", "Click"),
}


@pytest.mark.parametrize("name", SITES)
def test_a_published_site(stack: Stack, caller: Caller, commit: Commit, npm: str, tmp_path: Path, name: str) -> None:
    source, page, wanted = SITES[name]
    site = caller.new_site(f"theirs-{name}", commit(f"theirs-{name}", source(npm)))
    first = build(caller, site, tmp_path / "a")
    assert first.manifest["kind"] == "static"
    again = build(caller, site, tmp_path / "b", clean=True)
    different = [
        str(path.relative_to(tmp_path / "a"))
        for path in sorted((tmp_path / "a").rglob("*"))
        if path.is_file() and path.read_bytes() != (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    ]
    assert different == []
    assert again.digest == first.digest
    caller.finish(caller.push(site, site.production), 600)
    with Watch(stack, site.production_host) as watch:
        assert wanted in watch.page(page)


def test_the_generators_express_app(caller: Caller, commit: Commit, npm: str, tmp_path: Path) -> None:
    npx = shutil.which("npx")
    assert npx, f"{npm} comes with npx"
    files = locked(npm, generated(npx, "express-generator", "--view=pug", "--git"))
    site = caller.new_site("theirs-express", commit("theirs-express", files))
    with started(build(caller, site, tmp_path)) as port:
        status, text = ask(port, "/")
        assert (status, "Welcome to Express" in text) == (200, True)
        assert ask(port, "/stylesheets/style.css")[0] == 200


def test_the_blog_of_flasks_tutorial(caller: Caller, commit: Commit, tmp_path: Path) -> None:
    files = {**sdist("flask", "examples/tutorial/"), "headway.toml": FLASKR}
    site = caller.new_site("theirs-flaskr", commit("theirs-flaskr", files))
    with started(build(caller, site, tmp_path)) as port:
        status, text = ask(port, "/auth/login")
        assert (status, "Log In" in text) == (200, True)
        assert ask(port, "/static/style.css")[0] == 200
