"""The package indexes that this machine's clients use, so that the same commands work unchanged in a sandbox.

The clients are asked (`npm config`, `pip config`, `go env`); no index is named here. Packages often lie on another
host than their index, so the index itself is asked too: for the page of the client's own package.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

ASK_SECONDS, LOOK_SECONDS = 30.0, 6.0
PAGE_LIMIT = 4 << 20
QUIET = {"npm_config_update_notifier": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
DEFAULT_OF_PIP = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


@dataclass(frozen=True)
class PackageIndexes:
    """`hosts`: `host:port` to allow. `env`: what the clients in a sandbox need. `folders`: local indexes to mount
    read-only at their own paths. `ca_files`: certificates that the clients trust beside the system's.

    An address that holds a user and a password is passed on as it is, because the client needs it; nothing else of
    the host's credentials (`_authToken` lines, netrc, keyrings) is.
    """

    hosts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    ca_files: tuple[Path, ...] = ()


Ask = Callable[[list[str]], str]


@functools.cache
def package_indexes() -> PackageIndexes:
    """Asked once per process: about a second, and up to 6 s more where an index does not answer."""
    return discover(_ask, _links)


def discover(ask: Ask, links: Callable[[str, str], Iterable[str]]) -> PackageIndexes:
    """`ask` runs a command and returns what it prints ("" if it fails); `links(kind, index)` are its packages' URLs."""
    env, urls, folders, authorities = dict(QUIET), list[str](), list[Path](), list[str]()
    for part in (_npm(ask), _pip(ask), _go(ask)):
        env.update(part.env)
        authorities.extend(part.ca)
        for url in part.urls:
            if folder := _local(url):
                folders.append(folder)
            else:
                urls.append(url)
        for kind, url in part.indexes:
            urls.extend(links(kind, url))
    hosts = dict.fromkeys(text for url in urls if (text := _authority(url)))
    files = dict.fromkeys(Path(name) for name in authorities if name)
    return PackageIndexes(
        tuple(hosts),
        env,
        tuple(folder for folder in dict.fromkeys(folders) if folder.is_dir()),
        tuple(path for path in files if path.is_file()),
    )


@dataclass
class _Part:
    env: dict[str, str] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)
    indexes: list[tuple[str, str]] = field(default_factory=list)
    ca: list[str] = field(default_factory=list)


def _npm(ask: Ask) -> _Part:
    try:
        config = json.loads(ask(["npm", "config", "list", "--json"]))
    except ValueError:
        return _Part()
    part = _Part(ca=[str(config.get("cafile") or "")])
    for key, value in config.items():
        if isinstance(value, str) and (key == "registry" or key.endswith(":registry")):
            part.env[f"npm_config_{key}"] = value
            part.urls.append(value)
            part.indexes.append(("npm", value))
    if registry := config.get("registry"):
        part.env |= {"YARN_REGISTRY": registry, "YARN_NPM_REGISTRY_SERVER": registry.rstrip("/")}
    for key in ("omit-lockfile-registry-resolved", "replace-registry-host"):
        if config.get(key) is not None:
            part.env["npm_config_" + key.replace("-", "_")] = str(config[key]).lower()
    return part


def _pip(ask: Ask) -> _Part:
    words = next((words for words in (["pip"], ["python3", "-m", "pip"]) if ask([*words, "--version"])), None)
    found: dict[str, str] = {}
    if words:
        # Later lines win, as in pip itself: files first, then the environment.
        for line in ask([*words, "config", "list"]).splitlines():
            if match := re.match(r"^(?:global|install|download|:env:)\.([a-z-]+)='(.*)'$", line):
                found[match[1]] = match[2]
    default = found.get("index-url") or os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    if not default:
        default = next((url for python in ("python3", "/usr/bin/python3") if (url := _default_of_pip(ask, python))), "")
    part = _Part(ca=[found.get("cert", "")])
    if default:
        part.env |= {"PIP_INDEX_URL": default, "UV_DEFAULT_INDEX": default}
        part.urls.append(default)
        part.indexes.append(("pip", default))
    for option, variable, uv in (
        ("extra-index-url", "PIP_EXTRA_INDEX_URL", "UV_INDEX"),
        ("find-links", "PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ):
        if values := found.get(option, "").split():
            part.env |= {variable: " ".join(values), uv: (" " if uv == "UV_INDEX" else ",").join(values)}
            if uv == "UV_INDEX":
                # For pip all indexes are equal, and pip is who was asked.
                part.env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
            part.urls.extend(values)
            part.indexes.extend(("pip", value) for value in values if option == "extra-index-url")
    for option in ("timeout", "default-timeout", "retries", "trusted-host"):
        if option in found:
            part.env["PIP_" + option.upper().replace("-", "_")] = found[option]
    return part


def _default_of_pip(ask: Ask, python: str) -> str:
    return ask([python, "-c", DEFAULT_OF_PIP]).strip().rstrip("/")


def _go(ask: Ask) -> _Part:
    part = _Part()
    for name, value in zip(("GOPROXY", "GOSUMDB"), ask(["go", "env", "GOPROXY", "GOSUMDB"]).split("\n"), strict=False):
        if value := value.strip():
            part.env[name] = value
            places = re.split(r"[,|]", value) if name == "GOPROXY" else [value.split("+")[0]]
            part.urls.extend(p if "://" in p else f"https://{p}" for p in places if p not in ("direct", "off"))
    return part


def _authority(url: str) -> str | None:
    """`host:port` of a web address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None
    return f"{parts.hostname}:{port}" if parts.hostname and port else None


def _local(url: str) -> Path | None:
    """The folder to mount for a `file://` address or a plain path.

    Links of a "simple" index mostly lead to a folder beside it (PEP 503 leaves it open), so its parent is taken.
    """
    path = Path(urlsplit(url).path if url.startswith("file:") else url)
    if not path.is_absolute():
        return None
    folder = path.parent if path.name == "simple" and len(path.parts) > 3 else path
    return folder if len(folder.parts) > 2 else None


def _ask(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    try:
        # From the root folder, so that no project's own .npmrc or pip.conf is read.
        done = subprocess.run(argv, cwd="/", capture_output=True, timeout=ASK_SECONDS, text=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _links(kind: str, index: str) -> list[str]:
    """Addresses of the client's own package on that index: where its files lie. Nothing if it does not answer."""
    if not index.startswith(("http://", "https://")):
        return []
    page = f"{index.rstrip('/')}/{'npm/latest' if kind == 'npm' else 'pip/'}"
    try:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
        with urllib.request.urlopen(page, timeout=LOOK_SECONDS, context=context) as answer:  # noqa: S310
            text = answer.read(PAGE_LIMIT).decode("utf-8", "replace")
    except (OSError, ValueError):
        return []
    if kind == "npm":
        return re.findall(r'"tarball"\s*:\s*"([^"]+)"', text)
    return [urljoin(page, link) for link in re.findall(r'href="([^"#]+)', text)]
