"""Caddy's configuration: constant for any number of sites (DESIGN section 7).

For each request the release is looked up once: `current/@<seq>` is found by a glob (`@<seq>+` where markers lie
beside it, so that plain sites pay for no look at them), and everything after it uses `r/<seq>`. With `current` in
every path a switch between opening a file and reading its ETag would pair the new digest with the old bytes, and
caches would keep them.

A site's files are served with the content's sha256 as ETag, read from a sidecar, and without any date: two releases
have the same canonical times, so a date would answer a stale 304.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from adapters.artifact.paths import ETAG_SUFFIX
from adapters.router.routes import BEHIND, HOSTNAME, LOCK, REDIRECT
from headway.errors import HeadwayError

# Tried on 2.11.7. Old ones (2.6.2) answer 502 where a placeholder names what to dial.
OLDEST: Final = (2, 11, 0)
# How many sockets a service has at most; fewer instances share them.
SOCKETS: Final = 8
# sun_path of a unix socket.
MAX_SOCKET: Final = 107
# `current` may move between the glob and Caddy's look at what it found. At one switch a millisecond three tries lost
# one request of 100,000 and eight lost none; only a try that failed has a next.
TRIES: Final = 8

ACCESS_LOG: Final = "access.log"

Json = dict[str, Any]
Logged = Literal["services", "all", "off"]

_HOST: Final = "{http.request.host}"
_PINNED: Final = "{http.regexp.pin.1}"
_SERVICE: Final = "{http.regexp.pin.2}"
_EXPANDED: Final = re.compile(r"[*?\[\]{}\\]")
_REVALIDATE: Final = "public, max-age=0, must-revalidate"
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Tls:
    """Certificates on demand: `listen` is `address:port`, `ask` whom Caddy asks whether a name may have one.

    `directory`, `email` and `root` are of the ACME authority; empty: Caddy's own choice.
    """

    listen: str
    ask: str
    directory: str = ""
    email: str = ""
    root: Path | None = None


def render(
    *,
    routes: Path,
    listen: str,
    rules_socket: Path,
    plain_socket: Path,
    state: Path,
    logged: Logged = "off",
    tls: Tls | None = None,
) -> Json:
    """The whole configuration. `listen` is `address:port`; `state` is Caddy's own folder.

    `plain_socket` is Caddy's own: it answers in the rules server's place while that one is away. `logged`: whose
    requests go to `state/access.log`. Raises stack.folder_invalid where a path cannot stand in the configuration.
    """
    for path in (routes, rules_socket, plain_socket, state):
        if _EXPANDED.search(str(path)) or not path.is_absolute():
            raise HeadwayError("stack.folder_invalid", f"{path} has characters that Caddy would expand.")
    for path in (rules_socket, plain_socket):
        if len(str(path).encode()) > MAX_SOCKET:
            raise HeadwayError("stack.folder_invalid", f"{path} is too long for a socket: use a shorter data folder.")
    sites = Site(str(routes), str(rules_socket), str(plain_socket))
    server = {
        "listen": [listen],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "read_header_timeout": "30s",
        "idle_timeout": "2m",
        "max_header_bytes": 64 << 10,
        "routes": sites.routes(),
        "errors": {"routes": sites.error_routes()},
    }
    plain = {
        "listen": [f"unix/{plain_socket}|0600"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": [_handle(_text(200, ""))],
    }
    config: Json = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(state)},
        "apps": {"http": {"grace_period": "5s", "servers": {"sites": server, "plain": plain}}},
    }
    if tls is not None:
        config["apps"] = _on_demand(config["apps"]["http"], server, tls)
        server = config["apps"]["http"]["servers"]["secure"]
    return config if logged == "off" else _logging(config, server, str(state / ACCESS_LOG), logged)


def _on_demand(http: Json, server: Json, tls: Tls) -> Json:
    """The same sites by TLS; what comes by plain HTTP is sent there, but for the authority's own questions."""
    issuer: Json = {"module": "acme"}
    issuer |= {"ca": tls.directory} if tls.directory else {}
    issuer |= {"email": tls.email} if tls.email else {}
    issuer |= {"trusted_roots_pem_files": [str(tls.root)]} if tls.root is not None else {}
    port = int(tls.listen.rpartition(":")[2])
    secure = {**server, "listen": [tls.listen], "protocols": ["h1", "h2"], "tls_connection_policies": [{}]}
    shown = "" if port == 443 else f":{port}"
    location = f"https://{{http.request.host}}{shown}{{http.request.uri}}"
    refused, *_ = server["routes"]
    moved = {"handler": "static_response", "status_code": 308, "headers": {"Location": [location]}}
    plain = {**server, "routes": [refused, _handle(moved)]}
    ports = {"http_port": int(server["listen"][0].rpartition(":")[2]), "https_port": port}
    automation = {
        "on_demand": {"permission": {"module": "http", "endpoint": tls.ask}},
        "policies": [{"on_demand": True, "issuers": [issuer]}],
    }
    servers = {**http["servers"], "sites": plain, "secure": secure}
    return {"http": {**http, **ports, "servers": servers}, "tls": {"automation": automation}}


