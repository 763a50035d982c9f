from __future__ import annotations

import pytest

from adapters.artifact.rules import HeaderRule, Redirect, StaticRules
from adapters.artifact.run import HealthCheck
from adapters.plan.config import Config, parse_config
from adapters.plan.run_table import RunTable
from headway.errors import HeadwayError

FULL = b"""
[build]
command = "make site"
output = "./out/html/"
root = "docs"
timeout = 120
watch = ["docs/", "theme.css"]
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
port = 8080
health_check_path = "/ready"
health_check_status = "200-299"
health_check_passes = 2
health_check_interval = 0.25
health_check_timeout = 20
instances = 3
release_command = "./migrate"
release_timeout = 90
stop_grace = 0
egress = ["db.example:5432", "unix:/run/db.sock"]
env = { MODE = "fast" }
memory = "256 MB"
cpu = 0.5

[processes]
worker = "./work"

[[mounts]]
path = "uploads"

[[mounts]]
path = "data"
"""

RUN = RunTable(
    command="./serve",
    processes={"worker": "./work"},
    given={
        "port": 8080,
        "health": HealthCheck("/ready", 200, 299, 2, 250, 20),
        "instances": 3,
        "release_command": "./migrate",
        "release_timeout": 90,
        "stop_grace": 0,
        "egress": ("db.example:5432", "unix:/run/db.sock"),
        "env": {"MODE": "fast"},
        "memory": 256 << 20,
        "cpu_millis": 500,
        "volumes": ("data", "uploads"),
    },
)


def test_everything_that_can_be_said() -> None:
    assert parse_config(FULL) == Config(
        command="make site",
        output="out/html",
        root="docs",
        env={"NODE_ENV": "production"},
        timeout=120,
        watch=("docs", "theme.css"),
        static=StaticRules(
            "404.html",
            False,
            (HeaderRule("/assets/*", {"Cache-Control": "public, max-age=31536000, immutable"}),),
            (Redirect("/old/*", "https://example.org/new", 308), Redirect("/a", "/b", 301)),
        ),
        run=RUN,
    )


def test_the_web_line_of_processes_is_the_command() -> None:
    found = parse_config(b'[run]\ncommand = "a"\n[processes]\nweb = " b "\nworker = "c"')
    assert (found.run.command, found.run.processes) == ("b", {"worker": "c"})


def test_what_is_skipped_and_what_is_kept() -> None:
    found = parse_config(b'[build]\nroot = "web/"\nskip = true\ncache = [".vite", "node_modules/.cache"]')
    assert (found.watch, found.cache) == (("web",), (".vite", "node_modules/.cache"))
    assert parse_config(b'[build]\nroot = "web"\nskip = true\nwatch = ["a"]').watch == ("a",)
    # Within the output is fine: what is kept is not published.
    assert parse_config(b'[build]\noutput = ".next"\ncache = [".next/cache"]').cache == (".next/cache",)


def test_routes_are_kept_as_texts_for_whoever_judges_them() -> None:
    assert parse_config(b"").routes is None
    assert parse_config(b"routes = []").routes == ()
    given = b'[[routes]]\npattern = "docs/*"\ntarget = "ignore"\n[[routes]]\npattern = 2026-01-01\n'
    assert parse_config(given).routes == ({"pattern": "docs/*", "target": "ignore"}, {"pattern": "2026-01-01"})
    for odd in (b"routes = 7", b"routes = [7]"):
        assert parse_config(odd).routes == ({},), "no route"


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
        ("[build]\ninstall = 5", "build.install"),
        ('[build]\nwatch = "web"', "build.watch"),
        ('[build]\nwatch = ["../web"]', "build.watch[0]"),
        ("[build]\nskip = 1", "build.skip"),
        ("[build]\nskip = true", "build.skip"),
        ('[build]\ncache = "x"', "build.cache"),
        ('[build]\ncache = ["../x"]', "build.cache[0]"),
        ('[build]\ncache = ["/x"]', "build.cache[0]"),
        ('[build]\ncache = ["."]', "build.cache[0]"),
        ('[build]\ncache = ["a/b", "a"]', "build.cache[1]"),
        ('[build]\ncache = ["a", "a"]', "build.cache[0]"),
        ('[build]\noutput = "dist/site"\ncache = ["dist"]', "build.cache[0]"),
        ("[run]\ncomand = 5", "run.comand"),
        ("[run]\ncommand = 5", "run.command"),
        ('[run]\ncommand = " "', "run.command"),
        ("[run]\nport = 70000", "run.port"),
        ('[run]\nport = "80"', "run.port"),
        ('[run]\nhealth_check_path = "ready"', "run.health_check_path"),
        ('[run]\nhealth_check_status = "399-200"', "run.health_check_status"),
        ("[run]\nhealth_check_status = 20", "run.health_check_status"),
        ("[run]\nhealth_check_passes = 0", "run.health_check_passes"),
        ("[run]\nhealth_check_interval = 0", "run.health_check_interval"),
        ("[run]\nhealth_check_timeout = 1.5", "run.health_check_timeout"),
        ("[run]\ninstances = 0", "run.instances"),
        ('[run]\nrelease_command = ""', "run.release_command"),
        ('[run]\negress = "all"', "run.egress"),
        ('[run]\negress = ["https://x/"]', "run.egress[0]"),
        ('[run.env]\nPORT = "80"', "run.env.PORT"),
        ("[run.env]\nA = 1", "run.env.A"),
        ("[run]\nmemory = 512", "run.memory"),
        ('[run]\nmemory = "1 KB"', "run.memory"),
        ("[run]\ncpu = 0", "run.cpu"),
        ("[run]\ncpu = true", "run.cpu"),
        ('processes = ["x"]', "processes"),
        ('[processes]\nWorker = "x"', "processes.Worker"),
        ("[processes]\nweb = 1", "processes.web"),
        ('mounts = "data"', "mounts"),
        ("[[mounts]]\n", "mounts[0]"),
        ('[[mounts]]\npath = "/data"', "mounts[0].path"),
        ('[[mounts]]\npath = "a"\n[[mounts]]\npath = "a/b"', "mounts"),
        ('[[mounts]]\npath = "a"\nsize = 1', "mounts[0]"),
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
