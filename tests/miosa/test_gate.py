"""One gate for both dialects: what it does is the same, only the words differ."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.miosa.org import Org

pytestmark = pytest.mark.anyio
JSON: Final = {"Content-Type": "application/json"}
LISTS: Final = ("/v1/sites", "/api/v1/deployments")
# Method, what is added to a list's path, what is sent; status, and the codes of both dialects.
CASES: Final[tuple[tuple[str, str, dict[str, Any], int, tuple[str, str]], ...]] = (
    ("POST", "", {"content": b"{", "headers": JSON}, 400, ("request.malformed_json", "MALFORMED_JSON")),
    ("POST", "", {"content": b"[1]", "headers": JSON}, 400, ("request.malformed_json", "MALFORMED_JSON")),
    ("POST", "", {"content": b'{"name": NaN}', "headers": JSON}, 400, ("request.malformed_json", "MALFORMED_JSON")),
    (
        "POST",
        "",
        {"content": b'{"name": "\\u0000"}', "headers": JSON},
        400,
        ("request.malformed_json", "MALFORMED_JSON"),
    ),
    ("POST", "", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, ("", "")),
    ("POST", "", {"content": b"x" * (2 << 20), "headers": JSON}, 413, ("", "")),
    ("PUT", "", {}, 405, ("", "")),
    ("GET", "/none/such", {}, 404, ("", "")),
    ("GET", "/%00", {}, 404, ("", "")),
    ("GET", "?cursor=%00", {}, 0, ("", "")),
    ("GET", "", {"headers": {"Authorization": "Bearer wrong"}}, 401, ("", "")),
)


async def test_what_is_refused_is_refused_alike(org: Org) -> None:
    for method, more, sent, status, codes in CASES:
        found = []
        for path, code in zip(LISTS, codes, strict=True):
            client = org.api.admin if path.startswith("/v1") else org.http
            answer = await client.request(method, path + more, **sent)
            body, case = answer.json(), f"{method} {path}{more}: {answer.text}"
            assert answer.headers["content-type"] == "application/json", case
            told = body["request_id"] if path.startswith("/v1") else body["error"]["request_id"]
            assert answer.headers.get_list("x-request-id") == [told], case
            assert not code or body["error"]["code"] == code, case
            assert answer.status_code == status or not status, case
            if status == 405:
                assert {"GET", "POST"} <= set(answer.headers["allow"].split(", ")), case
            assert 400 <= answer.status_code < 500, case
            found.append(answer)
        assert found[0].headers["forge-version"]
        assert "forge-version" not in found[1].headers


async def test_a_name_that_stands_twice_is_refused(org: Org) -> None:
    answer = await org.http.post("/api/v1/deployments", content=b'{"name": "a", "name": "b"}', headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json()["error"]["details"] == {"field": "name"}


async def test_what_is_let_in_draws_from_a_budget(org: Org) -> None:
    for path, client in zip(LISTS, (org.api.admin, org.http), strict=True):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"].startswith("req_")
        assert int(answer.headers["x-ratelimit-limit"]) > 0
