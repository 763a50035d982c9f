"""Removing, measuring and handing over trees; places for the dropped uid; what a sandbox refuses before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.sandbox import Command, Sandbox
from adapters.sandbox.argv import environment, target_path, working_folder
from adapters.sandbox.command import Limits
from adapters.sandbox.launch import Staging, reachable
from adapters.sandbox.removal import hand_over, measure, remove_tree
from adapters.sandbox.slots import Slots
from adapters.sandbox.watch import DiskWatch
from headway.errors import HeadwayError


def test_hostile_trees_are_removed_and_nothing_beside_them(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "to-file").symlink_to(outside / "kept")
    (tree / "to-folder").symlink_to(outside)
    (tree / "dangling").symlink_to("/nowhere")
    (tree / "new\nline").write_text("")
    Path(os.fsdecode(os.fsencode(tree) + b"/not-\xff-text")).write_text("")
    os.link(outside / "kept", tree / "hard")
    os.mkfifo(tree / "fifo")
    shut = tree / "shut"
    (shut / "inner").mkdir(parents=True)
    (shut / "inner" / "file").write_text("")
    (shut / "inner").chmod(0)
    shut.chmod(0)
    remove_tree(tree)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside"]
    assert (outside / "kept").read_text() == "kept"


def deepened(tree: Path) -> None:
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    deepened(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_tree_deeper_than_any_path_is_handed_over_and_back(tmp_path: Path) -> None:
    deepened(tmp_path / "tree")
    (tmp_path / "tree" / "beside").mkdir()
    for uid in (54321, 0):
        hand_over(tmp_path / "tree", uid, uid)
        found = [
            name for name in ("deep", "beside", "deep/deep", "deep/" * 800 + "deep") if _owner(tmp_path, name) != uid
        ]
        assert found == []
    remove_tree(tmp_path / "tree")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_was_handed_over_in_part_does_not_look_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("a", "b", "c"):
        (tree / name).mkdir(parents=True)
    given, chown = list[object](), os.chown

    def killed(name: bytes | str, uid: int, gid: int, **where: object) -> None:
        given.append(name)
        if len(given) == 3:
            raise KeyboardInterrupt
        chown(name, uid, gid, **where)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chown", killed)
    with pytest.raises(KeyboardInterrupt):
        hand_over(tree, 54321, 54321)
    assert tree.stat().st_uid == 0


def _owner(folder: Path, name: str) -> int:
    return (folder / "tree" / name).stat().st_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_hard_links_are_handed_over_with_a_tree_that_has_all_of_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    for name in ("own", "foreign"):
        (tree / name).write_text("")
        (tree / name).chmod(0o600)
    os.link(tree / "own", tree / "inner" / "own")
    os.link(tree / "foreign", tree / "inner" / "foreign")
    os.link(tree / "foreign", tmp_path / "foreign")
    for uid in (54321, 0, 54322):
        hand_over(tree, uid, uid)
        assert (tree / "inner" / "own").stat().st_uid == uid
        assert (tmp_path / "foreign").stat().st_uid == 0
    hand_over(tree, 0, 0)


def test_removing_what_is_a_link_or_missing_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").write_text("")
    (tmp_path / "link").symlink_to("target")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "missing")
    assert (tmp_path / "target" / "kept").exists()
    assert not (tmp_path / "link").is_symlink()


def test_measuring_counts_hard_links_once_and_sparse_files_by_what_they_take(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    for number in range(5):
        os.link(tmp_path / "a", tmp_path / f"link{number}")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(4 << 30)
    (tmp_path / "loop").symlink_to(tmp_path)
    usage = measure([tmp_path], 1000)
    assert 1_000_000 <= usage.blocks < 1_200_000
    assert usage.largest == 4 << 30
    assert usage.files == 8


def test_the_disk_watch_counts_what_was_added(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(b"x" * 3_000_000)
    watch = DiskWatch([tmp_path], 2_000_000, before=[tmp_path])
    assert not watch.full(thorough=True)
    (tmp_path / "after").write_bytes(b"x" * 2_500_000)
    assert watch.full(thorough=True)


def test_slots_are_exclusive_and_left_overs_go(tmp_path: Path) -> None:
    stale = tmp_path / "slots" / "7" / "abc" / "workspace"
    stale.mkdir(parents=True)
    slots = Slots(tmp_path, 2, drop=False)
    assert not stale.parent.exists()
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    assert {first.number, second.number} == {0, 1}
    polls = iter([False, True])
    assert slots.take(lambda: next(polls)) is None
    Slots(tmp_path, 2, drop=False)  # another process: what is in use stays
    assert first.workspace.is_dir()
    slots.give_back(first)
    assert not first.folder.exists()
    third = slots.take()
    assert third is not None
    assert third.number == first.number
    assert third.folder != first.folder


def test_uids_differ_between_slots_and_stacks(tmp_path: Path) -> None:
    one, two = Slots(tmp_path / "one", 4, drop=False), Slots(tmp_path / "two", 4, drop=False)
    one._drop = two._drop = True
    uids = [slots.uid(number) for slots in (one, two) for number in range(4)]
    assert len(set(uids)) == 8
    assert all(uid is not None and 20_000 <= uid < 2**31 for uid in uids)


def test_paths_below_a_private_folder_are_staged(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "data" / "repo").mkdir(parents=True)
    private.chmod(0o700)
    stranger = 1_900_000_042
    assert not reachable(private / "data", stranger)
    assert reachable(private / "data", None)
    assert reachable(Path("/usr/bin"), stranger)
    staging = Staging(stranger)
    repo = staging.reach(private / "data" / "repo", private / "data")
    plain = staging.reach(Path("/usr/bin"))
    assert staging.at(plain) == Path("/usr/bin")
    assert staging.at(repo) == Path("/mnt/0/repo")
    odd = private / "a b\\c\n#d"
    odd.touch()
    staging.reach(odd)
    table, *staged = staging.words[staging.words.index("/mnt") + 1 :]
    assert table.splitlines() == [
        f"{private}/data /mnt/0 none bind,X-mount.mkdir 0 0",
        rf"{private}/a\040b\134c\012\043d /mnt/1 none bind,X-mount.mkdir 0 0",
    ]
    assert staged == ["0", f"{private}/data", "1", str(odd), "--"]


@pytest.mark.parametrize("cwd", ["..", "../x", "/etc", "a/../../b", "a\0b"])
def test_a_working_folder_stays_in_the_workspace(cwd: str) -> None:
    with pytest.raises(HeadwayError) as caught:
        working_folder(cwd)
    assert caught.value.code == "build.config_invalid"


def test_working_folders_below_are_fine() -> None:
    assert working_folder("") == "/workspace"
    assert working_folder("apps/site/") == "/workspace/apps/site"


@pytest.mark.parametrize("target", ["/", "/usr", "/etc", "/proc/x", "/a/../etc", "relative", "/dev/shm"])
def test_a_mount_cannot_hide_the_system(target: str) -> None:
    with pytest.raises(HeadwayError):
        target_path(target)


def test_the_environment_is_ours_under_what_is_given() -> None:
    env = environment({"CI": "1", "OWN": "x"}, home="/h", tmp="/t", proxy="http://p", certificates="/ca", search="/bin")
    assert (env["CI"], env["OWN"], env["HTTPS_PROXY"], env["NODE_EXTRA_CA_CERTS"]) == ("1", "x", "http://p", "/ca")
    with pytest.raises(HeadwayError):
        environment({"A=B": "x"}, home="/h", tmp="/t", proxy=None, certificates=None, search="/bin")


def test_limits_have_sane_defaults() -> None:
    limits = Limits(wall=1, memory=1, pids=1, disk=1, log=1)
    assert (limits.cpu, limits.nofile) == (2.0, 4096)


@pytest.mark.parametrize("word", ["a\0b", "half \ud800"])
def test_what_cannot_be_an_argument_or_a_variable_is_the_builds_own_fault(tmp_path: Path, word: str) -> None:
    limits = Limits(wall=5, memory=1 << 30, pids=64, disk=1 << 30, log=1 << 20)
    sandbox = Sandbox(state=tmp_path / "state", slots=1)
    with sandbox.workspace() as workspace, pytest.raises(HeadwayError) as error:
        sandbox.run(Command(["sh", "-c", word], workspace, limits), lambda *_: None, lambda: False)
    assert error.value.code == "build.config_invalid"
    with pytest.raises(HeadwayError, match="not a usable environment variable"):
        environment({"A": word}, home="/", tmp="/", proxy=None, certificates=None, search="/bin")
