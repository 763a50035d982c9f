from __future__ import annotations

from pathlib import Path

import pytest

from adapters.source.address import Remote, check_ref, parse_address
from headway.errors import HeadwayError

HOSTED = Path("/data/repos")


def code(text: str, local: list[Path] | None = None, private_ok: tuple[str, ...] = ()) -> str:
    with pytest.raises(HeadwayError) as caught:
        parse_address(text, hosted=HOSTED, local_repos=local or [], private_ok=private_ok)
    assert "secret" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    ("text", "url", "host", "port"),
    [
        ("https://git.example.org/a/b.git", "https://git.example.org/a/b.git", "git.example.org", 443),
        ("https://GIT.Example.org.:8443/a", "https://git.example.org:8443/a", "git.example.org", 8443),
        ("ssh://git@example.org/a/b", "ssh://git@example.org/a/b", "example.org", 22),
        ("ssh://git@example.org:2222/a/b", "ssh://git@example.org:2222/a/b", "example.org", 2222),
        ("git@example.org:a/b.git", "ssh://git@example.org/a/b.git", "example.org", 22),
        ("example.org:/a/b.git", "ssh://example.org/a/b.git", "example.org", 22),
        ("https://9.9.9.9/a", "https://9.9.9.9/a", "9.9.9.9", 443),
    ],
)
def test_addresses_of_the_network(text: str, url: str, host: str, port: int) -> None:
    remote = parse_address(text, hosted=HOSTED)
    assert (remote.url, remote.host, remote.port, remote.folder) == (url, host, port, None)


def test_a_hosted_repository() -> None:
    remote = parse_address("hosted:site_01ABC", hosted=HOSTED)
    assert remote == Remote("file", "/remote", "the site's own repository", folder=HOSTED / "site_01ABC.git")
    for text in ("hosted:", "hosted:../x", "hosted:env_01ABC", "hosted:site_01ABC/..", "hosted:site_01ABC.git"):
        assert code(text) == "repository.invalid"


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org/a",
        "git://example.org/a",
        "ext::sh -c id",
        "ext::sh%20-c%20id",
        "fd::17",
        "https://user:secret@example.org/a",
        "https://secret@example.org/a",
        "ssh://git:secret@example.org/a",
        "https://example.org/a?token=secret",
        "https://example.org/a#secret",
        "https://example.org/a?",
        "https://example.org",
        "https://example.org/",
        "https://example.org/a/../b",
        "https://example.org:99999/a",
        "https://exa mple.org/a",
        "https://example.org/a\nb",
        "https://-example.org/a",
        "ssh://-oProxyCommand=id/a",
        "ssh://-oProxyCommand=id@example.org/a",
        "-oProxyCommand=id@example.org:a",
        "--upload-pack=id",
        "-x",
        "file://host/a",
        "file:a",
        "/srv/repo",
        "../repo",
        "https:example.org/a",
        "https://[::1/a",
        "https://\N{CYRILLIC SMALL LETTER A}.org/a",
        "https://1.2.3.4.5/a",
        "https://example.org/" + "a" * 3000,
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert code(text) == "repository.invalid"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "10.0.0.1", "192.168.1.1"),
        *(
            "169.254.169.254",
            ".".join("0000"),
            "100.64.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[fd00::1]",
            "[64:ff9b::7f00:1]",
        ),
        *("localhost", "LOCALHOST", "localhost.", "api.localhost", "db.internal", "printer.local", "intranet"),
    ],
)
def test_private_targets_need_the_operators_word(host: str) -> None:
    for text in (f"https://{host}/a", f"https://{host}:8443/a", f"ssh://git@{host}/a"):
        assert code(text) == "repository.not_allowed"
    assert parse_address(f"https://{host}/a", hosted=HOSTED, private_ok=(host,)).transport == "https"


def test_local_folders_only_below_what_is_allowed(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "repo").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (allowed / "way-out").symlink_to(tmp_path / "other")
    (tmp_path / "way-in").symlink_to(allowed)
    remote = parse_address(f"file://{allowed}/repo", hosted=HOSTED, local_repos=[allowed])
    assert (remote.url, remote.folder) == ("/remote", allowed / "repo")
    assert parse_address(f"file://{allowed}/rep%6F", hosted=HOSTED, local_repos=[allowed]).folder == allowed / "repo"
    assert parse_address(f"file://{allowed}", hosted=HOSTED, local_repos=[tmp_path / "way-in"]).folder == allowed
    for path in ("way-out", "../other", "%2e%2e/other", "..", "repo/../../other"):
        assert code(f"file://{allowed}/{path}", [allowed]) == "repository.not_allowed"
    assert code(f"file://{allowed}-twin", [allowed]) == "repository.not_allowed"
    assert code("file:///", []) == "repository.not_allowed"
    assert code("file:///a%00b", [Path("/")]) == "repository.invalid"


def test_no_repository_at_all() -> None:
    assert code("") == "repository.missing"


def test_refs() -> None:
    for ref in ("main", "v1.0^{commit}", "HEAD~3", ":/fix the bug", "feature/ü", "a" * 40, "main@{0}"):
        assert check_ref(ref) == ref
    for ref in ("", "-x", "--upload-pack=id", "--all", "a\nb", "a\0", "a\x7f", "x" * 513, "\udc80"):
        with pytest.raises(HeadwayError) as caught:
            check_ref(ref)
        assert caught.value.code == "ref.invalid"
