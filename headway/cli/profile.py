"""Which server and which key: flags, then the environment, then the profile that `login` wrote."""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.errors import HeadwayError

URL_VARIABLES: Final = ("HEADWAY_API_URL", "FORGE_API_URL")
TOKEN_VARIABLES: Final = ("HEADWAY_TOKEN", "FORGE_TOKEN", "MANAGED_TOKEN")
DEFAULT_URL: Final = "http://127.0.0.1:7070"


@dataclass(frozen=True)
class Target:
    """`token_from` says where the key comes from, for messages."""

    api_url: str
    token: str | None
    token_from: str = ""


def profile_path(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "headway" / "profile.toml"


def find_target(environ: Mapping[str, str], *, api_url: str | None = None, token: str | None = None) -> Target:
    """Each of the two from its own first source.

    The profile's key is only ever sent to the profile's own server, not to one that a flag or a variable names.
    """
    kept = read_profile(profile_path(environ))
    url = api_url or _first(environ, URL_VARIABLES)[1] or kept.get("api_url") or DEFAULT_URL
    if token:
        return Target(url, token, "--token")
    variable, value = _first(environ, TOKEN_VARIABLES)
    if value:
        return Target(url, value, variable)
    if kept.get("token") and url.rstrip("/") == kept.get("api_url", DEFAULT_URL).rstrip("/"):
        return Target(url, kept["token"], "the profile")
    return Target(url, None)


def read_profile(path: Path) -> dict[str, str]:
    """Empty where there is none. Raises request.invalid_parameter where it cannot be read or others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise HeadwayError("request.invalid_parameter", f"{path} may be read by others: chmod 600 it.")
        kept = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HeadwayError("request.invalid_parameter", f"{path} cannot be read: `headway login` writes it.") from error
    return {name: value for name, value in kept.items() if isinstance(value, str)}


def write_profile(path: Path, api_url: str, token: str) -> None:
    """Mode 0600 from its first byte on; replaced whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"api_url = {_quoted(api_url)}\ntoken = {_quoted(token)}\n")
    aside.replace(path)


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise HeadwayError("request.invalid_parameter", "That is no key: it holds characters that cannot be printed.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str | None]:
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", None))
