"""Every known kind of project has a plan that is written down: `golden.json`, beside this file.

To accept a change on purpose: `python -m tests.unit.plans.test_plans`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from adapters.artifact.folder import Folder
from adapters.artifact.run import parse_run
from adapters.plan import part
from adapters.plan.detect import Said, detect
from adapters.plan.plan import Plan
from headway.errors import HeadwayError
from headway.toml import parse_toml
from tests.unit.plans.trees import DYNAMIC, FASTAPI, FLASK, NPM, STATIC, Tree, needs, package

STATIC_RULES: Final = '[[static.redirects]]\nfrom = "/a"\nto = "/b"\n'
GOLDEN: Final = Path(__file__).with_name("golden.json")
VERSIONS: Final = {
    "node": "20.1.0",
    "npm": "10.2.0",
    "python3": "3.11.2",
    "uv": "0.9.1",
    "go": "1.22.1",
    "cargo": "1.80.0",
}


def plan(tree: Tree, profile: str = "auto", versions: dict[str, str] = VERSIONS, said: Said | None = None) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in tree.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with Folder(Path(folder)) as opened:
            return detect(opened, profile, versions.get, said)


def refusal(tree: Tree, profile: str = "auto", versions: dict[str, str] = VERSIONS) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        plan(tree, profile, versions)
    return caught.value


def written() -> dict[str, dict[str, Any]]:
    """What differs from project to project; the rest is checked by itself."""
    keys = ("framework", "source", "toolchain", "install", "build", "tidy", "outputs", "start", "lock")
    found = {name: plan(tree) for name, tree in {**STATIC, **DYNAMIC}.items()}
    return {name: {key: one.as_dict()[key] for key in keys} for name, one in found.items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(GOLDEN.read_text())
    return read


@pytest.mark.parametrize("name", [*STATIC, *DYNAMIC])
def test_the_plan_is_as_written(golden: dict[str, Any], name: str) -> None:
    found = plan({**STATIC, **DYNAMIC}[name])
    shown = found.as_dict()
    assert {key: shown[key] for key in golden[name]} == golden[name]
    assert found.profile == ("static" if name in STATIC else "dynamic")
    assert (found.run is None) == (name in STATIC)
    assert json.loads(json.dumps(shown)) == shown
    assert all(len(line) < 2000 for line in found.summary())


def test_what_a_build_depends_on_is_shown() -> None:
    toml = '[build]\nroot = "a"\ncommand = "make"\noutput = "out"\n'
    assert not any("depends" in line for line in plan({"headway.toml": toml, "a/Makefile": ""}).summary())
    for more, wanted in (("skip = true", "a"), ('watch = ["a", "shared/theme"]', "a, shared/theme")):
        found = plan({"headway.toml": f"{toml}{more}\n", "a/Makefile": ""})
        assert f"plan: depends on: {wanted}" in found.summary()


def test_the_file_has_no_other_plans(golden: dict[str, Any]) -> None:
    assert set(golden) == {*STATIC, *DYNAMIC}


@pytest.mark.parametrize("name", DYNAMIC)
def test_what_was_detected_is_what_a_manifest_takes(name: str) -> None:
    run = plan(DYNAMIC[name]).run
    assert run is not None
    assert parse_run(run.as_dict(), lambda key, why: HeadwayError("internal.error", f"{key} {why}")) == run


def test_processes_and_the_release_line_come_along() -> None:
    run = plan(DYNAMIC["procfile"]).run
    assert run is not None
    setup = run.command.removesuffix("exec gunicorn app:app")
    assert setup != run.command
    assert run.processes == {"worker": f"{setup}exec python3 work.py"}
    assert run.release_command == f"{setup}python3 migrate.py && echo"
    toml = '[run]\nrelease_command = "x"\n[processes]\nworker = "y | z"\nweb = "w"'
    over = plan({**DYNAMIC["procfile"], "headway.toml": toml}).run
    assert over is not None
    assert (over.command, over.release_command) == (f"{setup}exec w", f"{setup}x")
    assert over.processes == {"worker": f"{setup}y | z"}


def test_settings_win_and_variables_are_joined() -> None:
    run = plan(DYNAMIC["no-build"]).run
    assert run is not None
    assert (run.health.path, run.health.low, run.env) == ("/up", 200, {"NODE_ENV": "production"})
    run = plan(DYNAMIC["own-install"]).run
    assert run is not None
    assert run.env["PYTHONUNBUFFERED"] == "0"
    assert run.env["PYTHONPATH"] == ".headway/site-packages"


def test_an_app_in_a_folder_of_its_own_making() -> None:
    toml = '[build]\noutput = "out"\n[run]\ncommand = "./serve"'
    found = plan({"headway.toml": toml, "package.json": package("make", **needs("express")), **NPM})
    assert (found.outputs, found.command) == (("out",), "npm run build")
    assert found.run is not None
    assert found.run.command == "exec ./serve"


def test_what_becomes_too_much_with_what_was_detected_is_told_before_the_build() -> None:
    variables = "\n".join(f'V{number} = "x"' for number in range(200))
    error = refusal({**DYNAMIC["flask"], "headway.toml": f"[run.env]\n{variables}"})
    assert (error.code, error.param) == ("build.config_invalid", "run.env")
    long = "x" * (32 << 10)
    error = refusal({**DYNAMIC["flask"], "headway.toml": f'[run]\ncommand = "{long}"'})
    assert (error.code, error.param) == ("build.config_invalid", "run.command")


def test_an_apps_documentation_is_not_built_with_it() -> None:
    tree = {**DYNAMIC["flask"], "requirements.txt": "flask\ngunicorn\nmkdocs\n", "mkdocs.yml": "site_name: x\n"}
    assert plan(tree).command is None
    assert plan({**tree, "Procfile": "web: gunicorn app:app"}).command is None


@pytest.mark.parametrize(
    ("tree", "profile", "words"),
    [
        ({"app.py": FLASK, "requirements.txt": "flask\n"}, "auto", ("app.py", "Flask", "gunicorn")),
        ({"main.py": FASTAPI, "requirements.txt": "fastapi\n"}, "auto", ("main.py", "uvicorn")),
        ({"tool.py": "print()", "requirements.txt": "rich\n"}, "auto", ("requirements.txt", "[run]", "Procfile")),
        ({"index.html": "x"}, "dynamic", ("Procfile", "[run]", "package.json")),
        ({"package.json": package(**needs("vite"))}, "dynamic", ("start script",)),
        (DYNAMIC["flask"], "static", ("static", "app.py")),
        (DYNAMIC["node"], "static", ("static", "package.json")),
        (DYNAMIC["run-command"], "static", ("headway.toml", "static")),
        ({"headway.toml": "[run]\nport = 80", "index.html": ""}, "auto", ("[run]", "Procfile")),
        ({"headway.toml": '[run]\ncommand = "x"\n[static]\nspa = true'}, "auto", ("static", "app")),
        ({"Procfile": "web gunicorn\n"}, "auto", ("Procfile", "line 1")),
        ({"Procfile": "web: a\nweb: b\n"}, "auto", ("Procfile", "line 2")),
        ({"package.json": package(**needs("@sveltejs/kit", "@sveltejs/adapter-auto"))}, "auto", ("adapter-node",)),
        ({"pyproject.toml": "[", "main.py": FASTAPI}, "auto", ("pyproject.toml", "TOML")),
    ],
)
def test_what_cannot_be_planned_is_told(tree: Tree, profile: str, words: tuple[str, ...]) -> None:
    error = refusal(tree, profile)
    assert error.code in ("build.detect_failed", "build.config_invalid")
    assert [word for word in words if word not in error.message] == []


def test_an_app_by_bun_needs_bun() -> None:
    tree = {"package.json": package("tsc", "bun x.ts", **needs("hono")), "bun.lock": "", "x.ts": ""}
    assert "`bun`" in refusal(tree).message
    assert plan({**tree, "headway.toml": '[run]\ncommand = "node x.js"'}).run is not None
    found = plan(tree, versions={**VERSIONS, "bun": "1.4.5"})
    assert (found.install, found.command) == ("bun install --frozen-lockfile", "bun run build")
    assert found.tidy == "rm -rf node_modules && bun install --frozen-lockfile --production"
    assert found.run is not None
    assert found.run.command.endswith("; exec bun x.ts")


POETRY = '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\nflask = "*"\n'


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"hugo.toml": "", "content/a.md": "x"}, ("hugo.toml", "Hugo", "[build] command")),
        ({"config.toml": "", "content/a.md": "x"}, ("config.toml", "Hugo or Zola")),
        ({"_config.yml": "", "index.md": "x"}, ("_config.yml", "Jekyll")),
        ({"Gemfile": "", "config/database.yml": "x"}, ("Gemfile", "Ruby", "[run] command")),
        ({"composer.json": "{}", "index.php": "x"}, ("composer.json", "PHP")),
        ({"Dockerfile": "FROM x", "main.c": "x"}, ("Dockerfile",)),
        ({"go.mod": "module x", "x.go": "package x"}, ("go.mod", "main package")),
        (
            {"package.json": '{"workspaces": ["apps/*"]}', "apps/web/x.js": "x"},
            ("workspaces", '"start"', "[run] command"),
        ),
        ({"package.json": "{}", "pnpm-workspace.yaml": "", "apps/x": ""}, ("workspaces",)),
        ({"Pipfile": "", "notes.py": "x"}, ("Pipfile", "requirements.txt")),
        ({"backend/manage.py": "", "backend/shop/settings.py": "SECRET"}, ("backend/manage.py", 'root = "backend"')),
        ({"web/package.json": package(**needs("vite")), "README.md": "x"}, ("web/package.json", 'root = "web"')),
    ],
)
@pytest.mark.parametrize("profile", ["auto", "static"])
def test_what_is_the_source_of_something_is_not_published_as_it_is(
    tree: Tree, words: tuple[str, ...], profile: str
) -> None:
    error = refusal(tree, profile)
    assert error.code == "build.detect_failed"
    assert [word for word in (*words, 'output = "."') if word not in error.message] == []
    for more in ({"index.html": "x"}, {"headway.toml": '[build]\noutput = "."'}, {"headway.toml": STATIC_RULES}):
        assert plan({**tree, **more}, profile).source in ("tree", "headway.toml")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"Pipfile": "[packages]\ngunicorn = '*'"}, ("Pipfile", "pipenv requirements")),
        ({"pyproject.toml": POETRY}, ("[tool.poetry]", "poetry lock")),
        ({"requirements/base.txt": "gunicorn"}, ("requirements/base.txt",)),
    ],
)
def test_dependencies_that_are_not_read_are_told(files: Tree, words: tuple[str, ...]) -> None:
    for more in ({"app.py": FLASK}, {"Procfile": "web: gunicorn app:app"}):
        error = refusal({**files, **more})
        assert error.code == "build.detect_failed"
        assert [word for word in words if word not in error.message] == []
    told = {**files, "Procfile": "web: gunicorn app:app"}
    assert plan({**told, "headway.toml": '[build]\ninstall = ""'}).run is not None
    assert plan({**files, "Procfile": "web: ./serve"}).run is not None
    assert plan({**told, "requirements.txt": "gunicorn"}).run is not None


def test_an_app_in_a_folder_is_told_to_be_the_root() -> None:
    error = refusal({"backend/app.py": FLASK, "backend/requirements.txt": "gunicorn"})
    assert [word for word in ("backend/app.py", 'root = "backend"') if word not in error.message] == []


@pytest.mark.parametrize(("name", "program"), [("vite", "node"), ("flask", "python3"), ("go", "go"), ("rust", "cargo")])
def test_a_missing_toolchain_is_named(name: str, program: str) -> None:
    tree = {**STATIC, **DYNAMIC}[name]
    without = {key: value for key, value in VERSIONS.items() if key != program}
    assert f"`{program}`" in refusal(tree, versions=without).message


def test_without_uv_pip_installs() -> None:
    without = {key: value for key, value in VERSIONS.items() if key != "uv"}
    assert (plan(DYNAMIC["flask"], versions=without).install or "").startswith("python3 -m pip install --target")
    assert "uv.lock" in refusal(DYNAMIC["fastapi-uv"], versions=without).message


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock"])
def test_a_large_lock_is_read_for_its_names_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To read 32 MiB of TOML takes 20 s, in the builder's own process."""

    def read(text: str) -> dict[str, Any]:
        assert len(text) <= part.MAX_FILE
        return parse_toml(text)

    monkeypatch.setattr(part, "parse_toml", read)
    packages = "".join(f'[[package]]\nname = "filler-{n}"\nversion = "{"9" * 1000}"\n\n' for n in range(5_000))
    lock = f'version = 1\n{packages}[[package]]\nname = "Gunicorn"\nversion = "1"\n'
    found = plan({"app.py": FLASK, "pyproject.toml": '[project]\nname = "x"\nversion = "1"\n', name: lock})
    assert (found.lock, "gunicorn" in str(found.as_dict()["start"])) == (name, True)


