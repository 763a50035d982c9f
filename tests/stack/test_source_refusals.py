"""Bad sources and bad builds: each fails with its code, nothing half-done stays, and the next build works."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.client import Caller
from bench.stack import Stack
from tests.stack.conftest import NewPlace, NewRepository
from tests.stack.sites import Place, end_of, refusal

# Where each of these is refused has tests of its own in tests/adapters; here the whole stack refuses them.
pytestmark = pytest.mark.slow
Json = dict[str, Any]
PAGE = "<h1>what serves</h1>\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"


def config(command: str, **more: object) -> str:
    lines = {"command": command, "output": "out", **more}
    return "[build]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())


@dataclass(frozen=True)
class Bad:
    """A branch that has to fail: its files, the code, a part of the message, and facts of the error."""

    code: str
    files: dict[str, str]
    says: str = ""
    facts: Json = field(default_factory=dict)


def command(text: str, code: str, says: str = "", **more: Any) -> Bad:
    facts = {"exit_code": more.pop("exit_code")} if "exit_code" in more else {}
    return Bad(code, {"headway.toml": config(text, **more)}, says, facts)


# A child of the first shell, so that it is not the first process of the sandbox that ends it all.
BOMB = "f() { f | f & }; mkdir out; (f); sleep 20; echo survived > out/index.html"
BAD = {
    "fails": command("echo no; exit 3", "build.step_failed", "exit code 3", exit_code=3),
    "hangs": command("trap '' TERM; sleep 600", "build.timeout", "2 seconds", timeout=2),
    "forks-without-end": command(BOMB, "build.too_many_processes", timeout=30),
    "fills-the-disk": command("mkdir out; dd if=/dev/zero of=out/big bs=1M count=300 2>/dev/null", "build.disk_full"),
    "eats-memory": command("head -c 2000m /dev/zero | tail", "build.out_of_memory", timeout=60),
    "prints-without-end": command(f"yes '{'all work and no play ' * 20}' | head -c 200000000", "build.log_too_large"),
    "makes-nothing": command("true", "build.output_missing"),
    "leaves-the-tree": command("mkdir out; ln -s /etc/passwd out/index.html", "build.output_invalid", "index.html"),
    "bad-config": Bad("build.config_invalid", {"headway.toml": "[build]\ncomand = 'x'\n"}, "build.comand"),
}


@pytest.fixture(scope="module")
def place(new_place: NewPlace) -> Place:
    """A site that serves a good page in production."""
    made = new_place({"index.html": PAGE})
    made.push()
    return made


def rows(place: Place) -> tuple[list[str], list[str]]:
    releases = place.releases(place.site.production)
    assert [row["current"] for row in releases].count(True) == 1
    return [row["id"] for row in place.artifacts()], [row["id"] for row in releases]


def push_fails(place: Place, ref: str) -> Json:
    """A push of the ref fails, changes nothing, and does not stand in the way of the next build."""
    before = rows(place)
    error = place.failed(place.start_push(ref=ref))
    assert rows(place) == before
    assert place.page().text == PAGE
    build = place.get(place.site.production, "builds?limit=1")[0]
    assert (build["ref"], build["status"], build["artifact_id"]) == (ref, "failed", None)
    assert build["error"]["code"] == error["code"]
    deployment = place.get(place.site.production, "deployments?limit=1")[0]
    assert (deployment["status"], deployment["release_id"]) == ("failed", None)
    assert place.build(clean=True)["artifact_id"] in before[0]
    return error


def branch(place: Place, name: str, files: dict[str, str]) -> str:
    place.repository.git("checkout", "-q", "-B", name, "main")
    commit = place.repository.commit(files)
    place.repository.git("checkout", "-q", "main")
    return commit


@pytest.mark.parametrize("name", BAD)
def test_a_bad_build_fails_with_its_code_and_harms_nothing(place: Place, name: str) -> None:
    bad = BAD[name]
    branch(place, name, bad.files)
    error = push_fails(place, name)
    assert error["code"] == bad.code, error
    assert bad.says in error["message"]
    assert {fact: error.get(fact) for fact in bad.facts} == bad.facts


def test_binary_output_and_what_a_build_leaves_running_do_no_harm(place: Place, stack: Stack) -> None:
    mark = f"{time.time_ns()}"
    script = f"head -c 300000 /dev/urandom; echo; echo the end; (sleep {mark[-9:]} &); mkdir out; cp index.html out"
    branch(place, "binary", {"headway.toml": config(script)})
    result = place.build("binary")
    log = place.caller.http.get(place.path(place.site.staging, "builds", result["build_id"], "log"))
    assert log.status_code == 200
    assert "the end" in log.text.splitlines()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert mark[-9:].encode() not in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


@pytest.mark.parametrize("ref", ["nowhere", "refs/tags/v9", "f" * 40, "main~7", "main:index.html", "main@{0"])
def test_a_ref_that_names_no_commit(place: Place, ref: str) -> None:
    error = push_fails(place, ref) if ref == "nowhere" else place.failed(place.start_build(ref))
    assert (error["code"], error["param"]) == ("ref.not_found", "ref")


@pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/x", "-x", "--", "a\nb", ""])
def test_a_ref_is_never_an_option(place: Place, ref: str) -> None:
    before = len(place.get(place.site.staging, "builds?limit=100"))
    built = place.caller.http.post(place.path(place.site.staging, "builds"), json={"ref": ref})
    assert refusal(built, 400)["param"] == "ref"
    pushed = place.caller.http.post(f"/v1/sites/{place.site.id}/deployments", json={"ref": ref, "target": "production"})
    assert refusal(pushed, 400)["param"] == "ref"
    assert len(place.get(place.site.staging, "builds?limit=100")) == before


def test_any_name_of_a_commit_is_a_ref(place: Place) -> None:
    head = place.repository.git("rev-parse", "main")
    place.repository.git("tag", "-f", "-m", "one", "v1", "main")
    for ref in (head[:12], "v1", "v1^{commit}", "refs/heads/main"):
        assert place.build(ref)["commit_sha"] == head


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("https://127.0.0.1:8443/x.git", "repository.not_allowed"),
        ("https://127.1/x.git", "repository.not_allowed"),
        ("https://2130706433/x.git", "repository.not_allowed"),
        ("https://[::1]/x.git", "repository.not_allowed"),
        ("https://[::ffff:127.0.0.1]/x.git", "repository.not_allowed"),
        ("https://localhost/x.git", "repository.not_allowed"),
        ("https://10.0.0.8/x.git", "repository.not_allowed"),
        ("https://169.254.169.254/latest/meta-data", "repository.not_allowed"),
        ("ssh://git@127.0.0.1/x.git", "repository.not_allowed"),
        ("http://example.org/x.git", "repository.invalid"),
        ("git://example.org/x.git", "repository.invalid"),
        ("ext::sh -c touch% /tmp/x", "repository.invalid"),
        ("--upload-pack=touch", "repository.invalid"),
        ("https://me:secret@example.org/x.git", "repository.invalid"),
        ("file:///etc", "repository.not_allowed"),
        ("/etc", "repository.invalid"),
    ],
)
def test_an_address_that_no_site_may_have(caller: Caller, address: str, code: str) -> None:
    answer = caller.http.post("/v1/sites", json={"name": "bad address", "repository": address})
    error = refusal(answer, 400)
    assert (error["code"], error["param"]) == (code, "repository")
    assert "secret" not in answer.text


def test_a_folder_beside_the_allowed_one_is_refused_through_links_and_dots(caller: Caller, stack: Stack) -> None:
    link = stack.repos / "way-out"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc")
    for address in (link.as_uri(), f"{stack.repos.as_uri()}/../data", f"{stack.repos.as_uri()}-other"):
        answer = caller.http.post("/v1/sites", json={"name": "bad folder", "repository": address})
        assert refusal(answer, 400)["code"] == "repository.not_allowed", address


def test_a_folder_that_becomes_a_way_out_later_is_refused_by_the_builder(
    new_place: NewPlace, new_repository: NewRepository, tmp_path: Path
) -> None:
    place = new_place({"index.html": PAGE})
    outside = tmp_path / "outside"
    shutil.move(place.repository.path, outside)
    place.repository.path.symlink_to(outside)
    assert place.failed(place.start_build())["code"] == "repository.not_allowed"


def test_empty_and_unreachable_repositories(caller: Caller, new_repository: NewRepository, new_place: NewPlace) -> None:
    empty = new_repository({})
    site = caller.new_site(f"empty-{empty.path.name}", empty.path.as_uri())
    job = end_of(caller, caller.push(site, "production"))
    assert (job["status"], job["error"]["code"]) == ("failed", "repository.empty")
    assert caller.get(f"/v1/sites/{site.id}/environments/{site.production}/releases") == []

    gone = new_place({"index.html": PAGE})
    shutil.rmtree(gone.repository.path)
    assert gone.failed(gone.start_push())["code"] == "repository.unreachable"


def test_a_host_that_does_not_exist_is_unreachable(caller: Caller) -> None:
    site = caller.new_site("unreachable", "https://git.example.invalid/x.git")
    job = end_of(caller, caller.push(site, "production"))
    assert (job["status"], job["error"]["code"]) == ("failed", "repository.unreachable")
    assert "git.example.invalid" in job["error"]["message"]


def test_symlinks_submodules_and_lfs_pointers_in_the_tree(new_place: NewPlace) -> None:
    place = new_place({"index.html": PAGE})
    link = place.repository.path / "leak.txt"
    link.symlink_to("../../../../etc/passwd")
    place.repository.commit({})
    error = place.failed(place.start_push())
    assert error["code"] in ("build.output_invalid", "source.invalid")
    assert "leak.txt" in error["message"]
    link.unlink()
    link.symlink_to("index.html")
    place.repository.commit({})
    place.push()
    assert place.page("/leak.txt").text == PAGE

    head = place.repository.git("rev-parse", "HEAD")
    files = {".gitattributes": "*.bin filter=lfs\n", "large.bin": POINTER}
    place.repository.write({**files, ".gitmodules": '[submodule "lib"]\n\tpath = lib\n\turl = ../other\n'})
    place.repository.git("add", "-A")
    place.repository.git("update-index", "--add", "--cacheinfo", f"160000,{head},lib")
    place.repository.git("commit", "-q", "-m", "pointers")
    result = place.build()
    log = place.caller.http.get(place.path(place.site.staging, "builds", result["build_id"], "log")).text
    assert any("submodule" in line and "lib" in line for line in log.splitlines())
    assert any("LFS" in line and "large.bin" in line for line in log.splitlines())


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "a/b"])
def test_a_tree_with_names_that_git_would_never_write(new_place: NewPlace, name: str) -> None:
    place = new_place({"index.html": PAGE})
    blob = place.repository.blob("evil")
    place.repository.commit_tree(("100644", name, blob), ("100644", "index.html", blob))
    error = place.failed(place.start_push())
    assert error["code"] == "source.invalid", error
    assert place.releases(place.site.production) == []
