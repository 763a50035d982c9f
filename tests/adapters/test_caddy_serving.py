"""What a visitor gets from the constant Caddy configuration: a real Caddy, a real rules server, real folders."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import stat
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from adapters.artifact.rules import HeaderRule, Redirect, StaticRules
from adapters.hosting.releases import digest_of
from adapters.router.caddy import SOCKETS, check_version, render
from adapters.router.routes import add_route, remove_route
from headway.errors import HeadwayError
from tests.adapters.sites import Machine, Server, program, running_server

PAGE = b"<!doctype html><title>acme</title>" + b"<p>headway</p>" * 200
FOR_EVER = "public, max-age=31536000, immutable"
REVALIDATE = "public, max-age=0, must-revalidate"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("m") / "host")


@pytest.fixture(scope="module")
def server(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(machine.host.folders, tmp_path_factory.mktemp("r")) as server:
        yield server


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


# files


def test_a_file_its_digest_and_its_headers(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE, "data.json": b"{}", "empty.txt": b"", "no-extension": b"x"})
    answer = server.get("/", host)
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.headers["Etag"] == etag(PAGE)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == REVALIDATE
    assert answer.headers["Last-Modified"] is None
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert server.get("/index.html", host).body == PAGE
    assert server.get("/data.json?v=1", host).headers["Content-Type"] == "application/json"
    assert server.get("/empty.txt", host).headers["Content-Length"] == "0"
    assert server.get("/no-extension", host).status == 200


@pytest.mark.parametrize("size", [0, 1, 511, 513, 65_537, 3_000_001])
def test_a_body_of_any_size_arrives_whole(machine: Machine, server: Server, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    host, _ = machine.site({"blob.bin": data})
    assert server.get("/blob.bin", host).body == data


def test_head_says_what_get_would(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE})
    head, get = server.get("/", host, method="HEAD"), server.get("/", host)
    assert head.body == b""
    for name in ("Etag", "Content-Length", "Content-Type", "Cache-Control", "Vary"):
        assert head.headers[name] == get.headers[name]


def test_ranges(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE})
    part = server.get("/", host, Range="bytes=2-11")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, PAGE[2:12], f"bytes 2-11/{len(PAGE)}")
    compressed = server.get("/", host, Range="bytes=2-11", Accept_Encoding="gzip, zstd")
    assert (compressed.status, compressed.body) == (206, PAGE[2:12]), "a part is never compressed"
    assert server.get("/", host, Range="bytes=999999-").status == 416
    assert server.get("/", host, Range="bytes=0-3", If_Range=etag(PAGE)).status == 206
    assert server.get("/", host, Range="bytes=0-3", If_Range=etag(b"other")).body == PAGE
    assert server.get("/", host, Range="bytes=0-3", If_Range="Thu, 01 Jan 1970 00:00:00 GMT").body == PAGE
    for unit in ("lines=1", "items=0-3", "octets=0-3,5-"):
        whole = server.get("/", host, Range=unit)
        assert (whole.status, whole.body) == (200, PAGE), unit


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_files_are_only_read(machine: Machine, server: Server, method: str) -> None:
    host, _ = machine.site({"index.html": PAGE})
    answer = server.get("/", host, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_folders(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": b"top", "docs/index.html": b"docs", "img/a.png": b"png"})
    answer = server.get("/docs", host)
    assert (answer.status, answer.headers["Location"]) == (308, "/docs/")
    assert server.get("/docs/", host).body == b"docs"
    assert server.get("/img/", host).status == 404, "no listing"
    assert server.get("/img", host).status == 404
    leading = server.raw(b"GET //docs HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
    assert b"Location: //" not in leading


@pytest.mark.parametrize(
    ("name", "immutable"),
    [
        ("app.3f9a1c07.js", True),
        ("assets/app-3f9a1c07d2.css", True),
        ("chunk.0a1b2c3d4e5f60718293.js.map", True),
        ("report-20240131.pdf", False),
        ("photo.20240131.jpg", False),
        ("deadbeef.js", False),
        ("app-deadbeef.js", False),
        ("app.3f9a.js", False),
        ("v1.2.3/app.js", False),
        ("app.min.js", False),
        ("index.html", False),
    ],
)
def test_only_what_carries_a_hash_in_its_name_is_kept_for_ever(
    machine: Machine, server: Server, name: str, immutable: bool
) -> None:
    host, _ = machine.site({name: b"x"})
    assert server.get(f"/{name}", host).headers["Cache-Control"] == (FOR_EVER if immutable else REVALIDATE)


def test_a_missing_file_is_not_kept_for_ever(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE, "404.html": b"none"})
    assert server.get("/app.3f9a1c07.js", host).headers["Cache-Control"] == REVALIDATE


# conditional requests and compression


def test_revalidation(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE})
    answer = server.get("/", host, If_None_Match=etag(PAGE))
    assert (answer.status, answer.body, answer.headers["Etag"]) == (304, b"", etag(PAGE))
    assert answer.headers["Cache-Control"] == REVALIDATE
    assert server.get("/", host, If_None_Match=f'"x", W/{etag(PAGE)}').status == 304
    assert server.get("/", host, If_None_Match='"x"').status == 200
    assert server.get("/", host, If_Match='"x"').status == 412


def test_dates_never_decide(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE})
    for date in ("Mon, 01 Jan 2035 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert server.get("/", host, If_Modified_Since=date).body == PAGE
        assert server.get("/", host, If_Unmodified_Since=date).body == PAGE


def test_a_change_of_equal_size_and_the_way_back_are_never_a_stale_304(machine: Machine, server: Server) -> None:
    host, env_id = machine.site({"index.html": b"one"})
    first = machine.seq
    machine.deploy({"index.html": b"two"}, env_id=env_id)
    old, new = etag(b"one"), etag(b"two")
    assert server.get("/", host, If_None_Match=old).body == b"two"
    assert server.get("/", host, If_None_Match=new).status == 304
    machine.seq += 1
    machine.host.environment(env_id).undo(machine.seq, first)
    assert server.get("/", host, If_None_Match=new).body == b"one"
    assert server.get("/", host, If_None_Match=old).status == 304
    assert server.get("/", host, If_Modified_Since="Mon, 01 Jan 2035 00:00:00 GMT").body == b"one"


def test_compression_varies_and_has_an_etag_of_its_own(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE, "tiny.txt": b"tiny", "photo.jpg": b"\xff\xd8" * 2_000})
    tags = {server.get("/", host).headers["Etag"]}
    for encoding, decode in (
        ("gzip", gzip.decompress),
        ("zstd", zstandard.ZstdDecompressor().decompressobj().decompress),
    ):
        answer = server.get("/", host, Accept_Encoding=encoding)
        assert answer.headers["Content-Encoding"] == encoding
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert decode(answer.body) == PAGE
        tag = answer.headers["Etag"]
        tags.add(tag)
        assert server.get("/", host, Accept_Encoding=encoding, If_None_Match=tag).status == 304
        assert server.get("/", host, If_None_Match=tag).status == 200, "another encoding is another representation"
    assert len(tags) == 3
    assert server.get("/", host).headers["Vary"] == "Accept-Encoding"
    for plain in ("/tiny.txt", "/photo.jpg"):
        assert server.get(plain, host, Accept_Encoding="gzip, zstd").headers["Content-Encoding"] is None


# what is not served


@pytest.mark.parametrize(
    "path",
    [
        "/.env",
        "/%2eenv",
        "/a/.git/config",
        "/./.env",
        "//.env",
        "/a/../.env",
        "/a/%2e%2e/.env",
        "/.env/",
        "/.well-known/.secret",
        "/.well-known/../.env",
        "/a/.well-known/x",
        "/headway.toml",
        "/a/headway.toml",
        "/headway%2Etoml",
        "/index.html.headway-etag",
        "/.well-known/security.txt.headway-etag",
        "/not_found.html",
        "/rules",
        "/@1",
    ],
)
def test_hidden_files(machine: Machine, server: Server, path: str) -> None:
    secret = b"the secret"
    names = [".env", "a/.git_/config", ".well-known/.secret", "a/.well-known/x", "headway.toml", "a/headway.toml"]
    files = {"index.html": PAGE, ".well-known/security.txt": b"Contact:", **dict.fromkeys(names, secret)}
    host, _ = machine.site(files, static=StaticRules(headers=(HeaderRule("/*", {"X-A": "1"}),)))
    answer = server.get(path, host)
    assert answer.status == 404
    assert secret not in answer.body
    assert server.get("/.well-known/security.txt", host).body == b"Contact:"


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../fence",
        "/..%2f..%2ffence",
        "/%2e%2e/%2e%2e/fence",
        "/%2e%2e%2f%2e%2e%2ffence",
        "/..;/fence",
        "/..%5c..%5cfence",
        "/%c0%ae%c0%ae/fence",
        "/a/../../../fence",
        "/index.html/../../fence",
        "/%00",
        "/a%00.html",
        "/index.html%00",
    ],
)
def test_paths_stay_inside(machine: Machine, server: Server, path: str) -> None:
    host, _ = machine.site({"index.html": PAGE, "a/b": b"b"})
    answer = server.get(path, host)
    assert answer.status in (400, 404)
    assert b'"seq"' not in answer.body


@pytest.mark.parametrize(
    "host",
    [
        "..",
        ".",
        "../x",
        "%2e%2e",
        "..%2f",
        "a..b",
        "UPPER.localhost",
        "site-1.localhost.",
        "-a",
        "a/b",
        "a\\b",
        "*",
        "[::1]",
        "a_b",
        "",
    ],
)
def test_a_host_that_is_not_a_plain_name_is_refused(machine: Machine, server: Server, host: str) -> None:
    machine.site({"index.html": PAGE})
    answer = server.raw(b"GET /index.html HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 421)
    assert PAGE not in answer


def test_hosts_with_ports_and_aliases_and_hosts_that_nobody_has(machine: Machine, server: Server) -> None:
    host, env_id = machine.site({"index.html": PAGE})
    assert server.get("/", f"{host}:{server.port}").body == PAGE
    machine.host.route(env_id, [host, "alias.example"])
    assert server.get("/", "alias.example").body == PAGE
    machine.host.route(env_id, [host])
    answer = server.get("/", "alias.example")
    assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")
    assert b"No site" in answer.body
    assert server.get("/", "a" * 250).status == 404
    assert server.get("/", "a" * 300).status == 404


def test_an_environment_without_a_release_says_so(machine: Machine, server: Server) -> None:
    machine.host.route("env_01EMPTYEMPTYEMPTYEMPTY", ["empty.localhost"])
    answer = server.get("/anything", "empty.localhost")
    assert answer.status == 404
    assert b"Nothing is deployed here" in answer.body


def test_symbolic_links_inside_a_tree_are_followed(machine: Machine, server: Server) -> None:
    host, _ = machine.site(
        {"docs/v2/index.html": b"two"}, links={"docs/latest": "v2", "start.html": "docs/v2/index.html"}
    )
    assert server.get("/docs/latest/", host).body == b"two"
    start = server.get("/start.html", host)
    assert (start.status, start.body) == (200, b"two")


# pages of the site's own


def test_the_own_page_for_404(machine: Machine, server: Server) -> None:
    page = b"<h1>none</h1>" * 100
    host, _ = machine.site({"index.html": PAGE, "404.html": page})
    answer = server.get("/none", host)
    assert (answer.status, answer.body) == (404, page)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for fields in ({"If_None_Match": "*"}, {"If_None_Match": etag(page)}, {"Range": "bytes=0-3"}):
        again = server.get("/none", host, **fields)
        assert (again.status, again.body) == (404, page), fields
    assert server.get("/none", host, Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"
    assert server.get("/none", host, method="HEAD").status == 404
    assert server.get("/404.html", host).status == 200


def test_below_a_file_there_is_nothing(machine: Machine, server: Server) -> None:
    plain, _ = machine.site({"index.html": PAGE, "docs": b"a file now, a folder in the release before"})
    own, _ = machine.site({"index.html": PAGE, "404.html": b"<h1>none</h1>"})
    for path in ("/index.html/x", "/docs/index.html", "/docs/a/b.css", "/x%00y"):
        answer = server.get(path, plain)
        assert (answer.status, answer.body) == (404, b"404 Not Found\n"), path
    answer = server.get("/index.html/x", own)
    assert (answer.status, answer.body) == (404, b"<h1>none</h1>")


def test_the_named_page_for_404(machine: Machine, server: Server) -> None:
    host, _ = machine.site(
        {"404.html": b"no", "errors/gone.html": b"yes"}, static=StaticRules(not_found="errors/gone.html")
    )
    answer = server.get("/none", host)
    assert (answer.status, answer.body) == (404, b"yes")
    host, _ = machine.site({"index.html": PAGE}, static=StaticRules(not_found="is/not/there.html"))
    assert server.get("/none", host).body == b"404 Not Found\n"


def test_a_single_page_application(machine: Machine, server: Server) -> None:
    files = {
        "index.html": PAGE,
        "app.js": b"js",
        "docs/index.html": b"docs",
        "img/a.png": b"p",
        "404.html": b"no",
        ".env": b"s",
    }
    host, _ = machine.site(files, static=StaticRules(spa=True))
    for path in ("/", "/deep/link", "/deep/link/", "/img/", "/img", "/app.js/", "/lost.3f9a1c07.js", "/x?y=/app.js"):
        answer = server.get(path, host)
        assert (answer.status, answer.body) == (200, PAGE), path
        assert answer.headers["Cache-Control"] == REVALIDATE, path
        assert answer.headers["Etag"] == etag(PAGE), path
    assert server.get("/app.js", host).body == b"js"
    assert server.get("/docs/", host).body == b"docs"
    assert server.get("/docs", host).status == 308
    assert server.get("/deep/link", host, If_None_Match=etag(PAGE)).status == 304
    assert server.get("/.env", host).status == 404


# rules

RULES = StaticRules(
    headers=(
        HeaderRule("/*", {"X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'self'"}),
        HeaderRule("/feed", {"Content-Type": "application/rss+xml", "Cache-Control": "max-age=60"}),
    ),
    redirects=(Redirect("/old", "/new"), Redirect("/go/*", "https://example.com/:splat", 302)),
)


def test_headers_of_a_site_with_rules(machine: Machine, server: Server) -> None:
    host, _ = machine.site(
        {"index.html": PAGE, "feed": b"<rss/>", "404.html": b"none", "app.3f9a1c07.js": b"x"}, static=RULES
    )
    answer = server.get("/", host)
    assert (answer.status, answer.body, answer.headers["X-Frame-Options"]) == (200, PAGE, "DENY")
    assert answer.headers["Etag"] == etag(PAGE)
    assert answer.headers["Content-Length"] == str(len(PAGE))
    feed = server.get("/feed", host)
    assert (feed.body, feed.headers["Content-Type"], feed.headers["Cache-Control"]) == (
        b"<rss/>",
        "application/rss+xml",
        "max-age=60",
    )
    assert server.get("/app.3f9a1c07.js", host).headers["Cache-Control"] == FOR_EVER
    missing = server.get("/none", host)
    assert (missing.status, missing.body, missing.headers["X-Frame-Options"]) == (404, b"none", "DENY")


def test_a_site_with_rules_answers_conditional_and_partial_requests_as_a_plain_one(
    machine: Machine, server: Server
) -> None:
    host, env_id = machine.site({"index.html": PAGE}, static=RULES)
    answer = server.get("/", host, If_None_Match=etag(PAGE))
    assert (answer.status, answer.headers["X-Frame-Options"]) == (304, "DENY")
    assert server.get("/", host, If_Modified_Since="Mon, 01 Jan 2035 00:00:00 GMT").status == 200
    assert server.get("/", host, Range="bytes=0-3").body == PAGE[:4]
    assert server.get("/", host, method="HEAD").headers["Content-Length"] == str(len(PAGE))
    assert server.get("/", host, method="POST").status == 405
    zipped = server.get("/", host, Accept_Encoding="gzip")
    assert gzip.decompress(zipped.body) == PAGE
    machine.deploy({"index.html": PAGE[::-1]}, env_id=env_id, static=RULES)
    assert server.get("/", host, If_None_Match=etag(PAGE)).body == PAGE[::-1]


def test_redirects(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE, "old": b"shadowed"}, static=RULES)
    answer = server.get("/old?a=b", host)
    assert (answer.status, answer.headers["Location"], answer.body) == (301, "/new?a=b", b"")
    assert server.get("/go/a%20b/c", host).headers["Location"] == "https://example.com/a%20b/c"
    assert server.get("/go/x", host, method="HEAD").status == 302
    assert server.get("/go/%0d%0aX-Evil:%201", host).headers["X-Evil"] is None


def test_a_rules_and_spa_site(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE}, static=StaticRules(spa=True, headers=RULES.headers))
    answer = server.get("/deep/link", host)
    assert (answer.status, answer.body, answer.headers["X-Frame-Options"]) == (200, PAGE, "DENY")


def test_a_visitor_cannot_speak_to_the_rules_server(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    answer = server.get("/", host, Headway_Release="999", Content_Length="0", X_Frame_Options="ALLOW")
    assert (answer.status, answer.headers["X-Frame-Options"]) == (200, "DENY")
    assert server.get("/" + "x" * 20_000, host).status in (400, 404)
    assert server.get("/", host, Cookie="c" * 30_000).status == 200


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_is_never_the_beginning_of_the_next_visitors_question(
    machine: Machine, server: Server, framing: str
) -> None:
    """The rules socket's connections are shared by all sites: half a request in a body would join the next one."""
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    half = b"GET /old HTTP/1.1\r\nX-Swallowed: "
    body = (
        (b"%d" % len(half), half) if framing == "length" else (b"chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(half), half))
    )
    field = b"Content-Length" if framing == "length" else b"Transfer-Encoding"
    head = b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b: %b\r\n\r\n" % (host.encode(), field, body[0])
    for _ in range(5):
        assert server.raw(head + body[1]).startswith(b"HTTP/1.1 400 ")
        answer = server.get("/", host)
        assert (answer.status, answer.headers["Location"], answer.headers["X-Frame-Options"]) == (200, None, "DENY")


def test_the_rules_server_itself_ends_a_connection_with_a_body(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    asked = b"GET /old HTTP/1.1\r\nHost: %b\r\nHeadway-Release: %d\r\n" % (host.encode(), machine.seq)
    for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(server.rules_socket))
            line.sendall(asked + field + b"\r\n\r\n" + asked + b"\r\n")
            answer = b""
            while chunk := line.recv(65536):
                answer += chunk
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_without_the_rules_server_the_site_goes_on_plain_and_gets_its_rules_back(
    machine: Machine, server: Server
) -> None:
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    assert server.get("/", host).headers["X-Frame-Options"] == "DENY"
    server.stop_rules()
    for _ in range(5):
        answer = server.get("/", host)
        assert (answer.status, answer.body, answer.headers["Etag"]) == (200, PAGE, etag(PAGE))
        assert server.get("/", host, If_None_Match=etag(PAGE)).status == 304
        assert server.get("/none", host).status == 404
    server.restart_rules()
    _until(lambda: server.get("/", host).headers["X-Frame-Options"] == "DENY")


def test_a_frozen_rules_server_costs_a_moment_and_no_answer(machine: Machine, server: Server) -> None:
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    assert server.get("/", host).headers["X-Frame-Options"] == "DENY"
    server.freeze_rules()
    assert server.get("/", host).body == PAGE
    server.stop_rules()
    server.restart_rules()
    _until(lambda: server.get("/", host).headers["X-Frame-Options"] == "DENY")


def test_a_killed_web_server_comes_back_with_everything(machine: Machine, server: Server) -> None:
    """Its own socket, which the kill left behind, is no obstacle."""
    host, _ = machine.site({"index.html": PAGE}, static=RULES)
    server.kill_and_restart()
    assert server.get("/", host).headers["X-Frame-Options"] == "DENY"
    server.stop_rules()
    assert server.get("/", host).body == PAGE
    server.restart_rules()
    _until(lambda: server.get("/", host).headers["X-Frame-Options"] == "DENY")


# switches


def test_no_request_is_lost_and_no_etag_is_crossed_over_many_switches(machine: Machine, server: Server) -> None:
    """Plain, rules and single-page releases in turn; every body must carry its own digest."""
    kinds: list[StaticRules | None] = [None, RULES, StaticRules(spa=True), None]
    host, env_id = machine.site({"index.html": b"release 0" + PAGE})
    placed = []
    for number in range(1, 9):
        spec, _ = machine.shelf.artifact(
            {"index.html": b"release %d" % number + PAGE}, static=kinds[number % 4], env_id=env_id
        )
        placed.append(spec)
    results: Counter[str] = Counter()
    stop, lock = threading.Event(), threading.Lock()

    def visitor() -> None:
        while not stop.is_set():
            try:
                answer = server.get("/", host)
                good = answer.status == 200 and answer.headers["Etag"] == etag(answer.body)
                outcome = "good" if good else f"{answer.status} {answer.headers['Etag']}"
            except OSError as error:
                outcome = type(error).__name__
            with lock:
                results[outcome] += 1

    visitors = [threading.Thread(target=visitor) for _ in range(4)]
    for thread in visitors:
        thread.start()
    switches = 0
    while switches < 48 or results.total() < 1_500:
        machine.seq += 1
        machine.host.place(placed[switches % 8], machine.seq, lambda: None)
        machine.host.environment(env_id).switch(machine.seq)
        switches += 1
        if switches % 3 == 0:
            machine.host.tidy(env_id)
        time.sleep(0.005)
    stop.set()
    for thread in visitors:
        thread.join()
    assert results == {"good": results.total()}
    assert results.total() >= 1_500


def test_a_download_that_began_before_a_switch_ends_with_the_old_bytes(machine: Machine, server: Server) -> None:
    big = os.urandom(32 << 20)
    host, env_id = machine.site({"big.bin": big})
    big_tree = digest_of(machine.host.environment(env_id).release(machine.seq))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(b"GET /big.bin HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
        head = line.recv(2048)
        for number in range(8):
            machine.deploy({"big.bin": b"new %d" % number}, env_id=env_id)
        machine.host.tidy(env_id)
        assert big_tree not in os.listdir(machine.host.folders.trees)
        body = bytearray(head)
        while chunk := line.recv(1 << 16):
            body += chunk
    assert bytes(body).endswith(big)
    assert server.get("/big.bin", host).body == b"new 7"


def test_a_name_that_moves_is_never_without_an_answer(machine: Machine, server: Server) -> None:
    _, one = machine.site({"index.html": b"one"})
    _, two = machine.site({"index.html": b"two"})
    routes = machine.host.folders.routes
    add_route(routes, "moving.localhost", one)
    for env_id, body in [(two, b"two"), (one, b"one")] * 10:
        add_route(routes, "moving.localhost", env_id)
        assert server.get("/", "moving.localhost").body == body
    remove_route(routes, "moving.localhost")
    assert server.get("/", "moving.localhost").status == 404


# services


def test_a_service_is_dialled_through_its_release(
    machine: Machine, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    host, env_id = machine.site({"index.html": PAGE})
    release = machine.host.environment(env_id).release(9_000)
    release.mkdir()
    for marker in (f"@9000+{env_id}", "service"):
        (release / marker).touch()
    path = tmp_path_factory.mktemp("s") / "sock"
    for number in range(SOCKETS):
        (release / f"sock.{number}").symlink_to(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_one_answer, args=(listener, b"from the service"), daemon=True).start()
        machine.host.environment(env_id).switch(9_000)
        machine.seq = 9_000
        assert server.get("/anything", host, method="POST", Content_Length="0").body == b"from the service"
    machine.deploy({"index.html": PAGE}, env_id=env_id)
    assert server.get("/", host).body == PAGE


def _one_answer(listener: socket.socket, body: bytes) -> None:
    line, _ = listener.accept()
    with line:
        line.recv(65536)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))


# the configuration and the binary


def test_the_configuration_is_constant_and_has_no_admin(tmp_path: Path) -> None:
    folders: dict[str, Any] = {
        "routes": tmp_path / "routes",
        "rules_socket": tmp_path / "r",
        "plain_socket": tmp_path / "p",
        "state": tmp_path / "state",
    }
    config = render(listen="127.0.0.1:8080", **folders)
    assert config["admin"]["disabled"] is True
    assert config["apps"]["http"]["servers"]["sites"]["listen"] == ["127.0.0.1:8080"]
    assert config["apps"]["http"]["grace_period"] == "5s"
    for bad in (tmp_path / "a*b", tmp_path / "{x}", tmp_path / "[x]", Path("relative")):
        with pytest.raises(HeadwayError) as caught:
            render(listen="127.0.0.1:8080", **{**folders, "routes": bad})
        assert caught.value.code == "stack.folder_invalid"
    with pytest.raises(HeadwayError):
        render(listen="127.0.0.1:8080", **{**folders, "rules_socket": tmp_path / ("x" * 110)})


def test_the_internal_socket_is_closed_to_others(server: Server) -> None:
    plain = server.rules_socket.with_name("plain.sock")
    assert stat.S_IMODE(plain.stat().st_mode) == 0o600


@pytest.mark.parametrize("version", ["v2.6.2 h1:x", "2.10.9", "nonsense", "v1.0"])
def test_an_old_caddy_is_refused(tmp_path: Path, version: str) -> None:
    old = tmp_path / "caddy"
    old.write_text(f"#!/bin/sh\necho '{version}'\n")
    old.chmod(0o755)
    with pytest.raises(HeadwayError) as caught:
        check_version(str(old))
    assert caught.value.code == "stack.binary_missing"


def test_this_caddy_is_good_and_none_is_not() -> None:
    found = subprocess.run([program("caddy"), "version"], capture_output=True, text=True, check=True).stdout
    assert f"v{check_version(program('caddy'))} " in found
    with pytest.raises(HeadwayError):
        check_version("/nonexistent/caddy")


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# redirects of host names


def test_a_name_that_redirects_keeps_path_and_query_and_comes_back(machine: Machine, server: Server) -> None:
    host, env_id = machine.site({"index.html": PAGE})
    old = "old.example.test"
    machine.host.route(env_id, [host, old], {old: "http://www.example.test:7071"})
    answer = server.get("/a/b?c=d%20e", old)
    assert (answer.status, answer.headers["Location"]) == (301, "http://www.example.test:7071/a/b?c=d%20e")
    assert server.get("/", old, "POST").status == 301
    assert server.get("/", host).body == PAGE
    machine.host.route(env_id, [host, old], {old: "https://www.example.test"})
    assert server.get("/", old).headers["Location"] == "https://www.example.test/"
    machine.host.route(env_id, [host, old])
    assert server.get("/", old).body == PAGE
    machine.host.route(env_id, [host], {})
    assert server.get("/", old).status == 404
