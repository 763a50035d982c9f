"""The data folder: its layout, its generated credentials, and what makes it unusable."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headway.errors import HeadwayError

LAYOUT: Final = [
    "db",
    "events",
    "observed",
    "repos",
    "run",
    "logs",
    "secrets",
    "keys",
    "ledger",
    "host",
    "host/routes",
    "builder",
    "temporal",
    "weed",
    "caddy",
]
BROKER_ROLES: Final = ("control", "builder", "signing", "host")
SOCKET_PATH_LIMIT: Final = 107
# Bytes below which the databases of a stack cannot even be made.
LEAST_FREE: Final = 64 << 20
# Sockets are made under a name with the pid and then renamed.
_LONGEST_SOCKET: Final = "rules/rules.sock.4194304"
_SQLITE = b"SQLite format 3\x00"


def invalid(message: str) -> HeadwayError:
    return HeadwayError("stack.folder_invalid", message)


@dataclass(frozen=True)
class Folder:
    """One data folder. Every path that the launcher uses is asked of it."""

    root: Path

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def record(self, name: str) -> Path:
        return self.path("run", f"{name}.json")

    def lock(self, name: str) -> Path:
        return self.path("run", f"{name}.lock")

    def log(self, name: str) -> Path:
        return self.path("logs", f"{name}.log")

    def own(self, name: str, *parts: str) -> Path:
        """The component's own folder for its sockets, and what it says there; others may at most get through."""
        return self.path("run", name, *parts)

    def ready(self, name: str) -> Path:
        return self.own(name, "ready")

    @property
    def stack(self) -> Path:
        """What the next `up` must know: `{"version", "port"}`."""
        return self.path("stack.json")

    @property
    def endpoints(self) -> Path:
        return self.path("endpoints.json")

    @property
    def plan(self) -> Path:
        return self.path("run", "plan.json")


def open_folder(root: Path) -> Folder:
    """Make the folder where it is missing and check it where it is not.

    Raises `stack.folder_invalid` with one sentence that names the file and what to do.
    """
    folder = Folder(root.expanduser().absolute())
    _check_place(folder)
    for name in LAYOUT:
        _make(folder.path(name))
    check_contents(folder)
    _make_credentials(folder)
    return folder


def _check_place(folder: Folder) -> None:
    root = folder.root
    longest = len(os.fsencode(folder.path("run", _LONGEST_SOCKET)))
    if longest > SOCKET_PATH_LIMIT:
        raise invalid(
            f"The path of the data folder {root} is too long for unix sockets by {longest - SOCKET_PATH_LIMIT} bytes:"
            " choose a shorter --data-dir."
        )
    if root.exists() and not root.is_dir():
        raise invalid(f"The data folder {root} is not a folder: choose another --data-dir.")
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = root / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise invalid(
            f"The data folder {root} cannot be written ({error.strerror}): choose another --data-dir."
        ) from None
    if (free := shutil.disk_usage(root).free) < LEAST_FREE:
        raise invalid(
            f"The disk of the data folder {root} has {free >> 20} MB left, and a stack does not start below"
            f" {LEAST_FREE >> 20}: make room, or choose another --data-dir."
        )


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise invalid(f"{path} should be a folder of the platform's ({error.strerror}): move it away.") from None


def check_contents(folder: Folder) -> None:
    """Refuse what a start would trip over later: unreadable JSON, an empty credential, a database that is none."""
    for path in (folder.stack, folder.path("secrets", "s3.json")):
        if path.exists():
            read_json(path)
    for name in BROKER_ROLES:
        _check_filled(folder.path("secrets", f"broker-{name}.token"), "move it away to have it made anew")
    _check_filled(folder.path("admin.key"), "restore it, or move it away to have it made anew")
    for name in ("config", "webhooks"):
        _check_filled(folder.path("secrets", f"{name}.key"), "restore it from a backup: what it hides needs it")
    check_sqlite(folder.path("db", "headway.db"), "restore it from a backup, or start with another --data-dir")
    check_sqlite(folder.path("temporal", "temporal.db"), "move it away: it is rebuilt, the rows in db/ are the truth")


def _check_filled(path: Path, fix: str) -> None:
    """A credential that is there says something: what a full disk or a bad copy leaves is an empty file."""
    if path.exists() and path.stat().st_size == 0:
        raise invalid(f"{path} is empty: {fix}.")


def check_sqlite(path: Path, fix: str) -> None:
    """An absent or empty file is a new database."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
    except FileNotFoundError:
        return
    except OSError as error:
        raise invalid(f"{path} cannot be read ({error.strerror}).") from None
    if head and head != _SQLITE:
        raise invalid(f"{path} is not an SQLite database: {fix}.")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of the folder; raises `stack.folder_invalid` where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise invalid(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise invalid(f"{path} is not valid JSON: restore it, or move it away to have it made anew.") from None
    if not isinstance(value, dict):
        raise invalid(f"{path} does not hold a JSON object: restore it, or move it away to have it made anew.")
    return value


def read_record(path: Path) -> dict[str, Any]:
    """Like `read_json` for files that can be rebuilt: empty where missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any], *, durable: bool = False) -> None:
    """Replace a file in one step, mode 0600."""
    _replace(path, json.dumps(value, indent=1) + "\n", durable=durable)


def _make_credentials(folder: Folder) -> None:
    s3 = folder.path("secrets", "s3.json")
    if not s3.exists():
        identity = {
            "name": "headway",
            "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_json(s3, {"identities": [identity]}, durable=True)
    for role in BROKER_ROLES:
        token = folder.path("secrets", f"broker-{role}.token")
        if not token.exists():
            write_secret(token, secrets.token_urlsafe(32))
    for path in folder.path("secrets").iterdir():
        # A group of a role's own may read what root has given to it (accounts.py).
        wrong = 0o007 if os.geteuid() == 0 and path.stat().st_gid != os.getegid() else 0o077
        if path.is_file() and (mode := stat.S_IMODE(path.stat().st_mode)) & wrong:
            path.chmod(mode & ~wrong)
    s3_credentials(folder)


def write_secret(path: Path, text: str) -> None:
    _replace(path, text, durable=True)


def _replace(path: Path, text: str, *, durable: bool) -> None:
    """All of it or nothing: a full disk leaves the file as it was, and no half of another."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def s3_credentials(folder: Folder) -> tuple[str, str]:
    """The access key and the secret key of the embedded object store."""
    path = folder.path("secrets", "s3.json")
    try:
        pair = read_json(path)["identities"][0]["credentials"][0]
        return str(pair["accessKey"]), str(pair["secretKey"])
    except (KeyError, IndexError, TypeError):
        raise invalid(f"{path} names no credentials: restore it, or move it away to have new ones made.") from None
