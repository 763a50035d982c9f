"""Redirects and headers of static sites, and the socket that answers them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from adapters.artifact.rules import HeaderRule, Redirect, StaticRules
from adapters.router import rules_server
from adapters.router.rules import Answer, Glob, Rules, clean_path, read_rules, rules_document
from adapters.router.rules_server import MAX_HEAD, RulesBook, start
from headway.errors import HeadwayError


def redirects(*rules: tuple[str, str] | tuple[str, str, int]) -> Rules:
    return Rules((), [Redirect(*rule) for rule in rules])


@pytest.mark.parametrize(
    ("rule", "asked", "location"),
    [
        (("/old", "/new"), "/old", "/new"),
        (("/old", "/new"), "/old?a=1&b=2", "/new?a=1&b=2"),
        (("/old", "/new?c=3"), "/old?a=1", "/new?c=3"),
        (("/old", "/new#part"), "/old?a=1", "/new?a=1#part"),
        (("/blog/*", "/posts/:splat"), "/blog/2024/x", "/posts/2024/x"),
        (("/blog/*", "/posts/:splat"), "/blog/", "/posts/"),
        (("/blog/*", "https://blog.example/:splat"), "/blog/a%20b", "https://blog.example/a%20b"),
        (("/bl%6fg", "/x"), "/blog", None),
        (("/blog", "/x"), "/bl%6Fg", "/x"),
        (("/blog", "/x"), "/./blog", "/x"),
        (("/blog", "/x"), "/blog/", None),
        (("/a b", "/x"), "/a%20b", "/x"),
        (("/*", "/maintenance.html"), "/maintenance.html", None),
        (("/dir", "/dir/"), "/dir", "/dir/"),
        (("/dir", "/dir/"), "/dir/", None),
    ],
)
def test_a_redirect(rule: tuple[str, str], asked: str, location: str | None) -> None:
    answer = redirects(rule).answer(asked)
    assert (answer.location or None, answer.status) == (location, 301 if location else 200)


@pytest.mark.parametrize(
    ("rule", "asked", "location"),
    [
        (("/go/*", "/:splat"), "/go//evil.example/x", "/evil.example/x"),
        (("/go/*", "/:splat"), "/go/%2Fevil.example", "/evil.example"),
        (("/go/*", "/:splat"), "/go/%5Cevil.example", "/%5Cevil.example"),
        (("/*", "https://good.example:splat"), "/.evil.example", "https://good.example/.evil.example"),
        (("/*", "https://good.example:splat"), "/@evil.example", "https://good.example/@evil.example"),
        (("/go/*", "/x/:splat"), "/go/%0d%0aSet-Cookie:%20a=b", "/x/%0D%0ASet-Cookie:%20a=b"),
        (("/go/*", "/x/:splat"), "/go/%ff%C3%A4", "/x/%FF%C3%A4"),
    ],
)
def test_a_visitor_chooses_neither_the_host_nor_a_header(rule: tuple[str, str], asked: str, location: str) -> None:
    assert redirects(rule).answer(asked).location == location


def test_the_first_redirect_that_matches_wins_whether_exact_or_prefix() -> None:
    rules = redirects(("/a/b", "/1"), ("/a/*", "/2"), ("/a/c", "/3"), ("/z", "/4", 302))
    assert [rules.answer(path).location for path in ("/a/b", "/a/c", "/a/d", "/z")] == ["/1", "/2", "/2", "/4"]
    assert rules.answer("/z").status == 302


def test_headers_add_up_and_a_later_rule_replaces() -> None:
    rules = Rules(
        [
            HeaderRule("/*", {"X-All": "1", "Cache-Control": "no-cache"}),
            HeaderRule("/assets/*.js", {"cache-control": "immutable"}),
        ],
        (),
    )
    assert rules.answer("/index.html").headers == (("X-All", "1"), ("Cache-Control", "no-cache"))
    assert rules.answer("/assets/a/b.js?x").headers == (("X-All", "1"), ("cache-control", "immutable"))


def test_headers_follow_the_path_that_is_served_not_the_spelling() -> None:
    rules = Rules([HeaderRule("/private/*", {"X-Robots-Tag": "noindex"})], ())
    for spelling in ("/private/a", "/./private/a", "/x/../private/a", "//private/a", "/%70rivate/a"):
        assert rules.answer(spelling).headers == (("X-Robots-Tag", "noindex"),), spelling
    assert rules.answer("/private/../a").headers == ()


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("*", "", True),
        ("/*", "/", True),
        ("/a*b*c", "/aXbYc", True),
        ("/a*b*c", "/abc", True),
        ("/a*b*c", "/acb", False),
        ("/ab*ba", "/aba", False),
        ("/*.js*", "/x.json", True),
        ("/**", "/x/y", True),
        ("/x*x*x", "/xx", False),
    ],
)
def test_a_glob(pattern: str, text: str, matches: bool) -> None:
    assert Glob(pattern).matches(text) is matches


def test_a_hostile_pattern_does_not_make_a_hostile_path_slow() -> None:
    began = time.process_time()
    assert not Glob("/" + "*a" * 2_000 + "b").matches("/" + "a" * 8_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("/", "/"), ("/a/", "/a/"), ("//a", "/a"), ("/a/../..", "/"), ("/a/./b", "/a/b"), ("/..", "/"), ("///", "/")],
)
def test_clean_path(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


def test_a_document_goes_there_and_back_and_is_left_out_where_there_are_no_rules() -> None:
    static = StaticRules(headers=(HeaderRule("/*", {"A": "b"}),), redirects=(Redirect("/x", "/y", 308),))
    document = rules_document(static)
    assert document is not None
    assert read_rules(json.loads(json.dumps(document))).answer("/x") == Answer(308, location="/y")
    assert rules_document(StaticRules(spa=True, not_found="404.html")) is None
    with pytest.raises(HeadwayError):
        read_rules({"headers": [{"for": "/*", "values": {"Content-Length": "0"}}]})


def release(routes: Path, host: str, seq: int, rules: str) -> None:
    folder = routes / host / "r" / str(seq)
    folder.mkdir(parents=True)
    (folder / "rules").write_text(rules)


RULES = json.dumps({"headers": [{"for": "/*", "values": {"X-A": "1"}}], "redirects": [{"from": "/o", "to": "/n"}]})


@pytest.mark.parametrize(
    ("host", "seq", "target"),
    [
        ("..", "1", "/o"),
        ("acme.localhost", "../1", "/o"),
        ("acme.localhost", "²", "/o"),
        ("acme.localhost", "", "/o"),
        ("ACME.localhost", "1", "/o"),
        ("acme.localhost", "2", "/o"),
        ("other.localhost", "1", "/o"),
        ("acme.localhost", "3", "/o"),
        ("acme.localhost", "1", "/o" + "x" * 10_000),
    ],
)
def test_what_has_no_readable_rules_is_served_plain(tmp_path: Path, host: str, seq: str, target: str) -> None:
    release(tmp_path, "acme.localhost", 1, RULES)
    release(tmp_path, "acme.localhost", 3, "{broken")
    assert RulesBook(tmp_path).answer(host, seq, target) == Answer(200)


def test_the_book_forgets_the_least_used_and_sees_a_changed_file(tmp_path: Path) -> None:
    for seq in range(1, 6):
        release(tmp_path, "acme.localhost", seq, RULES)
    book = RulesBook(tmp_path, kept=2)
    for seq in (1, 2, 3, 4, 5, 1):
        assert book.answer("acme.localhost", str(seq), "/o").location == "/n"
    changed = tmp_path / "acme.localhost/r/1/new"
    changed.write_text(RULES.replace("/n", "/elsewhere"))
    changed.rename(tmp_path / "acme.localhost/r/1/rules")
    assert book.answer("acme.localhost", "1", "/o").location == "/elsewhere"


def test_the_book_keeps_no_more_than_some_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_server, "KEPT_BYTES", 3 * len(RULES))
    book = RulesBook(tmp_path)
    for seq in [*range(1, 9), 1]:
        if seq > 1 or not book._known:
            release(tmp_path, "acme.localhost", seq, RULES)
        assert book.answer("acme.localhost", str(seq), "/o").location == "/n"
    assert (len(book._known), book._bytes) == (3, 3 * len(RULES))


def ask(socket: Path, *pieces: bytes) -> bytes:
    async def talk() -> bytes:
        server = await start(socket.parent / "routes", socket)
        async with server:
            reader, writer = await asyncio.open_unix_connection(socket)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return answer

    return asyncio.run(talk())


def request(target: str, host: str = "acme.localhost") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}:8080\r\nheadway-release: 1\r\n\r\n".encode()


def test_the_socket_answers_pipelined_and_split_requests_in_order(tmp_path: Path) -> None:
    release(tmp_path / "routes", "acme.localhost", 1, RULES)
    both = request("/o") + request("/page")
    answer = ask(tmp_path / "s", both[:30], both[30:])
    assert answer == (
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: /n\r\nContent-Length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"GET http://x/ HTTP/1.1\r\n\r\n", b"x" * (MAX_HEAD + 1)],
)
def test_the_socket_refuses_what_a_proxy_never_sends(tmp_path: Path, sent: bytes) -> None:
    answer = ask(tmp_path / "s", sent + request("/o"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_second_server_takes_the_name_over(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("left behind")
    release(tmp_path / "routes", "acme.localhost", 1, RULES)
    assert b"Location: /n" in ask(tmp_path / "s", request("/o"))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
