from __future__ import annotations

import pytest

from adapters.egress.policy import EgressPolicy, Rule, is_public
from adapters.egress.proxy import Refused, parse
from headway.errors import HeadwayError


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Example.ORG", Rule("example.org", 443)),
        ("example.org.", Rule("example.org", 443)),
        ("example.org:80", Rule("example.org", 80)),
        ("*.example.org", Rule("*.example.org", 443)),
        ("git.example.org:22", Rule("git.example.org", 22)),
        ("127.0.0.1:8080", Rule("127.0.0.1", 8080)),
        ("[2001:db8::1]:8443", Rule("2001:db8::1", 8443)),
        ("2001:db8::1", Rule("2001:db8::1", 443)),
    ],
)
def test_rules_are_read_and_made_plain(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org",
        "a b",
        "example.org:0",
        "example.org:70000",
        "*",
        "*.*.org",
        "a..b",
        "-x",
        ":443",
        "example.org:²",
    ],
)
def test_what_is_no_host_is_an_error(text: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        Rule.parse(text)
    assert caught.value.code == "request.invalid_parameter"


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("example.org", 443, True),
        ("example.org", 80, False),
        ("evil-example.org", 443, False),
        ("example.org.evil.net", 443, False),
        ("a.cdn.net", 443, True),
        ("a.b.cdn.net", 443, True),
        ("cdn.net", 443, False),
        ("xcdn.net", 443, False),
        ("plain.net", 80, True),
        ("plain.net", 443, False),
        ("127.0.0.1", 443, False),
    ],
)
def test_names_and_ports_go_together(host: str, port: int, allowed: bool) -> None:
    policy = EgressPolicy.of(["example.org", "*.cdn.net", "plain.net:80"])
    assert (policy.refusal(host, port) is None) is allowed


def test_a_refusal_tells_a_wrong_port_from_a_wrong_host() -> None:
    policy = EgressPolicy.of(["example.org"])
    assert policy.refusal("other.org", 443) == "not on the allowlist"
    assert "port 80" in str(policy.refusal("example.org", 80))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "224.0.1.1",
        "255.255.255.255",
        "203.0.113.5",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1::8.8.8.8",
        "::127.0.0.1",
        "::ffff:0:7f00:1",
        "5f00::1",
        "3fff::1",
    ],
)
def test_private_addresses_in_every_dress_are_seen(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


def test_private_addresses_need_the_operators_word_for_that_name() -> None:
    policy = EgressPolicy.of(["a.test", "b.test"], private_ok=["B.test."])
    assert policy.usable("a.test", ["10.0.0.1", "1.1.1.1"]) == ["1.1.1.1"]
    assert policy.usable("b.test", ["10.0.0.1", "1.1.1.1"]) == ["10.0.0.1", "1.1.1.1"]


def test_indexes_are_allowed_but_private_only_when_the_operator_says_so() -> None:
    plain = EgressPolicy.of([], indexes=["index.test:443", "files.test:443"])
    assert plain.refusal("files.test", 443) is None
    assert plain.usable("index.test", ["10.0.0.1"]) == []
    opened = EgressPolicy.of(["other.test"], indexes=["index.test:443"], private_ok=["indexes"])
    assert opened.usable("index.test", ["10.0.0.1"]) == ["10.0.0.1"]
    assert opened.usable("other.test", ["10.0.0.1"]) == []


def test_connect_requests_are_read() -> None:
    request = parse(b"CONNECT Example.org.:443 HTTP/1.1\r\nHost: ignored\r\n\r\n")
    assert (request.host, request.port, request.tunnel) == ("example.org", 443, True)
    assert parse(b"CONNECT [2001:DB8::1]:22 HTTP/1.0\r\n\r\n").host == "2001:db8::1"


def test_plain_requests_are_rewritten_for_their_origin() -> None:
    request = parse(
        b"GET http://Example.org:8080/a?b=c HTTP/1.1\r\nHost: example.org\r\nProxy-Authorization: x\r\n"
        b"Proxy-Connection: keep-alive\r\nConnection: keep-alive\r\nX-Own: 1\r\n\r\n"
    )
    assert (request.host, request.port, request.tunnel) == ("example.org", 8080, False)
    assert request.head == (b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nX-Own: 1\r\nConnection: close\r\n\r\n")
    assert parse(b"GET http://example.org HTTP/1.1\r\n\r\n").head.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT example.org HTTP/1.1\r\n\r\n",
        b"CONNECT a b:443 HTTP/1.1\r\n\r\n",
        b"CONNECT user@example.org:443 HTTP/1.1\r\n\r\n",
        b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
        b"GET http://example.org:99999/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
def test_what_is_no_proxy_request_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        parse(head)


def test_credentials_in_a_url_do_not_become_the_host() -> None:
    assert parse(b"GET http://example.org@127.0.0.1/ HTTP/1.1\r\n\r\n").host == "127.0.0.1"