def _logging(config: Json, server: Json, path: str, logged: Logged) -> Json:
    """One line a request, without headers, addresses and queries: none of them is needed, and secrets travel there."""
    gone = ("headers", "tls", "remote_ip", "remote_port", "client_ip", "proto")
    fields: Json = {f"request>{name}": {"filter": "delete"} for name in gone}
    fields |= {name: {"filter": "delete"} for name in ("resp_headers", "user_id", "bytes_read")}
    fields["request>uri"] = {"filter": "regexp", "regexp": r"[?].*$", "value": ""}
    access = {
        "include": ["http.log.access"],
        "writer": {
            **{"output": "file", "filename": path, "mode": "0640"},
            **{"roll_size_mb": 16, "roll_keep": 2, "roll_gzip": False},
        },
        "encoder": {"format": "filter", "wrap": {"format": "json"}, "fields": fields},
    }
    if logged == "services":
        server["routes"] = [_handle({"handler": "vars", "log_skip": True}), *server["routes"]]
    server["logs"] = {}
    return {**config, "logging": {"logs": {"default": {"exclude": ["http.log.access"]}, "access": access}}}


def rendered(**folders: Any) -> bytes:
    """`render`, as the file that `caddy run --config FILE` reads."""
    return json.dumps(render(**folders), indent=1).encode()


def check_version(binary: str) -> str:
    """The version of a Caddy binary. Raises stack.binary_missing where there is none or it is too old."""
    try:
        out = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise HeadwayError("stack.binary_missing", f"{binary} does not run: {type(error).__name__}.") from None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", out)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise HeadwayError("stack.binary_missing", f"{binary} is Caddy {out[:20].strip()!r}: {oldest} is the oldest.")
    return found[0].removeprefix("v")