def test_an_own_package_manager_is_used_in_the_version_that_is_asked_for() -> None:
    tree = STATIC["vite-pnpm-pinned"]
    assert (plan(tree, versions={**VERSIONS, "pnpm": "10.4.1"}).install or "").startswith("pnpm install")
    assert (plan(tree, versions={**VERSIONS, "pnpm": "9.0.0"}).install or "").startswith("npx --yes pnpm@10.4.1")


def outcome(tree: Tree, profile: str) -> dict[str, Any] | str:
    try:
        return plan(tree, profile).as_dict()
    except HeadwayError as error:
        return f"{error.code}: {error.message}"


NAMES = st.sampled_from(sorted({name for tree in (*STATIC.values(), *DYNAMIC.values()) for name in tree}))
TEXTS = st.sampled_from(sorted({text for tree in (*STATIC.values(), *DYNAMIC.values()) for text in tree.values()}))


@seed(7)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, TEXTS | st.text(max_size=30), max_size=6), st.sampled_from(["auto", "static", "dynamic"]))
def test_any_tree_has_one_plan_or_a_named_error(tree: Tree, profile: str) -> None:
    """Whatever stands in the files: the same plan twice, or a refusal that says why."""
    tree = {name: text for name, text in tree.items() if not any(other.startswith(name + "/") for other in tree)}
    first, again = outcome(tree, profile), outcome(dict(reversed(tree.items())), profile)
    assert first == again
    assert isinstance(first, dict) or first.startswith(("build.detect_failed: ", "build.config_invalid: "))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(written(), indent=2, sort_keys=True) + "\n")
