"""Python: dependencies go into a folder of the tree at build time, by uv (or pip); nothing is installed at start."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.plan import documentation, foreign, generators, python_apps
from adapters.plan.part import MAX_LOCK, Part, Tools, is_folder, read_text, read_toml, table
from headway.errors import HeadwayError

LIBRARIES: Final = ".headway/site-packages"
# Where a sandbox finds the helpers that are kept beside this module.
KIT: Final = "/headway/kit"
TIDY: Final = f"python3 {KIT}/tidy.py {LIBRARIES}"
UV: Final = f"uv pip install --python python3 --target {LIBRARIES}"
PIP: Final = f"python3 -m pip install --target {LIBRARIES} --no-compile --disable-pip-version-check"
LEFT_OUT: Final = (
    *(".venv", "venv", ".tox", ".nox", ".pytest_cache", ".mypy_cache", ".ruff_cache", "__pycache__"),
    *(".coverage", "htmlcov", f"{LIBRARIES}/.lock"),
)
PYPROJECT: Final = "pyproject.toml"
REQUIREMENTS: Final = "requirements.txt"

INSTALLS: Final = re.compile(r"\b(?:pip3? install|uv sync|uv pip|poetry install|pipenv install)\b")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
# As uv and Poetry write it. To read all of a large lock would keep a processor for many seconds, outside a sandbox.
_PACKAGE = re.compile(r'^\[\[package\]\][ \t]*\r?\nname[ \t]*=[ \t]*"([^"\n]+)"', re.MULTILINE)
_INCLUDE = re.compile(r"\s*(?:-r|--requirement)[ =]\s*([\w./-]+)")
_MOST_INCLUDES: Final = 20


@dataclass(frozen=True)
class Dependencies:
    """`source` is the file that names them; `install` gets them; `names` are normalised, as far as the file tells."""

    source: str
    install: str | None
    names: frozenset[str]
    lock: str | None = None


def python_part(root: Folder, tools: Tools | None) -> Part | None:
    """None where nothing of Python was recognised. Raises build.detect_failed."""
    found = dependencies(root, tools)
    app = python_apps.find_app(root, found.names if found else frozenset())
    if app is not None and app.wants is not None and found is None:
        app = replace(app, wants=_nothing_named(root, app))
    site = generators.find_site(root)
    if found is None and app is None and site is None:
        return None
    install = found.install if found else None
    if site is not None:
        install = _with_generator(root, site, tools)
    folders = (LIBRARIES, "src") if is_folder(root, "src") else (LIBRARIES,)
    return Part(
        source=found.source if found else (app.file if app else site.source if site else REQUIREMENTS),
        needs=("python3",),
        uses=("uv",),
        installs=INSTALLS,
        install=install,
        install_for_run=found.install if found else None,
        build=site.build if site else None,
        tidy=TIDY,
        lock=found.lock if found else None,
        path=(f"{LIBRARIES}/bin",),
        libraries=folders,
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        left_out=LEFT_OUT,
        start=app.start if app else None,
        static=site is not None,
        framework=site.name if site else (app.framework if app else None),
        outputs=site.outputs if site else (),
        wants=app.wants if app else None,
    )


def _nothing_named(root: Folder, app: python_apps.App) -> str:
    folder = app.file.partition("/")[0] if "/" in app.file else ""
    instead = foreign.unread_dependencies(root) or (foreign.below(root, folder) if folder else None)
    named = f"uv.lock, poetry.lock, {REQUIREMENTS}, {PYPROJECT}, setup.py"
    what = f"{app.file} is a server ({app.framework}), and nothing beside it names its dependencies"
    return (
        f"{what} (looked for: {named}). {instead or f'Add a {REQUIREMENTS} with a server such as gunicorn or uvicorn.'}"
    )


def dependencies(root: Folder, tools: Tools | None, group: documentation.Group | None = None) -> Dependencies | None:
    """The first of uv.lock, poetry.lock, requirements.txt, pyproject.toml, setup.py; with what `group` asks for."""
    put = installer(tools)
    project = read_toml(root, PYPROJECT)
    names = _project_names(project)
    if project is not None and root.has("uv.lock"):
        _needs_uv(tools, "uv.lock")
        own = "" if _is_package(project) else " --no-emit-project"
        more = f" --{group.kind} {group.name}" if group and group.kind != "poetry" else ""
        export = f"uv export --quiet --frozen --no-dev --no-editable --no-header{own}{more}"
        install = f'{export} --output-file "$TMPDIR/requirements.txt" && {put} -r "$TMPDIR/requirements.txt"'
        return Dependencies("uv.lock", install, names | _locked(root, "uv.lock"), "uv.lock")
    if root.has("poetry.lock"):
        more = f" {group.name}" if group and group.kind == "poetry" else ""
        export = f'python3 {KIT}/poetry.py poetry.lock "$TMPDIR/requirements.txt"{more}'
        install = f'{export} && {put} -r "$TMPDIR/requirements.txt"'
        return Dependencies("poetry.lock", install, names | _locked(root, "poetry.lock"), "poetry.lock")
    if root.has(REQUIREMENTS):
        return Dependencies(REQUIREMENTS, f"{put} -r {REQUIREMENTS}", required_names(root, REQUIREMENTS), REQUIREMENTS)
    listed = "".join(f" {shlex.quote(one)}" for one in group.requirements) if group and group.kind == "group" else ""
    if project is not None and _is_package(project):
        what = f"'.[{group.name}]'" if group and group.kind == "extra" else "."
        return Dependencies(PYPROJECT, f"{put} {what}{listed}", names)
    if project is not None and "project" in project:
        return Dependencies(PYPROJECT, f"{put} -r {PYPROJECT}{listed}" if names or listed else None, names)
    if root.has("setup.py"):
        return Dependencies("setup.py", f"{put} .", frozenset())
    return None


def installer(tools: Tools | None) -> str:
    """uv where builds have it, else pip."""
    return UV if tools is None or tools("uv") is not None else PIP


def required_names(root: Folder, path: str) -> frozenset[str]:
    """The names in a requirements file and in those that it includes, as far as they lie in the repository."""
    names: set[str] = set()
    ahead, seen = [path], set[str]()
    while ahead and len(seen) < _MOST_INCLUDES:
        file = ahead.pop()
        if file in seen or file.startswith("/") or ".." in file.split("/"):
            continue
        seen.add(file)
        for line in (read_text(root, file) or "").splitlines():
            if include := _INCLUDE.match(line):
                above = file.rpartition("/")[0]
                ahead.append(f"{above}/{include[1]}" if above else include[1])
            elif (name := _NAME.match(line)) and not line.lstrip().startswith("-"):
                names |= normalised(line[name.start(1) :])
    return frozenset(names)


def normalised(requirement: str) -> set[str]:
    """`Flask[async]>=3` is `flask` and `flask[async]`."""
    match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?", requirement.strip())
    if match is None:
        return set()
    name = re.sub(r"[-_.]+", "-", match[1]).lower()
    return {name} | {f"{name}[{extra.strip().lower()}]" for extra in (match[2] or "").split(",") if extra.strip()}


def _project_names(project: dict[str, Any] | None) -> frozenset[str]:
    listed = table(project, "project").get("dependencies", [])
    if not isinstance(listed, list):
        raise HeadwayError("build.detect_failed", f"project.dependencies of {PYPROJECT} is not a list.")
    names = {one for text in listed if isinstance(text, str) for one in normalised(text)} if listed else set()
    return frozenset(names | {one.lower() for one in table(project, "tool", "poetry", "dependencies")} - {"python"})


def _locked(root: Folder, path: str) -> frozenset[str]:
    return frozenset(name.lower() for name in _PACKAGE.findall(read_text(root, path, MAX_LOCK) or ""))


def _is_package(project: dict[str, Any]) -> bool:
    """Whether the project itself can be installed, and is not only a list of dependencies."""
    asked = table(project, "tool", "uv").get("package")
    return asked if isinstance(asked, bool) else "build-system" in project and "project" in project


def _with_generator(root: Folder, site: generators.Site, tools: Tools | None) -> str | None:
    """What the repository names for its documentation, and the generator where that does not name it."""
    put = installer(tools)
    project = read_toml(root, PYPROJECT)
    group = None if site.requirements else documentation.find_group(project)
    found = dependencies(root, tools, group)
    install = found.install if found else None
    # What documents itself is itself among what the documentation imports.
    whole = install is not None and project is not None and _is_package(project)
    steps = [f"{put} -r {site.requirements}"] if site.requirements else []
    steps += [install] if install and (whole or not site.requirements) else []
    # A lock's names are not asked: it has those of groups that are not installed, too.
    names = required_names(root, site.requirements) if site.requirements else frozenset()
    names |= _project_names(project) if found is None or found.lock != REQUIREMENTS else found.names
    names |= {one for text in group.requirements for one in normalised(text)} if group else set()
    missing = [name for name in site.packages if not normalised(name) & names]
    return " && ".join([*steps, *([f"{put} {' '.join(missing)}"] if missing else [])]) or None


def _needs_uv(tools: Tools | None, lock: str) -> None:
    if tools is not None and tools("uv") is None:
        raise HeadwayError("build.detect_failed", f"{lock} needs uv, and builds find none on this machine.")
