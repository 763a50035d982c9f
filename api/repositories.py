"""Which repository addresses a site may name. What the name resolves to is judged again when it is fetched."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from headway.errors import HeadwayError

_SCP: Final = re.compile(r"(?:([\w.-]+)@)?([\w.-]+\.[\w-]+):(?!//)([^\s]+)")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class RepositoryPolicy:
    """`local` are the folders below which `file://` is allowed; `private_ok` the hosts that may be private ones."""

    local: tuple[Path, ...] = ()
    private_ok: tuple[str, ...] = ()

    def normal(self, address: str, *, param: str = "repository") -> str:
        """`https://…`, `ssh://…` or `file:///…`. `git@host:path` becomes ssh.

        Raises repository.invalid or repository.not_allowed.
        """
        if len(address) > 1000 or address.startswith("-") or any(ord(letter) < 33 for letter in address):
            raise _invalid("A repository's address is one line without spaces.", param)
        if "://" not in address and (short := _SCP.fullmatch(address)):
            address = f"ssh://{short[1] or 'git'}@{short[2]}/{short[3].lstrip('/')}"
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _invalid("That is no address.", param) from None
        if parts.scheme == "file":
            return self._local(parts.netloc, unquote(parts.path), param)
        if parts.scheme not in ("https", "ssh") or not parts.path.strip("/") or parts.query or parts.fragment:
            raise _invalid("Use https://host/path, ssh://user@host/path or git@host:path.", param)
        if parts.password is not None or (parts.username is not None and parts.scheme == "https"):
            raise _invalid("An address holds no credentials: they would be shown with the site.", param)
        self._check_host(host, param)
        if port is not None and port not in (22, 443) and host not in self.private_ok:
            message = f"The port {port} of {host} is not allowed: repositories are at 22 and 443."
            raise HeadwayError("repository.not_allowed", message, param=param)
        return address

    def _check_host(self, host: str, param: str) -> None:
        if host in self.private_ok:
            return
        literal = host.strip("[]")
        try:
            public = ipaddress.ip_address(literal).is_global
        except ValueError:
            if not _HOST.fullmatch(host) or ".." in host:
                raise _invalid("That is no host name.", param) from None
            numeric = all(part.isdigit() or part.startswith("0x") for part in host.split("."))
            single = "." not in host
            public = not (numeric or single or host.endswith((".localhost", ".local", ".internal")))
        if not public:
            raise HeadwayError("repository.not_allowed", f"The host {host} is not a public one.", param=param)

    def _local(self, host: str, path: str, param: str) -> str:
        if host not in ("", "localhost") or not path.startswith("/"):
            raise _invalid("A local address looks like file:///folder/repository.", param)
        real = Path(path).resolve()
        if not any(real == folder or folder in real.parents for folder in (one.resolve() for one in self.local)):
            raise HeadwayError("repository.not_allowed", "The operator has not allowed that folder.", param=param)
        return real.as_uri()


def _invalid(why: str, param: str) -> HeadwayError:
    return HeadwayError("repository.invalid", why, param=param)
