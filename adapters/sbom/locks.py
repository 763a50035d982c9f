"""Reading lock files for what they name. Everything in them is a stranger's: what is odd is left out, never believed.

A file of one package may be named with several hashes (a wheel per platform): those are left out of the bill, since
nothing says which one was installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from adapters.artifact.folder import Folder
from adapters.sbom.component import Component, component, integrity, plain_hash
from headway.errors import HeadwayError
from headway.toml import parse_toml

MAX_LOCK: Final = 32 << 20
# No project's own is larger, and to read 32 MiB of TOML takes 20 s.
MAX_TOML: Final = 8 << 20
LIBRARIES: Final = ".headway/site-packages"
_PNPM = re.compile(r"^  ['\"]?/?((?:@[^/'\"@]+/)?[^@'\"/]+)[@/]([^:'\"(]+?)(?:\([^:]*)?['\"]?:\s*$")
_YARN = re.compile(r'^"?((?:@[^/"]+/)?[^@"]+)@')
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;\\#]+)")
_GO = re.compile(r"^(\S+) (v[^\s/]+) (?:h1:\S+)$")

Found = Iterable[Component | None]


def from_locks(root: Folder) -> list[Component]:
    """What the lock files in a folder name; read before anything runs, as the source has them."""
    return _all(root, READERS)


def from_installed(root: Folder) -> list[Component]:
    """What an install has left: npm's own note, and the metadata of Python's packages."""
    found = _all(root, {"node_modules/.package-lock.json": npm})
    return [*found, *_distributions(root)]


def npm(text: str, source: str) -> Iterator[Component | None]:
    document = _json(text)
    packages = document.get("packages")
    if isinstance(packages, dict):
        for path, one in packages.items():
            if path and isinstance(one, dict) and not one.get("link") and "node_modules/" in path:
                yield _npm(one.get("name") or path.rpartition("node_modules/")[2], one, source)
        return
    waiting = [document.get("dependencies")]
    while waiting:
        level = waiting.pop()
        for name, one in level.items() if isinstance(level, dict) else ():
            if isinstance(one, dict):
                yield _npm(name, one, source)
                waiting.append(one.get("dependencies"))


def pnpm(text: str, source: str) -> Iterator[Component | None]:
    """The keys of `packages:`, with the integrity in the line that follows; no YAML reader is needed for that."""
    inside, name, version = False, "", ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            inside = line.startswith("packages:")
        elif inside and (key := _PNPM.match(line)):
            if name:
                yield component("npm", name, version, source=source)
            name, version = key[1], key[2]
        elif inside and name and (at := line.find("integrity:")) >= 0:
            word = line[at + len("integrity:") :].strip().rstrip("}").split(",")[0].strip()
            yield component("npm", name, version, hashes=integrity(word), source=source)
            name = ""
    if name:
        yield component("npm", name, version, source=source)


def yarn(text: str, source: str) -> Iterator[Component | None]:
    """Both its own format of version 1 and the YAML of later ones have these lines."""
    name, version = "", ""
    hashes: tuple[tuple[str, str], ...] = ()
    for line in [*text.splitlines(), "end:"]:
        if line and not line.startswith((" ", "#")):
            if name and version:
                yield component("npm", name, version, hashes=hashes, source=source)
            key = _YARN.match(line)
            local = "@workspace:" in line or "@link:" in line
            name, version, hashes = key[1] if key and not local else "", "", ()
        elif (word := line.strip()).startswith(("version ", "version:")):
            version = word.partition(" ")[2].strip().strip('"')
        elif word.startswith("integrity "):
            hashes = integrity(word.partition(" ")[2])


def uv(text: str, source: str) -> Iterator[Component | None]:
    for one in _packages(text):
        origin = one.get("source")
        if not (isinstance(origin, dict) and {"virtual", "editable", "directory"} & set(origin)):
            yield component("pypi", one.get("name"), one.get("version"), hashes=_only(one, "wheels"), source=source)


def poetry(text: str, source: str) -> Iterator[Component | None]:
    for one in _packages(text):
        yield component("pypi", one.get("name"), one.get("version"), hashes=_only(one, "files"), source=source)


def requirements(text: str, source: str) -> Iterator[Component | None]:
    for line in text.replace("\\\n", " ").splitlines():
        if pinned := _PINNED.match(line.strip()):
            given = re.findall(r"--hash[= ](\S+)", line)
            hashes = plain_hash(given[0]) if len(given) == 1 else ()
            yield component("pypi", pinned[1], pinned[2], hashes=hashes, source=source)


def cargo(text: str, source: str) -> Iterator[Component | None]:
    for one in _packages(text):
        if isinstance(one.get("source"), str):
            checksum = plain_hash(f"sha256:{one.get('checksum')}")
            yield component("cargo", one.get("name"), one.get("version"), hashes=checksum, source=source)


def go(text: str, source: str) -> Iterator[Component | None]:
    for line in text.splitlines():
        if (match := _GO.match(line)) and not match[2].endswith("/go.mod"):
            yield component("golang", match[1], match[2], source=source)


READERS: Final[dict[str, Callable[[str, str], Found]]] = {
    "npm-shrinkwrap.json": npm,
    "package-lock.json": npm,
    "pnpm-lock.yaml": pnpm,
    "yarn.lock": yarn,
    "uv.lock": uv,
    "poetry.lock": poetry,
    "requirements.txt": requirements,
    "Cargo.lock": cargo,
    "go.sum": go,
}


def _all(root: Folder, readers: dict[str, Callable[[str, str], Found]]) -> list[Component]:
    found: list[Component] = []
    for name, reader in readers.items():
        text = _text(root, name, MAX_LOCK)
        if text is not None:
            found += [one for one in reader(text, name) if one is not None]
    return found


def _distributions(root: Folder) -> Iterator[Component]:
    try:
        libraries = root.folder(LIBRARIES)
    except HeadwayError:
        return
    if libraries is None:
        return
    with libraries:
        for name in libraries.names():
            if name.endswith(".dist-info"):
                head = (_text(libraries, f"{name}/METADATA", 1 << 20) or "").partition("\n\n")[0]
                fields = dict(line.split(": ", 1) for line in reversed(head.splitlines()) if ": " in line)
                license = fields.get("License-Expression")
                made = component("pypi", fields.get("Name"), fields.get("Version"), license=license, source=LIBRARIES)
                if made is not None:
                    yield made


def _npm(name: object, one: dict[str, Any], source: str) -> Component | None:
    optional = bool(one.get("dev") or one.get("optional") or one.get("devOptional"))
    hashes = integrity(one.get("integrity"))
    version, license = one.get("version"), one.get("license")
    return component("npm", name, version, hashes=hashes, license=license, optional=optional, source=source)


def _packages(text: str) -> Iterator[dict[str, Any]]:
    if len(text) > MAX_TOML:
        return
    try:
        packages = parse_toml(text).get("package", [])
    except (ValueError, RecursionError):
        return
    yield from (one for one in packages if isinstance(one, dict)) if isinstance(packages, list) else ()


def _only(one: dict[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    files = one.get(key)
    if isinstance(files, list) and len(files) == 1 and isinstance(files[0], dict):
        return plain_hash(files[0].get("hash"))
    return ()


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(root: Folder, path: str, most: int) -> str | None:
    try:
        raw = root.read(path, most)
    except HeadwayError:
        return None
    return None if raw is None else raw.decode("utf-8", "replace")
