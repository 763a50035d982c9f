from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from adapters.artifact.folder import Folder
from adapters.plan.detect import detect
from adapters.plan.plan import OUTPUTS, Plan
from headway.errors import HeadwayError

VITE = json.dumps({"scripts": {"build": "vite build"}, "devDependencies": {"vite": "^8.0.0"}})
BUILD = json.dumps({"scripts": {"build": "make"}, "devDependencies": {"make": "*"}})


def plan(root: Path, files: dict[str, str], profile: str = "auto") -> Plan:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with Folder(root) as folder:
        return detect(folder, profile)


def refusal(root: Path, files: dict[str, str], profile: str = "auto") -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        plan(root, files, profile)
    return caught.value


def test_a_plain_tree_is_published_as_it_is(tmp_path: Path) -> None:
    found = plan(tmp_path, {"index.html": "x"}, "static")
    assert (found.command, found.outputs, found.source) == (None, ("",), "tree")
    assert json.loads(json.dumps(found.as_dict()))["outputs"] == ["."]


@pytest.mark.parametrize(
    ("lock", "install"),
    [
        ("package-lock.json", "npm ci"),
        ("npm-shrinkwrap.json", "npm ci"),
        (None, "npm install"),
    ],
)
def test_a_package_with_a_build_script(tmp_path: Path, lock: str | None, install: str) -> None:
    found = plan(tmp_path, {"package.json": BUILD, **({lock: "{}"} if lock else {})})
    assert (found.install, found.command) == (install, "npm run build")
    assert (found.outputs, found.lock, found.source) == (OUTPUTS, lock, "package.json")


@pytest.mark.parametrize(
    "package", ["{}", "[]", '{"scripts": []}', '{"scripts": {"build": 5}}', '{"scripts": {"test": "x"}}']
)
def test_a_package_without_a_build_script_is_a_plain_tree(tmp_path: Path, package: str) -> None:
    assert plan(tmp_path, {"package.json": package}).source == "tree"


def test_the_settings_file_wins(tmp_path: Path) -> None:
    toml = (
        '[build]\ncommand = "make"\noutput = "html"\nroot = "docs"\ntimeout = 9\nenv = {A = "1"}\n[static]\nspa = true'
    )
    found = plan(tmp_path, {"headway.toml": toml, "package.json": VITE, "docs/index.rst": "x"})
    assert (found.command, found.outputs, found.root, found.timeout) == ("make", ("html",), "docs", 9)
    assert found.env == {"A": "1"}
    assert found.static.spa
    assert found.source == "headway.toml"


def test_settings_and_detection_complete_each_other(tmp_path: Path) -> None:
    found = plan(tmp_path, {"headway.toml": '[build]\noutput = "site"\nroot = "web"', "web/package.json": VITE})
    assert (found.install, found.command) == ("npm install", "npm run build")
    assert (found.outputs, found.source) == (("site",), "package.json")
    found = plan(tmp_path, {"headway.toml": '[build]\ncommand = ""\nroot = "web"'})
    assert (found.command, found.outputs) == (None, ("",))
    found = plan(tmp_path, {"headway.toml": '[build]\ncommand = "make"'})
    assert found.outputs == OUTPUTS


def test_failures_name_what_was_looked_for(tmp_path: Path) -> None:
    error = refusal(tmp_path, {".gitignore": "", "headway.toml": ""})
    assert error.code == "build.detect_failed"
    assert "package.json" in error.message
    assert "headway.toml" in error.message
    assert refusal(tmp_path, {"package.json": "{"}).code == "build.detect_failed"
    assert refusal(tmp_path, {"index.html": ""}, "bedrock").code == "build.detect_failed"
    assert refusal(tmp_path, {"headway.toml": '[build]\nroot = "gone"'}).code == "build.config_invalid"


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('[build]\ncommand = "x"')
    root = tmp_path / "root"
    root.mkdir()
    (root / "headway.toml").symlink_to("../secret")
    assert refusal(root, {"index.html": "x"}).code == "build.config_invalid"
    (root / "headway.toml").unlink()
    (root / "package.json").symlink_to("../secret")
    assert refusal(root, {}).code == "build.detect_failed"
    (root / "package.json").unlink()
    (root / "web").symlink_to("..")
    assert refusal(root, {"headway.toml": '[build]\nroot = "web"'}).code == "build.config_invalid"