class Site:
    """The routes; one method for each thing that is decided about a request."""

    def __init__(self, routes: str, rules_socket: str, plain_socket: str) -> None:
        self._routes = routes
        self._rules = rules_socket
        self._plain = plain_socket
        self._release = f"{routes}/{_HOST}/r/{_PINNED}"

    def routes(self) -> list[Json]:
        current = f"/{_HOST}/current/@*"
        known_name = self._exists(f"/{_HOST}/")
        return [
            _route({"not": [_named()]}, _text(421, "")),
            _route(self._exists(*[current] * TRIES), {"handler": "subroute", "routes": self._pinned()}),
            # Behind every release: whoever is served pays nothing for it.
            _route(self._exists(f"/{_HOST}/{REDIRECT}*"), {"handler": "subroute", "routes": _redirected()}),
            _route(self._exists(f"/{_HOST}/{LOCK}"), self._gate()),
            _route(known_name, *_page(404, "Nothing is deployed here.\n")),
            _handle(*_page(404, "No site is served at this address.\n")),
        ]

    def error_routes(self) -> list[Json]:
        # What is below a file, and what no file system takes for a name, Caddy calls a bad request.
        missing = _status(400, 404)
        own_page = {**missing, **self._marker("not_found.html")}
        return [
            _route(
                own_page,
                # A conditional or partial answer would be sent as an empty or cut page.
                _headers(delete_request=["If-None-Match", "If-Match", "Range", "If-Range", *_DATES]),
                _headers(set_now={"Cache-Control": _REVALIDATE}, delete=["Last-Modified", "Etag"]),
                _ENCODE,
                {"handler": "rewrite", "uri": "/not_found.html"},
                {"handler": "file_server", "root": self._release, "canonical_uris": False, "status_code": "404"},
            ),
            _route({**missing, **_named()}, *_page(404, "404 Not Found\n")),
            _handle(*_page("{http.error.status_code}", "{http.error.status_code} {http.error.status_text}\n")),
        ]

    def _gate(self) -> Json:
        """An environment with a password has no `current` under its name; who may pass is served from beside the lock.

        Nothing of the visitor's but his credentials is asked about. Where nobody answers, nobody passes.
        """
        # The last one: its lock was taken away while this visitor was looked at.
        behind = [*[f"/{_HOST}/{BEHIND}/@*"] * TRIES, f"/{_HOST}/current/@*"]
        inside = [
            _handle(_PRIVATE),
            _route(self._exists(*behind), {"handler": "subroute", "routes": self._pinned()}),
            _handle(*_page(404, "Nothing is deployed here.\n")),
        ]
        cookie = {"handler": "copy_response_headers", "include": ["Set-Cookie"]}
        # The password is the preview's: the app behind it never sees it.
        stripped = _headers(delete_request=["Authorization"])
        asked = {
            "Host": [_HOST],
            "Headway-Gate": ["1"],
            "Headway-Scheme": ["{http.request.scheme}"],
            "Authorization": ["{http.request.header.Authorization}"],
            "Cookie": ["{http.request.header.Cookie}"],
        }
        return {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"unix/{self._rules}"}],
            "load_balancing": {"try_duration": "3s", "try_interval": "100ms"},
            "transport": {
                "protocol": "http",
                "dial_timeout": "1s",
                "response_header_timeout": "10s",
                "compression": False,
                "keep_alive": {"enabled": False},
            },
            "rewrite": {"method": "GET", "uri": "/"},
            "headers": {"request": {"delete": ["*"], "set": asked}},
            "handle_response": [
                {
                    "match": {"status_code": [204], "headers": {"Headway-Strip": ["*"]}},
                    "routes": [_handle(cookie, stripped), *inside],
                },
                {"match": {"status_code": [204]}, "routes": inside},
            ],
        }

    def _pinned(self) -> list[Json]:
        """The release is known now: one with markers (a service, rules, a single page), or plain files."""
        to_files = [_route({"not": [{"method": ["GET", "HEAD"]}]}, *_refuse_method()), _handle(_ENCODE)]
        marked = [
            *to_files,
            {"match": self._with_body(), "handle": _page(400, "400 Bad Request\n"), "terminal": True},
            _route(self._marker("rules"), self._ruled()),
            _handle(self._files(marked=True)),
        ]
        plain = [*to_files, _handle(self._files(marked=False))]
        return [
            _route(_pin(r"/@([0-9]+)\+(env_[0-9A-Za-z]+)$"), {"handler": "vars", "log_skip": False}, self._service()),
            _route(_pin(r"/@([0-9]+)\+$"), {"handler": "subroute", "routes": marked}),
            _route(_pin(r"/@([0-9]+)$"), {"handler": "subroute", "routes": plain}),
            # Looked at last: whoever is served pays nothing for it.
            _handle(*_page(503, "This site is suspended.\n")),
        ]

    def _with_body(self) -> list[Json]:
        """A GET with content, for a site with rules: its bytes would go on to the rules socket's shared connections."""
        ruled = self._marker("rules")
        return [
            {**ruled, "header_regexp": {"Content-Length": {"pattern": "[^0]"}}},
            {**ruled, "header": {"Transfer-Encoding": ["*"]}},
        ]

    def _service(self) -> Json:
        """Keep-alive is off: a pooled connection would still lead to the instance before the switch.

        The sockets are found by the environment's id, from Caddy's own folder: whatever the host name's length, the
        path fits into a socket's address. What fails is tried again, on another one where there are some: an app that
        has crashed, or comes back with its machine, is there again within two seconds mostly. A GET that it had
        already is asked anew, anything else is not.
        """
        sockets = [f"unix/env/{_SERVICE}/r/{_PINNED}/sock.{number}" for number in range(SOCKETS)]
        return {
            "handler": "reverse_proxy",
            "transport": {"protocol": "http", "dial_timeout": "5s", "keep_alive": {"enabled": False}},
            "upstreams": [{"dial": socket} for socket in sockets],
            "load_balancing": {
                "selection_policy": {"policy": "random"},
                "try_duration": "2s",
                "try_interval": "100ms",
            },
        }

    def _ruled(self) -> Json:
        """Ask the rules socket, then serve the files with its headers; its redirects pass as they are.

        Where it is away or stuck, `plain` answers in its place: the site goes on without its rules.
        """
        files = self._files(marked=True)
        copy = {"handler": "copy_response_headers", "exclude": ["Content-Length", "Date", "Server", "Connection"]}
        return {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"unix/{self._rules}"}, {"dial": f"unix/{self._plain}"}],
            "load_balancing": {"selection_policy": {"policy": "first"}, "retries": 3},
            "health_checks": {"passive": {"fail_duration": "2s", "max_fails": 1}},
            "transport": {
                "protocol": "http",
                "dial_timeout": "1s",
                "response_header_timeout": "1s",
                "compression": False,
                "keep_alive": {"enabled": True, "max_idle_conns_per_host": 64},
            },
            "rewrite": {"method": "GET"},
            "headers": {"request": {"delete": ["*"], "set": {"Host": [_HOST], "Headway-Release": [_PINNED]}}},
            "handle_response": [
                {"match": {"status_code": [200]}, "routes": [_handle(copy, files)]},
                {"match": {"status_code": [4, 5]}, "routes": [_handle(files)]},
            ],
        }

    def _files(self, *, marked: bool) -> Json:
        root = f"{self._release}/root"
        steps = [
            {"match": list(_HIDDEN), "handle": [{"handler": "error", "status_code": 404}]},
            *([self._single_page(root)] if marked else []),
            _handle(_headers(delete_request=list(_DATES), delete=["Last-Modified"])),
            _route(_UNKNOWN_UNIT, _headers(delete_request=["Range"]), terminal=False),
            _handle(_headers(set_missing={"Cache-Control": _REVALIDATE})),
            _route(_FINGERPRINTED, _headers(set_missing={"Cache-Control": _FOR_EVER}), terminal=False),
            _handle({"handler": "file_server", "root": root, "etag_file_extensions": [ETAG_SUFFIX]}),
        ]
        return {"handler": "subroute", "routes": steps}

    def _single_page(self, root: str) -> Json:
        """What names no file gets index.html; before the cache headers, so that they are those of index.html."""
        file_there = {"path_regexp": {"pattern": "[^/]$"}, "file": _file(root, "{http.request.uri.path}")}
        index_there = {"file": _file(root, "{http.request.uri.path}/index.html")}
        to_index = _route(
            {"not": [file_there, index_there]}, {"handler": "rewrite", "uri": "/index.html"}, terminal=False
        )
        return _route(self._marker("spa"), {"handler": "subroute", "routes": [to_index]}, terminal=False)

    def _marker(self, name: str) -> Json:
        return self._exists(f"/{_HOST}/r/{_PINNED}/{name}")

    def _exists(self, *patterns: str) -> Json:
        return {"file": _file(self._routes, *patterns)}


