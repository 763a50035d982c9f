from __future__ import annotations

import pytest

from adapters.artifact.rules import HeaderRule, Redirect, StaticRules
from adapters.plan.config import Config, parse_config
from headway.errors import HeadwayError

FULL = b"""
[build]
command = "make site"
output = "./out/html/"
root = "docs"
timeout = 120
env = { NODE_ENV = "production" }

[static]
not_found = "/404.html"
spa = false

[[static.headers]]
for = "/assets/*"
values = { Cache-Control = "public, max-age=31536000, immutable" }

[[static.redirects]]
from = "/old/*"
to = "https://example.org/new"
status = 308

[[static.redirects]]
from = "/a"
to = "/b"

[run]
command = "./serve"
anything = [1, 2]
"""


def test_everything_that_can_be_said() -> None:
    assert parse_config(FULL) == Config(
        command="make site",
        output="out/html",
        root="docs",
        env={"NODE_ENV": "production"},
        timeout=120,
        static=StaticRules(
            "404.html",
            False,
            (HeaderRule("/assets/*", {"Cache-Control": "public, max-age=31536000, immutable"}),),
            (Redirect("/old/*", "https://example.org/new", 308), Redirect("/a", "/b", 301)),
        ),
        run={"command": "./serve", "anything": [1, 2]},
    )


def test_an_empty_file_says_nothing() -> None:
    assert parse_config(b"") == Config()
    assert not parse_config(b"[static]").static
    assert parse_config(b'[build]\noutput = "."').output == ""
    assert parse_config(b'[build]\ncommand = ""').command == ""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[biuld]", "biuld"),
        ('[build]\ncomand = "x"', "build.comand"),
        ("[build]\ncommand = 5", "build.command"),
        ('[build]\ncommand = ["a"]', "build.command"),
        ('build = "x"', "build"),
        ('run = "x"', "run"),
        ('[build]\noutput = "../x"', "build.output"),
        ('[build]\noutput = "/x"', "build.output"),
        ('[build]\noutput = "a/../b"', "build.output"),
        ('[build]\noutput = ""', "build.output"),
        ('[build]\noutput = "a\\nb"', "build.output"),
        ('[build]\noutput = ".git"', "build.output"),
        ('[build]\nroot = ".."', "build.root"),
        ("[build]\ntimeout = 0", "build.timeout"),
        ("[build]\ntimeout = true", "build.timeout"),
        ("[build]\ntimeout = 1.5", "build.timeout"),
        ("[build]\ntimeout = 10000000", "build.timeout"),
        ('[build]\nenv = ["A"]', "build.env"),
        ("[build.env]\nA = 5", "build.env.A"),
        ('[build.env]\n"A B" = "x"', "build.env.A B"),
        ('[build.env]\nLD_PRELOAD = "x"', "build.env.LD_PRELOAD"),
        ("[static]\nspa = 1", "static.spa"),
        ("[static]\nnotfound = 1", "static.notfound"),
        ('[static]\nnot_found = "../x"', "static.not_found"),
        ('[static]\nheaders = {for="/"}', "static.headers"),
        ('[[static.headers]]\nfor="/x"', "static.headers[0].values"),
        ('[[static.headers]]\nfor="x"\nvalues={A="b"}', "static.headers[0].for"),
        ('[[static.headers]]\nfor="/x"\nvalues={"A b"="b"}', "static.headers[0].values"),
        ('[[static.headers]]\nfor="/x"\nvalues={A="b\\r\\nSet-Cookie: x"}', "static.headers[0].values.A"),
        ('[[static.headers]]\nfor="/x"\nvalues={transfer-encoding="chunked"}', "static.headers[0].values"),
        ('[[static.headers]]\nfor="/x"\nvalues={A="b",a="c"}', "static.headers[0].values"),
        ('[[static.redirects]]\nfrom="/x"', "static.redirects[0].to"),
        ('[[static.redirects]]\nfrom="/x"\nto="/y"\nstatus=200', "static.redirects[0].status"),
        ('[[static.redirects]]\nfrom="/x"\nto="javascript:alert(1)"', "static.redirects[0].to"),
        ('[[static.redirects]]\nfrom="/x"\nto="//evil"', "static.redirects[0].to"),
        ('[[static.redirects]]\nfrom="/*/x"\nto="/y"', "static.redirects[0].from"),
        ('[[static.redirects]]\nfrom="/x"\nto="/y"\nforce=true', "static.redirects[0].force"),
    ],
)
def test_a_slip_is_named(text: str, key: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        parse_config(text.encode())
    error = caught.value
    assert error.code == "build.config_invalid"
    assert (error.param or "").startswith(key)
    assert "headway.toml" in error.message
    assert key in error.message


@pytest.mark.parametrize("raw", [b"\xff", b"[", b"a" * 300_000, b"x = " + b"[" * 20_000])
def test_what_is_not_toml(raw: bytes) -> None:
    with pytest.raises(HeadwayError) as caught:
        parse_config(raw)
    assert caught.value.code == "build.config_invalid"
    assert len(caught.value.message) < 400
