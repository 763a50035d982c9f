"""The folder of routes: names are checked, changes are single renames, twice is as good as once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.router.routes import add_route, check_hostname, list_routes, remove_route, routes_of, set_routes
from headway.errors import HeadwayError

ONE, TWO = "env_01AAAAAAAAAAAAAAAAAAAAAAAA", "env_01BBBBBBBBBBBBBBBBBBBBBBBB"


@pytest.mark.parametrize(
    "name", ["a", "acme.localhost", "acme-staging.localhost", "1.2", "a" * 63 + ".b", "xn--bcher-kva.example"]
)
def test_plain_names_are_taken(name: str) -> None:
    assert check_hostname(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a.",
        ".a",
        "a..b",
        "A.b",
        "-a",
        "a-",
        "a.-b",
        "a/b",
        "../x",
        "a\n",
        "a b",
        "ä.de",
        "a" * 64,
        "a_b",
        "a:80",
    ],
)
def test_names_that_would_be_paths_or_other_folders_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(HeadwayError) as caught:
        add_route(tmp_path, name, ONE)
    assert caught.value.code == "request.invalid_parameter"
    assert os.listdir(tmp_path) == []


def test_a_name_of_more_than_253_characters_is_refused() -> None:
    with pytest.raises(HeadwayError):
        check_hostname(".".join(["a" * 49] * 6))


def test_an_environment_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError):
        add_route(tmp_path, "acme.localhost", "../../etc")
    assert os.listdir(tmp_path) == []


def test_adding_twice_changes_nothing(tmp_path: Path) -> None:
    add_route(tmp_path, "acme.localhost", ONE)
    before = os.lstat(tmp_path / "acme.localhost").st_ino
    add_route(tmp_path, "acme.localhost", ONE)
    assert os.lstat(tmp_path / "acme.localhost").st_ino == before
    assert os.readlink(tmp_path / "acme.localhost") == f"../env/{ONE}"


def test_a_name_moves_to_another_environment_and_old_owners_cannot_take_it_away(tmp_path: Path) -> None:
    add_route(tmp_path, "acme.localhost", ONE)
    add_route(tmp_path, "acme.localhost", TWO)
    remove_route(tmp_path, "acme.localhost", ONE)
    assert list_routes(tmp_path) == {"acme.localhost": TWO}
    remove_route(tmp_path, "acme.localhost", TWO)
    remove_route(tmp_path, "acme.localhost", TWO)
    assert list_routes(tmp_path) == {}


def test_set_routes_gives_exactly_these_names_and_leaves_others_alone(tmp_path: Path) -> None:
    add_route(tmp_path, "other.localhost", TWO)
    set_routes(tmp_path, ONE, ["a.localhost", "b.localhost"])
    set_routes(tmp_path, ONE, ["b.localhost", "c.localhost"])
    assert routes_of(tmp_path, ONE) == ["b.localhost", "c.localhost"]
    assert routes_of(tmp_path, TWO) == ["other.localhost"]
    assert sorted(os.listdir(tmp_path)) == ["b.localhost", "c.localhost", "other.localhost"]


def test_debris_of_a_killed_change_is_no_route(tmp_path: Path) -> None:
    (tmp_path / ".0a1b2c3d4e5f").symlink_to(f"../env/{ONE}")
    (tmp_path / "notes.txt").write_text("x")
    assert list_routes(tmp_path) == {}


def test_a_redirect_is_a_name_of_its_environment_too(tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.mkdir()
    led = {"old.test": "https://www.test:8443", "older.test": "http://www.test"}
    set_routes(routes, ONE, ["www.test", *led], led)
    assert list_routes(routes) == {"www.test": ONE, "old.test": ONE, "older.test": ONE}
    assert [one.name for one in (routes / "old.test").iterdir()] == ["to@https@www.test:8443"]
    add_route(routes, "other.test", TWO)
    remove_route(routes, "old.test", TWO)
    assert "old.test" in list_routes(routes)
    set_routes(routes, ONE, ["www.test", "older.test"], {"older.test": "http://www.test"})
    assert sorted(list_routes(routes)) == ["older.test", "other.test", "www.test"]
    assert [one.name for one in (tmp_path / "redirects" / ONE).iterdir()] == ["http@www.test"]
    set_routes(routes, ONE, [])
    assert list_routes(routes) == {"other.test": TWO}
    assert not (tmp_path / "redirects" / ONE).exists()


@pytest.mark.parametrize(
    "origin", ["ftp://x.test", "https://x.test/path", "https://../x", "https://x.test@y", "x.test"]
)
def test_a_redirect_leads_to_an_origin_alone(tmp_path: Path, origin: str) -> None:
    with pytest.raises(HeadwayError):
        set_routes(tmp_path, ONE, ["a.test"], {"a.test": origin})
    assert list_routes(tmp_path) == {}
