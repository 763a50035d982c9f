"""What is no site and cannot be built here: told by its own files, with what to do, before it is published as it is.

A tree without an `index.html` is published all the same (downloads, say): only what is the source of something is not.
"""

from __future__ import annotations

from typing import Final

from adapters.artifact.folder import Folder
from adapters.artifact.paths import escaped
from adapters.plan.part import is_folder, read_json, read_toml, table

_HUGO: Final = "of a Hugo site, and builds have no Hugo"
_OLDER: Final = "of a Hugo or Zola site, and builds have neither"
_TELLING: Final = {
    **dict.fromkeys(("hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json"), _HUGO),
    "_config.yml": "of a Jekyll site, and builds have no Ruby",
    "book.toml": "of an mdBook, and builds have no mdBook",
    "Gemfile": "of Ruby, which is not recognised",
    "composer.json": "of PHP, which is not recognised",
    **dict.fromkeys(("pom.xml", "build.gradle", "build.gradle.kts"), "of Java, which is not recognised"),
    "mix.exs": "of Elixir, which is not recognised",
    **dict.fromkeys(("deno.json", "deno.jsonc"), "of Deno, which is not recognised"),
    "go.mod": "of Go, and one main package (at the root, or the only one below cmd/) is not there",
    "Cargo.toml": "of Rust, and one program (src/main.rs of a package) is not there",
    "Dockerfile": "of an image, and images are not built here",
}
# In a folder of its own: a part of a larger repository.
_BELOW: Final = (
    *("package.json", "manage.py", "requirements.txt", "pyproject.toml", "Pipfile", "mkdocs.yml"),
    *(name for name in _TELLING if name not in ("_config.yml", "Dockerfile")),
)
_MOST_FOLDERS: Final = 200


def telling(root: Folder) -> str | None:
    """What the tree is the source of, and what to do about it; None where nothing tells."""
    if root.has("index.html"):
        return None
    what_tells = {**_TELLING, **({"config.toml": _OLDER} if is_folder(root, "content") else {})}
    where = "Name a [build] command with its output, or a [run] command, in headway.toml"
    for name, what in what_tells.items():
        if root.has(name):
            return f"{name} is {what}. {where}; or publish what was built elsewhere."
    if (unread := unread_dependencies(root)) is not None:
        return unread
    if root.has("pnpm-workspace.yaml") or "workspaces" in (read_json(root, "package.json") or {}):
        what = "The workspaces of this repository are to be built or started by a script of the root's package.json"
        return f'{what} ("start": "node apps/web/server.js"), which has none. {where}.'
    folders = (folder for folder in root.names()[:_MOST_FOLDERS] if not folder.startswith("."))
    return next((told for folder in folders if (told := below(root, folder)) is not None), None)


def below(root: Folder, folder: str) -> str | None:
    """What to do about a project that has this folder for itself; None where it is none."""
    found = _first_of(root, folder, _BELOW)
    if found is None:
        return None
    name = escaped(folder)
    return f'{name}/{found} is of a project in a folder of its own: set [build] root = "{name}" in headway.toml.'


def unread_dependencies(root: Folder) -> str | None:
    """A file that names a Python project's dependencies, and is not read: what to write in its place."""
    if root.has("Pipfile"):
        return "Pipfile is not read: commit what `pipenv requirements > requirements.txt` writes."
    if table(read_toml(root, "pyproject.toml"), "tool", "poetry", "dependencies"):
        return "pyproject.toml names its dependencies under [tool.poetry]: commit what `poetry lock` writes."
    found = _first_of(root, "requirements", ("prod.txt", "production.txt", "base.txt", "main.txt"))
    return (
        f"requirements/{found} is not read: add a requirements.txt with `-r requirements/{found}`." if found else None
    )


def _first_of(root: Folder, folder: str, names: tuple[str, ...]) -> str | None:
    if not is_folder(root, folder):
        return None
    inner = root.folder(folder)
    if inner is None:
        return None
    with inner:
        return next((name for name in names if inner.has(name)), None)