# What is behind a password is kept by its visitor's browser, and by nobody between.
_PRIVATE: Final = {
    "handler": "headers",
    "response": {"replace": {"Cache-Control": [{"search": "public", "replace": "private"}]}, "deferred": True},
}
_DATES: Final = ("If-Modified-Since", "If-Unmodified-Since")
_ENCODE: Final = {"handler": "encode", "encodings": {"zstd": {}, "gzip": {}}, "prefer": ["zstd", "gzip"]}
# RFC 9110 section 14.2 has them ignored; Caddy answers 416.
_UNKNOWN_UNIT: Final = {
    "header": {"Range": ["*"]},
    "not": [{"header_regexp": {"Range": {"pattern": "^bytes="}}}],
}
# Dotfiles but /.well-known and what lies in it; the build's own settings; the sidecars.
_HIDDEN: Final = (
    {
        "path_regexp": {"pattern": r"/\."},
        "not": [{"path_regexp": {"pattern": r"^/\.well-known(/([^./][^/]*)?)*$"}}],
    },
    {"path_regexp": {"pattern": rf"/(headway\.toml|[^/]*{re.escape(ETAG_SUFFIX)})(/|$)"}},
)
# `app.3f9a1c07.js`, `app-3f9a1c07.js`: eight or more hexadecimal digits, with a digit and a letter among them, so
# that neither a date nor a word passes for a hash.
_FINGERPRINTED: Final = {
    "path_regexp": {"pattern": r"[^/][.-][0-9a-f]{8,64}(\.[A-Za-z0-9]+){1,2}$"},
    "not": [{"path_regexp": {"pattern": r"[.-]([0-9]+|[a-f]+)(\.[A-Za-z0-9]+){1,2}$"}}],
}


