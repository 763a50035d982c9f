"""What is said to forges, against a server with their own paths and bodies; and what their failures mean."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import Iterator

import pytest
import zstandard

from adapters.forges.forge import Forge, ForgeAway, ForgeRefused, Status
from adapters.forges.places import Place, open_forge, place_of
from adapters.webhooks.targets import Targets
from headway.errors import HeadwayError
from tests.adapters.forge_server import REPOSITORY, TOKEN, ForgeServer, Odd

COMMIT = "c" * 40
MARK = "<!-- mark -->"
STATES = {
    "github": ["pending", "success", "failure", "error"],
    "gitlab": ["running", "success", "failed", "canceled"],
    "gitea": ["pending", "success", "failure", "error"],
}


@pytest.fixture(params=["github", "gitlab", "gitea"])
def server(request: pytest.FixtureRequest) -> Iterator[ForgeServer]:
    with ForgeServer(request.param) as made:
        yield made


def forge(server: ForgeServer, token: str = TOKEN, seconds: float = 10.0, private: str = "127.0.0.1") -> Forge:
    return open_forge(Targets([private]), server.provider, server.api_url, REPOSITORY, token, seconds=seconds)


def status(state: str) -> Status:
    return Status(COMMIT, "headway/acme/production", state, f"It is {state}.", "https://acme.test")


def say(server: ForgeServer, state: str, *, again: bool = False) -> None:
    asyncio.run(forge(server).set_status(status(state), again=again))


def test_every_state_has_its_name_there(server: ForgeServer) -> None:
    asyncio.run(forge(server).check())
    for state in ("pending", "success", "failure", "canceled"):
        say(server, state)
    assert server.said() == STATES[server.provider]
    assert {row["sha"] for row in server.statuses} == {COMMIT}
    assert {row.get("context") or row.get("name") for row in server.statuses} == {"headway/acme/production"}
    assert server.statuses[1]["target_url"] == "https://acme.test"
    assert server.statuses[1]["description"] == "It is success."


def test_what_may_have_arrived_is_not_said_twice(server: ForgeServer) -> None:
    server.odd.append(Odd(502, after=True))
    with pytest.raises(ForgeAway, match="answered 502"):
        say(server, "pending")
    say(server, "pending", again=True)
    assert len(server.statuses) == 1
    say(server, "success")
    say(server, "success", again=True)
    assert server.said() == STATES[server.provider][:2]


def test_gitlab_refuses_what_is_so_already_which_is_no_failure() -> None:
    with ForgeServer("gitlab") as server:
        say(server, "pending")
        say(server, "pending")
        assert server.said() == ["running"]
        server.odd.append(Odd(400, body={"message": "Cannot transition status via :run from :running"}))
        with pytest.raises(ForgeRefused):
            say(server, "success")


def test_an_answer_that_is_coded_or_nested_without_end_is_not_read(server: ForgeServer) -> None:
    for coding, packed in (("gzip", gzip.compress(bytes(1 << 24))), ("zstd", zstandard.compress(bytes(1 << 24)))):
        server.odd.append(Odd(200, {"Content-Encoding": coding}, packed))
        with pytest.raises(ForgeAway, match="coded"):
            asyncio.run(forge(server).check())
    for status, why in ((200, "no JSON"), (500, "answered 500")):
        server.odd.append(Odd(status, body=b"[" * 100_000))
        with pytest.raises(ForgeAway, match=why):
            asyncio.run(forge(server).check())
    server.odd.append(Odd(200, {"Content-Encoding": "identity"}))
    asyncio.run(forge(server).check())


@pytest.mark.parametrize("odd", ["1" * 1000, None, [], -1, 1 << 70])
def test_what_has_no_number_is_not_kept(server: ForgeServer, odd: object) -> None:
    server.odd.append(Odd(201, body={"id": odd}))
    with pytest.raises(ForgeAway, match="no number"):
        asyncio.run(forge(server).add_comment("1", "text"))


def test_of_a_list_without_an_end_some_thousand_rows_are_read(server: ForgeServer) -> None:
    for page in range(3):
        server.odd.append(Odd(200, body=[{"id": page * 15_000 + row, "body": MARK} for row in range(15_000)]))
    found = asyncio.run(forge(server).comments_with("1", MARK))
    assert (len(found), found[-1]) == (20_000, "19999")


def test_a_list_without_pages_is_read_once(server: ForgeServer) -> None:
    server.pages = False
    server.open_pull(7, "feature/x")
    made = server.comment(7, f"{MARK} first")

    async def story() -> None:
        assert await forge(server).pulls_of("feature/x") == ["7"]
        assert await forge(server).comments_with("7", MARK) == [str(made)]

    asyncio.run(story())
    assert len(server.asked) <= 4, server.asked


def test_comments_are_made_found_changed_and_deleted(server: ForgeServer) -> None:
    server.open_pull(7, "feature/a b")
    server.open_pull(8, "feature/a b", fork=True)
    server.open_pull(9, "other")
    for number in range(120):
        server.comment(7, f"chatter {number}")

    async def story() -> None:
        one = forge(server)
        assert await one.pulls_of("feature/a b") == ["7"]
        assert await one.pulls_of("nothing") == []
        assert await one.comments_with("7", MARK) == []
        made = await one.add_comment("7", f"{MARK} first")
        assert await one.comments_with("7", MARK) == [made]
        assert await one.change_comment("7", made, f"{MARK} second")
        assert server.comments[7][int(made)] == f"{MARK} second"
        await one.delete_comment("7", made)
        await one.delete_comment("7", made)
        assert not await one.change_comment("7", made, "third")
        assert len(server.comments[7]) == 120

    asyncio.run(story())


@pytest.mark.parametrize(
    ("odd", "wait"),
    [
        (Odd(500), None),
        (Odd(503, {"Retry-After": "90"}), 90.0),
        (Odd(429, {"Retry-After": "7"}), 7.0),
        (Odd(403, {"Retry-After": "60"}), 60.0),
        (Odd(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}), 0.0),
        (Odd(404), None),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
def test_what_may_go_better_later(odd: Odd, wait: float | None) -> None:
    with ForgeServer("github", [odd]) as server, pytest.raises(ForgeAway) as away:
        say(server, "pending")
    assert (away.value.status, away.value.wait) == (odd.status, wait)


def test_a_moment_is_a_patience_too() -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120))
    with ForgeServer("github", [Odd(429, {"Retry-After": later})]) as server, pytest.raises(ForgeAway) as away:
        say(server, "pending")
    assert away.value.wait is not None
    assert 60 < away.value.wait <= 121


@pytest.mark.parametrize("number", [400, 401, 403, 422, 301])
def test_what_does_not_get_better_is_given_up(number: int) -> None:
    elsewhere = {"Location": "http://127.0.0.1:1/"}
    body = {"message": f"no \x1b[31m{TOKEN}"}
    with ForgeServer("github", [Odd(number, elsewhere, body)]) as server, pytest.raises(ForgeRefused) as refused:
        say(server, "pending")
    assert refused.value.status == number
    assert TOKEN not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert len(server.asked) == 1


def test_a_wrong_token_is_told_and_not_repeated(server: ForgeServer) -> None:
    with pytest.raises(ForgeRefused, match="answered 401: the token is not accepted") as refused:
        asyncio.run(forge(server, "other-canary").check())
    assert "other-canary" not in str(refused.value)


def test_a_forge_that_does_not_answer_is_left_in_time() -> None:
    release = threading.Event()
    with ForgeServer("gitea", [Odd(200, hold=release)]) as server:
        with pytest.raises(ForgeAway, match=r"no answer within 0\.3 s"):
            asyncio.run(forge(server, seconds=0.3).check())
        release.set()
        gone = server.api_url
    with pytest.raises(ForgeAway, match="could not connect"):
        asyncio.run(open_forge(Targets(["127.0.0.1"]), "gitea", gone, REPOSITORY, TOKEN).check())


def test_private_addresses_obey_the_rules_of_webhooks() -> None:
    async def here(_host: str, _port: int) -> list[str]:
        return ["10.0.0.7"]

    named = open_forge(Targets((), here), "gitea", "https://git.test/api/v1", REPOSITORY, TOKEN)
    with pytest.raises(ForgeAway, match=r"git\.test leads to no public address"):
        asyncio.run(named.check())
    with ForgeServer("gitea") as server:
        with pytest.raises(HeadwayError) as refused:
            asyncio.run(forge(server, private="other.test").check())
        assert refused.value.code == "webhook_endpoint.url_refused"
        assert server.asked == []


@pytest.mark.parametrize(
    ("provider", "address", "expected"),
    [
        ("github", "https://github.com/acme/store.git", Place("https://api.github.com", "acme/store")),
        ("github", "git@github.com:acme/store.git", Place("https://api.github.com", "acme/store")),
        ("github", "https://ghe.acme.test/acme/store", Place("https://ghe.acme.test/api/v3", "acme/store")),
        ("gitlab", "ssh://git@gitlab.com:22/a/b/c.git", Place("https://gitlab.com/api/v4", "a/b/c")),
        ("gitea", "https://u:p@git.test:3000/acme/store", Place("https://git.test:3000/api/v1", "acme/store")),
    ],
)
def test_a_repositorys_address_says_where_its_forge_is(provider: str, address: str, expected: Place) -> None:
    assert place_of(provider, address, None, None) == expected


def test_what_is_given_wins_and_what_is_odd_is_refused() -> None:
    place = place_of("gitea", "file:///srv/store", "http://127.0.0.1:1/api/v1/", "acme/store")
    assert place == Place("http://127.0.0.1:1/api/v1", "acme/store")
    for provider, address, repository, code in (
        ("gitea", "file:///srv/store", None, "forge_link.repository_unknown"),
        ("github", "https://github.com/acme", None, "request.invalid_parameter"),
        ("github", "https://github.com/a/b/c", None, "request.invalid_parameter"),
        ("gitlab", "https://gitlab.com/a/b", "../../user", "request.invalid_parameter"),
        ("gitlab", "https://gitlab.com/a/b", "a/../b", "request.invalid_parameter"),
    ):
        with pytest.raises(HeadwayError) as refused:
            place_of(provider, address, None, repository)
        assert refused.value.code == code
