"""A forge: a real HTTP server with the paths and bodies of GitHub, GitLab and Gitea that reports are made of."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
TOKEN = "forge-token-canary"
REPOSITORY = "acme/store"
_BASES = {"github": "", "gitlab": "/api/v4", "gitea": "/api/v1"}


@dataclass(frozen=True)
class Odd:
    """An answer that stands in for the forge's own; `after` lets the request have its effect first."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = field(default_factory=dict)
    after: bool = False
    hold: threading.Event | None = None


@dataclass
class ForgeServer:
    """`odd` answers are used up first. `statuses` are as posted, oldest first; `comments` by pull request."""

    provider: str
    odd: list[Odd] = field(default_factory=list)
    statuses: list[Json] = field(default_factory=list)
    pulls: dict[int, Json] = field(default_factory=dict)
    comments: dict[int, dict[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    pages: bool = True

    def __enter__(self) -> Self:
        self._ids = itertools.count(1000)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{_BASES[self.provider]}"

    def open_pull(self, number: int, branch: str, *, fork: bool = False) -> None:
        self.pulls[number] = {"branch": branch, "fork": fork}
        self.comments.setdefault(number, {})

    def comment(self, pull: int, body: str) -> int:
        id = next(self._ids)
        self.comments[pull][id] = body
        return id

    def said(self) -> list[str]:
        """The states in the order in which they were posted."""
        return [row["state"] for row in self.statuses]

    # what is asked

    def answer(self, method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Any]:
        route = f"{method} {path}"
        for pattern, work in self._routes():
            found = re.fullmatch(pattern, route)
            if found is not None:
                with self.lock:
                    return work(found.groups(), query, body)
        return 404, {"message": "Not Found"}

    def _routes(self) -> list[tuple[str, Callable[[Any, dict[str, str], Json], tuple[int, Any]]]]:
        base = _BASES[self.provider]
        if self.provider == "gitlab":
            at = f"{base}/projects/acme%2Fstore"
            notes = rf"{at}/merge_requests/(\d+)/notes"
            return [
                (f"GET {at}", lambda _f, _q, _b: (200, {"path_with_namespace": REPOSITORY})),
                (rf"POST {at}/statuses/([0-9a-f]+)", self._post_gitlab),
                (rf"GET {at}/repository/commits/([0-9a-f]+)/statuses", self._list_gitlab),
                (f"GET {at}/merge_requests", self._merge_requests),
                (f"GET {notes}", self._list_comments),
                (f"POST {notes}", self._add_comment),
                (rf"PUT {notes}/(\d+)", lambda f, _q, b: self._change(f[1], b)),
                (rf"DELETE {notes}/(\d+)", lambda f, _q, _b: self._delete(f[1])),
            ]
        at = f"{base}/repos/acme/store"
        return [
            (f"GET {at}", lambda _f, _q, _b: (200, {"full_name": REPOSITORY})),
            (rf"POST {at}/statuses/([0-9a-f]+)", self._post_status),
            (rf"GET {at}/commits/([0-9a-f]+)/statuses", self._list_statuses),
            (f"GET {at}/pulls", self._list_pulls),
            (rf"GET {at}/issues/(\d+)/comments", self._list_comments),
            (rf"POST {at}/issues/(\d+)/comments", self._add_comment),
            (rf"PATCH {at}/issues/comments/(\d+)", lambda f, _q, b: self._change(f[0], b)),
            (rf"DELETE {at}/issues/comments/(\d+)", lambda f, _q, _b: self._delete(f[0])),
        ]

    def _post_status(self, found: Any, _query: dict[str, str], body: Json) -> tuple[int, Any]:
        if body["state"] not in ("pending", "success", "failure", "error") or len(body["description"]) > 140:
            return 422, {"message": "Validation Failed"}
        self.statuses.append({"id": next(self._ids), "sha": found[0], **body})
        return 201, self.statuses[-1]

    def _list_statuses(self, found: Any, query: dict[str, str], _body: Json) -> tuple[int, Any]:
        rows = [row for row in reversed(self.statuses) if row["sha"] == found[0]]
        if self.provider == "gitea":  # its field has another name
            rows = [{**{k: v for k, v in row.items() if k != "state"}, "status": row["state"]} for row in rows]
        return 200, self._page(rows, query)

    def _post_gitlab(self, found: Any, _query: dict[str, str], body: Json) -> tuple[int, Any]:
        newest = next((row for row in reversed(self.statuses) if row["name"] == body["name"]), None)
        if body["state"] not in ("pending", "running", "success", "failed", "canceled"):
            return 400, {"error": "state does not have a valid value"}
        if newest is not None and newest["sha"] == found[0] and newest["state"] == body["state"] == "running":
            return 400, {"message": "Cannot transition status via :run from :running"}
        self.statuses.append({"id": next(self._ids), "sha": found[0], **body})
        return 201, {**self.statuses[-1], "status": body["state"]}

    def _list_gitlab(self, found: Any, query: dict[str, str], _body: Json) -> tuple[int, Any]:
        rows = [row for row in self.statuses if row["sha"] == found[0] and row["name"] == query.get("name")]
        return 200, self._page([{**row, "status": row["state"]} for row in rows], query)

    def _list_pulls(self, _found: Any, query: dict[str, str], _body: Json) -> tuple[int, Any]:
        rows = []
        for number, pull in self.pulls.items():
            owner = "stranger" if pull["fork"] else "acme"
            head = {"ref": pull["branch"], "repo": {"full_name": f"{owner}/store"}}
            if self.provider == "gitea" or query.get("head") == f"{owner}:{pull['branch']}":
                rows.append({"number": number, "head": head, "state": "open"})
        return 200, self._page(rows, query)

    def _merge_requests(self, _found: Any, query: dict[str, str], _body: Json) -> tuple[int, Any]:
        rows = [
            {
                "iid": number,
                "source_branch": pull["branch"],
                "source_project_id": 8 if pull["fork"] else 7,
                "target_project_id": 7,
            }
            for number, pull in self.pulls.items()
            if pull["branch"] == query.get("source_branch") and query.get("state") == "opened"
        ]
        return 200, self._page(rows, query)

    def _list_comments(self, found: Any, query: dict[str, str], _body: Json) -> tuple[int, Any]:
        rows = [{"id": id, "body": body} for id, body in self.comments.get(int(found[0]), {}).items()]
        return 200, self._page(rows, query)

    def _add_comment(self, found: Any, _query: dict[str, str], body: Json) -> tuple[int, Any]:
        return 201, {"id": self.comment(int(found[0]), body["body"]), "body": body["body"]}

    def _change(self, id: str, body: Json) -> tuple[int, Any]:
        for rows in self.comments.values():
            if int(id) in rows:
                rows[int(id)] = body["body"]
                return 200, {"id": int(id), "body": body["body"]}
        return 404, {"message": "Not Found"}

    def _delete(self, id: str) -> tuple[int, Any]:
        found = [rows.pop(int(id), None) for rows in self.comments.values()]
        return (204, None) if any(found) else (404, {"message": "Not Found"})

    def _page(self, rows: list[Any], query: dict[str, str]) -> list[Any]:
        if not self.pages:
            return rows
        most = 50 if self.provider == "gitea" else 100
        size = min(most, int(query.get("limit" if self.provider == "gitea" else "per_page", "30")))
        start = (int(query.get("page", "1")) - 1) * size
        return rows[start : start + size]

    def knows(self, headers: Any) -> bool:
        if self.provider == "gitlab":
            return bool(headers.get("PRIVATE-TOKEN") == TOKEN)
        return bool(headers.get("Authorization") == {"github": "Bearer ", "gitea": "token "}[self.provider] + TOKEN)


def _handler(forge: ForgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            where = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(where.query).items()}
            forge.asked.append(f"{self.command} {unquote(where.path)}")
            odd = forge.odd.pop(0) if forge.odd else None
            if odd is not None and odd.hold is not None:
                odd.hold.wait(30)
            if odd is not None and not odd.after:
                return self._send(odd.status, odd.body, odd.headers)
            if not forge.knows(self.headers):
                return self._send(401, {"message": f"Bad credentials {self.headers.get('Authorization')}"}, {})
            status, body = forge.answer(self.command, where.path, query, json.loads(raw) if raw else {})
            return self._send(odd.status, odd.body, odd.headers) if odd else self._send(status, body, {})

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            return

    return Handler
