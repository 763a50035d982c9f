from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from adapters.egress.policy import EgressPolicy
from adapters.sandbox import Sandbox
from adapters.source.address import parse_address
from adapters.source.git import Checkout, FetchBounds, FetchSpec, GitSource
from adapters.source.snapshot import SOURCE_TIME
from headway.errors import HeadwayError
from tests.adapters.repositories import QUIET, Repository

SITE = "site_01TEST"


class Bench:
    """A builder's folders, an allowed folder of repositories, and what the last fetch left in the workspace."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self.root = root
        self.repos = root / "repos"
        self.mirrors = root / "mirrors"
        self.sandbox = sandbox
        self.source = self.make()
        self.files: dict[str, bytes | str] = {}

    def make(self, bounds: FetchBounds | None = None) -> GitSource:
        return GitSource(self.sandbox, self.mirrors, lambda _: EgressPolicy(()), bounds)

    def repository(self, name: str = "repo") -> Repository:
        return Repository(self.repos / name)

    def fetch(
        self,
        ref: str = "main",
        *,
        repo: str = "repo",
        branch: str = "main",
        site: str = SITE,
        known: Collection[str] = (),
    ) -> Checkout:
        address = repo if ":" in repo else f"file://{self.repos}/{repo}"
        remote = parse_address(address, hosted=self.root / "hosted", local_repos=[self.repos])
        with self.sandbox.workspace() as workspace:
            checkout = self.source.fetch(FetchSpec(site, remote, ref, branch), workspace, known=known)
            self.files = {
                str(path.relative_to(workspace)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
                for path in workspace.rglob("*")
                if path.is_symlink() or path.is_file()
            }
        return checkout

    def code(self, ref: str = "main", **options: str) -> str:
        with pytest.raises(HeadwayError) as caught:
            self.fetch(ref, **options)
        self.error = caught.value
        return caught.value.code


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(state=tmp_path_factory.mktemp("sandbox"), slots=3)


@pytest.fixture
def bench(tmp_path: Path, sandbox: Sandbox) -> Bench:
    return Bench(tmp_path, sandbox)


def archive(repo: Repository, commit: str) -> str:
    done = subprocess.run(["git", "archive", "--format=tar", commit], cwd=repo.path, env=QUIET, capture_output=True)
    return hashlib.sha256(done.stdout).hexdigest()


def test_a_commit_lands_in_the_workspace(bench: Bench) -> None:
    repo = bench.repository()
    (repo.path / "run").parent.mkdir(exist_ok=True)
    repo.write({"run": "#!/bin/sh\n"})
    (repo.path / "run").chmod(0o755)
    (repo.path / "link").symlink_to("dir/a.html")
    commit = repo.commit({"index.html": "one", "dir/a.html": "two", "dir/ü\nx": "odd"})
    checkout = bench.fetch()
    assert (checkout.commit_sha, checkout.files, checkout.notes) == (commit, 5, ())
    assert checkout.source_sha256 == archive(repo, commit)
    assert checkout.commit_time == int(repo.git("show", "-s", "--format=%ct"))
    assert bench.files["index.html"] == b"one"
    assert bench.files["link"] == "dir/a.html"
    assert bench.files["dir/ü\nx"] == b"odd"
    assert bench.fetch() == checkout


def test_every_kind_of_ref(bench: Bench) -> None:
    repo = bench.repository()
    first = repo.commit({"a": "1"}, "the first one")
    repo.git("tag", "light")
    repo.git("tag", "-a", "-m", "x", "heavy")
    second = repo.commit({"a": "2"}, "the second one")
    repo.git("branch", "feature/ü")
    for ref in ("light", "heavy", "heavy^{}", first, first[:12], "main~1", "HEAD^", ":/the first", "refs/tags/heavy"):
        assert bench.fetch(ref).commit_sha == first, ref
    for ref in ("main", "HEAD", "feature/ü", "refs/heads/main", "@", "heads/main", ""):
        assert bench.fetch(ref).commit_sha == second, ref


def test_without_a_ref_and_without_the_default_branch_the_remotes_own_is_taken(bench: Bench) -> None:
    repo = bench.repository()
    repo.git("checkout", "-q", "-b", "trunk")
    commit = repo.commit({"a": "1"})
    checkout = bench.fetch("")
    assert checkout.commit_sha == commit
    assert "refs/heads/trunk" in checkout.notes[0]
    assert bench.code("main") == "ref.not_found"


def test_a_shallow_repository(bench: Bench) -> None:
    whole = bench.repository("whole")
    whole.commit({"a": "1"})
    second = whole.commit({"a": "2"})
    whole.git("clone", "-q", "--depth", "1", f"file://{whole.path}", str(bench.repos / "repo"))
    for _ in range(2):
        assert bench.fetch().commit_sha == second
        assert bench.files == {"a": b"2"}
    assert bench.code("main~1") == "ref.not_found"
    whole.git("-C", str(bench.repos / "repo"), "fetch", "-q", "--unshallow")
    assert bench.fetch().commit_sha == second


def test_a_repository_whose_objects_have_sha256_names(bench: Bench) -> None:
    repo = bench.repository()
    old = repo.commit({"a": "1"})
    assert bench.fetch().commit_sha == old
    repo.path.rename(bench.repos / "old")
    repo.path.mkdir()
    repo.git("init", "-q", "-b", "main", "--object-format=sha256")
    commit = repo.commit({"a": "2"})
    repo.git("tag", "-a", "-m", "x", "heavy")
    assert len(commit) == 64
    for ref in ("main", "heavy", commit, commit[:12], ""):
        assert bench.fetch(ref).commit_sha == commit, ref
        assert bench.files == {"a": b"2"}
    assert bench.code("0" * 64) == "ref.not_found"
    with bench.sandbox.workspace() as workspace:
        remote = parse_address(f"file://{repo.path}", hosted=bench.root / "hosted", local_repos=[bench.repos])
        assert not bench.source.fetch(FetchSpec(SITE, remote, "main"), workspace, known=["0" * 40]).listed
        assert (workspace / "a").read_text() == "2"


def test_refs_that_name_no_commit(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    for ref in ("gone", "main..main", "main:a", "main^{tree}", "^main", "0" * 40, "main~99", "refs/pull/1/head", "a b"):
        assert bench.code(ref) == "ref.not_found", ref
    for ref in ("--upload-pack=touch /workspace/x", "-x", "--all", "--help", "a\nb"):
        assert bench.code(ref) == "ref.invalid", ref


def test_repositories_that_are_not_there(bench: Bench) -> None:
    bench.repos.mkdir()
    assert bench.code(repo="none") == "repository.unreachable"
    (bench.repos / "plain").mkdir()
    assert bench.code(repo="plain") == "repository.unreachable"
    assert str(bench.mirrors) not in bench.error.message
    assert bench.code(repo="hosted:site_01NONE") == "repository.empty"
    bench.repository("empty")
    assert bench.code(repo="empty") == "repository.empty"
    assert bench.code("", repo="empty") == "repository.empty"


def test_history_that_is_rewritten_and_branches_that_go(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    repo.git("branch", "topic")
    old = bench.fetch("topic").commit_sha
    repo.git("branch", "-D", "topic")
    repo.git("branch", "topic/below")
    repo.git("commit", "-q", "--amend", "--allow-empty", "-m", "rewritten")
    repo.git("tag", "-f", "v1")
    new = repo.git("rev-parse", "HEAD")
    assert bench.fetch("main").commit_sha == new != old
    assert bench.fetch("topic/below").commit_sha == old
    assert bench.code("topic") == "ref.not_found"
    repo.commit({"a": "2"})
    repo.git("tag", "-f", "v1")
    assert bench.fetch("v1").commit_sha == repo.git("rev-parse", "main")


def test_a_commit_that_no_branch_holds_any_more(bench: Bench) -> None:
    repo = bench.repository()
    lost = repo.commit({"a": "1"})
    repo.git("update-ref", "refs/pull/7/head", lost)
    repo.git("checkout", "-q", "--orphan", "other")
    repo.git("branch", "-D", "main")
    repo.commit({"a": "2"})
    repo.git("branch", "-m", "main")
    assert bench.fetch("refs/pull/7/head").commit_sha == lost
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert bench.fetch(lost, site="site_01OTHER").commit_sha == lost


def test_a_repository_cannot_say_how_it_is_archived(bench: Bench) -> None:
    repo = bench.repository()
    attributes = "secret export-ignore\nid export-subst\nid ident\n* text eol=crlf\nx filter=evil\n"
    files = {"secret": "kept\n", "id": "$Format:%H$ $Id$\n", "x": "x\n", ".gitattributes": attributes}
    repo.git("config", "filter.evil.smudge", "touch /tmp/evil")
    repo.commit(files)
    bench.fetch()
    assert bench.files == {name: text.encode() for name, text in files.items()}


def test_nothing_of_the_remotes_configuration_is_run(bench: Bench, tmp_path: Path) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    marker = tmp_path / "ran"
    for hook in ("post-checkout", "pre-upload", "reference-transaction", "post-update", "post-index-change"):
        path = repo.path / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {marker} /workspace/ran\n")
        path.chmod(0o755)
    repo.git("config", "core.fsmonitor", f"touch {marker}")
    repo.git("config", "uploadpack.packObjectsHook", "touch /workspace/ran; exec")
    bench.fetch()
    assert set(bench.files) == {"a"}
    assert not marker.exists()


def test_submodules_are_named_and_not_fetched(bench: Bench) -> None:
    repo = bench.repository()
    commit = repo.commit({"a": "1"})
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib/sub")
    url = "ext::sh -c touch% /workspace/ran"
    repo.write({".gitmodules": f'[submodule "s"]\n\tpath = lib/sub\n\turl = {url}\n'})
    repo.git("add", ".gitmodules")
    repo.git("commit", "-q", "-m", "submodule")
    checkout = bench.fetch()
    assert any("lib/sub" in note and "not fetched" in note for note in checkout.notes)
    assert set(bench.files) == {"a", ".gitmodules"}


def test_a_path_cannot_say_what_the_source_is(bench: Bench) -> None:
    """The digest of the source is signed: a repository must not be able to choose it."""
    repo = bench.repository()
    commit = repo.commit({"a": "1"})
    blob = repo.git("rev-parse", "HEAD:a")
    forged = f"s\nfiles 7\nbytes 9\nsource {'e' * 64}\ncommit {'e' * 40}\nz"
    listing = "\0".join([f"100644 blob {blob}\ta", f"160000 commit {commit}\t{forged}", ""])
    made = subprocess.run(
        ["git", "mktree", "-z"], cwd=repo.path, env=QUIET, input=listing.encode(), capture_output=True
    )
    tip = repo.git("commit-tree", made.stdout.decode().strip(), "-m", "forged")
    repo.git("update-ref", "refs/heads/main", tip)
    checkout = bench.fetch()
    assert (checkout.commit_sha, checkout.source_sha256) == (tip, archive(repo, tip))
    assert (checkout.files, checkout.size_bytes) == (1, 1)


def test_lfs_pointers_are_named(bench: Bench) -> None:
    repo = bench.repository()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    repo.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "big.bin": pointer, "b": "x" * 200})
    checkout = bench.fetch()
    assert [note for note in checkout.notes if "LFS" in note] == [
        "big.bin is a Git LFS pointer; its content is not fetched"
    ]
    assert bench.files["big.bin"] == pointer.encode()


def test_a_pointer_without_attributes_is_named_too(bench: Bench) -> None:
    repo = bench.repository()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    first = repo.commit({"a": "1", "about": "x" * 100 + "\nversion https://git-lfs.github.com/spec/v1 it says\n"})
    checkout = bench.fetch(known=[repo.git("rev-parse", f"{first}:a")])
    assert (checkout.listed, checkout.notes) == (True, ())
    repo.commit({"new/big.bin": pointer})
    checkout = bench.fetch(known=[repo.git("rev-parse", f"{first}:{name}") for name in ("a", "about")])
    assert not checkout.listed
    assert checkout.notes == ("new/big.bin is a Git LFS pointer; its content is not fetched",)
    assert bench.files["new/big.bin"] == pointer.encode()


def test_the_name_of_a_pointer_says_nothing_else(bench: Bench) -> None:
    repo = bench.repository()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    repo.commit({".gitattributes": "*.bin filter=lfs\n", "x\nsame 1": pointer, "y\nlisted 1": pointer})
    checkout = bench.fetch()
    assert not checkout.same
    assert not checkout.listed


def test_links_that_leave_the_tree_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    repo = bench.repository()
    (repo.path / "out").symlink_to("/etc")
    (repo.path / "up").symlink_to("../../..")
    repo.commit({"a": "1"})
    bench.fetch()
    assert (bench.files["out"], bench.files["up"]) == ("/etc", "../../..")


@pytest.mark.parametrize("name", [".git", "..", ".", "a/b", ".GIT", "git~1"])
def test_trees_with_path_tricks_are_refused(bench: Bench, name: str) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    repo.commit_tree(("100644", name, repo.blob("evil")))
    assert bench.code() == "source.invalid"


def test_a_link_and_a_folder_of_one_name_are_refused(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a/config": "evil"})
    folder = repo.git("rev-parse", "main:a")
    repo.commit_tree(("120000", "x", repo.blob("/mirror")), ("40000", "x", folder))
    assert bench.code() == "source.invalid"


def test_old_histories_with_harmless_faults_are_accepted(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a/b": "1"})
    commit = repo.commit_tree(("040000", "a", repo.git("rev-parse", "main:a")))
    assert bench.fetch().commit_sha == commit


@pytest.mark.parametrize("date", ["99999999999999999 +0000", "soon", ""])
def test_a_commit_of_a_time_that_no_calendar_has_is_accepted(bench: Bench, date: str) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    tree = repo.git("rev-parse", "main^{tree}")
    text = f"tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> {date}\n\nodd\n".encode()
    commit = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=text)
    repo.git("update-ref", "refs/heads/main", commit)
    found = bench.fetch()
    assert (found.commit_sha, found.commit_time) == (commit, SOURCE_TIME)
    assert bench.files == {"a": b"1"}


def test_what_is_too_large(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({f"f{i}": "x" * 100 for i in range(10)})
    bench.source = bench.make(FetchBounds(files=9))
    assert bench.code() == "source.too_large"
    bench.source = bench.make(FetchBounds(size_bytes=999))
    assert bench.code() == "source.too_large"
    assert "1000" in bench.error.message
    bench.source = bench.make(FetchBounds(files=10, size_bytes=1 << 20))
    assert bench.fetch().files == 10


def test_a_hostile_pack_is_refused_and_the_next_fetch_works(bench: Bench) -> None:
    repo = bench.repository()
    good = repo.commit({"a": "1"})
    repo.git("repack", "-adq")
    (pack,) = (repo.path / ".git/objects/pack").glob("*.pack")
    whole = pack.read_bytes()
    pack.chmod(0o644)
    for broken in (whole[:-30], whole[:12] + bytes(len(whole) - 12), b"PACK" + b"\xff" * 60):
        pack.write_bytes(broken)
        assert bench.code() in ("source.invalid", "repository.unreachable")
    pack.write_bytes(whole)
    assert bench.fetch().commit_sha == good


def test_a_small_pack_of_a_huge_file_is_too_large(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "\0" * (48 << 20)})
    repo.git("repack", "-adq")
    assert sum(one.stat().st_size for one in (repo.path / ".git/objects/pack").iterdir()) < 1 << 20
    bench.source = bench.make(FetchBounds(size_bytes=1 << 20))
    assert bench.code() == "source.too_large"
    repo.commit({"a": "small"})
    assert bench.fetch().files == 1


def test_a_mirror_that_is_made_again_knows_the_hosts_by_the_keys_that_they_showed_first(bench: Bench) -> None:
    bench.repository().commit({"a": "1"})
    mirror = bench.mirrors / f"{SITE}.git"
    mirror.mkdir(parents=True)
    # As a look at an ssh:// remote leaves it.
    (mirror / "known_hosts").write_text("forge ssh-ed25519 key\n")
    first = bench.fetch()
    assert (mirror / "known_hosts").read_text() == "forge ssh-ed25519 key\n"
    (mirror / "config").write_text("[garbage")
    assert bench.fetch() == first
    assert (mirror / "known_hosts").read_text() == "forge ssh-ed25519 key\n"


def test_a_broken_mirror_is_made_again(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    first = bench.fetch()
    mirror = bench.mirrors / f"{SITE}.git"
    pack = next(mirror.glob("objects/pack/*.pack"))

    def truncate() -> None:
        pack = next(mirror.glob("objects/pack/*.pack"))
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])

    def scribble() -> None:
        for one in mirror.glob("objects/pack/*"):
            one.chmod(0o600)
            one.write_bytes(b"garbage")

    def wipe() -> None:
        subprocess.run(["rm", "-rf", str(mirror / "objects")], check=True)

    def lock() -> None:
        (mirror / "packed-refs.lock").touch()
        (mirror / "refs" / "heads" / "main.lock").touch()
        (mirror / "HEAD.lock").touch()

    def configure() -> None:
        (mirror / "config").write_text("[garbage")

    def unlink() -> None:
        (mirror / "HEAD").unlink()

    assert pack.exists()
    for harm in (truncate, scribble, wipe, lock, configure, unlink):
        harm()
        assert bench.fetch() == first, harm.__name__
    assert not (bench.mirrors / f"{SITE}.fresh").exists()


def test_what_a_fetch_that_was_killed_left_behind_goes_and_the_mirror_stays(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    bench.fetch()
    mirror = bench.mirrors / f"{SITE}.git"
    assert not (mirror / "busy").exists()
    inode, half = mirror.stat().st_ino, mirror / "objects" / "pack" / "tmp_pack_x"
    for left in (mirror / "busy", mirror / "packed-refs.lock", mirror / "refs" / "heads" / "main.lock", half):
        left.touch()
    last = repo.commit({"a": "2"})
    assert bench.fetch().commit_sha == last
    assert mirror.stat().st_ino == inode
    assert not half.exists()
    assert not (mirror / "busy").exists()


def test_a_mirror_outlives_a_remote_that_is_away(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    first = bench.fetch()
    (bench.repos / "repo").rename(bench.repos / "away")
    (bench.repos / "repo").mkdir()
    assert bench.code() == "repository.unreachable"
    assert (bench.mirrors / f"{SITE}.git" / "refs").exists()
    (bench.repos / "repo").rmdir()
    (bench.repos / "away").rename(bench.repos / "repo")
    assert bench.fetch() == first


def test_fetches_of_one_site_wait_for_each_other(bench: Bench) -> None:
    repo = bench.repository()
    commit = repo.commit({f"f{i}": "x" for i in range(50)})
    found: list[str] = []

    def fetch() -> None:
        remote = parse_address(f"file://{repo.path}", hosted=bench.root, local_repos=[bench.repos])
        with bench.sandbox.workspace() as workspace:
            found.append(bench.source.fetch(FetchSpec(SITE, remote, "main"), workspace).commit_sha)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [commit] * 3


def test_a_cancel_is_heard(bench: Bench) -> None:
    repo = bench.repository()
    repo.commit({"a": "1"})
    remote = parse_address(f"file://{repo.path}", hosted=bench.root, local_repos=[bench.repos])
    with bench.sandbox.workspace() as workspace, pytest.raises(HeadwayError) as caught:
        bench.source.fetch(FetchSpec(SITE, remote, "main"), workspace, lambda: True)
    assert caught.value.code == "job.canceled"