def _named() -> Json:
    return {"header_regexp": {"Host": {"pattern": f"^{HOSTNAME}(:[0-9]+)?$"}}}


def _route(match: Json, *handlers: Json, terminal: bool = True) -> Json:
    return {"match": [match], "handle": list(handlers), "terminal": terminal}


def _handle(*handlers: Json, terminal: bool = False) -> Json:
    return {"handle": list(handlers), "terminal": terminal}


def _file(root: str, *patterns: str) -> Json:
    return {"root": root, "try_files": list(patterns)}


def _pin(pattern: str) -> Json:
    return {"vars_regexp": {"{http.matchers.file.relative}": {"name": "pin", "pattern": pattern}}}


def _redirected() -> list[Json]:
    """The origin is in the name of the file that was found; the path and the query are the visitor's."""
    location = "{http.regexp.pin.1}://{http.regexp.pin.2}{http.request.uri}"
    answer = {"handler": "static_response", "status_code": 301, "headers": {"Location": [location]}}
    return [_route(_pin(rf"/{REDIRECT}(https?)@([a-z0-9.:-]+)$"), answer)]


def _refuse_method() -> list[Json]:
    return [_headers(set_now={"Allow": "GET, HEAD"}), {"handler": "error", "status_code": 405}]


def _status(*codes: int) -> Json:
    return {"vars": {"{http.error.status_code}": [str(code) for code in codes]}}


def _text(status: int | str, body: str) -> Json:
    return {"handler": "static_response", "status_code": status, "body": body}


def _page(status: int | str, body: str) -> list[Json]:
    """A small plain answer that nobody keeps."""
    fields = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return [_headers(set_now=fields), _text(status, body)]


def _headers(
    *,
    delete_request: list[str] | None = None,
    delete: list[str] | None = None,
    set_now: dict[str, str] | None = None,
    set_missing: dict[str, str] | None = None,
) -> Json:
    """Header operations; `set_missing` is for answers that went well and say nothing themselves."""
    out: Json = {"handler": "headers"}
    if delete_request:
        out["request"] = {"delete": delete_request}
    if set_now:
        out["response"] = {"set": {name: [value] for name, value in set_now.items()}}
    if delete:
        out["response"] = {**out.get("response", {}), "delete": delete, "deferred": True}
    if set_missing:
        wanted = {"status_code": [2, 304], "headers": dict.fromkeys(set_missing)}
        out["response"] = {"set": {name: [value] for name, value in set_missing.items()}, "require": wanted}
    return out
