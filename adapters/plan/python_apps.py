"""Python servers: which object answers requests, and which of the installed servers can call it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from adapters.artifact.folder import Folder
from adapters.plan.part import Start, is_folder, read_source

Interface = Literal["wsgi", "asgi"]

FILES: Final = ("app.py", "main.py", "wsgi.py", "asgi.py", "application.py", "server.py", "api.py", "__init__.py")
FOLDERS: Final = ("app", "api", "server", "backend", "web")
BIND: Final = '"${HOST:-0.0.0.0}:$PORT"'
HOST: Final = '"${HOST:-0.0.0.0}"'
# Libraries whose servers a program starts by itself, and what such a program hears besides $PORT.
SCRIPTS: Final = {
    **dict.fromkeys(("aiohttp", "tornado", "cherrypy", "nicegui", "websockets"), ""),
    "gradio": f'GRADIO_SERVER_NAME={HOST} GRADIO_SERVER_PORT="$PORT" ',
}
STREAMLIT: Final = f'--server.address {HOST} --server.port "$PORT" --server.headless true'

_MAKERS: Final[dict[str, Interface]] = {
    **dict.fromkeys(("Flask", "Bottle", "APIFlask", "Pyramid"), "wsgi"),
    **dict.fromkeys(("FastAPI", "Starlette", "Quart", "Litestar", "Sanic", "BlackSheep"), "asgi"),
}
_OBJECT = re.compile(rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)*({'|'.join(_MAKERS)})\(", re.MULTILINE)
_MADE_BY = re.compile(r"^(?:async )?def (create_app|make_app)\(", re.MULTILINE)
_WSGI = re.compile(r"^def (application|app)\(\s*environ\b", re.MULTILINE)
_ASGI = re.compile(r"^async def (application|app)\(\s*scope\b", re.MULTILINE)
_IMPORTS = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
_MAIN = re.compile(r"""^if __name__ == ["']__main__["']""", re.MULTILINE)
_GET_WSGI = re.compile(r"^(application|app)\s*=\s*get_(wsgi|asgi)_application\(", re.MULTILINE)


@dataclass(frozen=True)
class App:
    """`target` is `module:object`; `start` is None where no server for its interface is among the dependencies."""

    file: str
    framework: str
    start: Start | None
    wants: str | None = None


@dataclass(frozen=True)
class _Found:
    file: str
    target: str
    interface: Interface
    framework: str
    factory: bool = False


def find_app(root: Folder, names: frozenset[str]) -> App | None:
    """The first server object in the places where such a thing usually stands. Raises build.detect_failed."""
    found = _django(root, names) or next(_objects(root), None)
    if found is None:
        return _script(root, names)
    command = _wsgi(found, names) if found.interface == "wsgi" else _asgi(found, names)
    if command is None:
        servers = "gunicorn or waitress" if found.interface == "wsgi" else "uvicorn or hypercorn"
        wants = f"{found.file} is a server ({found.framework}), and nothing among its dependencies serves it:"
        return App(found.file, found.framework, None, f"{wants} add {servers}, or name a [run] command.")
    return App(found.file, found.framework, Start(command, found.file, found.framework))


def _script(root: Folder, names: frozenset[str]) -> App | None:
    """A file that is a server when it is run, by a library that serves by itself."""
    for file in ("streamlit_app.py", *FILES):
        text = read_source(root, file)
        imports = {name for name in _IMPORTS.findall(text) if name in names}
        if "streamlit" in imports:
            return App(file, "Streamlit", Start(f"python3 -m streamlit run {file} {STREAMLIT}", file, "Streamlit"))
        library = next((name for name in SCRIPTS if name in imports), None)
        if library is not None and _MAIN.search(text):
            return App(file, library, Start(f"{SCRIPTS[library]}python3 {file}", file, library))
    return None


def _django(root: Folder, names: frozenset[str]) -> _Found | None:
    if not root.has("manage.py"):
        return None
    serves_asgi = bool(names & {"uvicorn", "hypercorn", "daphne"}) and not names & {"gunicorn", "waitress"}
    wanted: Interface = "asgi" if serves_asgi else "wsgi"
    for folder in root.names():
        if not folder.isidentifier() or not is_folder(root, folder):
            continue
        file = f"{folder}/{wanted}.py"
        if (match := _GET_WSGI.search(read_source(root, file))) is not None:
            return _Found(file, f"{folder}.{wanted}:{match[1]}", wanted, "Django")
    return None


def _objects(root: Folder) -> Iterator[_Found]:
    for above in ("", "src"):
        if above and not is_folder(root, above):
            continue
        for folder in ("", *_packages(root, above)):
            for name in FILES:
                parts = [part for part in (above, folder, name) if part]
                file = "/".join(parts)
                if name == "__init__.py" and not folder:
                    continue
                text = read_source(root, file)
                module = ".".join(part for part in (folder, name.removesuffix(".py")) if part and part != "__init__")
                if text and (found := _in_text(file, module, text)) is not None:
                    yield found


def _packages(root: Folder, above: str) -> list[str]:
    """The usual folders first, then every other package; at most fifty are looked into."""
    inner = root.folder(above)
    if inner is None:
        return []
    with inner:
        names = [name for name in inner.names() if name.isidentifier() and name not in ("tests", "test", "docs")]
        packages = [name for name in names if is_folder(inner, name)]
    return sorted(packages, key=lambda name: (name not in FOLDERS, name))[:50]


def _in_text(file: str, module: str, text: str) -> _Found | None:
    if (match := _OBJECT.search(text)) is not None:
        return _Found(file, f"{module}:{match[1]}", _MAKERS[match[2]], match[2])
    if (match := _WSGI.search(text)) is not None:
        return _Found(file, f"{module}:{match[1]}", "wsgi", "WSGI")
    if (match := _ASGI.search(text)) is not None:
        return _Found(file, f"{module}:{match[1]}", "asgi", "ASGI")
    if (match := _MADE_BY.search(text)) is not None:
        maker = next((name for name in _MAKERS if re.search(rf"\b{name}\(", text)), None)
        if maker is not None:
            return _Found(file, f"{module}:{match[1]}", _MAKERS[maker], maker, factory=True)
    return None


def _wsgi(found: _Found, names: frozenset[str]) -> str | None:
    if "gunicorn" in names:
        target = f"'{found.target}()'" if found.factory else found.target
        return f"python3 -m gunicorn --bind {BIND} {target}"
    if "waitress" in names:
        call = "--call " if found.factory else ""
        return f'python3 -m waitress --host={HOST} --port="$PORT" {call}{found.target}'
    if "granian" in names:
        factory = "--factory " if found.factory else ""
        return f'granian --interface wsgi --host {HOST} --port "$PORT" {factory}{found.target}'
    return None


def _asgi(found: _Found, names: frozenset[str]) -> str | None:
    if names & {"uvicorn", "fastapi[standard]", "fastapi[all]", "fastapi-cli"}:
        factory = "--factory " if found.factory else ""
        return f'python3 -m uvicorn --host {HOST} --port "$PORT" {factory}{found.target}'
    if "hypercorn" in names:
        target = f"'{found.target}()'" if found.factory else found.target
        return f"python3 -m hypercorn --bind {BIND} {target}"
    if "granian" in names:
        factory = "--factory " if found.factory else ""
        return f'granian --interface asgi --host {HOST} --port "$PORT" {factory}{found.target}'
    if "daphne" in names and not found.factory:
        return f'daphne -b {HOST} -p "$PORT" {found.target}'
    return None