@pytest.mark.parametrize("name", ["docs", "doc", "source", "requirements", "cmd"])
@pytest.mark.parametrize("links", [True, False])
def test_a_link_or_a_file_where_others_have_a_folder_is_nobodys_concern(tmp_path: Path, name: str, links: bool) -> None:
    (tmp_path / "website").mkdir()
    (tmp_path / name).symlink_to("website") if links else (tmp_path / name).write_text("x")
    assert plan(tmp_path, {"index.html": "x"}).source == "tree"
    assert plan(tmp_path, {"package.json": BUILD}).command == "npm run build"
    found = plan(tmp_path, {"requirements.txt": "gunicorn", "app.py": "app = Flask(x)"}, "dynamic")
    assert found.framework == "Flask"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_windows_programs_write_is_read(tmp_path: Path, encoding: str) -> None:
    app = "from flask import Flask\r\napp = Flask(__name__)\r\n"
    for name, text in (("requirements.txt", "gunicorn==23\r\nFlask==3\r\n"), ("app.py", app)):
        (tmp_path / name).write_bytes(text.encode(encoding))
    found = plan(tmp_path, {}).run
    assert found is not None
    assert found.command.endswith("app:app")
    assert "gunicorn" in found.command
    (tmp_path / "Procfile").write_bytes("web: gunicorn app:app\r\nrelease: true\r\n".encode(encoding))
    found = plan(tmp_path, {}).run
    assert found is not None
    assert found.command.endswith("; exec gunicorn app:app")


def test_groups_that_include_each_other_for_ever_are_read_once(tmp_path: Path) -> None:
    names = [f"g{number}" for number in range(3000)]
    chain = "".join(f'{name} = ["p-{name}", {{include-group = "{after}"}}]\n' for name, after in pairwise(names))
    groups = (
        f'[dependency-groups]\ndocs = ["a", {{include-group = "g0"}}, "z"]\n{chain}g2999 = [{{include-group="docs"}}]\n'
    )
    found = plan(tmp_path, {"mkdocs.yml": "site_name: x", "pyproject.toml": f'[project]\nname = "x"\n{groups}'})
    words = (found.install or "").partition(" && ")[0].split()
    assert (words[-3:], words[words.index("a") + 1]) == (["p-g2997", "p-g2998", "z"], "p-g0")


def test_equal_trees_give_equal_plans(tmp_path: Path) -> None:
    files = {"package.json": VITE, "headway.toml": '[build.env]\nB = "2"\nA = "1"'}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = json.dumps(plan(tmp_path / "a", files).as_dict())
    assert first == json.dumps(plan(tmp_path / "b", files).as_dict())


def test_a_start_script_of_an_unknown_program_serves_where_there_is_nothing_to_publish(tmp_path: Path) -> None:
    package = {"scripts": {"start": "json-server --port $PORT db.json"}, "dependencies": {"json-server": "^0.17"}}
    found = plan(tmp_path, {"package.json": json.dumps(package), "db.json": "{}"})
    assert found.run is not None
    assert found.run.command.endswith("; exec json-server --port $PORT db.json")
    found = plan(tmp_path, {"index.html": "<p>a page"})
    assert found.run is None


@pytest.mark.parametrize("piece", ["\n", " ", "a", "a.", "a=\n", "a:\n"], ids=repr)
@pytest.mark.parametrize("file", ["mkdocs.yml", "docs/conf.py", "app.py", "requirements.txt", ".yarnrc.yml"])
def test_no_file_takes_the_square_of_its_size(tmp_path: Path, file: str, piece: str) -> None:
    others = {"requirements.txt": "flask", "package.json": BUILD, "yarn.lock": "__metadata:"}
    began = time.process_time()
    plan(tmp_path, {**others, file: piece * (50_000 // len(piece))})
    assert time.process_time() - began < 5


@pytest.mark.parametrize("given", ["1", "true", "nan", '"flask"', "{ flask = 1 }", "1979-05-27"])
def test_dependencies_that_are_no_list_are_said(tmp_path: Path, given: str) -> None:
    refused = refusal(tmp_path, {"pyproject.toml": f"[project]\nname = 'x'\ndependencies = {given}\n", "app.py": ""})
    assert refused.code == "build.detect_failed"
    assert "project.dependencies" in refused.message


@pytest.mark.parametrize("main", ["a\0.js", "\ud800.js", "in\0/a.js", "\ud800/a.js"])
def test_a_name_that_no_file_has_is_not_there(tmp_path: Path, main: str) -> None:
    package = json.dumps({"dependencies": {"express": "^5.0.0"}, "main": main})
    assert plan(tmp_path, {"package.json": package, "server.js": ""}).run is not None
    with Folder(tmp_path) as folder, pytest.raises(HeadwayError, match="is no path"):
        folder.open(main)


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({}, ("dist/shop/browser", "dist/shop")),
        ({"outputPath": "dist/web/"}, ("dist/web/browser", "dist/web")),
        ({"outputPath": {"base": "out", "browser": ""}}, ("out",)),
        ({"outputPath": "../../etc"}, ()),
        ({"outputPath": {"base": ["x"]}}, ()),
        ({"outputPath": "a\ud800"}, ()),
    ],
)
def test_what_angular_is_set_to_write(tmp_path: Path, options: dict[str, object], outputs: tuple[str, ...]) -> None:
    package = json.dumps({"scripts": {"build": "ng build"}, "dependencies": {"@angular/core": "20"}})
    angular = json.dumps({"projects": {"shop": {"architect": {"build": {"options": options}}}}})
    found = plan(tmp_path, {"package.json": package, "angular.json": angular})
    assert found.outputs == tuple(dict.fromkeys([*outputs, *OUTPUTS]))
