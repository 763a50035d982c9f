"""The walls between the roles: as each role's own uid, in its own view, the others' secrets cannot be opened."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.cgroup import find
from bench.stack import Stack
from headway.supervisor import accounts, processes, trial
from headway.supervisor.becoming import User
from headway.supervisor.folder import Folder
from headway.supervisor.isolation import between_roles
from headway.supervisor.plan import Component, Plan
from tests.stack.conftest import NewPlace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives each role a uid of its own")

# What each may open; everybody else must not.
SECRETS = {
    "admin.key": {"api"},
    "secrets/s3.json": {"weed"},
    "secrets/config.key": {"api"},
    "secrets/webhooks.key": {"api", "control"},
    "secrets/broker-builder.token": {"api", "builder"},
    "secrets/broker-control.token": {"api", "control"},
    "secrets/broker-host.token": {"api", "host"},
    "secrets/broker-signing.token": {"api", "signing"},
    "keys/signing.pem": {"signing"},
    "ledger/ledger.pem": {"signing"},
    "db/headway.db": {"api", "control", "signing"},
    "host/identity.key": {"host"},
    "temporal/temporal.db": {"temporal"},
    "run/plan.json": set(),
    "stack.json": set(),
}
ROLES = ("api", "control", "builder", "signing", "host", "rules", "caddy", "weed", "temporal")
OPEN = """
import json, os, sys
opened = []
for path in json.loads(sys.argv[1]):
    try:
        os.close(os.open(path, os.O_RDONLY))
        opened.append(path)
    except PermissionError:
        pass
