"""Where a site's repository lies: which addresses are accepted, and what git is given instead of them.

Nothing is resolved here: names that lead to private addresses are refused by the egress proxy at the moment of the
connection. What can be seen in the text itself is refused at once.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from adapters.egress.policy import is_public, normal
from headway.errors import HeadwayError
from headway.ids import is_id

MAX_ADDRESS: Final = 2048
MAX_REF: Final = 512
MOUNTED: Final = "/remote"

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SCP = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^:].*)")
_SCHEMES = frozenset({"ext", "fd", "file", "ftp", "ftps", "git", "http", "https", "ssh"})
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa", "localdomain")

Transport = Literal["https", "ssh", "file"]


@dataclass(frozen=True)
class Remote:
    """What to fetch from. `url` is for git inside the sandbox; `shown` is for people and never holds a credential.

    `folder` is what to mount read-only at /remote; `host` and `port` are what the egress proxy has to let through.
    """

    transport: Transport
    url: str
    shown: str
    host: str | None = None
    port: int | None = None
    folder: Path | None = None


def parse_address(
    text: str,
    *,
    hosted: Path,
    local_repos: Collection[Path] = (),
    private_ok: Collection[str] = (),
) -> Remote:
    """Read `https://…`, `ssh://…`, `user@host:path`, `file:///…` or `hosted:<site_id>`.

    `hosted` is the folder of the bare repositories that we keep, `local_repos` the folders below which file:// is
    allowed, `private_ok` host names that may be private. Raises repository.missing, .invalid, .not_allowed.
    """
    if not text:
        raise HeadwayError("repository.missing", "The site has no repository.")
    if len(text) > MAX_ADDRESS or _CONTROL.search(text) or text.startswith("-") or not text.isascii():
        raise _invalid("holds characters that no address has, or is too long")
    if text.startswith("hosted:"):
        return _hosted(text.removeprefix("hosted:"), hosted)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _invalid("is not an address") from None
    if parts.scheme in ("https", "ssh") and "://" in text:
        if parts.query or parts.fragment or "?" in text or "#" in text:
            raise _invalid("may not have a query or a fragment")
        user, password = parts.username, parts.password
        return _network(parts.scheme, user, password, parts.hostname or "", port, parts.path, private_ok)
    if parts.scheme == "file" and text.startswith("file:///"):
        return _local(unquote(parts.path), text, local_repos)
    scp = _SCP.fullmatch(text)
    if scp and "://" not in text and scp["host"].lower() not in _SCHEMES:
        path = "/" + scp["path"].lstrip("/")
        return _network("ssh", scp["user"], None, scp["host"], None, path, private_ok)
    raise _invalid("is not https://, ssh:// or file:///")


def check_ref(ref: str) -> str:
    """A ref as git rev-parse takes it, but never an option. Raises ref.invalid."""
    if not ref or len(ref.encode("utf-8", "replace")) > MAX_REF:
        raise HeadwayError("ref.invalid", f"A ref has 1 to {MAX_REF} bytes.", param="ref")
    if ref.startswith("-") or re.search(r"[\x00-\x1f\x7f]", ref) or any(0xD800 <= ord(c) < 0xE000 for c in ref):
        raise HeadwayError("ref.invalid", "A ref may not begin with - or hold control characters.", param="ref")
    return ref


def _network(
    scheme: str,
    user: str | None,
    password: str | None,
    host: str,
    port: int | None,
    path: str,
    private_ok: Collection[str],
) -> Remote:
    if password is not None or (user is not None and scheme == "https"):
        raise _invalid("holds a credential, which everybody who sees the site could read")
    if user is not None and not _USER.fullmatch(user):
        raise _invalid("has a bad user name")
    host = normal(host)
    address = _literal(host)
    if address is None and not (_HOST.fullmatch(host) and len(host) <= 253):
        raise _invalid("has a bad host name")
    if not path.strip("/") or ".." in path.split("/") or "\\" in path:
        raise _invalid("has no path of a repository")
    if host not in {normal(one) for one in private_ok}:
        _check_public(host, address)
    number = port or {"https": 443, "ssh": 22}[scheme]
    shown_port = "" if port is None else f":{port}"
    shown_host = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{user + '@' if user else ''}{shown_host}{shown_port}{path}"
    transport: Transport = "https" if scheme == "https" else "ssh"
    return Remote(transport, shown, shown, host=address or host, port=number)


def _check_public(host: str, address: str | None) -> None:
    local = any(host == name or host.endswith("." + name) for name in _LOCAL_NAMES) or "." not in host
    if address is not None:
        local = not is_public(address)
    if local:
        raise HeadwayError("repository.not_allowed", f"The host {host} is not public.", param="repository")


def _literal(host: str) -> str | None:
    """The address that a host name really is: `127.1`, `0x7f000001` and `2130706433` are 127.0.0.1 to a resolver."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise _invalid("has a bad host name") from None
    return None


def _hosted(site_id: str, hosted: Path) -> Remote:
    if not is_id(site_id, "site"):
        raise _invalid("names no hosted repository")
    return Remote("file", MOUNTED, "the site's own repository", folder=hosted / f"{site_id}.git")


def _local(path: str, text: str, local_repos: Collection[Path]) -> Remote:
    if "\0" in path:
        raise _invalid("is not an address")
    folder = Path(path).resolve()
    for allowed in local_repos:
        root = allowed.resolve()
        if root == folder or root in folder.parents:
            return Remote("file", MOUNTED, text, folder=folder)
    raise HeadwayError(
        "repository.not_allowed", "No folder that the operator allowed holds that repository.", param="repository"
    )


def _invalid(why: str) -> HeadwayError:
    # The text itself is left out: it may hold a credential.
    return HeadwayError("repository.invalid", f"The repository's address {why}.", param="repository")
