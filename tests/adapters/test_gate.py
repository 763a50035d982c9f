"""A password in front of a preview, by the real Caddy: who passes, what the app sees, and what a switch does to it."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.artifact.rules import HeaderRule, StaticRules
from adapters.router.caddy import SOCKETS
from adapters.router.gate import MOST_EACH, MOST_WAITING, Gatekeeper
from adapters.router.locks import COOKIE, SECONDS, Visits
from adapters.router.routes import BEHIND, list_routes
from adapters.router.routes import LOCK as NAME
from headway.passwords import Lock, make_lock
from tests.adapters.sites import Machine, Response, Server, running_server

PASSWORD = "correct horse"
LOCK = json.dumps(make_lock(PASSWORD), sort_keys=True)
OTHER = json.dumps(make_lock("another one"), sort_keys=True)
PAGE = b"<h1>secret draft</h1>"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("m") / "host")


@pytest.fixture(scope="module")
def server(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(machine.host.folders, tmp_path_factory.mktemp("r"), logged="services") as server:
        yield server


def basic(password: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def cookie_of(answer: Response) -> str:
    return answer.headers["Set-Cookie"].partition(";")[0]


def locked(machine: Machine, files: dict[str, bytes], **how: object) -> tuple[str, str]:
    host, env_id = machine.site(files, **how)
    machine.host.route(env_id, [host], None, LOCK)
    return host, env_id


def test_who_has_the_password_passes_and_is_remembered(machine: Machine, server: Server) -> None:
    host, _ = locked(machine, {"index.html": PAGE, "app.3f9a1c07.js": b"js", "docs/index.html": b"docs"})
    for fields in ({}, {"Authorization": basic("wrong horse")}, {"Authorization": "Bearer x"}, {"Cookie": "a=b"}):
        asked = server.get("/", host, **fields)
        assert asked.status == 401
        assert asked.headers["WWW-Authenticate"].startswith(f'Basic realm="{host}"')
        assert asked.headers["Cache-Control"] == "no-store"
        assert PAGE not in asked.body
        assert asked.headers["Set-Cookie"] is None
    passed = server.get("/", host, Authorization=basic(PASSWORD))
    assert (passed.status, passed.body) == (200, PAGE)
    assert passed.headers["Etag"]
    assert passed.headers["Cache-Control"] == "private, max-age=0, must-revalidate"
    assert passed.headers["Headway-Strip"] is None
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={SECONDS}"):
        assert part in passed.headers["Set-Cookie"]
    # Its assets come by the cookie, also where a page's own script sends other credentials.
    for path in ("/app.3f9a1c07.js", "/docs/"):
        assert server.get(path, host, Cookie=f"x=y; {cookie_of(passed)}", Authorization="Bearer own").status == 200
    assert "immutable" in server.get("/app.3f9a1c07.js", host, Cookie=cookie_of(passed)).headers["Cache-Control"]
    assert server.get("/missing", host, Cookie=cookie_of(passed)).status == 404
    assert server.get("/missing", host).status == 401
    assert server.get("/", host, Authorization=basic(PASSWORD, "")).status == 200


def test_a_cookie_is_good_for_its_host_its_password_and_its_time(machine: Machine, server: Server) -> None:
    host, env_id = locked(machine, {"index.html": PAGE})
    other, _ = locked(machine, {"index.html": PAGE})
    cookie = cookie_of(server.get("/", host, Authorization=basic(PASSWORD)))
    assert server.get("/", host, Cookie=cookie).status == 200
    assert server.get("/", other, Cookie=cookie).status == 401
    name, _, value = cookie.partition("=")
    until, _, signature = value.partition(".")
    for forged in (f"{int(until) + 1}.{signature}", f"{until}.{'0' * 64}", until, "", "9" * 40 + "." + signature):
        assert server.get("/", host, Cookie=f"{name}={forged}").status == 401
    machine.host.route(env_id, [host], None, OTHER)
    assert server.get("/", host, Cookie=cookie).status == 401
    assert server.get("/", host, Authorization=basic(PASSWORD)).status == 401
    assert server.get("/", host, Authorization=basic("another one")).status == 200


def test_a_visit_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, visits = Lock.read(LOCK.encode()), Visits()
    cookie = f"{COOKIE}={visits.cookie(lock, 'a.test')}"
    assert visits.knows_cookie(lock, "a.test", cookie)
    assert not visits.knows_cookie(lock, "a.test", f"{COOKIE}=1.\xe9"), "what is no signature is no failure either"
    late = time.time() + SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: late)
    assert not visits.knows_cookie(lock, "a.test", cookie)


def test_a_switch_behind_the_password_loses_nothing_and_shows_nothing(machine: Machine, server: Server) -> None:
    host, env_id = locked(machine, {"index.html": b"0"})
    cookie = cookie_of(server.get("/", host, Authorization=basic(PASSWORD)))
    ended, seen, outside = threading.Event(), set(), set()

    def visit() -> None:
        while not ended.is_set():
            seen.add(server.get("/", host, Cookie=cookie).status)
            outside.add(server.get("/", host).status)

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for one in visitors:
        one.start()
    for number in range(1, 13):
        # As a rollout does: it leads the names again, and does not know of the lock.
        machine.host.lead(env_id, [host])
        machine.deploy({"index.html": str(number).encode()}, env_id=env_id)
    ended.set()
    for one in visitors:
        one.join()
    assert (seen, outside) == ({200}, {401})
    assert server.get("/", host, Cookie=cookie).body == b"12"


@pytest.mark.slow
def test_a_password_is_set_and_taken_away_while_visitors_come(machine: Machine, server: Server) -> None:
    host, env_id = machine.site({"index.html": PAGE})
    ended, seen = threading.Event(), set()

    def visit() -> None:
        while not ended.is_set():
            seen.add(server.get("/", host, Authorization=basic(PASSWORD)).status)

    visitor = threading.Thread(target=visit)
    visitor.start()
    for _ in range(10):
        machine.host.route(env_id, [host], None, LOCK)
        machine.host.route(env_id, [host])
    ended.set()
    visitor.join()
    assert seen <= {200, 503}
    assert server.get("/", host).status == 200
    assert not (machine.host.folders.root / "locked" / env_id).exists()


def test_what_has_rules_or_a_page_of_its_own_keeps_them(machine: Machine, server: Server) -> None:
    static = StaticRules(not_found="404.html", headers=(HeaderRule("/*", {"X-Mine": "yes"}),))
    host, _ = locked(machine, {"index.html": PAGE, "404.html": b"own"}, static=static)
    assert server.get("/", host).headers["X-Mine"] is None
    passed = server.get("/", host, Authorization=basic(PASSWORD))
    assert (passed.headers["X-Mine"], passed.body) == ("yes", PAGE)
    missing = server.get("/nothing", host, Cookie=cookie_of(passed))
    assert (missing.status, missing.body) == (404, b"own")


def test_an_app_never_sees_the_password_and_gets_its_bodies(
    machine: Machine, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    host, env_id = locked(machine, {"index.html": PAGE})
    release = machine.host.environment(env_id).release(9_000)
    release.mkdir()
    for marker in (f"@9000+{env_id}", "service"):
        (release / marker).touch()
    path = tmp_path_factory.mktemp("s") / "sock"
    for number in range(SOCKETS):
        (release / f"sock.{number}").symlink_to(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    machine.host.environment(env_id).switch(9_000)
    heard: list[bytes] = []

    def app() -> None:
        for _ in range(2):
            line, _ = listener.accept()
            got = b""
            while b"hello=1" not in got:
                got += line.recv(65536)
            heard.append(got)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: own=1\r\nConnection: close\r\n\r\nok")
            line.close()

    thread = threading.Thread(target=app, daemon=True)
    thread.start()

    def post(field: str) -> bytes:
        head = f"POST /form HTTP/1.1\r\nHost: {host}\r\n{field}\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
        return server.raw(head.encode() + b"hello=1")

    passed = post(f"Authorization: {basic(PASSWORD)}")
    assert passed.startswith(b"HTTP/1.1 200")
    cookies = [line for line in passed.decode().split("\r\n") if line.lower().startswith("set-cookie:")]
    assert len(cookies) == 2
    cookie = next(line for line in cookies if COOKIE in line).partition(": ")[2].partition(";")[0]
    own = post(f"Cookie: {cookie}\r\nAuthorization: Bearer own")
    assert own.startswith(b"HTTP/1.1 200")
    thread.join(20)
    assert b"POST /form" in heard[0]
    assert b"authorization" not in heard[0].lower()
    assert b"Bearer own" in heard[1]
    assert post("X-Mine: 1").startswith(b"HTTP/1.1 401")
    listener.close()


@pytest.mark.slow
def test_nobody_passes_where_nobody_can_say_so(machine: Machine, server: Server) -> None:
    host, env_id = locked(machine, {"index.html": PAGE})
    cookie = cookie_of(server.get("/", host, Authorization=basic(PASSWORD)))
    lock = machine.host.folders.root / "locked" / env_id / NAME
    lock.write_text("nonsense")
    assert server.get("/", host, Cookie=cookie).status == 503
    lock.write_text(LOCK)
    assert server.get("/", host, Cookie=cookie).status == 200
    server.stop_rules()
    try:
        away = server.get("/", host, Cookie=cookie)
        assert (away.status, PAGE in away.body) == (502, False)
    finally:
        server.restart_rules()
    assert server.get("/", host, Cookie=cookie).status == 200


def test_what_lies_beside_the_lock_is_not_served_and_ends_with_the_environment(
    machine: Machine, server: Server, tmp_path: Path
) -> None:
    host, env_id = locked(machine, {"index.html": PAGE})
    folders = machine.host.folders
    passed = basic(PASSWORD)
    for path in (
        f"/{NAME}",
        f"/../{NAME}",
        f"/{BEHIND}",
        "/r/1/root/index.html",
        f"/{BEHIND}/root/index.html",
    ):
        assert server.get(path, host, Authorization=passed).status in (400, 404)
    assert list_routes(folders.routes)[host] == env_id
    # A host to which the environment is new learns of the lock with its first rollout.
    fresh = Machine(tmp_path / "host")
    fresh.host.lead(env_id, [host], LOCK)
    assert (fresh.host.folders.routes / host / NAME).read_text() == LOCK
    machine.host.retire(env_id)
    assert not (folders.root / "locked" / env_id).exists()
    assert server.get("/", host, Authorization=passed).status == 404


def test_an_environment_without_a_release_is_not_taken_for_a_locked_one(machine: Machine, server: Server) -> None:
    machine.host.route("env_01NOTHINGYET", ["nothing-yet.localhost"])
    machine.host.environment("env_01NOTHINGYET").fence(1)
    assert server.get("/", "nothing-yet.localhost").body == b"Nothing is deployed here.\n"
    machine.host.route("env_01NOTHINGYET", ["nothing-yet.localhost"], None, LOCK)
    assert server.get("/", "nothing-yet.localhost").status == 401
    asked = server.get("/", "nothing-yet.localhost", Authorization=basic(PASSWORD))
    assert (asked.status, asked.body) == (404, b"Nothing is deployed here.\n")


@pytest.mark.slow
def test_many_wrong_passwords_keep_nobody_out_who_has_passed(machine: Machine, server: Server) -> None:
    host, _ = locked(machine, {"index.html": PAGE})
    cookie = cookie_of(server.get("/", host, Authorization=basic(PASSWORD)))
    statuses: list[int] = []

    def guess(number: int) -> None:
        statuses.append(server.get("/", host, Authorization=basic(f"guess {number}")).status)

    guessers = [threading.Thread(target=guess, args=(number,)) for number in range(60)]
    for one in guessers:
        one.start()
    assert server.get("/", host, Cookie=cookie).status == 200
    for one in guessers:
        one.join()
    assert set(statuses) <= {401, 503}
    assert 401 in statuses


def test_who_guesses_at_one_name_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.test", "b.test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "visitors").write_text(LOCK)
    free = threading.Event()
    monkeypatch.setattr(Lock, "opens", lambda _lock, password: free.wait(30) and password == PASSWORD.encode())

    async def talk() -> None:
        gate = Gatekeeper(tmp_path)
        guesses = [
            asyncio.create_task(gate.look("a.test", {"authorization": basic(f"guess {number}")}))
            for number in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        visitor = asyncio.create_task(gate.look("b.test", {"authorization": basic(PASSWORD)}))
        await asyncio.sleep(0)
        free.set()
        assert (await visitor).status == 204
        statuses = [(await guess).status for guess in guesses]
        assert (statuses.count(401), statuses.count(503)) == (MOST_EACH, MOST_WAITING - MOST_EACH)
        assert gate._waiting.total() == 0

    asyncio.run(talk())