print(json.dumps(opened))
"""


@pytest.fixture(scope="module")
def parts(stack: Stack) -> dict[str, Component]:
    return {one.name: one for one in Plan.read(Folder(stack.data)).components}


def user_of(parts: dict[str, Component], role: str) -> User:
    user = parts[role].user
    assert user is not None
    return user


def as_role(user: User, *words: str) -> subprocess.CompletedProcess[str]:
    """A real process: in the role's view and namespace, with its uid and groups, as the supervisor starts it."""
    command = [*processes.becoming(user), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")


def opened(user: User, paths: list[Path]) -> set[str]:
    done = as_role(user, sys.executable, "-I", "-S", "-c", OPEN, json.dumps([str(path) for path in paths]))
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_its_own_secrets_alone(stack: Stack, parts: dict[str, Component], role: str) -> None:
    paths = [stack.data / name for name in SECRETS]
    assert all(path.exists() for path in paths)
    mine = {str(stack.data / name) for name, may in SECRETS.items() if role in may}
    assert opened(user_of(parts, role), paths) == mine


def test_a_uid_alone_opens_no_secret_either(stack: Stack, parts: dict[str, Component]) -> None:
    """Without the role's groups, as by `setpriv`: the data folder is shut."""
    uid = str(user_of(parts, "signing").uid)
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "cat", str(stack.data / "admin.key")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_the_roles_run_under_uids_of_their_own(stack: Stack, parts: dict[str, Component]) -> None:
    uids = {}
    for role in ROLES:
        pid = json.loads((stack.data / "run" / f"{role}.json").read_text())["pid"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        uids[role] = {int(number) for number in status["Uid"].split()}
        assert status["CapEff"].strip() == "0000000000000000" or user_of(parts, role).ranges
        if user_of(parts, role).ranges and find() is not None:
            # In its own place: an empty one is removed where systemd runs, and the role could not make it again.
            assert f"/headway/u{user_of(parts, role).uid}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert all(len(found) == 1 for found in uids.values())
    assert len(set.union(*uids.values())) == len(ROLES)
    assert 0 not in set.union(*uids.values())


def test_the_builder_cannot_become_who_owns_the_hosts_contents(
    stack: Stack, parts: dict[str, Component], new_place: NewPlace
) -> None:
    place = new_place({"index.html": "<p>walls"})
    place.roll(place.build()["artifact_id"], place.site.production)
    contents = [path for path in (stack.data / "host" / "store").rglob("*") if path.is_file()]
    owners = {path.stat().st_uid for path in contents}
    assert owners == {user_of(parts, "host").uid}
    builder = user_of(parts, "builder")
    for uid in (*owners, 0, user_of(parts, "signing").uid):
        # Root of its namespace, yet that number means nobody there: 0 is the builder itself.
        code = f"import os; os.setresuid({uid}, {uid}, {uid}); open({str(contents[0])!r})"
        done = as_role(builder, sys.executable, "-I", "-S", "-c", code)
        assert done.returncode != 0
        assert "Invalid argument" in done.stderr or "Permission denied" in done.stderr
    assert as_role(builder, "sh", "-c", f"echo x > {contents[0]}").returncode != 0


def test_the_builder_ends_nobody_elses_process(stack: Stack, parts: dict[str, Component]) -> None:
    for role in ("signing", "host", "api", "nursery"):
        pid = json.loads((stack.data / "run" / f"{role}.json").read_text())["pid"]
        assert as_role(user_of(parts, "builder"), "kill", "-9", str(pid)).returncode != 0
        assert as_role(user_of(parts, "builder"), "cat", f"/proc/{pid}/environ").returncode != 0


def test_a_role_sees_nothing_of_a_private_folder_but_what_it_needs(tmp_path: Path) -> None:
    """Python in a private home: the role runs it, and finds the home's other files gone."""
    home = tmp_path / "home"
    inner = home / "deep" / "tool"
    inner.mkdir(parents=True)
    (home / "diary").write_text("dear")
    (inner / "run").write_text("#!/bin/sh\necho ran\n")
    (inner / "run").chmod(0o755)
    home.chmod(0o700)
    for parent in (tmp_path, *tmp_path.parents):
        assert os.access(parent, os.X_OK)
    reach = (str(inner), sys.prefix, sys.base_prefix)
    user = User(uid=1_299_999_990, reach=reach)
    assert as_role(user, str(inner / "run")).stdout == "ran\n"
    done = as_role(user, "cat", str(home / "diary"))
    assert "No such file" in done.stderr
    assert as_role(replace(user, reach=reach[1:]), str(inner / "run")).returncode == 126


def test_uids_are_taken_back_and_given_out_again(tmp_path: Path) -> None:
    """A folder of an earlier version belongs to root altogether; `--one-uid` makes it so again."""
    folder = Folder(tmp_path / "data")
    for name in ("run", "secrets", "host/env", "keys", "db", "repos"):
        folder.path(name).mkdir(parents=True, exist_ok=True)
    key, app = folder.path("keys", "signing.pem"), folder.path("host", "env", "volume")
    key.write_text("secret")
    key.chmod(0o600)
    app.write_text("an app's own")
    os.chown(app, 1_300_000_007, 1_300_000_007)
    wanted = accounts.Accounts(1_200_000_000, folder)
    accounts.hand_out(folder, wanted)
    assert key.stat().st_uid == wanted.uid("signing")
    assert folder.path("host", "env").stat().st_uid == wanted.uid("host")
    assert folder.path("admin.key").read_text().startswith("mfk_live_")
    os.chown(key, 0, 0)  # put back from a copy, by root
    accounts.hand_out(folder, wanted)
    assert key.stat().st_uid == wanted.uid("signing")
    accounts.hand_out(folder, None)
    assert {key.stat().st_uid, folder.path("host", "env").stat().st_uid, folder.path("admin.key").stat().st_uid} == {0}
    assert app.stat().st_uid == 1_300_000_007
    moved = accounts.Accounts(1_200_000_320, folder)
    accounts.hand_out(folder, moved)
    assert key.stat().st_uid == moved.uid("signing")


def test_one_role_is_left_out_and_the_others_keep_their_walls(tmp_path: Path) -> None:
    """Where an engine or systemd keeps the apps: the host worker alone is root, and its files are root's."""
    folder = Folder(tmp_path / "data")
    for name in ("run", "secrets", "host/env", "keys", "caddy"):
        folder.path(name).mkdir(parents=True, exist_ok=True)
    key, token = folder.path("host", "identity.key"), folder.path("secrets", "broker-host.token")
    for path in (key, token):
        path.write_text("secret")
        path.chmod(0o600)
    before = between_roles(folder, (), (), {}).accounts
    walls = between_roles(folder, (), (), {"HEADWAY_RUNTIME": "systemd"})
    after = walls.accounts
    assert before is not None
    assert after is not None
    assert (after.root, walls.what) == (("host",), "HEADWAY_RUNTIME=systemd needs a host worker that is root")
    users = {role: after.user(role) for role in ROLES}
    assert [role for role, user in users.items() if user is None] == ["host"]
    assert {user.uid for user in users.values() if user is not None} == {before.uid(one) for one in ROLES} - {
        before.uid("host")
    }
    plan = [Component(name, (), user=user) for name, user in users.items()]
    assert accounts.of_plan(plan, folder) == accounts.Accounts(after.base, folder, root=("host",))

    accounts.hand_out(folder, before)
    assert key.stat().st_uid == before.uid("host")
    accounts.hand_out(folder, after)
    assert {key.stat().st_uid, folder.path("host", "env").stat().st_uid, token.stat().st_uid} == {0}
    top = folder.path("host").stat()
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (0, after.gid("sites"), 0o750)
    caddy = after.user("caddy")
    assert caddy is not None
    assert opened(caddy, [folder.path("host", "env"), key, token]) == {str(folder.path("host", "env"))}
    assert folder.path("keys").stat().st_uid == before.uid("signing")
    accounts.hand_out(folder, before)
    assert key.stat().st_uid == before.uid("host")


@pytest.mark.slow
def test_one_uid_for_all_is_said_and_can_be_given_up(tmp_path: Path) -> None:
    data = tmp_path / "d"
    words = ["up", "--detach", "--port", "0", "--data-dir", str(data)]
    try:
        said = headway(*words, "--one-uid")
        assert "All roles run as uid 0: --one-uid was asked for." in said
        found = json.loads(headway("doctor", "--json", "--data-dir", str(data)))["findings"]
        [isolation] = [one for one in found if one["name"] == "isolation"]
        assert (isolation["level"], "could have one each" in isolation["what"]) == ("warning", True)
        assert (data / "keys" / "signing.pem").stat().st_uid == 0
        headway("down", "--data-dir", str(data))
        assert "All roles run as uid" not in headway(*words)
        owner = (data / "keys" / "signing.pem").stat().st_uid
        assert owner == json.loads((data / "run" / "uids.json").read_text())["base"] + ROLES.index("signing")
    finally:
        headway("down", "--data-dir", str(data))


def headway(*words: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY_", "DATABASE_URL"))}
    command = [sys.executable, "-m", "headway", *words]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=170, check=True).stdout


def test_a_python_that_other_uids_cannot_run_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "data")
    folder.path("run").mkdir(parents=True)
    made = accounts.accounts(folder, (), (), low_ports=False)
    assert accounts.obstacle(made) == ""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(private / "python"))
    said = accounts.obstacle(made)
    assert f"cannot run {private / 'python'}" in said


def test_what_went_well_is_not_tried_again_until_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "data")
    folder.path("run").mkdir(parents=True)
    repositories = tmp_path / "repositories"
    repositories.mkdir()
    made = accounts.accounts(folder, (), (str(repositories),), low_ports=False)
    answers = ["refused", "", ""]
    monkeypatch.setattr(accounts, "obstacle", lambda _wanted: answers.pop(0))
    assert trial.obstacle(folder, made) == "refused"
    assert trial.obstacle(folder, made) == ""  # a refusal is not kept
    assert trial.obstacle(folder, made) == ""
    assert len(answers) == 1, "what went well is"
    repositories.chmod(0o700)
    assert trial.obstacle(folder, made) == ""
    assert not answers
