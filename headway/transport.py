"""The managed dialect over HTTP: envelopes, typed errors, retries under one Idempotency-Key, server-sent events.

A write is safe to repeat because every POST carries a key; so connection failures, 429 and 5xx are retried here and
callers never think of it (contract sections 1, 4 and 6).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from headway import __version__
from headway.errors import CODES, HeadwayError

Json = dict[str, Any]
TRIES: Final = 5
LONGEST_WAIT: Final = 30.0
_RETRIED: Final = {429, 500, 502, 503, 504}


class ApiError(HeadwayError):
    """What the server answered: also codes that this version does not know. `request_id` names the request."""

    def __init__(self, status: int, error: Mapping[str, Any], request_id: str | None = None) -> None:
        code = str(error.get("code") or f"http.{status}")
        super().__init__(
            code if code in CODES else "internal.error",
            str(error.get("message") or f"The server answered {status}."),
            param=error.get("param"),
        )
        self.code = code
        self.details = {k: v for k, v in error.items() if k not in ("type", "code", "message", "param", "doc_url")}
        self.request_id = request_id
        self.doc_url = error.get("doc_url")
        # An earlier try may have been carried out: its answer was lost.
        self.repeated = False
        self._type = str(error.get("type") or _type_of(status))
        self._status = status

    @property
    def type(self) -> str:
        return self._type

    @property
    def status(self) -> int:
        return self._status

    @property
    def retryable(self) -> bool:
        return self._status in _RETRIED or self.code == "idempotency.in_progress"


def _type_of(status: int) -> str:
    known = {401: "authentication", 402: "quota_exceeded", 403: "permission", 404: "not_found", 409: "conflict"}
    known |= {410: "conflict", 429: "rate_limit"}
    return known.get(status, "invalid_request" if 400 <= status < 500 else "api_error")


@dataclass(frozen=True)
class Answer:
    """One JSON answer: `data` unwrapped from its envelope."""

    status: int
    data: Any
    next_cursor: str | None
    request_id: str | None
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class ServerEvent:
    event: str
    data: str
    id: str | None


class Transport:
    """One server, one key. `api_url` is an origin (`http://127.0.0.1:7070`); a trailing `/v1` is left out.

    Not safe for several threads at once while a stream is open.
    """

    def __init__(self, api_url: str, token: str | None, *, version: str | None = None, timeout: float = 30.0) -> None:
        self.origin = origin_of(api_url)
        headers = {"Accept": "application/json", "User-Agent": f"headway/{__version__}"}
        if token:
            headers["Authorization"] = f"Bearer {_in_header(token, 'token')}"
        if version:
            headers["Forge-Version"] = _in_header(version, "Forge-Version")
        self._http = httpx.Client(
            base_url=self.origin,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=10.0),
            trust_env=not _is_loopback(urlsplit(self.origin).hostname or ""),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **params: Any) -> Answer:
        return self._json("GET", path, params=params, headers=headers)

    def post(self, path: str, body: Json | None = None, *, idempotency_key: str | None = None) -> Answer:
        # An empty one, of an unset variable, is the server's to refuse: with another each try would do it again.
        key = _in_header(str(uuid.uuid4()) if idempotency_key is None else idempotency_key, "Idempotency-Key")
        return self._json("POST", path, body=body or {}, headers={"Idempotency-Key": key})

    def patch(self, path: str, body: Json) -> Answer:
        return self._json("PATCH", path, body=body)

    def put(self, path: str, body: Json) -> Answer:
        return self._json("PUT", path, body=body)

    def send(self, method: str, path: str, content: bytes, **params: Any) -> Answer:
        """Bytes as they are."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._json(method, path, params=params, content=content, headers=headers)

    def delete(self, path: str) -> Answer:
        """What is gone after a try whose answer was lost has been deleted by that: the answer is the 404's, with
        `{"deleted": true}`."""
        try:
            return self._json("DELETE", path)
        except ApiError as error:
            if error.status != 404 or not error.repeated:
                raise
            return Answer(404, {"deleted": True}, None, error.request_id, {})

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[Json]:
        """Every row of a list, newest first, page by page; at most `limit`."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            answer = self.get(path, limit=min(left or 100, 100), cursor=cursor, **params)
            rows = answer.data[:left]
            yield from rows
            cursor = answer.next_cursor
            if not cursor or not rows:
                return
            left = None if left is None else left - len(rows)

    def text(self, path: str) -> str:
        return self._send("GET", path, headers={"Accept": "text/plain"}).text

    def raw(self, path: str) -> bytes:
        """A document as its bytes are."""
        return self._send("GET", path, headers={"Accept": "*/*"}).content

    @contextlib.contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """A body of any size, in chunks."""
        with self._opened("GET", path, {"Accept": "*/*"}, None) as response:
            yield response.iter_bytes()

    @contextlib.contextmanager
    def events(self, path: str, *, last_event_id: str | None, timeout: float) -> Iterator[Iterator[ServerEvent | None]]:
        """Server-sent events; None for a comment or ping. `timeout` is the longest silence in seconds."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        with self._opened("GET", path, headers, httpx.Timeout(timeout, connect=10.0)) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise HeadwayError("route.not_found", f"{self.origin} does not stream events.")
            yield parse_events(response.iter_bytes())

    @contextlib.contextmanager
    def _opened(
        self, method: str, path: str, headers: Mapping[str, str], timeout: httpx.Timeout | None
    ) -> Iterator[httpx.Response]:
        _check_path(path)
        try:
            options = {} if timeout is None else {"timeout": timeout}
            with self._http.stream(method, path, headers=dict(headers), **options) as response:  # type: ignore[arg-type]
                if response.is_error:
                    response.read()
                    raise _error(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise _no_path() from None

    def _json(
        self,
        method: str,
        path: str,
        *,
        params: Json | None = None,
        body: Json | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        response = self._send(method, path, params=params, body=body, content=content, headers=headers)
        request_id = response.headers.get("x-request-id")
        if response.status_code == 304:
            return Answer(304, None, None, request_id, response.headers)
        try:
            document = response.json()
            data = document["data"]
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self.origin} does not answer like Headway's API ({response.status_code})."
            raise HeadwayError("internal.error", message) from error
        pagination = document.get("pagination") or {}
        return Answer(
            response.status_code,
            data,
            pagination.get("next_cursor") if pagination.get("has_more", True) else None,
            document.get("request_id", request_id),
            response.headers,
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Json | None = None,
        body: Json | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        given = {name: _param(value) for name, value in (params or {}).items() if value is not None}
        repeated = False
        _check_path(path)
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES
            try:
                response = self._http.request(
                    method, path, params=given or None, json=body, content=content, headers=dict(headers or {})
                )
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(error) from error
                repeated = repeated or not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                time.sleep(_pause(attempt))
                continue
            except httpx.InvalidURL:
                raise _no_path() from None
            except UnicodeEncodeError:
                raise HeadwayError("request.invalid_parameter", "A text holds bytes that are not UTF-8.") from None
            if not response.is_error:
                return response
            failure = _error(response)
            failure.repeated = repeated
            repeated = repeated or response.status_code >= 500
            pause = _pause(attempt, response.headers.get("retry-after"))
            if last or not failure.retryable or pause > LONGEST_WAIT:
                raise failure
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _unreachable(self, error: Exception) -> HeadwayError:
        reason = type(error).__name__ if not str(error) else str(error).splitlines()[0]
        return HeadwayError("service.unavailable", f"Cannot reach {self.origin}: {reason}")


def origin_of(api_url: str) -> str:
    """Scheme, host and port, with a path prefix if there is one. Raises request.invalid_parameter."""
    try:
        parts = urlsplit(api_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
        usable = usable and not re.search(r"[\s\x00-\x1f\x7f]", parts.netloc)
    except ValueError:
        usable = False
    if not usable:
        raise HeadwayError(
            "request.invalid_parameter", "The API's address must look like https://host.", param="api_url"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _in_header(text: str, what: str) -> str:
    """`text`, which may be a key and so stands in no message. Raises request.invalid_parameter."""
    if not (text.isascii() and text.isprintable()):
        message = f"{what} holds characters that cannot be sent: only printable ASCII can."
        raise HeadwayError("request.invalid_parameter", message, param=what)
    return text


def _check_path(path: str) -> None:
    """An id may come from anywhere: one of `../x` would lead to another kind of thing. Raises
    request.invalid_parameter."""
    if not {".", ".."}.isdisjoint(unquote(path.partition("?")[0]).split("/")):
        raise _no_path()


def _no_path() -> HeadwayError:
    return HeadwayError("request.invalid_parameter", "An id or name holds characters that no address has.")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _param(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pause(attempt: int, retry_after: str | None = None) -> float:
    """Seconds before the next try: what the server asks for, else 0.2, 0.4, 0.8 … with jitter."""
    if retry_after and retry_after.isdigit():
        return float(retry_after)
    return float(0.2 * 2 ** (attempt - 1) * (0.75 + random.random() / 2))  # noqa: S311


def _error(response: httpx.Response) -> ApiError:
    error: Any = None
    request_id = response.headers.get("x-request-id")
    with contextlib.suppress(ValueError):
        document = response.json()
        if isinstance(document, dict):
            error = document.get("error")
            request_id = document.get("request_id", request_id)
    return ApiError(response.status_code, error if isinstance(error, dict) else {}, request_id)


def parse_events(chunks: Iterator[bytes]) -> Iterator[ServerEvent | None]:
    """Server-sent events of a byte stream (WHATWG HTML, section 9.2.6); None for each comment line."""
    event, event_id = "message", None
    data: list[str] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(event, "\n".join(data), event_id)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            yield None
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            event_id = value


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines by CR, LF or CRLF only: a JSON text may hold any of the other characters that Python calls line ends."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        ends_in_cr = rest.endswith(b"\r")
        whole = rest[:-1] if ends_in_cr else rest
        *lines, rest = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += b"\r" if ends_in_cr else b""
        for line in lines:
            yield line.decode("utf-8", "replace")


def load_json(text: str) -> Json:
    """An event's data as an object; empty where it is none."""
    with contextlib.suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict):
            return document
    return {}
