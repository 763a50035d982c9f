"""The public API as a caller sees it, and a watch on what a site serves."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.stack import Stack

PATIENCE = 120.0
# Seldom enough not to take the processor from what is measured.
LOOK_EVERY = 0.004
# Nothing is shown sooner, and each look takes its part of the two processors.
FIRST_LOOK = 0.02
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class JobFailed(RuntimeError):
    """A job of the run ended otherwise than succeeded: the figures would mean nothing."""


@dataclass(frozen=True)
class Site:
    id: str
    production: str
    staging: str
    production_host: str
    staging_host: str


class Poster:
    """One kept-alive connection that posts, as cheaply as Python can: it shares the processors with the server."""

    def __init__(self, stack: Stack) -> None:
        where = urlsplit(stack.api)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
        self._headers = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"}

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        """The `data` of the answer. Raises RuntimeError unless it is a 2xx."""
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status // 100 != 2:
            raise RuntimeError(f"POST {path}: {answer.status} {read[:500]!r}")
        data: dict[str, Any] = json.loads(read)["data"]
        return data


class Caller:
    """One connection to the API, kept alive, with the operator's key (which has no rate limit)."""

    def __init__(self, stack: Stack) -> None:
        self.http = httpx.Client(
            base_url=stack.api, headers={"Authorization": f"Bearer {stack.key}"}, timeout=PATIENCE, trust_env=False
        )

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.http.post(path, json=body or {})
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        answer.raise_for_status()
        return answer.json()["data"]

    def finish(self, job: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the job's end by long-poll. Raises JobFailed unless it succeeded."""
        deadline = time.monotonic() + patience
        etag = ""
        while job["status"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise JobFailed(f"{job['id']} is still {job['status']} after {patience:.0f} s")
            answer = self.http.get(f"/v1/jobs/{job['id']}?wait=30", headers={"If-None-Match": etag} if etag else {})
            if answer.status_code == 304:
                continue
            answer.raise_for_status()
            etag, job = answer.headers["ETag"], answer.json()["data"]
        if job["status"] != "succeeded":
            raise JobFailed(f"{job['id']} {job['type']}: {job['status']}: {job['error']}")
        return job

    def new_site(self, name: str, repository: str, runtime: str = "static") -> Site:
        """A site with its production environment and a staging one."""
        made = self.finish(
            self.post("/v1/sites", {"name": name, "runtime": runtime, "profile": "auto", "repository": repository})
        )
        site_id = made["resource"]["id"]
        self.finish(self.post(f"/v1/sites/{site_id}/environments", {"kind": "staging", "branch": "staging"}))
        rows = {row["kind"]: row for row in self.get(f"/v1/sites/{site_id}/environments")}
        hosts = {kind: urlsplit(row["url"]).hostname or "" for kind, row in rows.items()}
        return Site(site_id, rows["production"]["id"], rows["staging"]["id"], hosts["production"], hosts["staging"])

    def push(self, site: Site, target: str, ref: str = "main") -> dict[str, Any]:
        """Build `ref`, then roll it onto `target`."""
        return self.post(f"/v1/sites/{site.id}/deployments", {"ref": ref, "target": target})


class Watch:
    """Asks a site for its front page over one connection until the wanted text is there.

    By plain bytes: what a client's library costs is taken from the platform, which has the same two cores.
    """

    def __init__(self, stack: Stack, hostname: str) -> None:
        self.hostname = hostname
        self.connection = socket.create_connection(("127.0.0.1", stack.sites_port), timeout=10)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def page(self, path: str = "/") -> str:
        """Raises ConnectionError where the answer is no page of a stated length."""
        self.connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.hostname}\r\n\r\n".encode())
        read = b""
        while b"\r\n\r\n" not in read:
            read = self._more(read)
        head, _, body = read.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None:
            raise ConnectionError(f"{self.hostname}: {head[:200]!r}")
        while len(body) < int(length[1]):
            body = self._more(body)
        return body.decode()

    def _more(self, read: bytes) -> bytes:
        chunk = self.connection.recv(65536)
        if not chunk:
            raise ConnectionError(f"{self.hostname} closed the connection")
        return read + chunk

    def until(self, wanted: str) -> None:
        """Raises TimeoutError. The figure is at most LOOK_EVERY and one request too high."""
        deadline = time.monotonic() + PATIENCE
        time.sleep(FIRST_LOOK)
        while wanted not in self.page():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.hostname} never showed {wanted!r}")
            time.sleep(LOOK_EVERY)
