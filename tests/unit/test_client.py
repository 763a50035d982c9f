"""The client against a real HTTP server: retries, keys, pages, errors, streams that break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headway import following, transport
from headway.client import Client, WaitTimeout
from headway.errors import HeadwayError
from headway.transport import ApiError, origin_of, parse_events
from tests.unit.api_double import ApiDouble, Asked, Reply, events, problem, running

JOB = "job_01KVT00000000000000000000A"


def job(status: str = "running", **fields: Any) -> dict[str, Any]:
    return {"id": JOB, "type": "build.run", "status": status, "progress": 0, "resource": {}, **fields}


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    with running() as started:
        yield started


@pytest.fixture
def client(double: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(transport, "_pause", lambda *_: 0.0)
    with Client(double.url, "mfk_live_secret", timeout=5.0) as made:
        yield made


def test_a_write_is_repeated_under_one_key(double: ApiDouble, client: Client) -> None:
    done = Reply(202, {"data": job("queued"), "request_id": "req_1"})
    double.on("POST", "/v1/sites", Reply(0), problem(503, "service.unavailable", "api_error"), done)
    assert client.sites.create("Shop").id == JOB
    tries = double.calls("POST", "/v1/sites")
    assert len(tries) == 3
    assert len({one.headers["idempotency-key"] for one in tries}) == 1
    assert tries[0].body == {"name": "Shop"}
    assert tries[0].headers["authorization"] == "Bearer mfk_live_secret"


def test_what_a_try_whose_answer_was_lost_has_deleted_is_deleted(double: ApiDouble, client: Client) -> None:
    gone = problem(404, "hook.not_found", "not_found")
    path = "/v1/sites/site_1234/hooks/hook_1"
    for lost in (Reply(0), problem(502, "http.502", "api_error")):
        double.on("DELETE", path, lost, gone)
        assert client.hooks.delete("site_1234", "hook_1") == {"deleted": True}
    for before in ((), (problem(429, "rate.limited", "rate_limit"),)):
        double.on("DELETE", path, *before, gone)
        with pytest.raises(ApiError, match="hook"):
            client.hooks.delete("site_1234", "hook_1")


def test_the_job_of_a_deletion_whose_answer_was_lost_is_found(double: ApiDouble, client: Client) -> None:
    gone, path = problem(404, "site.not_found", "not_found"), "/v1/sites/site_1234"
    double.on("DELETE", path, Reply(0), gone)
    of = {"type": "site", "id": "site_1234"}
    others = [job(type="site.create", resource=of), job(type="site.delete", resource={**of, "id": "site_5"})]
    double.data("GET", "/v1/jobs", [*others, {**job("succeeded", type="site.delete", resource=of), "id": "job_2"}])
    assert client.sites.delete("site_1234").id == "job_2"
    double.on("DELETE", path, Reply(0), gone)
    double.data("GET", "/v1/jobs", others)
    with pytest.raises(HeadwayError) as refused:
        client.sites.delete("site_1234")
    assert refused.value.code == "site.not_found"


def test_no_id_leads_to_another_kind_of_thing(double: ApiDouble, client: Client) -> None:
    for odd in ("../sites/site_1", "%2e%2e/sites/site_1", "whe_\udcff"):
        with pytest.raises(HeadwayError) as refused:
            client.webhooks.delete(odd)
        assert refused.value.code == "request.invalid_parameter"
    with pytest.raises(HeadwayError):
        client.sites.create("\udcff")
    assert double.asked == []


def test_the_callers_own_key_is_sent(double: ApiDouble, client: Client) -> None:
    double.data("POST", "/v1/sites/site_1234/environments/env_1234/builds", job(), status=202)
    client.builds.create("site_1234", "env_1234", ref="main", clean=True, idempotency_key="once")
    [asked] = double.asked
    assert asked.headers["idempotency-key"] == "once"
    assert asked.body == {"ref": "main", "clean": True}


def test_an_empty_key_is_not_replaced(double: ApiDouble, client: Client) -> None:
    double.data("POST", "/v1/sites", job(), status=202)
    client.sites.create("A", idempotency_key="")
    assert double.asked[0].headers["idempotency-key"] == ""


def test_two_writes_have_two_keys(double: ApiDouble, client: Client) -> None:
    double.data("POST", "/v1/sites", job(), status=202)
    client.sites.create("A")
    client.sites.create("B")
    assert len({one.headers["idempotency-key"] for one in double.asked}) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_what_a_retry_cannot_help_is_asked_once(double: ApiDouble, client: Client, status: int) -> None:
    double.problem("GET", "/v1/sites/site_1234", status, "site.not_found", "not_found")
    with pytest.raises(ApiError) as caught:
        client.sites.get("site_1234")
    assert len(double.asked) == 1
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "site.not_found", "req_TEST")


def test_429_waits_and_goes_on(double: ApiDouble, client: Client) -> None:
    limited = problem(429, "rate_limit.exceeded", "rate_limit", **{"Retry-After": "0"})
    double.on("GET", "/v1/account", limited, limited, Reply(200, {"data": {"role": "owner"}}))
    assert client.account().role == "owner"
    assert len(double.asked) == 3


def test_a_long_retry_after_is_the_callers_to_wait(double: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.time, "sleep", lambda _: pytest.fail("slept"))
    double.problem("GET", "/v1/account", 429, "rate_limit.exceeded", "rate_limit", **{"Retry-After": "3600"})
    with Client(double.url, "x") as client, pytest.raises(ApiError) as caught:
        client.account()
    assert caught.value.type == "rate_limit"


def test_a_code_of_a_newer_server_keeps_its_type(double: ApiDouble, client: Client) -> None:
    double.problem("GET", "/v1/account", 409, "moon.full", "conflict")
    with pytest.raises(HeadwayError) as caught:
        client.account()
    assert (caught.value.code, caught.value.type) == ("moon.full", "conflict")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"x": 1}', b"\xff"])
def test_a_stranger_at_the_address_is_one_sentence(double: ApiDouble, client: Client, body: bytes) -> None:
    double.on("GET", "/v1/account", Reply(200, body))
    with pytest.raises(HeadwayError, match="does not answer like Headway's API"):
        client.account()


def test_nobody_at_the_address_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_pause", lambda *_: 0.0)
    with Client("http://127.0.0.1:1", "x") as client, pytest.raises(HeadwayError, match="Cannot reach"):
        client.account()


def test_lists_go_over_all_pages(double: ApiDouble, client: Client) -> None:
    def page(asked: Asked) -> Reply:
        second = "cursor=two" in asked.path
        rows = [{"id": f"site_{n}", "name": "x"} for n in ((3,) if second else (1, 2))]
        block = {"next_cursor": None if second else "two", "has_more": not second}
        return Reply(200, {"data": rows, "pagination": block})

    double.on("GET", "/v1/sites", page)
    assert [site.id for site in client.sites.list()] == ["site_1", "site_2", "site_3"]
    assert [site.id for site in client.sites.list(limit=1)] == ["site_1"]
    assert "limit=1" in double.asked[-1].path


def test_sites_are_found_by_slug_or_id(double: ApiDouble, client: Client) -> None:
    row = {"id": "site_1234", "name": "Shop", "slug": "shop", "new_field": 7}
    double.data("GET", "/v1/sites", [row])
    double.data("GET", "/v1/sites/site_1234", row)
    assert client.sites.find("shop").as_dict() == row
    assert client.sites.find("site_1234").slug == "shop"
    with pytest.raises(HeadwayError) as caught:
        client.sites.find("nix")
    assert caught.value.code == "site.not_found"


@pytest.mark.parametrize(("name", "found"), [("feature-x", "env_2"), ("feature/x", "env_2"), ("production", "env_1")])
def test_environments_are_found_by_slug_branch_or_kind(
    double: ApiDouble, client: Client, name: str, found: str
) -> None:
    rows = [
        {"id": "env_1", "site_id": "s", "kind": "production", "slug": "live", "branch": "main"},
        {"id": "env_2", "site_id": "s", "kind": "preview", "slug": "feature-x", "branch": "feature/x"},
    ]

    def listed(asked: Asked) -> Reply:
        kept = [row for row in rows if "slug=" not in asked.path or f"slug={row['slug']}" in asked.path]
        return Reply(200, {"data": kept, "pagination": {"next_cursor": None, "has_more": False}})

    double.on("GET", "/v1/sites/s/environments", listed)
    assert client.environments.find("s", name).id == found


# following


STREAM = f"/v1/jobs/{JOB}/stream"


def test_a_job_is_followed_to_its_end(double: ApiDouble, client: Client) -> None:
    line = {"ts": "2026-06-24T14:31:20.114Z", "stream": "stdout", "stage": "build", "line": "a\u2028b"}
    double.on(
        "GET", STREAM, events(("job", job()), ("ping", None), ("log", line), ("job", job("succeeded")), ("end", {}))
    )
    seen = list(client.jobs.stream(JOB))
    assert [one.job.status if one.job else one.line for one in seen] == ["running", line, "succeeded"]
    assert client.jobs.wait(JOB).status == "succeeded"


def test_a_broken_stream_goes_on_where_it_was(double: ApiDouble, client: Client) -> None:
    first = events(("job", job()), ("log", {"line": "one"}))
    second = events(("job", job("succeeded")), ("end", {}))
    double.on("GET", STREAM, first, second)
    seen = list(client.jobs.stream(JOB))
    assert [one.line for one in seen if one.line] == [{"line": "one"}]
    assert [one.headers.get("last-event-id") for one in double.asked] == [None, "2"]
    assert seen[-1].job is not None
    assert seen[-1].job.ended


@pytest.mark.parametrize(
    "stream", [problem(404, "route.not_found", "not_found"), Reply(200, b"{}"), events(("ping", None))]
)
def test_without_a_stream_it_polls_by_etag(
    double: ApiDouble, client: Client, monkeypatch: pytest.MonkeyPatch, stream: Reply
) -> None:
    monkeypatch.setattr(following.time, "sleep", lambda _: None)
    double.on("GET", STREAM, stream)
    double.on(
        "GET",
        f"/v1/jobs/{JOB}",
        Reply(200, {"data": job()}, {"ETag": '"running-1"'}),
        Reply(304, b"", {"ETag": '"running-1"'}),
        Reply(200, {"data": job("failed", error={"code": "build.timeout"})}, {"ETag": '"failed-2"'}),
    )
    ended = client.jobs.wait(JOB)
    assert ended.status == "failed"
    polls = double.calls("GET", f"/v1/jobs/{JOB}")
    assert [one.headers.get("if-none-match") for one in polls] == [None, '"running-1"', '"running-1"']
    assert polls[1].headers["prefer"].startswith("wait=")


def test_a_server_that_restarts_is_waited_for(
    double: ApiDouble, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.time, "sleep", lambda _: None)
    away = problem(503, "service.unavailable", "api_error")
    double.on("GET", STREAM, away, Reply(0), away, away, events(("job", job("succeeded")), ("end", {})))
    assert client.jobs.wait(JOB).status == "succeeded"


def test_a_hidden_job_is_an_error_at_once(double: ApiDouble, client: Client) -> None:
    double.problem("GET", STREAM, 404, "job.not_found", "not_found")
    with pytest.raises(ApiError) as caught:
        client.jobs.wait(JOB)
    assert caught.value.code == "job.not_found"
    assert len(double.asked) == 1


def test_a_wait_ends_in_its_time_though_the_stream_is_silent(double: ApiDouble, client: Client) -> None:
    double.on("GET", STREAM, Reply(200, events(("job", job())).body, {"Content-Type": "text/event-stream"}, hang=True))
    with pytest.raises(WaitTimeout) as caught:
        client.jobs.wait(JOB, timeout=0.4)
    assert caught.value.job_id == JOB


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_event_parsing_by_the_standard(newline: str) -> None:
    text = newline.join([": c", "id: 7", "event: log", "data: one", "data:two", "", "data", "", "event: x", "", ""])
    raw = text.encode()
    for size in (1, 3, len(raw)):
        chunks = (raw[at : at + size] for at in range(0, len(raw), size))
        parsed = [one for one in parse_events(chunks) if one is not None]
        assert [(one.event, one.data, one.id) for one in parsed] == [("log", "one\ntwo", "7"), ("message", "", "7")]


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
        ("http://127.0.0.1:7070/v1/", "http://127.0.0.1:7070"),
        ("https://host.test/headway/", "https://host.test/headway"),
    ],
)
def test_origins(given: str, origin: str) -> None:
    assert origin_of(given) == origin


@pytest.mark.parametrize(
    "given",
    [
        *("", "127.0.0.1:7070", "ftp://x", "https://user:pw@host.test", "http://", "http://[::1"),
        *("http://host:abc", "http://host:99999", "http://my host"),
    ],
)
def test_what_is_no_origin(given: str) -> None:
    with pytest.raises(HeadwayError):
        origin_of(given)


@pytest.mark.parametrize("name", ["job_01\r", "job_\x1b[2J"])
def test_an_id_that_no_address_can_hold_is_one_sentence(double: ApiDouble, client: Client, name: str) -> None:
    with pytest.raises(HeadwayError, match="no address has"):
        client.jobs.get(name)
    with pytest.raises(HeadwayError, match="no address has"):
        client.jobs.wait(name)
    assert double.asked == []


@pytest.mark.parametrize(
    "text", ["mfk_live_secret\r", "mfk_live_secr\N{LATIN SMALL LETTER E WITH ACUTE}t", "mfk\nX: y"]
)
def test_what_no_header_can_carry_is_one_sentence_and_not_shown(double: ApiDouble, client: Client, text: str) -> None:
    with pytest.raises(HeadwayError) as error:
        Client(double.url, text)
    assert error.value.param == "token"
    assert "mfk" not in error.value.message
    with pytest.raises(HeadwayError, match="Idempotency-Key"):
        client.builds.create("site_A", "env_B", idempotency_key=text)
    assert double.asked == []
